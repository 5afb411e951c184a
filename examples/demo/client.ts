/**
 * A client that connects, sends nothing, and prints its own ids. The demo compares them with the ids
 * that the kernel reported to the server.
 *
 * The process starts as the demo's user, loads everything, and then changes its user: the new user
 * may have no permission to read these files.
 *
 * Usage: client.ts [--become JSON [--late]] SOCKET. It waits for a line on stdin before it connects.
 */

import { once } from "node:events";
import { connect } from "node:net";
import process from "node:process";
import { text } from "node:stream/consumers";
import { parseArgs } from "node:util";

/** Ids of a process. */
export interface Identity {
  readonly uid: number;
  readonly gid: number;
  /** Supplementary groups and the gid, ascending. */
  readonly groups: readonly number[];
}

/** The first line of output: the client is ready, or it could not change its user. */
export interface Ready {
  readonly error?: string;
}

/** The line of output after connect(2). */
export interface ClientReport {
  readonly pid: number;
  /** The ids at the time of connect(2). */
  readonly atConnect: Identity;
  /** The ids after it. They differ with `--late`. */
  readonly now: Identity;
}

/** The last line of output. */
export interface Received {
  readonly response: string;
}

function self(): Identity {
  const [uid, gid] = [process.geteuid!(), process.getegid!()];
  const groups = [...new Set([...process.getgroups!(), gid])].sort((a, b) => a - b);
  return { uid, gid, groups };
}

function become({ uid, gid, groups }: Identity): void {
  process.setgroups!([...groups]);
  process.setgid!(gid);
  process.setuid!(uid); // last, because only root may change groups and gid
}

function print(line: Ready | ClientReport | Received): void {
  console.log(JSON.stringify(line));
}

const { values, positionals: [path = ""] } = parseArgs({
  options: { become: { type: "string" }, late: { type: "boolean", default: false } },
  allowPositionals: true,
});
const other: Identity | undefined = values.become && JSON.parse(values.become);

process.stdin.on("end", () => process.exit());
try {
  if (other && !values.late) become(other);
} catch (error) {
  print({ error: String(error) }); // root in a container may lack the capability, or the id
  process.exit();
}
print({});
await once(process.stdin, "data");

const atConnect = self();
const socket = connect({ path });
await once(socket, "connect");
if (other && values.late) become(other);
print({ pid: process.pid, atConnect, now: self() });
print({ response: (await text(socket)).trim() });
