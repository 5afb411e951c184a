/** Pins of our own process, with answers of the kernel that change, or that are malformed. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import process from "node:process";
import type { LinuxCalls } from "../../adapters/libc.ts";
import { openedSystem } from "../../adapters/select.ts";
import { NO_ID } from "../../core/credentials.ts";
import type { Fact } from "../../core/facts.ts";
import { LITTLE_ENDIAN } from "../../ffi/abi.ts";
import { LINUX_ERRNO } from "../../ffi/errno.ts";
import { PIDFD_INFO, POLLFD, POLLIN, POLLNVAL, SYS_PIDFD_OPEN } from "../../ffi/pidfd.ts";
import { peerOfBus } from "../../identity/peer_of_bus.ts";
import { peerOfPid } from "../../identity/peer_of_pid.ts";
import { Pin } from "../../identity/process/pidfd.ts";
import { needs, testWith } from "../support/suite.ts";
import { pidfds } from "../support/peers.ts";

const here = [needs.linux, needs.peerPidfd];

const openDescriptors = (): number => readdirSync("/proc/self/fd").length;

/** Pins our own process, as if it had this pid, with some calls replaced. */
function pinWith(
  replaced: Partial<LinuxCalls>,
  { pid }: { readonly pid: number | undefined } = process,
): Pin {
  const system = { ...openedSystem() }; // without caches
  const linux = system.libc.linux!;
  const fd = linux.syscall(SYS_PIDFD_OPEN, process.pid, 0, 0);
  return new Pin(system, { ...linux, ...replaced }, fd, "accept", pid).retain();
}

/** A poll(2) that reports these events. */
const polling = (revents: () => number): LinuxCalls["poll"] => (memory) => {
  new Int16Array(memory.bytes.buffer)[POLLFD.revents / 2] = revents();
  return 1;
};

const IDS = ["ruid", "rgid", "euid", "egid", "suid", "sgid", "fsuid", "fsgid"] as const;
type Answer = Partial<Record<typeof IDS[number] | "mask" | "tgid" | "result", number>>;

/** An ioctl(2) that returns these ids; 7 by default. */
const answering = (answer: Answer): LinuxCalls["ioctl"] => (_fd, _request, { words }) => {
  const { mask = 3, tgid = process.pid, result = 0 } = answer;
  words[PIDFD_INFO.mask / 4 + (LITTLE_ENDIAN ? 0 : 1)] = mask;
  words[PIDFD_INFO.tgid / 4] = tgid;
  for (const name of IDS) words[PIDFD_INFO[name] / 4] = answer[name] ?? 7;
  return result;
};

testWith(here, "readIds() returns the ids of PIDFD_GET_INFO if they are complete", () => {
  for (const answer of [{}, { mask: 2, tgid: 1 }]) {
    const pin = pinWith({ ioctl: answering(answer) });
    const { ids, source } = pin.readIds();
    assert.deepEqual([ids.euid, ids.fsgid, source], [7, 7, "kernel@now"]);
    pin.release();
  }
  const incomplete: Answer[] = [{ mask: 0 }, { mask: 1 }, { result: 1 }, { result: -25 }];
  for (const answer of [...incomplete, ...IDS.map((name) => ({ [name]: NO_ID }))]) {
    const pin = pinWith({ ioctl: answering(answer) });
    const { ids, source } = pin.readIds();
    assert.deepEqual(
      [ids.euid, source],
      [process.geteuid!(), "procfs@now"],
      JSON.stringify(answer),
    );
    pin.release();
  }
});

testWith(here, "readIds() throws when the pidfd has another pid, or the process has ended", () => {
  const other = pinWith({ ioctl: answering({ tgid: process.pid + 1 }) });
  assert.throws(() => other.readIds(), {
    code: "ERR_UCRED_SYSCALL",
    message: /: ioctl returned pid /,
  });
  const ended = pinWith({ ioctl: answering({}), poll: polling(() => POLLIN) });
  assert.throws(() => ended.readIds(), { code: "ERR_UCRED_PEER_GONE" });
  const unknown = pinWith({ ioctl: answering({}) }, { pid: undefined });
  assert.equal(unknown.readIds().ids.euid, 7, "its pid is not known");
  for (const pin of [other, ended, unknown]) pin.release();
});

testWith(here, "verified() throws when the process ends, or the pidfd is closed, meanwhile", () => {
  let revents = 0;
  const look = (): string => {
    revents = POLLIN;
    return "a fact of another process";
  };
  const ended = pinWith({ poll: polling(() => revents) });
  assert.equal(ended.verified("look", "read", (folder) => folder), `/proc/${process.pid}/`);
  const gone = { code: "ERR_UCRED_PEER_GONE", message: "Cannot look: the process has ended" };
  assert.throws(() => ended.verified("look", "read", look), gone);
  assert.throws(() => ended.verified("look", "read", () => assert.fail("not reached")), gone);
  ended.release();

  const { close, epoll_create1 } = openedSystem().libc.linux!;
  const stolen = pinWith({});
  const { fd } = stolen;
  const steal = (): string => {
    close(fd);
    assert.equal(epoll_create1(0), fd);
    return "a fact of another process";
  };
  assert.throws(() => stolen.verified("look", "read", steal), { code: "ERR_UCRED_NO_FD" });
  assert.deepEqual([stolen.closed, stolen.isStolen], [true, true]);
  stolen.release();
  assert.equal(close(fd), 0, "the new owner of the number is open");
});

testWith(here, "verified() throws without a pid, and for each errno of a read", () => {
  const nameless = pinWith({}, { pid: undefined });
  const look = () => assert.fail("not reached");
  assert.throws(() => nameless.verified("look", "read", look), {
    code: "ERR_UCRED_UNSUPPORTED",
    message: "Cannot look: the process has no pid in our pid namespace",
  });
  const pin = pinWith({});
  for (
    const [name, code] of [
      ["ENOENT", "ERR_UCRED_SYSCALL"],
      ["EACCES", "ERR_UCRED_PERMISSION"],
      ["EPERM", "ERR_UCRED_PERMISSION"],
      ["EMFILE", "ERR_UCRED_SYSCALL"],
    ] as const
  ) {
    const message = `Cannot look: readlink failed with ${name}`; // it is not hidden by hidepid=
    assert.throws(() => pin.verified("look", "readlink", () => -LINUX_ERRNO[name]), {
      code,
      message,
    });
  }
  const { open } = openedSystem().libc.linux!;
  const nameOf = ({ bytes }: { readonly bytes: Uint8Array }) =>
    new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)));
  const hidden = pinWith({
    open: (path, flags) => nameOf(path).endsWith("/stat") ? -LINUX_ERRNO.ENOENT : open(path, flags),
  });
  assert.throws(() => hidden.verified("look", "readlink", () => -LINUX_ERRNO.ENOENT), {
    ...{ code: "ERR_UCRED_PERMISSION", errno: LINUX_ERRNO.ENOENT, syscall: "readlink" },
    hint: /ProtectProc=/,
  });
  for (const each of [nameless, pin, hidden]) each.release();
});

testWith(here, "isAlive() throws when poll(2) fails, and when the pidfd is not open", () => {
  const failing = pinWith({ poll: () => -LINUX_ERRNO.ENOMEM });
  assert.throws(() => failing.isAlive(), { code: "ERR_UCRED_SYSCALL", syscall: "poll" });
  const closed = pinWith({ poll: polling(() => POLLNVAL | POLLIN) });
  assert.throws(() => closed.isAlive(), { code: "ERR_UCRED_NO_FD" });
  assert.deepEqual([failing.closed, closed.closed, closed.isStolen], [false, true, true]);
  for (const pin of [failing, closed]) pin.release();
});

testWith(here, "release() closes the pidfd with the last peer, and fd throws from then on", () => {
  const before = pidfds();
  const pin = pinWith({});
  const { fd } = pin.retain();
  pin.release();
  assert.deepEqual([pin.closed, pin.fd, pidfds()], [false, fd, before + 1]);
  pin.release();
  assert.deepEqual([pin.closed, pin.isStolen, pidfds()], [true, false, before]);
  const message = /^Cannot read the peer's process: the peer was closed$/;
  assert.throws(() => pin.fd, { code: "ERR_UCRED_NO_FD", message });
  pin.close();
});

testWith(here, "release() of a forgotten peer leaves the pidfd to its watch", () => {
  const pin = pinWith({});
  let ends = 0;
  pin.watched(() => ends++);
  pin.release(true);
  assert.deepEqual([pin.closed, ends], [false, 0]);
  pin.unwatched();
  assert.equal(pin.closed, true);
  const other = pinWith({});
  other.release(true);
  assert.equal(other.closed, true, "without a watch");
  const closed = pinWith({});
  closed.watched(() => ends++);
  closed.close();
  assert.deepEqual([closed.closed, ends], [true, 1]);
});

testWith(here, "peerOfPid() returns the current ids of a process", () => {
  using peer = peerOfPid(process.pid);
  const list = /^Groups:(.*)$/m.exec(readFileSync("/proc/self/status", "utf8"))![1]!;
  const groups = new Set([
    ...list.trim().split(/\s+/).filter(Boolean).map(Number),
    process.getegid!(),
  ]);
  assert.deepEqual([peer.pid, peer.uid, peer.gid], [
    ...[process.pid, process.geteuid!(), process.getegid!()],
  ]);
  assert.deepEqual(peer.groups, [...groups].sort((a, b) => a - b));
  assert.deepEqual([peer.pinned, peer.alive, peer.drift()], ["accept", true, []]);
  assert.deepEqual([peer.facts.groups.state, peer.facts.label.state], ["known", "unknown"]);
  const before = openDescriptors();
  const ended = Number(execFileSync("sh", ["-c", "echo $$"], { encoding: "utf8" }));
  assert.throws(() => peerOfPid(ended), { code: "ERR_UCRED_PEER_GONE" });
  assert.ok(openDescriptors() <= before);
});

testWith(here, "peerOfBus() returns only the reported facts", () => {
  const { linux } = openedSystem().libc;
  const open = (pid: number) => linux!.syscall(SYS_PIDFD_OPEN, pid, 0, 0);
  const codeOf = (fact: Fact<unknown>) => fact.state === "unknown" ? fact.reason.code : fact.state;
  const before = openDescriptors();
  const nothing = { uid: 7, groups: undefined, pid: undefined, label: undefined };
  const unknown = peerOfBus(nothing, undefined);
  assert.deepEqual([unknown.uid, unknown.pid, unknown.groups], [7, undefined, undefined]);
  const { facts } = unknown;
  for (const fact of [facts.pid, facts.gid, facts.groups, facts.label, facts.groupNames]) {
    assert.equal(codeOf(fact), "ERR_UCRED_UNSUPPORTED");
  }
  assert.equal(codeOf(facts.pinned), "ERR_UCRED_NOT_PINNED");
  assert.deepEqual([unknown.ambiguous, unknown.alive], [["gid"], undefined]);

  const reported = { uid: 7, groups: [7, 9], pid: 5, label: "x" };
  using peer = peerOfBus(reported, open(process.pid));
  assert.deepEqual([peer.pid, peer.groups, peer.label], [5, [7, 9], "x"]);
  assert.deepEqual([peer.pinned, peer.alive], ["connect", true]);
  assert.equal(
    peer.process.cmdline?.length,
    readFileSync("/proc/self/cmdline", "utf8").split("\0").length - 1,
  );
  assert.throws(() => peer.drift(), { code: "ERR_UCRED_UNSUPPORTED", message: /gid: the bus/ });
  peer.close();

  const other = peerOfBus(reported, linux!.epoll_create1(0));
  assert.equal(codeOf(other.facts.pinned), "ERR_UCRED_UNSUPPORTED");
  assert.deepEqual([other.uid, other.alive, other.process.exe], [7, undefined, undefined]);
  assert.ok(openDescriptors() <= before);
});
