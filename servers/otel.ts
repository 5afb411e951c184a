/**
 * `ucred/otel`: OpenTelemetry metrics of all servers of this process, and metrics and spans of guards.
 * Requires `@opentelemetry/api`.
 *
 * @example Measure all servers
 * ```ts
 * import { measureServers } from "ucred/otel";
 *
 * const stop = measureServers(); // uses the program's meter provider
 * console.log(typeof stop);
 * stop();
 * ```
 *
 * @module
 */

import {
  type Attributes,
  type BatchObservableResult,
  type Meter,
  metrics,
  propagation,
  ROOT_CONTEXT,
  SpanKind,
  SpanStatusCode,
  trace,
  type Tracer,
} from "@opentelemetry/api";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { type OptionNames, requireOptions } from "../core/options.ts";
import { truncate } from "./admission/audit.ts";
import { CHANNELS, type ServerEvent } from "./admission/events.ts";
import type { RequestReport, RequestStats } from "./http/request_report.ts";

export type {
  Histogram,
  RequestOutcome,
  RequestReport,
  RequestStats,
} from "./http/request_report.ts";

/**
 * Records metrics of the servers of this process:
 *
 * - `ucred.server.connections.open` (up-down counter), by `server`
 * - `ucred.server.connections` (counter), by `server` and `outcome`: "accepted", or the reason of the
 * refusal
 * - `ucred.server.decisions` (counter), by `server`, `allowed` and `rule`
 * - `ucred.server.connection.duration` (histogram, s), by `server`
 * - `ucred.server.failures` (counter), by `server`: errors of handlers, and of policies that decide requests
 *
 * No attribute has a value that a client can choose.
 *
 * @param meter The meter to use. By default the meter "ucred" of the program's provider.
 * @returns A function that stops the recording.
 */
export function measureServers(meter: Meter = metrics.getMeter("ucred")): () => void {
  const open = meter.createUpDownCounter("ucred.server.connections.open", {
    description: "Open connections",
    unit: "{connection}",
  });
  const connections = meter.createCounter("ucred.server.connections", {
    description: "Accepted and refused connections",
    unit: "{connection}",
  });
  const decisions = meter.createCounter("ucred.server.decisions", {
    description: "Decided requests",
    unit: "{request}",
  });
  const duration = meter.createHistogram("ucred.server.connection.duration", {
    description: "Duration of connections",
    unit: "s",
  });
  const failures = meter.createCounter("ucred.server.failures", {
    description: "Errors of handlers",
    unit: "{failure}",
  });
  const record = (message: unknown) => {
    const event = message as ServerEvent;
    const { server } = event;
    switch (event.type) {
      case "accepted":
        open.add(1, { server });
        return connections.add(1, { server, outcome: "accepted" });
      case "refused":
        return connections.add(1, { server, outcome: event.why });
      case "decided": {
        const { allowed, rule = "" } = event.decision;
        return decisions.add(1, { server, allowed, rule });
      }
      case "closed":
        open.add(-1, { server });
        return duration.record(event.milliseconds / 1000, { server });
      case "failed":
        return failures.add(1, { server });
    }
  };
  const names = Object.values(CHANNELS);
  for (const name of names) subscribe(name, record);
  return () => names.forEach((name) => unsubscribe(name, record));
}

/** The part of a guard that its metrics need. `createGuard()` of `ucred/guard` returns a guard. */
export interface MeasurableGuard {
  /** Returns the guard's counters. */
  stats(): {
    /** Requests that have ended; `undefined` in `"stream"` mode. */
    readonly requests: RequestStats | undefined;
    /** The upstream. */
    readonly upstream: { readonly failures: number; readonly waiting: number };
    /** Lines that the audit log has dropped. */
    readonly auditDropped: number;
  };
  /** Returns the path of the guard's socket. */
  address(): unknown;
}

/**
 * Records metrics of a guard, read when the meter provider collects them:
 *
 * - `ucred.guard.requests` (counter), by `server` and `outcome`
 * - `ucred.guard.upstream.failures` (counter), by `server`
 * - `ucred.guard.upstream.waiting` (up-down counter), by `server`: clients that wait for the upstream
 * - `ucred.guard.audit.dropped` (counter), by `server`: lines that the audit log has dropped
 *
 * The connections of a guard are in {@link measureServers}, the durations of its requests in
 * {@link recordRequests}. No attribute has a value that a client can choose.
 *
 * @param guard A guard of `ucred/guard`.
 * @param meter The meter to use. By default the meter "ucred" of the program's provider.
 * @returns A function that stops the recording.
 *
 * @example Measure a guard
 * ```ts
 * import { createGuard } from "ucred/guard";
 * import { measureGuard } from "ucred/otel";
 *
 * const guard = createGuard({ mode: "stream", upstream: "upstream.sock" });
 * const stop = measureGuard(guard); // uses the program's meter provider
 * console.log(guard.stats().upstream.failures); // 0
 * stop();
 * ```
 */
export function measureGuard(
  guard: MeasurableGuard,
  meter: Meter = metrics.getMeter("ucred"),
): () => void {
  const requests = meter.createObservableCounter("ucred.guard.requests", {
    description: "Requests that have ended",
    unit: "{request}",
  });
  const failures = meter.createObservableCounter("ucred.guard.upstream.failures", {
    description: "How often the upstream could not be used, or answered wrongly",
    unit: "{failure}",
  });
  const waiting = meter.createObservableUpDownCounter("ucred.guard.upstream.waiting", {
    description: "Clients that wait for another attempt to connect to the upstream",
    unit: "{client}",
  });
  const dropped = meter.createObservableCounter("ucred.guard.audit.dropped", {
    description: "Lines that the audit log has dropped",
    unit: "{line}",
  });
  let server = "";
  const observables = [requests, failures, waiting, dropped];
  const observe = (result: BatchObservableResult) => {
    const { requests: ofRequests, upstream, auditDropped } = guard.stats();
    server = String(guard.address() ?? server); // the address of a closed guard is null
    for (const [outcome, count] of Object.entries(ofRequests?.outcomes ?? {})) {
      result.observe(requests, count, { server, outcome });
    }
    result.observe(failures, upstream.failures, { server });
    result.observe(waiting, upstream.waiting, { server });
    result.observe(dropped, auditDropped, { server });
  };
  meter.addBatchObservableCallback(observe, observables);
  return () => meter.removeBatchObservableCallback(observe, observables);
}

/** Options of {@link recordRequests}. */
export interface RecordOptions {
  /** The tracer to use. By default the tracer "ucred" of the program's provider. */
  readonly tracer?: Tracer | undefined;
  /** The meter to use. By default the meter "ucred" of the program's provider. */
  readonly meter?: Meter | undefined;
}

const RECORD_OPTIONS: OptionNames<RecordOptions> = { tracer: true, meter: true };

/** Methods of RFC 9110 and RFC 5789. Others are "_OTHER", so that clients cannot choose attributes of metrics. */
const METHODS: ReadonlySet<string> = new Set(
  ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"],
);

/** Upper bounds in seconds that the semantic conventions recommend. */
const BOUNDS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10];

/**
 * Returns a function for the option `onRequest` of `createGuard()`, which records each request by the semantic
 * conventions for HTTP servers:
 *
 * - a span of kind SERVER, named after the method, with the event `ucred.decision` (`allowed`, `rule`). Its
 * parent is the `traceparent` that the client sent, if the program has a propagator.
 * - `http.server.request.duration` (histogram, s), by `http.request.method`, `http.response.status_code`,
 * `error.type` and `ucred.outcome`. No attribute has a value that a client can choose.
 *
 * Spans have the method, the path and the ids of the peer. They contain neither query, headers nor bodies.
 *
 * @throws {TypeError} If an option is unknown.
 *
 * @example Trace the requests of a guard
 * ```ts
 * import { createGuard } from "ucred/guard";
 * import { recordRequests } from "ucred/otel";
 *
 * const guard = createGuard({
 *   mode: "http",
 *   upstream: "upstream.sock",
 *   onRequest: recordRequests(),
 * });
 * console.log(guard.stats().requests?.outcomes.allowed); // 0
 * ```
 */
export function recordRequests(options: RecordOptions = {}): (request: RequestReport) => void {
  requireOptions("recordRequests()", options, RECORD_OPTIONS);
  const { tracer = trace.getTracer("ucred"), meter = metrics.getMeter("ucred") } = options;
  const duration = meter.createHistogram("http.server.request.duration", {
    description: "Duration of HTTP server requests",
    unit: "s",
    advice: { explicitBucketBoundaries: BOUNDS },
  });
  return (request) => {
    const { peer, decision, outcome, status, startedAt, milliseconds, traceparent } = request;
    const method = METHODS.has(request.method ?? "") ? request.method! : "_OTHER";
    const isError = outcome === "upstreamError" || outcome === "failed" || (status ?? 0) >= 500;
    const common: Attributes = {
      "http.request.method": method,
      "url.scheme": "http",
      "ucred.outcome": outcome,
      ...(status !== undefined && { "http.response.status_code": status }),
      ...(isError && { "error.type": status === undefined ? outcome : String(status) }),
    };
    duration.record(milliseconds / 1000, common);
    const parent = traceparent === undefined
      ? ROOT_CONTEXT
      : propagation.extract(ROOT_CONTEXT, { traceparent });
    const path = request.target?.replace(/[?#].*$/s, "").replace(
      /^[a-z][a-z\d+.-]*:\/\/[^/]*/i,
      "",
    );
    const span = tracer.startSpan(method === "_OTHER" ? "HTTP" : method, {
      kind: SpanKind.SERVER,
      startTime: startedAt,
      attributes: {
        ...common,
        ...(method === "_OTHER" && request.method !== undefined &&
          { "http.request.method_original": truncate(request.method) }),
        ...(path !== undefined && { "url.path": truncate(path) }),
        "network.transport": "unix",
        "server.address": request.server,
        "ucred.peer.uid": peer.uid,
        "ucred.peer.gid": peer.gid,
        ...(peer.pid !== undefined && { "ucred.peer.pid": peer.pid }),
      },
    }, parent);
    if (decision !== undefined) {
      const { allowed, rule = "" } = decision;
      span.addEvent("ucred.decision", { "ucred.allowed": allowed, "ucred.rule": rule }, startedAt);
    }
    if (isError) span.setStatus({ code: SpanStatusCode.ERROR });
    span.end(startedAt + milliseconds);
  };
}
