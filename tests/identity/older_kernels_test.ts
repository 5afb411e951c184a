/** Pins on older kernels, or with denied calls: the weaker kind or a reason, never another process. */

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { constants } from "node:os";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import type { System } from "../../adapters/select.ts";
import type { UcredErrorCode } from "../../core/errors.ts";
import type { Fact } from "../../core/facts.ts";
import { receiveOn } from "../../identity/datagram.ts";
import { fdOf } from "../../identity/fd.ts";
import { identifyFd } from "../../identity/identify.ts";
import { readCredentials } from "../../identity/credentials.ts";
import { peerOfPid } from "../../identity/peer_of_pid.ts";
import type { Peer } from "../../mod.ts";
import { actorProgram, freshPath, pidfds, startActor } from "../support/peers.ts";
import { compileProgram } from "../support/compile.ts";
import { needs, testWith, until } from "../support/suite.ts";
import { deny } from "./denying.ts";

const here = [needs.linux, needs.cc, needs.peerPidfd];
const errnos = constants.errno as { readonly [name: string]: number };
const { EACCES, ENOPROTOOPT, ENOTTY, EINVAL, ESRCH, EPERM, EMFILE, ENOSYS, ENOENT } = errnos;

/** The calls that Linux before 6.5, 6.9 and 6.13 lacks. */
const OLD = { PEERPIDFD: ENOPROTOOPT, STATFS: 0, GET_INFO: ENOTTY };

const on = (system: System) => (socket: Parameters<typeof fdOf>[0]) =>
  identifyFd(system, fdOf(socket), { pin: true });

const senderProgram: string = needs.linux.met && needs.cc.met
  ? compileProgram(new URL("../live/sender.c", import.meta.url))
  : "";

const reasonOf = (fact: Fact<unknown>) => {
  assert.equal(fact.state, "unknown");
  return fact.reason;
};

testWith(
  here,
  "identify() returns the weaker pin, with all facts of /proc, on Linux before 6.5",
  async () => {
    const [peer, actor] = await startActor([], on(deny(OLD)));
    const pinned = { state: "known", value: "accept", source: "kernel@now" } as const;
    assert.deepEqual(peer.facts.pinned, pinned);
    assert.equal(peer.alive, true);
    const live = peer.live();
    assert.ok(live.alive);
    assert.deepEqual([live.uid, live.gid, live.source], [peer.uid, peer.gid, "procfs@now"]);
    assert.deepEqual(peer.drift(), []);
    assert.equal(peer.process.exe, actorProgram);
    assert.match(
      peer.key ?? "",
      new RegExp(`^[0-9a-f-]{36}-${peer.pid}-${peer.process.startTime}$`),
    );
    peer.close();
    actor.hangUp();
  },
);

testWith([...here, needs.root], "drift() of the weaker pin reports a change of user", async () => {
  const [peer, actor] = await startActor([], on(deny(OLD)));
  await actor.command("setresuid 20 21 22");
  const live = peer.live();
  assert.ok(live.alive);
  assert.deepEqual([live.ruid, live.uid, live.suid, live.fsuid], [20, 21, 22, 21]);
  assert.deepEqual(peer.drift(), [{ fact: "uid", then: 0, now: 21 }]);
  peer.close();
  actor.hangUp();
});

testWith(
  [...here, needs.root],
  "drift() throws when ids may be those of another user, as in a user namespace",
  async () => {
    const system = deny({});
    Object.assign(system.remembered.mapsEvery, { uid: false, gid: false });
    const all = [
      ...["uid", "gid", "ruid", "euid", "suid", "fsuid", "rgid", "egid", "sgid", "fsgid"],
    ] as const;
    const unsupported = { name: "UcredError", code: "ERR_UCRED_UNSUPPORTED" };
    for (
      const [ids, ambiguous] of [
        [["--reuid=65534", "--regid=65534", "--clear-groups"], ["uid", "gid", "groups"]],
        [["--groups=65534"], ["groups"]],
      ] as const
    ) {
      const [peer, actor] = await startActor([], on(system), ["setpriv", ...ids, actorProgram]);
      assert.deepEqual(peer.ambiguous, ambiguous);
      assert.throws(() => peer.drift(), { ...unsupported, message: /determine the peer's ids:/ });
      const live = peer.live();
      assert.deepEqual(
        live.alive && live.ambiguous.toSorted(),
        ids.length === 1 ? [] : all.toSorted(),
      );
      assert.equal(peer.facts.groups.state, "unknown");
      assert.equal(peer.groupNames?.[peer.groups!.indexOf(65534)], null, "no name");
      assert.notEqual(peer.process.facts.auditUid.state, "none");
      peer.close();
      actor.hangUp();
    }
    const groupsAs = (groups: number) => ["setpriv", `--groups=${groups}`, actorProgram] as const;
    for (const command of ["setgroups 65534", "setresgid 0 65534 0", "setresuid 0 65534 0"]) {
      const [peer, actor] = await startActor([], on(system), groupsAs(7));
      await actor.command("setgroups 8");
      assert.deepEqual(peer.drift(), [{ fact: "groups", then: [0, 7], now: [0, 8] }]);
      await actor.command(command);
      const message = /determine the peer's current ids:/;
      assert.throws(() => peer.drift(), { ...unsupported, message });
      peer.close();
      actor.hangUp();
    }
  },
);

testWith(
  [...here, needs.root],
  "identify() makes no weaker pin when the process has other ids",
  async () => {
    const [socket, actor] = await startActor([], (socket) => socket);
    await actor.command("setresuid 20 21 22");
    const before = pidfds();
    for (const kernel of [OLD, { PEERPIDFD: ENOPROTOOPT }]) {
      const peer = on(deny(kernel))(socket);
      const { code, message } = reasonOf(peer.facts.pinned);
      assert.equal(code, "ERR_UCRED_UNSUPPORTED");
      assert.match(message, /other ids/);
      assert.deepEqual([peer.pinned, peer.alive, peer.uid], [undefined, undefined, 0]);
    }
    assert.equal(pidfds(), before);
    actor.hangUp();
  },
);

testWith(
  [...here, needs.root],
  "identify() makes no weaker pin when the pidfd belongs to another process",
  async () => {
    const before = pidfds();
    const stranger = spawn("sleep", ["30"], { uid: 4321 });
    const byNumber = { PEERPIDFD: ENOPROTOOPT, OTHER_PID: stranger.pid };
    const [peer, actor] = await startActor([], on(deny(byNumber)));
    assert.match(reasonOf(peer.facts.pinned).message, /pid \d+ where \d+ was expected/);
    assert.deepEqual([peer.pinned, peer.alive, peer.uid], [undefined, undefined, 0]);
    actor.hangUp();
    stranger.kill();
    await new Promise((resolve) => stranger.once("exit", resolve));
    await until(() => pidfds() <= before); // a runtime may have a pidfd of an ended process
  },
);

testWith(here, "identify() makes no weaker pin when the pid is free", async () => {
  const { pid } = spawnedAndGone();
  const [peer, actor] = await startActor([], on(deny({ ...OLD, OTHER_PID: pid })));
  assert.equal(reasonOf(peer.facts.pinned).code, "ERR_UCRED_PEER_GONE");
  assert.equal(peer.alive, false);
  assert.equal(peer.signal?.aborted, true);
  assert.deepEqual(peer.live(), { alive: false });
  assert.deepEqual(peer.drift(), [{ fact: "alive", then: true, now: false }]);
  actor.hangUp();
});

testWith(
  here,
  "alive, live() and drift() report the process, when signals interrupt poll()",
  async () => {
    const [peer, actor] = await startActor([], on(deny({ SIGNALS: 3 })));
    assert.deepEqual([peer.alive, peer.live().alive, peer.drift()], [true, true, []]);
    actor.hangUp();
    await until(() => peer.alive === false);
    assert.deepEqual(peer.live(), { alive: false });
  },
);

/** Returns the pid of a process that has ended. */
function spawnedAndGone(): { readonly pid: number } {
  return { pid: Number(execFileSync("sh", ["-c", "echo $$"], { encoding: "utf8" })) };
}

for (
  const [name, calls, code, errno] of [
    ["reaped, on Linux before 6.13", { PEERPIDFD: EINVAL }, "ERR_UCRED_PEER_GONE", undefined],
    ["reaped", { PEERPIDFD: ESRCH }, "ERR_UCRED_PEER_GONE", ESRCH],
    ["denied", { PEERPIDFD: EPERM }, "ERR_UCRED_PERMISSION", EPERM],
    ["out of descriptors", { PEERPIDFD: EMFILE }, "ERR_UCRED_SYSCALL", EMFILE],
    ["unsupported", { ...OLD, PIDFD_OPEN: ENOSYS }, "ERR_UCRED_UNSUPPORTED", ENOSYS],
    ["reaped, by number", { ...OLD, PIDFD_OPEN: ESRCH }, "ERR_UCRED_PEER_GONE", ESRCH],
    ["reaped, now a thread's", { ...OLD, PIDFD_OPEN: EINVAL }, "ERR_UCRED_PEER_GONE", undefined],
    ["reaped, now a thread's", { ...OLD, PIDFD_OPEN: ENOENT }, "ERR_UCRED_PEER_GONE", undefined],
    ["denied, by number", { ...OLD, PIDFD_OPEN: EPERM }, "ERR_UCRED_PERMISSION", EPERM],
    ["out of descriptors, by number", { ...OLD, PIDFD_OPEN: EMFILE }, "ERR_UCRED_SYSCALL", EMFILE],
    ["without /proc", { ...OLD, OPEN: ENOENT }, "ERR_UCRED_UNSUPPORTED", undefined],
  ] as readonly [string, Parameters<typeof deny>[0], UcredErrorCode, number?][]
) {
  testWith(
    here,
    `identify() returns a peer without a pin, and the reason: ${name}`,
    async () => {
      const system = deny(calls);
      const [peer, actor] = await startActor([], on(system));
      assert.deepEqual([peer.uid, peer.gid], [process.geteuid!(), process.getegid!()]);
      const reason = reasonOf(peer.facts.pinned);
      assert.deepEqual([reason.code, reason.errno], [code, errno], reason.message);
      assert.equal(peer.alive, code === "ERR_UCRED_PEER_GONE" ? false : undefined);
      assert.equal(peer.signal?.aborted, code === "ERR_UCRED_PEER_GONE" ? true : undefined);
      for (const [name, fact] of Object.entries(peer.process.facts)) {
        assert.equal(reasonOf(fact), reason, name);
      }
      actor.hangUp();
    },
  );
}

testWith(
  here,
  "process.facts are unknown, with a hint to mount /proc, when it is missing",
  async () => {
    const [peer, actor] = await startActor([], on(deny({ OPEN: ENOENT, READLINK: ENOENT })));
    assert.equal(peer.pinned, "connect");
    for (const [name, fact] of Object.entries(peer.process.facts)) {
      const { code, message, hint } = reasonOf(fact);
      assert.equal(code, "ERR_UCRED_UNSUPPORTED", name);
      assert.match(message, /: \/proc is not mounted/, name);
      assert.match(hint, /^Mount proc /);
    }
    peer.close();
    actor.hangUp();
  },
);

testWith(here, "key is never a weaker one, and is read again after a failure", async () => {
  const limited = deny({ OPEN: EMFILE });
  const [[peer, sound], actor] = await startActor([], (socket) => {
    return [on(limited)(socket), on(deny({}))(socket)] as const;
  });
  assert.equal(peer.pinned, "connect");
  assert.equal(reasonOf(peer.facts.key).errno, EMFILE);
  assert.match(sound.key ?? "", /^[0-9a-f-]{36}-\d+$/);
  assert.equal(peer.key, undefined, "not the weaker kind");
  peer.close();
  sound.close();
  actor.hangUp();
});

testWith(here, "peerOfPid() closes the pidfd when the ids or groups cannot be read", () => {
  const before = pidfds();
  for (const calls of [{ OPEN: EMFILE }, { GET_INFO: 0, OPEN: ENOENT }, { PIDFD_OPEN: ENOENT }]) {
    assert.throws(() => peerOfPid(process.pid, deny(calls)), { name: "UcredError" });
  }
  assert.ok(pidfds() <= before);
});

testWith(here, "readCredentials() works without a free descriptor", async () => {
  const system = deny({ PEERPIDFD: EMFILE, OPEN: EMFILE, EPOLL_CREATE: EMFILE });
  const [{ uid }, actor] = await startActor([], (socket) => readCredentials(system, fdOf(socket)));
  assert.equal(uid, process.geteuid!());
  actor.hangUp();
});

testWith(here, "live() reads /proc when PIDFD_GET_INFO returns no ids", async () => {
  const [peer, actor] = await startActor([], on(deny({ GET_INFO: 0 })));
  const live = peer.live();
  assert.ok(live.alive && live.source === "procfs@now", "read from /proc instead");
  assert.equal(live.uid, peer.uid);
  peer.close();
  actor.hangUp();
  const denied = deny({ GET_INFO: 0, OPEN: ENOENT });
  const [other, second] = await startActor([], on(denied));
  assert.throws(() => other.live(), { name: "UcredError" });
  assert.throws(() => other.drift(), { name: "UcredError" });
  other.close();
  second.hangUp();
});

/** Members of a peer that need the call. */
const denied: readonly [string, (peer: Peer) => unknown][] = [
  ["POLL", (peer) => peer.alive],
  ["POLL", (peer) => peer.live()],
  ["POLL", (peer) => peer.drift()],
  ["EPOLL_CREATE", (peer) => peer.signal],
  ["EPOLL_CTL", (peer) => peer.signal],
  ["OPEN", (peer) => peer.drift()],
];
for (const [call, ask] of denied) {
  testWith(here, `${ask} throws when ${call} fails`, async () => {
    const [peer, actor] = await startActor([], on(deny({ [call]: EMFILE })));
    assert.equal(peer.pinned, "connect");
    const before = readdirSync("/proc/self/fd").length;
    for (let i = 0; i < 5; i++) {
      assert.throws(() => ask(peer), { name: "UcredError", code: /SYSCALL|UNSUPPORTED/ });
    }
    assert.ok(readdirSync("/proc/self/fd").length <= before);
    peer.close();
    actor.hangUp();
  });
}

testWith(
  here,
  "process.facts are unknown, with the errno, when their file cannot be read",
  async () => {
    const [peer, actor] = await startActor([], on(deny({ READLINK: EPERM })));
    const { exe, exeDeleted, namespaces, comm } = peer.process.facts;
    for (const fact of [exe, exeDeleted, namespaces]) {
      assert.deepEqual([reasonOf(fact).code, reasonOf(fact).errno], [
        "ERR_UCRED_PERMISSION",
        EPERM,
      ]);
    }
    assert.equal(comm.state, "known");
    assert.deepEqual(Object.keys(peer.process.toJSON().unknown ?? {}), [
      ...["exe", "exeDeleted"],
      // Our own cgroup namespace is read from a link, too.
      ...["slice", "unit", "userUnit", "container", "userContainer", "session"],
      "namespaces",
    ]);
    peer.close();
    actor.hangUp();
  },
);

for (
  const [call, errno] of [
    ["SOCKET", EMFILE],
    ["PASSCRED", ENOPROTOOPT],
    ["BIND", EACCES],
  ] as const
) {
  testWith(here, `receive() throws when ${call} fails, and leaves nothing behind`, () => {
    const system = deny({ [call]: errno });
    const before = readdirSync("/proc/self/fd").length;
    const path = freshPath();
    assert.throws(() => receiveOn(system, path), { name: "UcredError", errno });
    assert.ok(readdirSync("/proc/self/fd").length <= before);
    assert.equal(existsSync(path), false);
  });
}

testWith(here, "read() of a receiver throws when recvmsg fails", async () => {
  using receiver = receiveOn(deny({ RECVMSG: EMFILE }), freshPath());
  assert.throws(() => receiver.read(), { code: "ERR_UCRED_SYSCALL", errno: EMFILE });
  await assert.rejects(() => receiver.next(), { errno: EMFILE });
});

testWith(
  here,
  "receive() reports the sender's ids, but not its process, on Linux before 6.5",
  async () => {
    using receiver = receiveOn(deny({ PASSPIDFD: ENOPROTOOPT }), freshPath());
    execFileSync(senderProgram, [receiver.path, "hello"]);
    const { sender, forged } = (await receiver.next())!;
    assert.equal(sender.uid, process.getuid!());
    assert.deepEqual([sender.pinned, sender.alive, forged], [undefined, undefined, undefined]);
    assert.equal(reasonOf(sender.facts.pinned).code, "ERR_UCRED_UNSUPPORTED");
    assert.equal(reasonOf(sender.process.facts.exe).code, "ERR_UCRED_UNSUPPORTED");
  },
);

testWith(here, "receive() closes passed descriptors on Linux before 6.16", async () => {
  using receiver = receiveOn(deny({ PASSPIDFD: ENOPROTOOPT }), freshPath());
  const before = readdirSync("/proc/self/fd").length;
  for (const count of ["1", "2", "253"]) {
    execFileSync(senderProgram, ["--descriptors", count, receiver.path, "hello"]);
    assert.equal((await receiver.next())!.sender.uid, process.getuid!());
    // The pipes of the child close at any time.
    while (readdirSync("/proc/self/fd").length > before) await sleep(5);
  }
});

testWith(
  here,
  "receive() drops and counts datagrams without a sender",
  () => {
    using receiver = receiveOn(deny({ PASSCRED: 0, PASSPIDFD: ENOPROTOOPT }), freshPath());
    execFileSync(senderProgram, ["--repeat", "3", receiver.path, "hello"]);
    assert.equal(receiver.read(), undefined);
    assert.equal(receiver.dropped, 3);
  },
);
