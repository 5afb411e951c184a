/**
 * Connects as a peer in a process of its own, again and again: each time another call fails. Prints one
 * line of JSON, {@link AsPeerReport}. exit_group(2) throws here, and this script then restores the ids.
 */

import { once } from "node:events";
import { chmodSync, readFileSync } from "node:fs";
import { createServer } from "node:net";
import process from "node:process";
import { openedSystem } from "../../adapters/select.ts";
import { UcredError } from "../../core/errors.ts";
import { THREAD_CALLS } from "../../ffi/thread_ids.ts";
import { PeerConnector } from "../../guard/as_peer.ts";
import { supplementaryGroups } from "../../identity/groups.ts";
import { identify, type Peer } from "../../mod.ts";
import { Exited, failEachCall, textOfFault, withoutFaults } from "../support/failing_calls.ts";
import { Child, freshPath, withIds } from "../support/peers.ts";
import { descriptorLinks, openDescriptors, visitProgram } from "../support/servers.ts";
import { until } from "../support/suite.ts";

/** The result of this script. */
export interface AsPeerReport {
  readonly faults: number;
  /** How often the connection was made although a call failed, was refused, and ended the process. */
  readonly connected: number;
  readonly refused: number;
  readonly ended: number;
  /** What must not happen. */
  readonly wrong: readonly string[];
}

const CLIENT = { uid: 4001, gid: 5001, groups: [27, 100] };
const wanted = JSON.stringify({ ...CLIENT });
const KEEP = -1;
const [path = ""] = process.argv.slice(2);

const seen: string[] = [];
let accepted = 0;
const upstream = createServer((socket) => {
  accepted++;
  socket.on("error", () => {}).on("close", () => accepted--);
  const { uid, gid, groups } = withoutFaults(() => identify(socket));
  seen.push(JSON.stringify({ uid, gid, groups: [...supplementaryGroups(groups!)!] }));
  socket.resume().end();
});
await once(upstream.listen(path), "listening");
chmodSync(path, 0o777);

const state = () =>
  readFileSync("/proc/thread-self/status", "latin1").match(/^(Uid|Gid|Groups|Cap...):.*$/gm)!
    .join();
const own = state();
const { linux } = openedSystem().libc;
const groups = /^Groups:(.*)$/m.exec(readFileSync("/proc/thread-self/status", "latin1"))![1]!.trim()
  .split(" ")
  .filter((gid) => gid !== "").map(Number);
const memory = openedSystem().libc.memory(4 * Math.max(groups.length, 1));
memory.words.set(groups);

/** Restores the ids of root after exit_group(2) has thrown instead of ending the process. */
function restore(): void {
  const calls = THREAD_CALLS[process.arch]!;
  linux!.syscall(calls.setresuid, KEEP, 0, KEEP);
  linux!.syscall(calls.setresgid, KEEP, 0, KEEP);
  linux!.syscall(calls.setgroups, groups.length, Number(linux!.address(memory)), 0);
  linux!.syscall(calls.setfsuid, 0, 0, 0);
  linux!.syscall(calls.setfsgid, 0, 0, 0);
  linux!.syscall(calls.prctl, 8, 0, 0); // PR_SET_KEEPCAPS
}

const counts = { connected: 0, refused: 0, ended: 0 };
const wrong: string[] = [];
/** Returns a real client, which stays connected. */
async function clientOf(ids: typeof CLIENT): Promise<Peer> {
  const { promise, resolve } = Promise.withResolvers<Peer>();
  const server = createServer((socket) => resolve(identify(socket)));
  const at = freshPath();
  await once(server.listen(at), "listening");
  chmodSync(at, 0o777);
  const [command, ...args] = withIds(ids);
  new Child(command!, [...args, visitProgram, at]);
  return await promise;
}

const peer = await clientOf(CLIENT);
let outcome: keyof typeof counts = "refused";
let result: unknown;

/** Returns the descriptors of this process that are sockets. */
const sockets = () =>
  descriptorLinks().filter(([, link]) => link.startsWith("socket:")).map(([fd]) => fd);

async function connectOnce(connector: () => PeerConnector): Promise<void> {
  seen.length = 0;
  result = undefined;
  const before = new Set(sockets());
  try {
    const socket = connector().connect(peer);
    socket.on("error", () => {}).resume().end();
    await once(socket, "close");
    outcome = "connected";
  } catch (error) {
    result = error;
    outcome = error instanceof Exited ? "ended" : "refused";
    if (outcome === "refused") return;
    // The end of the process would have closed what it opened. Nothing else opens a socket meanwhile.
    for (const fd of sockets()) if (!before.has(fd)) withoutFaults(() => linux!.close(fd));
  }
}

const ready = new PeerConnector(path);
await connectOnce(() => ready);
await until(() => accepted === 0);
const baseline = openDescriptors();
let faults = 0;
for (const connector of [() => ready, () => new PeerConnector(path)]) {
  const all = await failEachCall({
    run: () => connectOnce(connector),
    verify: async (fault) => {
      counts[outcome]++;
      const complain = (what: string) => wrong.push(`${what}: ${textOfFault(fault)}`);
      for (const ids of seen) if (ids !== wanted) complain(`the upstream sees ${ids}`);
      if (outcome === "ended") restore();
      if (state() !== own) complain(`the thread stays ${state()} instead of ${own}`);
      const isClear = result instanceof UcredError
        ? result.hint !== ""
        : result instanceof Error && "code" in result;
      if (outcome === "refused" && !isClear) complain(`unclear error ${result}`);
      await until(() => openDescriptors() <= baseline).catch(() => complain("a descriptor leaks"));
      await connectOnce(connector);
      // A process that has ended in the meantime may have connected before.
      if (outcome !== "connected" || seen.some((ids) => ids !== wanted)) {
        complain(`the next connection is ${outcome}, as ${seen.join()} (${result})`);
      }
    },
  });
  faults += all.length;
}
console.log(JSON.stringify({ faults, ...counts, wrong } satisfies AsPeerReport));
process.exit();
