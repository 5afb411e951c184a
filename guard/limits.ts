/** How many connections a guard accepts, given how many files the process may open. */

import { readFileSync } from "node:fs";
import { tell, UsageError } from "../cli/output.ts";
import type { Limits } from "../servers/admission/limits.ts";
import type { GuardCommandOptions } from "./run.ts";

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
export function limitsOf({ maxConnections, maxPerUser, acceptRate }: GuardCommandOptions): Limits {
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
