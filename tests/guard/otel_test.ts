/** OpenTelemetry spans and metrics of guards, with the SDKs of OpenTelemetry. */

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { propagation, type Tracer } from "@opentelemetry/api";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from "@opentelemetry/sdk-metrics";
import { parsePolicy } from "../../policy/mod.ts";
import { measureGuard, recordRequests } from "../../servers/otel.ts";
import { answerAll, answerOf, Behind, End, testGuard } from "../support/guard.ts";
import { guardHere } from "../support/guard_here.ts";
import { until } from "../support/suite.ts";

const packages = new URL("../packages/", import.meta.url);

/** The parts of a finished span that are tested. */
interface Span {
  readonly name: string;
  readonly kind: number;
  readonly status: { readonly code: number };
  readonly attributes: { readonly [name: string]: unknown };
  readonly events: readonly { readonly name: string; readonly attributes?: unknown }[];
  readonly parentSpanContext?: { readonly traceId: string; readonly spanId: string };
}

/** A tracer of OpenTelemetry's SDK, and the spans that it has exported. */
function sdkTracer(): { readonly tracer: Tracer; spans(): readonly Span[] } {
  const require = createRequire(packages);
  const sdk = require("@opentelemetry/sdk-trace");
  const exporter = new sdk.InMemorySpanExporter();
  const provider = new sdk.TracerProvider({
    spanProcessors: [new sdk.SimpleSpanProcessor({ exporter })],
  });
  return { tracer: provider.getTracer("test"), spans: () => exporter.getFinishedSpans() };
}

const POLICY = `version: 1
rules:
  - { name: secret, actions: "* /secret", deny: true }
  - { name: root, when: { uid: 0 }, allow: true }
`;

const PARENT = { traceId: "0af7651916cd43dd8448eb211c80319c", spanId: "b7ad6b7169203331" };

testGuard("recordRequests() and measureGuard() record with the OpenTelemetry SDK", async () => {
  const exporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE);
  const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 3_600_000 });
  const provider = new MeterProvider({ readers: [reader] });
  const meter = provider.getMeter("test");
  const { tracer, spans } = sdkTracer();
  propagation.setGlobalPropagator(new W3CTraceContextPropagator());
  try {
    const behind = await Behind.start((end) =>
      answerAll(end, ({ first }) => {
        if (first.includes("/close")) end.destroy();
        return answerOf("done", first.includes("/error") ? "500 Broken" : "200 OK");
      })
    );
    const { path, guard } = await guardHere({
      mode: "http",
      upstream: behind.path,
      policy: parsePolicy(POLICY),
      onRequest: recordRequests({ tracer, meter }),
    });
    const stop = measureGuard(guard, meter);
    const ask = async (line: string, ...lines: string[]) => {
      const client = await End.open(path);
      client.send(
        [`${line} HTTP/1.1`, "Host: x", "Authorization: hidden", ...lines, "", ""].join("\r\n"),
      );
      const { status } = await client.message();
      client.destroy();
      return status;
    };
    const traceparent = `traceparent: 00-${PARENT.traceId}-${PARENT.spanId}-01`;
    assert.equal(await ask("GET /a?token=hidden", traceparent), 200);
    assert.equal(await ask("GET http://x/b?token=hidden", "traceparent: nonsense"), 200);
    assert.equal(await ask("GET /secret?token=hidden"), 403);
    assert.equal(await ask("GET /error"), 500);
    assert.equal(await ask("POST /close", "Content-Length: 0"), 502);
    assert.equal(await ask("MKCOL /a"), 200);
    assert.equal(await ask("nonsense"), 400);
    await until(() => spans().length === 7);

    const found = spans().map(({ name, kind, status, attributes, events, parentSpanContext }) => [
      ...[name, kind, status.code, attributes["http.request.method"], attributes["url.path"]],
      ...[attributes["http.response.status_code"], attributes["error.type"]],
      ...[attributes["ucred.outcome"], parentSpanContext?.spanId],
      events.map((event) => [event.name, event.attributes]),
    ]);
    const decided = (allowed: boolean, rule: string) => [
      ["ucred.decision", { "ucred.allowed": allowed, "ucred.rule": rule }],
    ];
    const [SERVER, UNSET, ERROR] = [1, 0, 2];
    const root = decided(true, "root");
    const none = undefined;
    assert.deepEqual(found, [
      ["GET", SERVER, UNSET, "GET", "/a", 200, none, "allowed", PARENT.spanId, root],
      ["GET", SERVER, UNSET, "GET", "/b", 200, none, "allowed", none, root],
      ["GET", SERVER, UNSET, "GET", "/secret", 403, none, "denied", none, decided(false, "secret")],
      ["GET", SERVER, ERROR, "GET", "/error", 500, "500", "allowed", none, root],
      ["POST", SERVER, ERROR, "POST", "/close", 502, "502", "upstreamError", none, root],
      ["HTTP", SERVER, UNSET, "_OTHER", "/a", 200, none, "allowed", none, root],
      ["HTTP", SERVER, UNSET, "_OTHER", none, 400, none, "malformed", none, []],
    ]);
    const [first, , , , , other] = spans();
    assert.equal(first!.parentSpanContext?.traceId, PARENT.traceId);
    assert.equal(other!.attributes["http.request.method_original"], "MKCOL");
    for (const { attributes } of spans()) {
      assert.equal(attributes["server.address"], path);
      assert.deepEqual([attributes["network.transport"], attributes["ucred.peer.uid"]], [
        "unix",
        0,
      ]);
      assert.ok(!JSON.stringify(attributes).includes("hidden"));
    }

    await reader.forceFlush();
    await guard.close({ timeout: 0 });
    stop();
    await reader.forceFlush();
    const all = exporter.getMetrics().map(({ scopeMetrics }) =>
      scopeMetrics.flatMap((of) => of.metrics)
    );
    const pointsOf = (at: number, name: string) =>
      all[at]!.find(({ descriptor }) => descriptor.name === name)?.dataPoints ?? [];
    const outcomes = pointsOf(0, "ucred.guard.requests").filter(({ value }) => value !== 0)
      .map(({ attributes, value }) => [attributes["outcome"], attributes["server"], value]);
    assert.deepEqual(outcomes, [
      ["allowed", path, 4],
      ["denied", path, 1],
      ["malformed", path, 1],
      ["upstreamError", path, 1],
    ]);
    assert.deepEqual(pointsOf(0, "ucred.guard.upstream.failures").map(({ value }) => value), [1]);
    assert.deepEqual(pointsOf(0, "ucred.guard.upstream.waiting").map(({ value }) => value), [0]);
    assert.deepEqual(pointsOf(0, "ucred.guard.audit.dropped").map(({ value }) => value), [0]);
    const durations = pointsOf(0, "http.server.request.duration");
    const counts = durations.map(({ value }) => (value as { readonly count: number }).count);
    assert.equal(counts.reduce((sum, count) => sum + count, 0), 7);
    assert.ok(durations.every(({ attributes }) => !JSON.stringify(attributes).includes("MKCOL")));
    await provider.shutdown();
  } finally {
    propagation.disable();
  }
}, {
  name: "node tools/install.ts tests/packages",
  met: existsSync(new URL("node_modules/@opentelemetry/sdk-trace", packages)),
});
