/** How many connections a guard accepts, given how many files the process may open. */

import { readFileSync } from "node:fs";
import { UcredError } from "../core/errors.ts";
import {
  DEFAULT_CONNECTIONS,
  DEFAULT_CONNECTIONS_PER_USER,
  type Limits,
} from "../servers/admission/limits.ts";

/** Descriptors per connection: the client's, the upstream's, and one of either that is being closed. */
const FILES_PER_CONNECTION = 3;

/** Descriptors for everything else: the runtime, policies, logs, rejected connections. */
const SPARE_FILES = 128;

const HINT = "Raise RLIMIT_NOFILE with `ulimit -n`, or with LimitNOFILE= of the service";

/**
 * Lowers the limits so that connections cannot use up the process's descriptors. A process without
 * free descriptors accepts nothing, and Deno 2.9.5 does not recover from it.
 *
 * @param report Called with one line if fewer connections are possible than were requested.
 * @throws {UcredError} `ERR_UCRED_LISTEN` if not even one connection is possible.
 */
export function limitsWithinFiles(limits: Limits, report: (line: string) => void): Limits {
  const files = maxOpenFiles();
  const possible = Math.floor((files - SPARE_FILES) / FILES_PER_CONNECTION);
  if (possible < 1) {
    throw new UcredError(
      "ERR_UCRED_LISTEN",
      `Cannot accept connections: the process may open only ${files} files`,
      { hint: HINT },
    );
  }
  const wanted = limits.connections ?? DEFAULT_CONNECTIONS;
  if (possible >= wanted) return limits;
  const share = Math.max(
    1,
    Math.floor(possible * DEFAULT_CONNECTIONS_PER_USER / DEFAULT_CONNECTIONS),
  );
  const perUser = limits.connectionsPerUser ?? Math.min(DEFAULT_CONNECTIONS_PER_USER, share);
  report(
    `at most ${possible} connections, ${Math.min(perUser, possible)} per user, instead of ` +
      `${wanted}: the process may open only ${files} files. ${HINT}`,
  );
  return { ...limits, connections: possible, connectionsPerUser: perUser };
}

/** RLIMIT_NOFILE of this process, from proc(5); Infinity where there is no /proc. */
function maxOpenFiles(): number {
  try {
    const limits = readFileSync("/proc/self/limits", "latin1");
    const soft = /^Max open files +([0-9]+)/m.exec(limits)?.[1];
    return soft === undefined ? Infinity : Number(soft);
  } catch {
    return Infinity;
  }
}
