/** Guards that connect as their clients, clients with chosen ids, and an upstream that reports its peers. */

import { chmodSync } from "node:fs";
import process from "node:process";
import { supplementaryGroups } from "../../identity/groups.ts";
import { identify } from "../../identity/identify.ts";
import { answerOf, Behind, type End, Guard, policyFile, type Start } from "./guard.ts";
import { Child, type Ids, withIds } from "./peers.ts";
import { visitProgram } from "./servers.ts";

const EVERYBODY = "version: 1\nrules: [{ name: all, allow: true }]\n";

/** What the upstream sees of its peer. */
export interface Seen {
  readonly uid: number;
  readonly gid: number;
  /** Without the gid, unless the client has it among its supplementary groups, too. */
  readonly groups: readonly number[];
  readonly pid: number;
}

function seenAt({ socket }: End): Seen {
  const { uid, gid, groups, pid } = identify(socket);
  return { uid, gid, groups: [...supplementaryGroups(groups!)!], pid: pid! };
}

/** An upstream that sends each client what it sees of it. Every user may connect. */
export async function reporter(mode: "stream" | "http"): Promise<Behind> {
  const behind = await Behind.start(async (end) => {
    const text = JSON.stringify(seenAt(end));
    if (mode === "stream") return void end.send(text).end();
    while (true) {
      await end.message();
      end.send(answerOf(text));
    }
  });
  chmodSync(behind.path, 0o777);
  return behind;
}

/** Connects with these ids, sends a text, and returns the text that arrives. */
export async function visitWith(ids: Ids, path: string, text?: string): Promise<string> {
  const [command, ...args] = withIds(ids);
  const send = text === undefined ? [] : ["--send", text];
  const child = new Child(command!, [...args, visitProgram, ...send, path]);
  await child.json();
  const answer = await child.json<{ text: string }>();
  await child.end();
  return answer.text;
}

const REQUEST = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/** Visits the guard in front of a {@link reporter}. */
export async function seenAs(
  ids: Ids,
  { path }: { readonly path: string },
  mode: "stream" | "http" = "stream",
): Promise<Seen> {
  const text = await visitWith(ids, path, mode === "http" ? REQUEST : undefined);
  const json = mode === "http" ? text.slice(text.indexOf("\r\n\r\n") + 4) : text;
  return JSON.parse(json);
}

/** The words that start a program as an unprivileged user with two capabilities. */
export const UNPRIVILEGED = [
  ...["setpriv", "--reuid=4900", "--regid=4901", "--clear-groups", "--no-new-privs"],
  ...["--inh-caps=-all,+setuid,+setgid", "--ambient-caps=-all,+setuid,+setgid"],
  "--bounding-set=-all,+setuid,+setgid",
];

/** A policy file that unprivileged guards can read. */
export function everybody(): string {
  const file = policyFile(EVERYBODY);
  chmodSync(file, 0o644);
  return file;
}

/** Starts a guard in stream mode that accepts everybody. */
export function startGuard(start: Start): Promise<Guard> {
  const args = ["--as-peer", ...(start.args ?? [])];
  return Guard.start({ policy: everybody(), ...start, args });
}

/** Starts an unprivileged guard, which listens at an abstract name. */
export async function startUnprivileged(start: Start): Promise<{ guard: Guard; name: string }> {
  const name = `@ucred-as-peer-${process.pid}-${Math.random()}`;
  const args = ["--listen", name, ...(start.args ?? [])];
  const guard = await startGuard({ prefix: UNPRIVILEGED, ...start, listen: null, args });
  return { guard, name };
}
