/** Tests of `ucred guard --as-peer` with system calls that fail, or succeed without effect. */

import assert from "node:assert/strict";
import {
  reporter,
  seenAs,
  startGuard,
  startUnprivileged,
  UNPRIVILEGED,
  visitWith,
} from "../support/as_peer.ts";
import { type Guard, testGuard, tool } from "../support/guard.ts";
import type { Ids } from "../support/peers.ts";
import { sample } from "../support/suite.ts";

const CLIENT: Ids = { uid: 4001, gid: 5001, groups: [27] };
const ROOT: Ids = { uid: 0, gid: 0, groups: [] };

const CALLS =
  "setgroups,setresgid,setresuid,setfsuid,setfsgid,capset,capget,prctl,getgroups,getresuid";

/**
 * Runs the guard under strace, which lets calls fail. The guard is the child itself (-D). At its start it
 * sets its ids twice, and then twice for each connection: those of the client, and its own.
 */
function failing(...faults: readonly string[]): string[] {
  const inject = faults.flatMap((fault) => ["-e", `inject=${fault}`]);
  return ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", `trace=${CALLS}`, ...inject];
}

const tools = [tool("strace"), tool("setpriv")];

/** Fault → the message; the client of the first connection is refused. */
const REFUSALS: readonly [fault: string, message: string][] = [
  ["setgroups:error=EPERM:when=3", "setgroups failed with EPERM"],
  ["setresgid:error=EAGAIN:when=3", "setresgid failed with EAGAIN"],
  ["setresuid:error=EINVAL:when=3", "setresuid failed with EINVAL"],
  ["setresuid:retval=0:when=3", "the kernel reports other ids than were set"],
  ["getresuid:error=ENOSYS:when=6", "getresuid failed with ENOSYS"],
];

for (const [fault, message] of sample(REFUSALS)) {
  testGuard(`guard --as-peer refuses one client, after ${fault}`, async () => {
    const behind = await reporter("stream");
    const guard = await startGuard({ upstream: behind.path, prefix: failing(fault) });
    assert.equal(await visitWith(CLIENT, guard.path), "");
    await guard.logs(`cannot be used: Cannot connect as the peer: ${message}`);
    assert.equal(behind.count, 0);
    assert.deepEqual(await seenAs(CLIENT, guard), { ...CLIENT, pid: guard.child.pid });
    assert.deepEqual(await seenAs(ROOT, guard), { ...ROOT, pid: guard.child.pid });
  }, ...tools);
}

testGuard("guard --as-peer restores its ids by a second attempt", async () => {
  const behind = await reporter("stream");
  const prefix = failing("setresuid:error=EPERM:when=4");
  const guard = await startGuard({ upstream: behind.path, prefix });
  for (const ids of [CLIENT, ROOT, CLIENT]) {
    assert.deepEqual(await seenAs(ids, guard), { ...ids, pid: guard.child.pid });
  }
}, ...tools);

/** Asserts that a guard ended by itself, since it could not restore its ids. */
async function assertEnded(guard: Guard, message: string): Promise<void> {
  assert.deepEqual(await guard.ended, { code: 2, signal: null });
  assert.ok(
    guard.log.includes(`ucred: cannot restore the ids of this process: ${message}`),
    guard.log,
  );
}

/** Faults while the guard restores its ids, each time. */
const ENDS: readonly [fault: string, message: string][] = [
  ["setgroups:error=EPERM:when=4+", "Cannot connect as the peer: setgroups failed with EPERM"],
  ["setresuid:error=EAGAIN:when=4+", "Cannot connect as the peer: setresuid failed with EAGAIN"],
  ["setresuid:retval=0:when=4+", "Cannot connect as the peer: the kernel reports other ids"],
];

for (const [fault, message] of sample(ENDS)) {
  testGuard(`guard --as-peer ends at once if it cannot restore its ids: ${fault}`, async () => {
    const behind = await reporter("stream");
    const guard = await startGuard({ upstream: behind.path, prefix: failing(fault) });
    await visitWith(CLIENT, guard.path);
    await assertEnded(guard, message);
    assert.equal(behind.count, 1); // with the ids of the client
  }, ...tools);
}

testGuard("guard --as-peer ends at once if it cannot restore its capabilities", async () => {
  const behind = await reporter("stream");
  const { guard, name } = await startUnprivileged({
    upstream: behind.path,
    prefix: [...failing("capset:error=EPERM:when=4+"), ...UNPRIVILEGED],
  });
  await visitWith(ROOT, name);
  await assertEnded(guard, "Cannot connect as the peer: capset failed with EPERM");
}, ...tools);
