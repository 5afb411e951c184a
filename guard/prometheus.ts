/**
 * Metrics in Prometheus' text format 0.0.4. No label has a value that a client can choose, so the number of time
 * series is fixed.
 *
 * The library prom-client would count everything again, in one registry for each process: a guard counts already.
 */

import type { RequestOutcome } from "../servers/http/request_report.ts";
import type { GuardStats } from "./stats.ts";

/** The media type of the text. */
export const PROMETHEUS_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/** A value with its labels. */
export type Sample = readonly [labels: { readonly [name: string]: string }, value: number];

/** A metric with all its time series. */
export interface Metric {
  readonly name: string;
  readonly type: "counter" | "gauge";
  /** One sentence without a period. */
  readonly help: string;
  /** A number, if there is one time series without labels. */
  readonly values: number | readonly Sample[];
}

/**
 * Returns the counters of a guard in Prometheus' text format, for `Content-Type: text/plain; version=0.0.4`.
 *
 * @example Serve the metrics of a guard, to root and our own user
 * ```ts
 * import { createGuard, prometheusText } from "ucred/guard";
 * import { serve } from "ucred/http";
 *
 * const guard = createGuard({ mode: "http", upstream: "upstream.sock" });
 * const headers = { "content-type": "text/plain; version=0.0.4" };
 * const metrics = await serve({
 *   path: "metrics.sock",
 *   fetch: () => new Response(prometheusText(guard.stats()), { headers }),
 * });
 * console.log(`at ${metrics.path}`);
 * await metrics.close();
 * ```
 */
export function prometheusText(stats: GuardStats): string {
  const { requests } = stats;
  return metricsText(metricsOf(stats)) + (requests === undefined ? "" : histogramText(
    "ucred_guard_response_latency_seconds",
    "Time from the beginning of the decision to the head of the upstream's response",
    requests.latency,
  ));
}

/** Outcome → labels. */
const OUTCOMES: { readonly [outcome in RequestOutcome]: Sample[0] } = {
  allowed: { outcome: "allowed" },
  denied: { outcome: "denied" },
  malformed: { outcome: "refused", reason: "malformed" },
  tooLarge: { outcome: "refused", reason: "too_large" },
  timeout: { outcome: "refused", reason: "timeout" },
  unsupported: { outcome: "refused", reason: "unsupported" },
  pipelining: { outcome: "refused", reason: "pipelining" },
  upstreamError: { outcome: "upstream_error" },
  failed: { outcome: "failed" },
  aborted: { outcome: "aborted" },
};

function metricsOf(stats: GuardStats): readonly Metric[] {
  const { open, accepted, refused, refusedByLimit, limits, requests, upstream } = stats;
  const byLimit = (of: GuardStats["limits"], label: string): readonly Sample[] => [
    [{ [label]: "connections" }, of.connections],
    [{ [label]: "connections_per_user" }, of.connectionsPerUser],
    [{ [label]: "accepts_per_second" }, of.acceptsPerSecond],
  ];
  return [
    ...(requests === undefined ? [] : [
      {
        name: "ucred_guard_requests_total",
        type: "counter",
        help: "Requests that have ended, by outcome; refused ones by reason",
        values: Object.entries(requests.outcomes).map(([outcome, count]): Sample => [
          OUTCOMES[outcome as RequestOutcome],
          count,
        ]),
      } as const,
    ]),
    {
      name: "ucred_guard_connections_open",
      type: "gauge",
      help: "Open connections of clients",
      values: open,
    },
    {
      name: "ucred_guard_connections_accepted_total",
      type: "counter",
      help: "Connections that were accepted",
      values: accepted,
    },
    {
      name: "ucred_guard_connections_rejected_total",
      type: "counter",
      help: "Connections that were rejected: by the policy, by a limit, or because the client " +
        "could not be identified",
      values: [
        [{ reason: "policy" }, refused.policy],
        [{ reason: "unidentified" }, refused.unidentified],
        ...byLimit(refusedByLimit, "reason"),
      ],
    },
    {
      name: "ucred_guard_limit",
      type: "gauge",
      help: "Limits on connections",
      values: byLimit(limits, "limit"),
    },
    {
      name: "ucred_guard_internal_failures_total",
      type: "counter",
      help: "Errors of the policy and of the guard itself",
      values: stats.failed,
    },
    {
      name: "ucred_guard_upstream_failures_total",
      type: "counter",
      help: "How often the upstream could not be used, or answered wrongly",
      values: upstream.failures,
    },
    {
      name: "ucred_guard_upstream_waiting",
      type: "gauge",
      help: "Clients that wait for another attempt to connect to the upstream",
      values: upstream.waiting,
    },
    {
      name: "ucred_guard_audit_dropped_total",
      type: "counter",
      help: "Lines that the audit log has dropped",
      values: stats.auditDropped,
    },
  ];
}

/** Writes metrics. */
export function metricsText(metrics: readonly Metric[]): string {
  return metrics.map(({ name, type, help, values }) => {
    const samples = typeof values === "number" ? [[{}, values]] as const : values;
    return headOf(name, type, help) +
      samples.map(([labels, value]) => lineOf(name, labels, value)).join("");
  }).join("");
}

function histogramText(
  name: string,
  help: string,
  { bounds, counts, count, sum }: NonNullable<GuardStats["requests"]>["latency"],
): string {
  const buckets = [...bounds.map(String), "+Inf"].map((le, at) =>
    lineOf(`${name}_bucket`, { le }, counts[at] ?? count)
  );
  return headOf(name, "histogram", help) + buckets.join("") +
    lineOf(`${name}_sum`, {}, sum) + lineOf(`${name}_count`, {}, count);
}

function headOf(name: string, type: string, help: string): string {
  const escaped = help.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
  return `# HELP ${name} ${escaped}\n# TYPE ${name} ${type}\n`;
}

function lineOf(name: string, labels: Sample[0], value: number): string {
  const list = Object.entries(labels).map(([label, text]) => {
    const escaped = text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
    return `${label}="${escaped}"`;
  });
  const number = String(value).replace(/^(-?)Infinity$/, (_, sign) => `${sign || "+"}Inf`);
  return `${name}${list.length === 0 ? "" : `{${list.join(",")}}`} ${number}\n`;
}
