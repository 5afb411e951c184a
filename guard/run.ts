/** `ucred guard`: identity for a server that knows nothing of it, in front of whose socket it stands. */

import { closeSync, openSync, readFileSync } from "node:fs";
import process from "node:process";
import { clearInterval, setInterval } from "node:timers";
import { isId } from "../core/credentials.ts";
import { accountId } from "../system/accounts.ts";
import type { ServerExpectation } from "../identity/verify_server.ts";
import { shadowPolicy } from "../core/policy/shadow.ts";
import type { Policy } from "../core/policy/policy.ts";
import { type WatchedPolicy, watchPolicy } from "../policy/watch.ts";
import { type AuditLog, auditLog } from "../servers/admission/audit.ts";
import type { Limits } from "../servers/admission/limits.ts";
import type { ListenOptions, SafeServer } from "../servers/listen/lifecycle.ts";
import { guardHttp } from "./http.ts";
import { guardStream } from "./stream.ts";
import { type ExitCode, printable, tell, tellError, UsageError } from "../cli/output.ts";
import { untilSignal } from "../cli/signals.ts";

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
  readonly keepHeader?: readonly string[];
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
  /** Names of headers, in lower case, that are passed although a proxy alone should set them. */
  readonly keepHeaders: ReadonlySet<string>;
}

/** A server of `ucred/net` or `ucred/http`. */
export type GuardServer = SafeServer & {
  once(event: "error", run: (error: Error) => void): unknown;
  off(event: "error", run: (error: Error) => void): unknown;
  address(): unknown;
};

/** Runs the command, until it is told to end. */
export async function guard(options: GuardCommandOptions): Promise<ExitCode> {
  const expect = expectationOf(options.upstreamUser);
  const limits = limitsOf(options);
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
    limits,
    audit,
    upstream: socketPath(options.upstream),
    expect,
    h2c: options.h2c === true,
    keepHeaders: new Set(options.keepHeader?.map((name) => name.toLowerCase())),
  });
  const watch = file === undefined ? undefined : watchAudit(audit!, file);
  const hangUp = () => {
    if (file !== undefined) reopen(audit!, file);
    policy?.reload(); // tells itself what came of it
    shadow?.reload();
  };
  try {
    const ended = untilSignal(hangUp); // before: SIGHUP may come as soon as it is ready
    await listening(server, whereOf(options));
    tell(
      `guards ${printable(options.upstream)}, listening at ${
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
    clearInterval(watch);
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

function reopen(audit: AuditLog, file: string): void {
  audit.reopen();
  if (audit.error === undefined) return;
  tell(`${printable(file)} cannot be opened anew: ${printable(audit.error.message)}`);
}

/** How often is looked whether lines were lost, in ms. */
const LOOK = 1000;

/** Tells once that lines of the audit log are lost. How many they were is told in the end. */
function watchAudit(audit: AuditLog, file: string): NodeJS.Timeout {
  const timer = setInterval(() => {
    if (audit.dropped === 0) return;
    clearInterval(timer);
    const why = audit.error?.message ?? "more comes than can be written";
    tell(`${printable(file)}: lines of the audit log are being lost: ${printable(why)}`);
  }, LOOK);
  return timer.unref();
}

function follow(file: string, anyOwner: boolean): WatchedPolicy {
  const name = printable(file);
  return watchPolicy(file, {
    anyOwner,
    onReload: () => tell(`${name}: the new policy is in force`),
    onError: (error) => {
      tell(`${name} cannot be used; the policy before it stays in force`);
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

/** Descriptors of a connection: the client's, the server's, and one of either that is about to be closed. */
const PER_CONNECTION = 3;

/** Descriptors for all else: the runtime's, policies, logs, connections that are refused. */
const SPARE = 128;

/** By default; as ucred/net has it. */
const CONNECTIONS = 2048;
const PER_USER = 256;

/**
 * Never more connections than there may be descriptors. A process that has none left accepts nothing,
 * and Deno 2.9.5 never again.
 */
function limitsOf({ maxConnections, maxPerUser, acceptRate }: GuardCommandOptions): Limits {
  const files = mostOpenFiles();
  const most = Math.floor((files - SPARE) / PER_CONNECTION);
  const asked = maxConnections ?? CONNECTIONS;
  const raise = "raise it by `ulimit -n`, or by LimitNOFILE= of the service";
  if (most < 1) {
    throw new UsageError(`A process may have ${files} files open here, which is too few: ${raise}`);
  }
  const share = Math.max(1, Math.floor(most * PER_USER / CONNECTIONS));
  const perUser = maxPerUser ?? (most < asked ? Math.min(PER_USER, share) : PER_USER);
  if (most < asked) {
    tell(
      `${most} connections at a time, ${Math.min(perUser, most)} of one user, and not ${asked}: ` +
        `a process may have ${files} files open here; ${raise}`,
    );
  }
  return {
    connections: Math.min(asked, most),
    connectionsPerUser: perUser,
    acceptsPerSecond: acceptRate,
  };
}

/** RLIMIT_NOFILE, where it can be told. */
function mostOpenFiles(): number {
  try {
    const limits = readFileSync("/proc/self/limits", "latin1");
    const soft = /^Max open files +([0-9]+)/m.exec(limits)?.[1];
    return soft === undefined ? Infinity : Number(soft);
  } catch {
    return Infinity; // not Linux
  }
}

/** @throws {UsageError} If there is no such user: it would be found out with the first connection. */
function expectationOf(user: string | undefined): ServerExpectation | undefined {
  if (user === undefined) return undefined;
  if (/^[0-9]+$/.test(user)) {
    if (isId(Number(user))) return { uid: Number(user) };
    throw new UsageError(`--upstream-user: ${user} is no id from 0 to 4294967294`);
  }
  if (accountId("user", user) !== undefined) return { user };
  throw new UsageError(`--upstream-user: there is no user ${JSON.stringify(user)}`);
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
