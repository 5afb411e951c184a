/** `ucred guard`: runs a guard in front of a server that does not identify its clients. */

import { closeSync, openSync } from "node:fs";
import process from "node:process";
import { clearInterval, setInterval } from "node:timers";
import { type ExitCode, printable, tell, tellError, UsageError } from "./output.ts";
import { untilSignal } from "./signals.ts";
import { isId } from "../core/credentials.ts";
import type { Policy } from "../core/policy/policy.ts";
import { shadowPolicy } from "../core/policy/shadow.ts";
import type { ServerExpectation } from "../identity/verify_server.ts";
import { type WatchedPolicy, watchPolicy } from "../policy/watch.ts";
import { type AuditLog, auditLog } from "../servers/admission/audit.ts";
import type { ListenOptions } from "../servers/listen/lifecycle.ts";
import { accountId } from "../system/accounts.ts";
import { createGuard, type GuardServer } from "../guard/mod.ts";

/** The command line's options, parsed. */
export interface GuardCommandOptions {
  readonly listen?: string;
  readonly systemd?: true | string;
  readonly upstream: string;
  readonly upstreamUser?: string;
  readonly mode: "stream" | "http";
  readonly policy?: string;
  readonly shadow?: string;
  readonly allowUnsafeOwner?: boolean;
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

/** Runs the command until SIGINT or SIGTERM. */
export async function guard(options: GuardCommandOptions): Promise<ExitCode> {
  const expect = expectationOf(options.upstreamUser);
  const allowUnsafeOwner = options.allowUnsafeOwner === true;
  const [policy, shadow] = [options.policy, options.shadow].map((file) =>
    file === undefined ? undefined : follow(file, allowUnsafeOwner)
  );
  const file = options.audit === "-" ? undefined : options.audit;
  if (file !== undefined) closeSync(openSync(file, "a", 0o600)); // fail now if it cannot be written
  const audit = options.audit === undefined ? undefined : auditLog({
    file,
    onlyDenied: options.auditDenied === true,
  });
  const watch = file === undefined ? undefined : watchAudit(audit!, file);
  const hangUp = () => {
    if (file !== undefined) reopen(audit!, file);
    policy?.reload(); // reports the outcome by itself
    shadow?.reload();
  };
  try {
    const server = createGuard({
      mode: options.mode,
      upstream: socketPath(options.upstream),
      expect,
      policy: withShadow(policy, shadow),
      limits: {
        connections: options.maxConnections,
        connectionsPerUser: options.maxPerUser,
        acceptsPerSecond: options.acceptRate,
      },
      audit,
      h2c: options.h2c,
      keepHeaders: options.keepHeader,
      report: tell,
    });
    const ended = untilSignal(hangUp); // before: SIGHUP may come as soon as it is ready
    await startListening(server, whereOf(options));
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
const AUDIT_CHECK_MS = 1000;

/** Tells once that lines of the audit log are lost. How many they were is told in the end. */
function watchAudit(audit: AuditLog, file: string): NodeJS.Timeout {
  const timer = setInterval(() => {
    if (audit.dropped === 0) return;
    clearInterval(timer);
    const why = audit.error?.message ?? "more comes than can be written";
    tell(`${printable(file)}: lines of the audit log are being lost: ${printable(why)}`);
  }, AUDIT_CHECK_MS);
  return timer.unref();
}

function follow(file: string, allowUnsafeOwner: boolean): WatchedPolicy {
  const name = printable(file);
  return watchPolicy(file, {
    allowUnsafeOwner: allowUnsafeOwner,
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

function startListening(server: GuardServer, where: ListenOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(where, () => {
      server.off("error", reject);
      resolve();
    });
  });
}
