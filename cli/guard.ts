/** `ucred guard`: identity for a server that knows nothing of it, in front of whose socket it stands. */

import { closeSync, openSync } from "node:fs";
import process from "node:process";
import type { ServerExpectation } from "../identity/verify.ts";
import { shadowPolicy } from "../core/policy/shadow.ts";
import type { Policy } from "../core/policy/policy.ts";
import { type WatchedPolicy, watchPolicy } from "../policy/watch.ts";
import { type AuditLog, auditLog } from "../servers/audit.ts";
import type { Limits } from "../servers/limits.ts";
import type { ListenOptions, SafeServer } from "../servers/listening.ts";
import { guardHttp } from "./guard_http.ts";
import { guardStream } from "./guard_stream.ts";
import { type ExitCode, printable, tell, tellError } from "./output.ts";
import { untilSignal } from "./signals.ts";

/** Options, as the command line has them. */
export interface GuardCommandOptions {
  readonly listen?: string;
  readonly systemd?: true | string;
  readonly upstream: string;
  readonly upstreamUser?: string;
  readonly mode: "stream" | "http";
  readonly policy?: string;
  readonly shadow?: string;
  readonly anyOwner?: boolean;
  readonly socketMode?: number;
  readonly socketOwner?: string;
  readonly socketGroup?: string;
  readonly audit?: string;
  readonly auditDenied?: boolean;
  readonly maxConnections?: number;
  readonly maxPerUser?: number;
  readonly acceptRate?: number;
  readonly drain: number;
  readonly h2c?: boolean;
}

/** What a guard needs, whatever it understands of the bytes. */
export interface GuardOptions {
  readonly policy: Policy | undefined;
  readonly limits: Limits;
  readonly audit: AuditLog | undefined;
  /** Where the server behind listens. */
  readonly upstream: string;
  /** Who it has to be. */
  readonly expect: ServerExpectation | undefined;
  /** Whether connections may be upgraded to HTTP/2, whose requests are not decided. */
  readonly h2c: boolean;
}

/** A server of `ucred/net` or `ucred/http`. */
export type GuardServer = SafeServer & {
  once(event: "error", run: (error: Error) => void): unknown;
  off(event: "error", run: (error: Error) => void): unknown;
  address(): unknown;
};

/** Runs the command, until it is told to end. */
export async function guard(options: GuardCommandOptions): Promise<ExitCode> {
  const anyOwner = options.anyOwner === true;
  const [policy, shadow] = [options.policy, options.shadow].map((file) =>
    file === undefined ? undefined : follow(file, anyOwner)
  );
  const file = options.audit === "-" ? undefined : options.audit;
  if (file !== undefined) closeSync(openSync(file, "a", 0o600)); // it can be written, or we end here
  const audit = options.audit === undefined ? undefined : auditLog({
    file,
    onlyDenied: options.auditDenied === true,
  });
  const start = options.mode === "http" ? guardHttp : guardStream;
  const server = start({
    policy: withShadow(policy, shadow),
    limits: limitsOf(options),
    audit,
    upstream: socketPath(options.upstream),
    expect: expectationOf(options.upstreamUser),
    h2c: options.h2c === true,
  });
  try {
    const ended = untilSignal(policy, audit); // before: SIGHUP may come as soon as it is ready
    await listening(server, whereOf(options));
    tell(
      `guards ${options.upstream}, listening at ${
        printable(String(server.address()).replace("\0", "@"))
      }`,
    );
    const signal = await ended;
    tell(`${signal}: no new connections; those that are open have ${options.drain} s to end`);
    await server.close({ timeout: options.drain * 1000 });
    return 0;
  } finally {
    policy?.close();
    shadow?.close();
    await audit?.close();
    if (audit !== undefined && audit.dropped > 0) {
      const why = audit.error === undefined ? "" : `: ${printable(audit.error.message)}`;
      tell(`${audit.dropped} lines of the audit log were lost${why}`);
    }
  }
}

/** A path, or "@name" for an abstract name. */
function socketPath(name: string): string {
  return name.startsWith("@") ? `\0${name.slice(1)}` : name;
}

function follow(file: string, anyOwner: boolean): WatchedPolicy {
  return watchPolicy(file, {
    anyOwner,
    onReload: () => tell(`${file}: the new policy is in force`),
    onError: (error) => {
      tell(`${file} cannot be used; the policy before it stays in force`);
      tellError(error);
    },
  });
}

function withShadow(
  policy: WatchedPolicy | undefined,
  candidate: WatchedPolicy | undefined,
): Policy | undefined {
  if (policy === undefined || candidate === undefined) return policy;
  return shadowPolicy(policy, candidate, {
    onDifference: ({ uid, action, active, candidate }) => {
      const said = (allowed: boolean) => allowed ? "allow" : "deny";
      const what = action === undefined ? "" : ` ${JSON.stringify(printable(action))}`;
      tell(
        `shadow: uid ${uid ?? "?"}${what}: ${said(active.allowed)} (${active.reason}); ` +
          `the candidate would ${said(candidate.allowed)} (${candidate.reason})`,
      );
    },
  });
}

function limitsOf({ maxConnections, maxPerUser, acceptRate }: GuardCommandOptions): Limits {
  return {
    connections: maxConnections,
    connectionsPerUser: maxPerUser,
    acceptsPerSecond: acceptRate,
  };
}

function expectationOf(user: string | undefined): ServerExpectation | undefined {
  if (user === undefined) return undefined;
  return /^[0-9]+$/.test(user) ? { uid: Number(user) } : { user };
}

function whereOf(options: GuardCommandOptions): ListenOptions {
  const notify = process.env["NOTIFY_SOCKET"] !== undefined;
  if (options.systemd !== undefined) return { systemd: options.systemd, notify };
  const path = socketPath(options.listen!);
  if (path.startsWith("\0")) return { path, notify };
  const { socketMode: mode, socketOwner: owner, socketGroup: group } = options;
  return { path, mode, owner, group, notify };
}

function listening(server: GuardServer, where: ListenOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(where, () => {
      server.off("error", reject);
      resolve();
    });
  });
}
