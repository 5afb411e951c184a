/** Processes that change or end after connect, and pids that are reused. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  copyFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  truncateSync,
  unlinkSync,
} from "node:fs";
import { createServer, type Socket } from "node:net";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { fdOf } from "../../identity/fd.ts";
import { identify, type Peer, peerCredentials } from "../../mod.ts";
import { bytesInUse } from "../support/collector.ts";
import { needs, runtimeCommand, testWith, until } from "../support/suite.ts";
import { temporaryFolder } from "../support/compile.ts";
import { type Actor, actorProgram, freshPath, listen, startActor } from "../support/peers.ts";

const here = [needs.linux, needs.cc, needs.peerPidfd];
const rootHere = [...here, needs.root];
/** Identifies by descriptor number, so that the peer is not closed with the connection. */
const pin = (socket: Socket): Peer => identify(fdOf(socket), { pin: true });
const pinSocket = (socket: Socket): Peer => identify(socket, { pin: true });

const openDescriptors = () => readdirSync("/proc/self/fd").length;

testWith(
  here,
  "identify() returns a live peer with its ids and groups, with pin",
  async () => {
    const [peer, actor] = await startActor([], pin);
    assert.equal(peer.pinned, "connect");
    assert.equal(peer.alive, true);
    const live = peer.live();
    assert.ok(live.alive);
    assert.deepEqual([live.uid, live.gid], [peer.uid, peer.gid]);
    assert.deepEqual([live.ruid, live.suid, live.fsuid], [peer.uid, peer.uid, peer.uid]);
    assert.deepEqual(peer.drift(), []);
    assert.equal(peer.signal?.aborted, false);
    peer.close();
    actor.hangUp();
  },
);

// polkit CVE-2013-4288: the uid was that of the pid at a later time.
testWith(
  rootHere,
  "live() and drift() report setresuid(2) after connect, and uid stays",
  async () => {
    const [peer, actor] = await startActor([], pin);
    await actor.command("setgroups 7,9");
    await actor.command("setresgid 30 31 32");
    await actor.command("setresuid 20 21 22");
    assert.deepEqual([peer.uid, peer.gid], [0, 0]);
    const { source, ...live } = peer.live() as { source: string };
    assert.deepEqual(live, {
      ...{ alive: true, uid: 21, gid: 31 },
      ...{ ruid: 20, euid: 21, suid: 22, fsuid: 21 },
      ...{ rgid: 30, egid: 31, sgid: 32, fsgid: 31 },
      ambiguous: [],
    });
    assert.match(source, /^(kernel|procfs)@now$/);
    assert.deepEqual(peer.drift(), [
      { fact: "uid", then: 0, now: 21 },
      { fact: "gid", then: 0, now: 31 },
      { fact: "groups", then: peer.groups, now: [7, 9, 31] },
    ]);
    actor.hangUp();
  },
);

testWith(here, "process.exe changes after execve(2), and the other facts stay", async () => {
  const [peer, actor] = await startActor([], pin);
  const before = peer.process;
  assert.equal(before.exe, actorProgram);
  const other = `${temporaryFolder()}/other`;
  copyFileSync(actorProgram, other);
  await actor.command(`exec ${other}`);
  assert.equal(before.exe, actorProgram, "a snapshot does not change");
  assert.equal(peer.process.exe, other);
  assert.equal(peer.process.exeDeleted, false);
  assert.deepEqual(peer.drift(), []);
  unlinkSync(other);
  const { exe, exeDeleted, exeSha256, cmdline } = peer.process;
  assert.deepEqual([exe, exeDeleted], [other, true]);
  assert.equal(exeSha256, createHash("sha256").update(readFileSync(actorProgram)).digest("hex"));
  assert.deepEqual(cmdline?.slice(0, 2), [other, "--go-on"]);
  actor.hangUp();
});

testWith(here, "alive stays true when a thread takes over the pid by execve(2)", async () => {
  const [peer, actor] = await startActor([], pin);
  const { key, signal } = peer;
  const other = `${temporaryFolder()}/other`;
  copyFileSync(actorProgram, other);
  await actor.command(`thread-exec ${other}`);
  await sleep(120); // longer than two polls of the pidfd
  assert.deepEqual([peer.alive, signal?.aborted, peer.key], [true, false, key]);
  assert.equal(peer.process.exe, other);
  assert.deepEqual(peer.drift(), []);
  actor.hangUp();
});

testWith(here, "signal aborts and alive is false when the process is a zombie", async () => {
  const [peer, actor] = await startActor(["--parent"], pin);
  const { signal } = peer;
  assert.ok(signal !== undefined && signal === peer.signal);
  const snapshot = peer.process;
  assert.equal(snapshot.exe, actorProgram);
  await actor.exit();
  await until(() => signal.aborted);
  assert.equal(signal.reason.code, "ERR_UCRED_PEER_GONE");
  const stat = readFileSync(`/proc/${peer.pid}/stat`, "utf8");
  assert.match(stat, /\) Z /, "it is a zombie");
  assertGone(peer);
  actor.child.process.stdin!.write("reap\n");
  assert.equal(await actor.child.json(), peer.pid);
  assertGone(peer);
  assert.equal(snapshot.exe, actorProgram, "facts that were read stay");
  assert.equal(snapshot.facts.comm.state, "unknown", "other facts cannot be read");
  peer.close();
  await actor.child.end();
});

/** Checks that the process has ended, and that no fact of another process with its pid is reported. */
function assertGone(peer: Peer): void {
  assert.equal(peer.alive, false);
  assert.deepEqual(peer.live(), { alive: false });
  assert.deepEqual(peer.drift(), [{ fact: "alive", then: true, now: false }]);
  for (const [name, fact] of Object.entries(peer.process.facts)) {
    assert.equal(fact.state, "unknown", name);
    assert.equal(fact.reason.code, "ERR_UCRED_PEER_GONE", `${name}: ${fact.reason}`);
  }
  assert.equal(peer.toJSON().process, undefined);
}

testWith(here, "every fact is unknown when the process was killed", async () => {
  const [peer, actor] = await startActor([], pin);
  process.kill(peer.pid!, "SIGKILL");
  await until(() => peer.alive === false);
  assertGone(peer);
  assert.equal(peer.signal?.aborted, true, "a signal of a later access is aborted, too");
  assert.ok(actor);
});

testWith(
  rootHere,
  "identify() does not pin another process when the pid was reused before accept(2)",
  async () => {
    const path = freshPath();
    const { promise, resolve } = Promise.withResolvers<Peer>();
    const server = createServer((socket) => resolve(pin(socket.on("error", () => {}))));
    await listen(server, path);
    // Blocks this thread, so no connection is accepted before another process has the pid.
    const other = Number(execFileSync(actorProgram, ["--reused", path], { encoding: "utf8" }));
    try {
      const peer = await promise;
      assert.deepEqual([peer.pid, peer.uid], [other, 0]);
      assertFooled(other);
      assertGone(peer);
      peer.close();
    } finally {
      process.kill(other, "SIGKILL");
      server.close();
    }
  },
);

// systemd-coredump CVE-2025-4598: /proc described another process, which had received the pid.
testWith(
  rootHere,
  "process.facts never describe another process when the pid was reused after accept(2)",
  async () => {
    const [peer, actor] = await startActor(["--parent"], pin);
    const before = [peer.process.startTime, peer.key];
    assert.ok(!before.includes(undefined));
    await actor.exit();
    actor.child.process.stdin!.write("reuse\n");
    assert.equal(await actor.child.json(), peer.pid);
    assertFooled(peer.pid!);
    assertGone(peer);
    peer.close();
    await actor.child.end();
  },
);

/** Checks that /proc/PID shows a running process with the expected uid and name. */
function assertFooled(pid: number): void {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  assert.match(status, /^Uid:\t0\t/m);
  assert.match(status, /^Name:\tactor$/m);
  assert.match(status, /^State:\t[SR]/m);
  assert.equal(readlinkSync(`/proc/${pid}/exe`), actorProgram);
}

testWith(here, "identify() does not pin a child that keeps the connection", async () => {
  const look = (socket: Socket) => [pin(socket), socket] as const;
  const [[peer, socket], actor] = await startActor([], look);
  await actor.command("leave"); // the child answers
  await until(() => peer.alive === false);
  assertGone(peer);
  assert.deepEqual({ ...peerCredentials(socket) }, { pid: peer.pid, uid: peer.uid, gid: peer.gid });
  // The pid is free by now: a pin that is opened now must not find another process.
  const late = identify(socket, { pin: true });
  assertGone(late);
  late.close();
  actor.hangUp();
});

testWith(
  here,
  "key is equal for two connections of a process, and differs for two processes",
  async () => {
    const [first, one] = await startActor([], pin);
    const [second, two] = await startActor([], (socket) => [pin(socket), pin(socket)] as const);
    assert.equal(second[0].key, second[1].key);
    assert.notEqual(first.key, second[0].key);
    assert.match(first.key ?? "", /^[0-9a-f-]{36}-[\d-]+$/);
    for (const peer of [first, ...second]) peer.close();
    assert.equal(first.key, first.toJSON().key, "facts that were read stay");
    one.hangUp();
    two.hangUp();
  },
);

testWith(here, "process.facts equal those of /proc, with any name of the process", async () => {
  const [peer, actor] = await startActor([], pin);
  await actor.command("comm x) S 1 (%nUid:");
  await actor.command("no-new-privs");
  const proc = (name: string) => readFileSync(`/proc/${peer.pid}/${name}`, "utf8");
  const { facts, ...now } = { facts: peer.process.facts, ...peer.process.toJSON() };
  assert.equal(now.comm, "x) S 1 (\nUid:");
  assert.equal(now.startTime, Number(proc("stat").split(") ").at(-1)!.split(" ")[19]) * 10);
  assert.equal(now.noNewPrivs, true);
  assert.equal(
    now.seccomp,
    ["off", "strict", "filter"][Number(/Seccomp:\t(\d)/.exec(proc("status"))![1])],
  );
  assert.deepEqual(peer.process.cmdline, proc("cmdline").split("\0").slice(0, -1));
  assert.ok(proc("cgroup").split("\n").some((line) => line.endsWith(`:${now.cgroup}`)));
  for (const [kind, { id, ours }] of Object.entries(now.namespaces ?? {})) {
    assert.equal(readlinkSync(`/proc/${peer.pid}/ns/${kind}`), `${kind}:[${id}]`);
    assert.equal(ours, true, kind);
  }
  assert.equal(Object.keys(now.namespaces ?? {}).length, 8);
  assert.equal(facts.exe.state === "known" && facts.exe.source, "procfs@now");
  assert.deepEqual(peer.live().alive && peer.drift(), [], "the name adds no line to status");
  actor.hangUp();
});

testWith(rootHere, "process.capabilities are the current ones", async () => {
  const [peer, actor] = await startActor([], pin);
  const before = peer.process.capabilities!;
  assert.ok(before.effective.includes("CAP_SETUID") && before.permitted.includes("CAP_SETUID"));
  await actor.command("setresuid 5 5 5");
  const { capabilities: after } = peer.process;
  assert.deepEqual([after?.effective, after?.permitted], [[], []]);
  assert.deepEqual(after?.bounding, before.bounding);
  actor.hangUp();
});

testWith([...here, needs.userNamespace], "process.namespaces mark our own namespaces", async () => {
  const command = ["-U", "-n", actorProgram];
  const [peer, actor] = await startActor([], pin, ["unshare", ...command]);
  const { namespaces } = peer.process;
  assert.deepEqual(
    Object.entries(namespaces ?? {}).flatMap(([kind, { ours }]) => ours ? [] : [kind]),
    ["net", "user"],
  );
  actor.hangUp();
});

testWith(here, "process.facts are unknown without a pin", async () => {
  const [peer, actor] = await startActor([], (socket) => identify(socket));
  assert.deepEqual([peer.pinned, peer.alive, peer.signal, peer.key], [
    undefined,
    undefined,
    undefined,
    undefined,
  ]);
  for (const ask of [() => peer.live(), () => peer.drift()]) {
    assert.throws(ask, { name: "UcredError", code: "ERR_UCRED_NOT_PINNED", hint: /pin: true/ });
  }
  assert.equal(peer.process.exe, undefined);
  assert.deepEqual([peer.toJSON().process, peer.toJSON().unknown], [undefined, undefined]);
  assert.equal(peer.facts.pinned.state, "none");
  peer.close();
  actor.hangUp();
});

testWith(here, "identify() opens pidfds that started programs do not inherit", async () => {
  const [peer, actor] = await startActor([], pin);
  const infos = readdirSync("/proc/self/fd").map((fd) => `/proc/self/fdinfo/${fd}`);
  const pidfds = infos.filter(existsSync).map((info) => readFileSync(info, "utf8")) // the descriptor of readdirSync() is closed again
    .filter((info) => info.includes(`\nPid:\t${peer.pid}\n`));
  assert.ok(pidfds.length > 0);
  for (const info of pidfds) {
    const flags = Number.parseInt(/^flags:\t(\d+)$/m.exec(info)![1]!, 8);
    assert.equal(flags & 0o2000000, 0o2000000, "O_CLOEXEC");
  }
  peer.close();
  actor.hangUp();
});

testWith(
  here,
  "signal aborts for 300 processes that end at once, while abort handlers close other peers",
  async () => {
    const before = openDescriptors();
    const all: (readonly [Peer, Actor])[] = [];
    for (let i = 0; i < 300; i++) all.push(await startActor([], pin));
    let ended = 0;
    for (const [index, [peer]] of all.entries()) {
      peer.signal!.addEventListener("abort", () => {
        ended++;
        peer.close();
        all[(index + 1) % all.length]![0].close(); // its signal may not have aborted yet
      });
    }
    for (const [, actor] of all) actor.hangUp();
    await until(() => all.every(([peer]) => peer.signal === undefined || peer.alive === undefined));
    await until(() => openDescriptors() <= before);
    assert.ok(ended > 0 && ended <= 300);
  },
);

testWith(here, "signal does not keep the program running", () => {
  const script = fileURLToPath(new URL("watch_and_end.ts", import.meta.url));
  const [command, ...args] = runtimeCommand();
  const options = { encoding: "utf8", timeout: 120_000 } as const;
  assert.equal(
    execFileSync(command, [...args, script, freshPath()], options),
    '{"aborted":false}\n',
  );
});

testWith(here, "process.exeSha256 is unknown when the executable is too large", async () => {
  const large = `${temporaryFolder()}/large`;
  copyFileSync(actorProgram, large);
  truncateSync(large, (512 << 20) + 1); // a sparse file
  const before = openDescriptors();
  const [peer, actor] = await startActor([], pin, [large]);
  const { exeSha256 } = peer.process.facts;
  assert.equal(exeSha256.state, "unknown");
  assert.match(String(exeSha256.reason), /longer than 536870912 bytes/);
  assert.equal(peer.process.exe, large);
  peer.close();
  actor.hangUp();
  await until(() => openDescriptors() <= before);
});

testWith(here, "close() closes the pidfd, and later accesses throw or are unknown", async () => {
  const before = openDescriptors();
  const [peer, actor] = await startActor([], pin);
  const { signal } = peer;
  {
    using same = peer;
    assert.equal(same.alive, true);
  }
  assert.deepEqual([peer.alive, signal?.aborted], [undefined, false]);
  assert.throws(() => peer.live(), { code: "ERR_UCRED_NO_FD" });
  assert.throws(() => peer.drift(), { code: "ERR_UCRED_NO_FD" });
  const { exe } = peer.process.facts;
  assert.equal(exe.state === "unknown" && exe.reason.code, "ERR_UCRED_NO_FD");
  peer.close();
  actor.hangUp();
  await until(() => openDescriptors() <= before);
});

testWith(here, "identify() closes the pidfd when the connection closes", async () => {
  const before = openDescriptors();
  const [peer, actor] = await startActor([], pinSocket);
  assert.equal(peer.alive, true);
  actor.hangUp();
  await until(() => peer.alive === undefined && openDescriptors() <= before);
});

testWith(
  here,
  "signal aborts when the process ends after its connection has closed",
  async () => {
    const before = openDescriptors();
    const [peer, actor] = await startActor([], pinSocket);
    const { signal } = peer;
    await actor.exit();
    await until(() => signal!.aborted);
    assert.notEqual(peer.alive, true);
    await until(() => peer.alive === undefined && openDescriptors() <= before);
  },
);

testWith(
  here,
  "identify() shares one pidfd among the peers of a connection, until the last is closed",
  async () => {
    const [[first, second, socket], actor] = await startActor([], (socket) => {
      return [pinSocket(socket), pinSocket(socket), socket] as const;
    });
    const [now, listeners] = [openDescriptors(), socket.listenerCount("close")];
    for (let i = 0; i < 100; i++) {
      using again = pinSocket(socket);
      assert.ok(again.alive && again.signal === first.signal);
    }
    assert.equal(openDescriptors(), now + 1, "the epoll of the signal");
    first.close();
    first.close();
    assert.deepEqual([first.alive, second.alive], [undefined, true]);
    assert.throws(() => first.live(), { code: "ERR_UCRED_NO_FD" });
    second.close();
    assert.equal(openDescriptors(), now - 1, "neither pidfd nor epoll");
    const third = pinSocket(socket);
    assert.equal(third.alive, true);
    assert.equal(socket.listenerCount("close"), listeners);
    actor.hangUp();
    await until(() => third.alive === undefined);
  },
);

testWith(
  here,
  "signal aborts after its peer was garbage-collected and other peers were closed",
  async () => {
    const [[signal, socket], actor] = await startActor([], (socket) => {
      return [pinSocket(socket).signal!, socket] as const;
    });
    for (let i = 0; i < 20; i++) {
      new Array(100_000).fill({}); // so that the first peer is collected
      await sleep(1);
    }
    pinSocket(socket).close();
    await actor.exit();
    await until(() => signal.aborted);
  },
);

testWith(
  here,
  "process.facts are unknown and not none when the main thread has ended",
  async () => {
    const [peer, actor] = await startActor([], pin);
    assert.equal(peer.process.facts.cmdline.state, "known");
    await actor.command("main-thread-exit");
    assert.equal(peer.alive, true, "another thread still runs");
    const { facts } = peer.process;
    for (const name of ["cmdline", "cgroup", "unit", "container", "session", "exe"] as const) {
      assert.equal(facts[name].state, "unknown", name);
    }
    assert.equal(peer.uid, process.geteuid!());
    peer.close();
    actor.hangUp();
  },
);

testWith(here, "signal aborts when its peer was garbage-collected", async () => {
  const [signal, actor] = await startActor([], (socket) => pin(socket).signal!);
  for (let i = 0; i < 20; i++) {
    new Array(100_000).fill({});
    await sleep(1);
  }
  await actor.exit();
  await until(() => signal.aborted);
});

testWith(here, "process reads further facts when its peer was garbage-collected", async () => {
  const [snapshot, actor] = await startActor([], (socket) => {
    const { fd } = (socket as unknown as { _handle: { fd: number } })._handle;
    return identify(fd, { pin: true }).process;
  });
  for (let i = 0; i < 20; i++) {
    new Array(100_000).fill({});
    await sleep(1);
  }
  assert.equal(snapshot.exe, actorProgram);
  actor.hangUp();
});

testWith(
  [...here, needs.native],
  "identify() closes the pidfd when the peer is garbage-collected",
  async () => {
    const [socket, actor] = await startActor([], (socket) => socket);
    const before = openDescriptors();
    const { fd } = (socket as unknown as { _handle: { fd: number } })._handle;
    for (let i = 0; i < 50; i++) identify(fd, { pin: true }); // no "close" event closes these
    assert.ok(openDescriptors() > before);
    await until(() => {
      bytesInUse(); // collects them
      return openDescriptors() <= before;
    });
    actor.hangUp();
  },
);
