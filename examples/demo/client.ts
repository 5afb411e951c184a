/**
 * A process that connects, sends nothing, and tells the demo who it is, so that what the server was
 * told can be compared.
 *
 * It starts as the demo's user and changes user itself, once everything is loaded: the new user need
 * not be able to read these files.
 *
 * Usage: client.ts [--become JSON [--late]] SOCKET. Waits for a line before it connects.
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

/** What the client prints first: it waits, or it could not become who it is to be. */
export interface Ready {
  readonly impossible?: string;
}

/** What it prints once it is connected. */
export interface Said {
  readonly pid: number;
  /** Who it was when it connected. */
  readonly then: Identity;
  /** Who it is now: somebody else, with `--late`. */
  readonly now: Identity;
}

/** What it prints last: the server's answer. */
export interface Answer {
  readonly answer: string;
}

function self(): Identity {
  const [uid, gid] = [process.geteuid!(), process.getegid!()];
  const groups = [...new Set([...process.getgroups!(), gid])].sort((a, b) => a - b);
  return { uid, gid, groups };
}

function become({ uid, gid, groups }: Identity): void {
  process.setgroups!([...groups]);
  process.setgid!(gid);
  process.setuid!(uid); // last, since only root may do the others
}

function print(line: Ready | Said | Answer): void {
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
  print({ impossible: String(error) }); // a container's root may lack the right, or the id
  process.exit();
}
print({});
await once(process.stdin, "data");

const then = self();
const socket = connect({ path });
await once(socket, "connect");
if (other && values.late) become(other);
print({ pid: process.pid, then, now: self() });
print({ answer: (await text(socket)).trim() });
