/** `ucred guard --metrics`: serves metrics and health checks at a socket of their own. */

import process from "node:process";
import type { IncomingMessage, ServerResponse } from "node:http";
import { host } from "../adapters/host.ts";
import type { Policy } from "../core/policy/policy.ts";
import type { ShadowedPolicy } from "../core/policy/shadow.ts";
import { textOf } from "../core/text.ts";
import type { GuardServer } from "../guard/options.ts";
import { type Metric, metricsText, PROMETHEUS_TYPE, prometheusText } from "../guard/prometheus.ts";
import type { WatchedPolicy } from "../policy/watch.ts";
import type { Limits } from "../servers/admission/limits.ts";
import { createServer, type HttpServer } from "../servers/http.ts";
import { VERSION } from "./version.ts";

/** A policy file that is followed, and how often it was reloaded. */
export interface FollowedPolicy {
  readonly policy: WatchedPolicy;
  /** When it was loaded successfully last, by `performance.now()`. */
  loadedAt: number;
  /** How often the file replaced the policy. */
  reloads: number;
  /** How many problems of the file were reported. */
  failures: number;
}

/** The guard and the policies that `/metrics`, `/healthz` and `/readyz` report on. */
export interface Observed {
  readonly guard: GuardServer;
  /** Role → policy: "active", "candidate" and "metrics", if there are such policies. */
  readonly policies: ReadonlyMap<string, FollowedPolicy>;
  readonly shadow: ShadowedPolicy | undefined;
  /** Whether the guard stops accepting and waits for open connections. */
  isDraining(): boolean;
}

/** Few programs read metrics, and none needs many connections. */
const LIMITS: Limits = { connections: 32, connectionsPerUser: 16 };

/** Makes the server. It does not listen yet. By default only root and our own user are allowed. */
export function metricsServer(observed: Observed, policy: Policy | undefined): HttpServer {
  const upstream = new UpstreamCheck(observed.guard);
  return createServer({ policy, limits: LIMITS }, async (request, response) => {
    const path = request.url?.split("?", 1)[0];
    if (request.method !== "GET" && request.method !== "HEAD") {
      response.setHeader("allow", "GET, HEAD");
      return send(request, response, 405, "text/plain", "The methods are GET and HEAD\n");
    }
    switch (path) {
      case "/metrics":
        return send(request, response, 200, PROMETHEUS_TYPE, textFor(observed));
      case "/healthz": // the event loop runs
        return send(request, response, 200, "text/plain", "ok\n");
      case "/readyz": {
        const isDraining = observed.isDraining();
        const problem = await upstream.problem();
        const policies = [...observed.policies].map(([role, { policy: { error } }]) =>
          [role, error?.message ?? "ok"] as const
        );
        const isReady = !isDraining && problem === undefined;
        const body = {
          ready: isReady,
          draining: isDraining,
          upstream: problem ?? "ok",
          // A file with mistakes does not end readiness: the previous policy stays in force.
          policies: Object.fromEntries(policies),
        };
        const status = isReady ? 200 : 503;
        return send(request, response, status, "application/json", `${JSON.stringify(body)}\n`);
      }
    }
    send(request, response, 404, "text/plain", "The paths are /metrics, /healthz and /readyz\n");
  });
}

function send(
  { method }: IncomingMessage,
  response: ServerResponse,
  status: number,
  type: string,
  text: string,
): void {
  const length = Buffer.byteLength(text);
  response.writeHead(status, {
    ...{ "content-type": type, "content-length": length, "cache-control": "no-store" },
  });
  response.end(method === "HEAD" ? undefined : text);
}

/** How long a result of the check is used again. */
const CHECK_INTERVAL_MS = 1000;

/** Checks the upstream, at most once in {@link CHECK_INTERVAL_MS} and never twice at a time. */
class UpstreamCheck {
  readonly #guard: GuardServer;
  #checkedAt = -Infinity;
  #result: Promise<string | undefined> | undefined;

  constructor(guard: GuardServer) {
    this.#guard = guard;
  }

  /** Returns why the upstream cannot be used; `undefined` if it can. */
  problem(): Promise<string | undefined> {
    if (this.#result === undefined || performance.now() - this.#checkedAt > CHECK_INTERVAL_MS) {
      this.#checkedAt = Infinity;
      const done = () => void (this.#checkedAt = performance.now());
      this.#result = this.#guard.probeUpstream().then(
        () => undefined,
        (error) => error instanceof Error ? error.message : textOf(error),
      );
      void this.#result.then(done);
    }
    return this.#result;
  }
}

function textFor({ guard, policies, shadow, isDraining }: Observed): string {
  const now = performance.now();
  const byRole = (value: (followed: FollowedPolicy) => number) =>
    [...policies].map(([role, followed]) => [{ policy: role }, value(followed)] as const);
  const metrics: Metric[] = policies.size === 0 ? [] : [
    {
      name: "ucred_guard_policy_age_seconds",
      type: "gauge",
      help: "Time since the policy file was loaded successfully",
      values: byRole(({ loadedAt }) => (now - loadedAt) / 1000),
    },
    {
      name: "ucred_guard_policy_usable",
      type: "gauge",
      help: "1: the policy file is in force; 0: it has a problem, and the previous policy is",
      values: byRole(({ policy }) => policy.error === undefined ? 1 : 0),
    },
    {
      name: "ucred_guard_policy_reloads_total",
      type: "counter",
      help: "How often a changed policy file replaced the policy",
      values: byRole(({ reloads }) => reloads),
    },
    {
      name: "ucred_guard_policy_reload_failures_total",
      type: "counter",
      help: "Problems of the policy file that prevented a reload",
      values: byRole(({ failures }) => failures),
    },
  ];
  if (shadow !== undefined) {
    metrics.push(
      {
        name: "ucred_guard_shadow_decisions_total",
        type: "counter",
        help: "Decisions that were compared with those of the candidate policy",
        values: shadow.decisions,
      },
      {
        name: "ucred_guard_shadow_differences_total",
        type: "counter",
        help: "Decisions that the candidate policy would change",
        values: shadow.differing,
      },
      {
        name: "ucred_guard_shadow_failures_total",
        type: "counter",
        help: "Errors of the candidate policy",
        values: shadow.failed,
      },
    );
  }
  metrics.push(
    {
      name: "ucred_guard_draining",
      type: "gauge",
      help: "1: the guard stops accepting and waits for open connections",
      values: isDraining() ? 1 : 0,
    },
    {
      name: "ucred_guard_build_info",
      type: "gauge",
      help: "The version of ucred, and the runtime that it runs on",
      values: [[{ version: VERSION, ...runtimeLabels() }, 1]],
    },
    {
      name: "process_start_time_seconds",
      type: "gauge",
      help: "Start time of the process since 1970 in seconds",
      values: performance.timeOrigin / 1000,
    },
  );
  return prometheusText(guard.stats()) + metricsText(metrics);
}

function runtimeLabels(): { readonly runtime: string; readonly runtime_version: string } {
  const runtime = host().runtime ?? "unknown";
  return { runtime, runtime_version: process.versions[runtime] ?? "" };
}
