/** `ucred guard`: runs a guard in front of a server that does not identify its clients. */

import { closeSync, existsSync, openSync } from "node:fs";
import process from "node:process";
import { clearInterval, setInterval } from "node:timers";
import { type ExitCode, log, logError, printable, UsageError } from "./output.ts";
import { untilSignal } from "./signals.ts";
import { addressOf, displayName } from "../core/socket_name.ts";
import type { Policy } from "../core/policy/policy.ts";
import { type ShadowedPolicy, shadowPolicy } from "../core/policy/shadow.ts";
import type { ServerExpectation } from "../identity/verify_server.ts";
import { VOCABULARIES } from "../interop/vocabularies.ts";
import { CLOCK, watchBy, type WatchedPolicy } from "../policy/watch.ts";
import { type AuditLog, auditLog } from "../servers/admission/audit.ts";
import type { ListenOptions } from "../servers/listen/lifecycle.ts";
import { accountId } from "../system/accounts.ts";
import { requireActionsOf } from "../guard/policy_check.ts";
import { createGuard, type GuardServer } from "../guard/mod.ts";
import type { HttpServer } from "../servers/http.ts";
import { type FollowedPolicy, metricsServer, type Observed } from "./metrics.ts";
import { ID_RANGE, parseId } from "./arguments.ts";

/** The command line's options, parsed. */
export interface GuardCommandOptions {
  readonly listen?: string;
  readonly systemd?: true | string;
  readonly upstream: string;
  readonly upstreamUser?: string;
  readonly asPeer?: boolean;
  readonly mode: "stream" | "http" | "docker" | "dbus" | "mcp";
  readonly policy?: string;
  readonly shadow?: string;
  readonly learn?: string;
  readonly state?: string;
  readonly allowUnsafeOwner?: boolean;
  readonly socketMode?: number;
  readonly socketOwner?: string;
  readonly socketGroup?: string;
  readonly audit?: string;
  readonly auditDenied?: boolean;
  readonly maxConnections?: number;
  readonly maxPerUser?: number;
  readonly acceptRate?: number;
  readonly bodyTimeout?: number;
  readonly drain: number;
  readonly metrics?: string;
  readonly metricsMode?: number;
  readonly metricsPolicy?: string;
  readonly h2c?: boolean;
  readonly http2?: boolean;
  readonly keepHeader?: readonly string[];
}

/** Runs the command until SIGINT or SIGTERM. */
export async function guard(options: GuardCommandOptions): Promise<ExitCode> {
  const expect = expectationOf(options.upstreamUser);
  const allowUnsafeOwner = options.allowUnsafeOwner === true;
  const policies = new Map<string, FollowedPolicy>();
  const followAs = (
    role: string,
    file: string | undefined,
    check?: (policy: Policy) => void,
  ): WatchedPolicy | undefined => {
    if (file === undefined) return undefined;
    const followed = follow(file, allowUnsafeOwner, check);
    policies.set(role, followed);
    return followed.policy;
  };
  const { mode } = options;
  const check = mode === "docker" || mode === "dbus" || mode === "mcp"
    ? (policy: Policy) => requireActionsOf(mode, policy)
    : undefined;
  const policy = followAs("active", options.policy, check);
  const candidate = followAs("candidate", options.shadow, check);
  const readers = followAs("metrics", options.metricsPolicy);
  const shadow = policy && candidate && withShadow(policy, candidate);
  const file = options.audit === "-" ? undefined : options.audit;
  if (file !== undefined) closeSync(openSync(file, "a", 0o600)); // fail now if it cannot be written
  const audit = options.audit === undefined ? undefined : auditLog({
    file,
    onlyDenied: options.auditDenied === true,
  });
  const watch = file === undefined ? undefined : watchAudit(audit!, file);
  const hangUp = () => {
    if (file !== undefined) reopen(audit!, file);
    for (const { policy } of policies.values()) policy.reload(); // reports the outcome by itself
  };
  const upstream = addressOf(options.upstream);
  let metrics: HttpServer | undefined;
  try {
    const server = createGuard({
      mode: options.mode,
      upstream,
      expect,
      asPeer: options.asPeer,
      policy: shadow ?? policy,
      limits: {
        connections: options.maxConnections,
        connectionsPerUser: options.maxPerUser,
        acceptsPerSecond: options.acceptRate,
      },
      audit,
      h2c: options.h2c,
      http2: options.http2,
      keepHeaders: options.keepHeader,
      learn: options.learn,
      state: options.state,
      bodyTimeout: options.bodyTimeout === undefined ? undefined : options.bodyTimeout * 1000,
      report: log,
    });
    const ended = untilSignal(hangUp); // before listening: SIGHUP may arrive as soon as the guard is ready
    let isDraining = false;
    const observed = { guard: server, policies, shadow, isDraining: () => isDraining };
    metrics = await serveMetrics(options, observed, readers);
    await startListening(server, listenOptions(options));
    const address = printable(displayName(String(server.address())));
    log(`guards ${printable(options.upstream)}, listening at ${address}`);
    if (options.learn !== undefined) {
      log(`the guard records requests in ${printable(options.learn)}; the policy decides as usual`);
    }
    // No error: the upstream may start later, for example by socket activation.
    if (!upstream.startsWith("\0") && !existsSync(upstream)) {
      const name = printable(options.upstream);
      log(`warning: ${name} does not exist; clients fail until a server listens there`);
    }
    if (metrics !== undefined) {
      log(`serves metrics at ${printable(displayName(String(metrics.address())))}`);
    }
    const signal = await ended;
    isDraining = true;
    log(`${signal}: no new connections; open connections end within ${options.drain} s`);
    await server.close({ timeout: options.drain * 1000 });
    return 0;
  } finally {
    await metrics?.close({ timeout: METRICS_DRAIN_MS });
    for (const { policy } of policies.values()) policy.close();
    clearInterval(watch);
    await audit?.close();
    if (audit !== undefined && audit.dropped > 0) {
      const why = audit.error === undefined ? "" : `: ${printable(audit.error.message)}`;
      log(`${audit.dropped} lines of the audit log were lost${why}`);
    }
  }
}

/** Serves metrics if a socket is given. */
async function serveMetrics(
  { metrics, metricsMode: mode }: GuardCommandOptions,
  observed: Observed,
  policy: Policy | undefined,
): Promise<HttpServer | undefined> {
  if (metrics === undefined) return undefined;
  const server = metricsServer(observed, policy);
  await startListening(server, { path: addressOf(metrics), mode });
  return server;
}

function reopen(audit: AuditLog, file: string): void {
  audit.reopen();
  if (audit.error === undefined) return;
  log(`${printable(file)} cannot be reopened: ${printable(audit.error.message)}`);
}

/** How long a reader of metrics may take for its response when the guard ends. */
const METRICS_DRAIN_MS = 500;

/** How often to check whether lines of the audit log were lost. */
const AUDIT_CHECK_MS = 1000;

/** Logs once that lines of the audit log are being lost. Their number is logged at the end. */
function watchAudit(audit: AuditLog, file: string): NodeJS.Timeout {
  const timer = setInterval(() => {
    if (audit.dropped === 0) return;
    clearInterval(timer);
    const why = audit.error?.message ?? "events arrive faster than they are written";
    log(`${printable(file)}: lines of the audit log are being lost: ${printable(why)}`);
  }, AUDIT_CHECK_MS);
  return timer.unref();
}

function follow(
  file: string,
  allowUnsafeOwner: boolean,
  check: ((policy: Policy) => void) | undefined,
): FollowedPolicy {
  const name = printable(file);
  const policy = watchBy(CLOCK, file, {
    allowUnsafeOwner,
    vocabularies: VOCABULARIES,
    onReload: () => {
      followed.loadedAt = performance.now();
      followed.reloads++;
      log(`${name}: the new policy is in force`);
    },
    onError: (error) => {
      followed.failures++;
      log(`${name} cannot be used; the previous policy stays in force`);
      logError(error);
    },
  }, check);
  const followed = { policy, loadedAt: performance.now(), reloads: 0, failures: 0 };
  return followed;
}

function withShadow(policy: WatchedPolicy, candidate: WatchedPolicy): ShadowedPolicy {
  return shadowPolicy(policy, candidate, {
    onDifference: ({ uid, action, active, candidate }) => {
      const verdict = (allowed: boolean) => allowed ? "allow" : "deny";
      const what = action === undefined ? "" : ` ${JSON.stringify(printable(action))}`;
      log(
        `shadow: uid ${uid ?? "?"}${what}: ${verdict(active.allowed)} (${active.reason}); ` +
          `the candidate would ${verdict(candidate.allowed)} (${candidate.reason})`,
      );
    },
  });
}

/** @throws {UsageError} If there is no such user. Otherwise only the first connection would fail. */
function expectationOf(user: string | undefined): ServerExpectation | undefined {
  if (user === undefined) return undefined;
  if (/^[0-9]+$/.test(user)) {
    const uid = parseId(user);
    if (uid !== undefined) return { uid };
    throw new UsageError(`--upstream-user: ${user} is not ${ID_RANGE}`);
  }
  if (accountId("user", user) !== undefined) return { user };
  throw new UsageError(`--upstream-user: there is no user ${JSON.stringify(user)}`);
}

function listenOptions(options: GuardCommandOptions): ListenOptions {
  const notify = process.env["NOTIFY_SOCKET"] !== undefined;
  if (options.systemd !== undefined) return { systemd: options.systemd, notify };
  const path = addressOf(options.listen!);
  if (path.startsWith("\0")) return { path, notify };
  const { socketMode: mode, socketOwner: owner, socketGroup: group } = options;
  return { path, mode, owner, group, notify };
}

function startListening(server: GuardServer | HttpServer, options: ListenOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(options, () => {
      server.off("error", reject);
      resolve();
    });
  });
}
