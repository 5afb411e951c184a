/** Tests of `ucred guard --as-peer`: the upstream sees the client. */

import assert from "node:assert/strict";
import {
  chmodSync,
  chownSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import {
  everybody,
  reporter,
  seenAs,
  startGuard,
  startUnprivileged,
  visitWith,
} from "../support/as_peer.ts";
import { createGuard } from "../../guard/mod.ts";
import { compileProgram, temporaryFolder } from "../support/compile.ts";
import { Behind, Guard, testGuard, tool } from "../support/guard.ts";
import { Child, freshPath, type Ids, startScript } from "../support/peers.ts";
import { visitProgram } from "../support/servers.ts";
import { needs, runtime, sample, until } from "../support/suite.ts";

const PEOPLE: readonly Ids[] = [
  { uid: 4001, gid: 5001, groups: [] },
  { uid: 4002, gid: 5002, groups: [27, 5002, 6000] },
  { uid: 0, gid: 5003, groups: [4] },
  { uid: 4_000_000_000, gid: 4_294_967_294, groups: [3_000_000_000] },
  { uid: 4001, gid: 0, groups: Array.from({ length: 300 }, (_, index) => 7000 + index) },
];

const setpriv = tool("setpriv");

for (const mode of ["stream", "http"] as const) {
  testGuard(
    `guard --as-peer --mode ${mode} connects with the client's uid, gid and groups`,
    async () => {
      const behind = await reporter(mode);
      const guard = await startGuard({ upstream: behind.path, mode });
      for (const ids of PEOPLE) {
        const seen = await seenAs(ids, guard, mode);
        assert.deepEqual(seen, { ...ids, pid: guard.child.pid });
      }
    },
    setpriv,
  );
}

for (const mode of ["stream", "http"] as const) {
  testGuard(
    `guard --as-peer --mode ${mode} works as an unprivileged user with CAP_SETUID and CAP_SETGID`,
    async () => {
      const behind = await reporter(mode);
      const { guard, name } = await startUnprivileged({ upstream: behind.path, mode });
      const { main } = idsOfThreads(guard);
      for (const ids of [...PEOPLE, ...PEOPLE]) { // root among them
        assert.deepEqual(await seenAs(ids, { path: name }, mode), { ...ids, pid: guard.child.pid });
        assert.deepEqual(idsOfThreads(guard), { main, others: new Set([main]) });
      }
    },
    setpriv,
  );
}

function statusOf(thread: number): string {
  return readFileSync(`/proc/${thread}/status`, "latin1");
}

/** How often a sleeping thread has gone to sleep; `undefined` for a running one. */
function sleepsIn(status: string): string | undefined {
  return /^State:\tS[^]*^voluntary_ctxt_switches:\t(\d+)/m.exec(status)?.[1];
}

/** The ids, groups and capabilities in the status of a thread. */
function idsIn(status: string): string {
  return status.match(/^(Uid|Gid|Groups|CapInh|CapPrm|CapEff):.*$/gm)!.join();
}

/** The ids, groups and capabilities of the threads of a guard, from proc(5). */
function idsOfThreads({ child: { pid } }: Guard): { main: string; others: Set<string> } {
  const of = (path: string) => idsIn(readFileSync(path, "latin1"));
  const others = new Set<string>();
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    try {
      if (Number(thread) !== pid) others.add(of(`/proc/${pid}/task/${thread}/status`));
    } catch {
      // it has ended
    }
  }
  return { main: of(`/proc/${pid}/status`), others };
}

const ONE = PEOPLE[0]!;

/** Connects many times as a client, and hangs up at once. */
async function crowdOfOne(path: string, times: number): Promise<void> {
  const args = ["--uid", `${ONE.uid}`, "--gid", `${ONE.gid}`, "--crowd", `${times}`, path];
  assert.deepEqual(await new Child(visitProgram, args).json(), { connected: times });
}

/** Where the guard, and its clients, may connect: the owner and mode of the upstream's socket. */
const SOCKETS: readonly [
  what: string,
  owner: number,
  group: number,
  mode: number,
  works: boolean,
][] = [
  ["that only the guard's user may connect to", 4900, 0, 0o700, true],
  ["that only the guard's primary group may connect to", 0, 4901, 0o770, true],
  ["that only the client may connect to", ONE.uid, ONE.gid, 0o770, false],
];

for (const [what, owner, group, mode, works] of sample(SOCKETS)) {
  testGuard(
    `guard --as-peer ${works ? "connects" : "does not connect"} to a socket ${what}`,
    async () => {
      const behind = await reporter("stream");
      chownSync(behind.path, owner, group);
      chmodSync(behind.path, mode);
      const { guard, name } = await startUnprivileged({ upstream: behind.path });
      if (works) assert.equal((await seenAs(ONE, { path: name })).uid, ONE.uid);
      else {
        assert.equal(await visitWith(ONE, name), "");
        await guard.logs(`connect EACCES ${behind.path}`);
      }
    },
    setpriv,
  );
}

testGuard("guard --as-peer sends nothing to an upstream of another user", async () => {
  const behind = await Behind.start();
  const guard = await startGuard({ upstream: behind.path, args: ["--upstream-user", "4001"] });
  assert.equal(await visitWith(ONE, guard.path, "secret"), "");
  await guard.logs("cannot be used: ");
  assert.equal(await (await behind.next()).rest(), "");
}, setpriv);

const STARTS: readonly [why: string, prefix: readonly string[], message: RegExp][] = [
  ["CAP_SETUID", ["--bounding-set=-setuid"], /does not have CAP_SETUID\n.*AmbientCapabilities=/],
  ["both capabilities", ["--bounding-set=-setuid,-setgid"], /CAP_SETGID and CAP_SETUID\n/],
  ["one identity", ["--ruid=4001"], /the real, effective and saved ids of this process differ/],
];

for (const [why, prefix, message] of sample(STARTS)) {
  testGuard(`guard --as-peer does not start without ${why}`, async () => {
    const guard = Guard.launch({
      upstream: "/nowhere",
      listen: null,
      args: ["--as-peer", "--listen", `@ucred-as-peer-${process.pid}`],
      policy: null,
      prefix: ["setpriv", ...prefix],
    });
    assert.equal((await guard.ended).code, 2);
    assert.match(guard.log, message);
  }, setpriv);
}

/** Enters a user namespace, and waits until its ids are mapped. */
const IN_NAMESPACE = [
  ...["unshare", "--user", "sh", "-c"],
  'until grep -q . /proc/self/gid_map; do sleep 0.01; done; exec "$@"',
  "sh",
];

testGuard(
  "guard --as-peer refuses clients with ids that are not certain",
  async () => {
    const behind = await reporter("stream");
    const guard = Guard.launch({
      upstream: behind.path,
      args: ["--as-peer"],
      policy: everybody(),
      prefix: IN_NAMESPACE,
    });
    const proc = `/proc/${guard.child.pid}`;
    const own = readlinkSync("/proc/self/ns/user");
    await until(() => readlinkSync(`${proc}/ns/user`) !== own);
    for (const kind of ["uid", "gid"]) writeFileSync(`${proc}/${kind}_map`, "0 0 10000\n");
    await guard.logs("listening at ");
    const mapped = { uid: 4001, gid: 5001, groups: [27] };
    assert.deepEqual(await seenAs(mapped, guard), { ...mapped, pid: guard.child.pid });
    const uncertain: [fact: string, ids: Ids][] = [
      ["uid 65534", { ...mapped, uid: 20001 }],
      ["gid 65534", { ...mapped, gid: 20001 }],
      ["some groups", { ...mapped, groups: [27, 20001] }],
    ];
    const { count } = behind;
    for (const [fact, ids] of uncertain) {
      assert.equal(await visitWith(ids, guard.path), "");
      await guard.logs(`Cannot determine ${fact}`);
      await sleep(1000); // the guard logs one line in a second
    }
    assert.equal(behind.count, count);
    assert.deepEqual(await seenAs(mapped, guard), { ...mapped, pid: guard.child.pid });
  },
  setpriv,
  needs.userNamespace,
);

/** Has a backlog of one connection. Accepts nothing until a line is written to it. */
const SLOW = `
import socket, struct, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen(0)
print("listening", flush=True)
sys.stdin.readline()
while True:
    connection, _ = server.accept()
    pid, uid, gid = struct.unpack("iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    connection.sendall(b"%d:%d" % (uid, gid))
    connection.close()
`;

testGuard(
  "guard --as-peer waits with its own ids while the backlog is full",
  async () => {
    const upstream = freshPath("up.sock");
    const slow = new Child("python3", ["-c", SLOW, upstream]);
    assert.equal(await slow.line(), "listening");
    const guard = await startGuard({ upstream });
    const idle = guard.sockets();
    const { main } = idsOfThreads(guard);
    const people = PEOPLE.slice(0, 4);
    const visits = Promise.all(people.map((ids) => visitWith(ids, guard.path)));
    visits.catch(() => {});
    // Each client has a connection, and the first one also has its own to the upstream.
    await until(() => guard.sockets() >= idle + people.length + 1);
    for (let asleep = 0; asleep < 50; await sleep(1)) {
      const [before, status, after] = Array.from({ length: 3 }, () => statusOf(guard.child.pid!));
      const sleeps = sleepsIn(before!);
      if (sleeps === undefined) continue;
      if ([status, after].some((read) => sleepsIn(read!) !== sleeps)) continue; // it tried to connect
      assert.equal(idsIn(status!), main);
      asleep++;
    }
    slow.process.stdin!.write("\n");
    assert.deepEqual(await visits, people.map(({ uid, gid }) => `${uid}:${gid}`));
  },
  setpriv,
  tool("python3"),
);

const watchProgram = needs.cc.met && needs.linux.met
  ? compileProgram(new URL("watch_threads.c", import.meta.url))
  : "";

testGuard("guard --as-peer changes the ids of its main thread only", async () => {
  const behind = await Behind.start((end) => void end.end());
  const guard = await startGuard({ upstream: behind.path });
  const ids = idsOfThreads(guard);
  const watch = new Child(watchProgram, [String(guard.child.pid)]);
  let caught: string | undefined;
  watch.line().then((line) => caught = line);
  await until(async () => { // until the watch has caught the main thread in between
    await crowdOfOne(guard.path, 300);
    return caught;
  });
  assert.match(caught!, /^(Uid:\t0\t(0|4001)\t0\t\d+|Gid:\t0\t(0|5001)\t0\t\d+|Groups:\t| )+$/);
  watch.process.stdin!.end();
  const others: string[] = [];
  for (let line; (line = await watch.line()) !== "end";) others.push(line);
  // Bun starts threads at any time: they have the ids of the main thread until it restores them.
  if (runtime !== "bun") assert.equal(others.length, 1, others.join("\n"));
  const own = { main: ids.main, others: new Set([ids.main]) };
  await until(() => isDeepStrictEqual(idsOfThreads(guard), own)); // the last clients may still wait
}, setpriv);

testGuard("files that a process creates while it connects as its clients are its own", async () => {
  const behind = await Behind.start((end) => void end.end());
  const path = freshPath("guard.sock");
  const folder = join(temporaryFolder(), "files");
  const guard = startScript([], "guard/as_peer_files.ts", path, behind.path, folder);
  assert.equal(await guard.line(), "listening");
  await until(async () => {
    await crowdOfOne(path, 200);
    return behind.count >= 1000;
  });
  guard.process.stdin!.end();
  const { count, owners } = await guard.json<{ count: number; owners: string[] }>();
  assert.ok(count > 0);
  assert.deepEqual(owners, ["0:0"]);
});

testGuard(
  runtime === "deno"
    ? "ThreadIds.call() ends the process when a thread was started meanwhile"
    : "ThreadIds.call() restores the ids of a thread that was started meanwhile",
  async () => {
    const child = startScript([], "guard/thread_ids.ts", "4001", "5001", "27", "28");
    const ended = new Promise((resolve) => child.process.once("exit", resolve));
    if (runtime === "deno") { // it cannot change the groups of all threads
      await assert.rejects(child.line(), /a new thread has the ids of a peer/);
      assert.equal(await ended, 2);
      return;
    }
    const { result, inside, after } = await child.json<
      { result: number; inside: string[]; after: string[] }
    >();
    assert.equal(result, 7);
    const foreign = "Uid:\t0\t4001\t0\t0,Gid:\t0\t5001\t0\t0,Groups:\t27 28 ";
    assert.equal(
      inside.filter((ids) => ids === foreign).length,
      2,
      "the main thread and the new one",
    );
    assert.deepEqual(new Set(after), new Set(["Uid:\t0\t0\t0\t0,Gid:\t0\t0\t0\t0,Groups:\t "]));
    assert.equal(await ended, 0);
  },
);

testGuard("ThreadIds() throws in a worker", async () => {
  const child = startScript([], "guard/thread_ids_worker.ts");
  const expected = "ERR_UCRED_UNSUPPORTED Cannot connect as the peer: this is not the main thread";
  assert.equal(await child.line(), expected);
});

testGuard(
  "createGuard() throws for an asPeer that is not a boolean, or an upstream with a NUL",
  () => {
    const options = { mode: "stream", upstream: "/nowhere" } as const;
    assert.throws(() => createGuard({ ...options, asPeer: "yes" as never }), TypeError);
    assert.throws(() => createGuard({ ...options, upstream: "a\0b", asPeer: true }), RangeError);
  },
);
