/** Pins of our own process, with answers of the kernel that change, or that are malformed. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, statSync } from "node:fs";
import process from "node:process";
import type { Libc, LinuxCalls } from "../../adapters/libc.ts";
import { openedSystem, type System } from "../../adapters/select.ts";
import { NO_ID } from "../../core/credentials.ts";
import type { Fact } from "../../core/facts.ts";
import { LITTLE_ENDIAN } from "../../ffi/abi.ts";
import { LINUX_ERRNO } from "../../ffi/errno.ts";
import { PIDFD_INFO, POLLFD, POLLIN, POLLNVAL, SYS_PIDFD_OPEN } from "../../ffi/pidfd.ts";
import { peerOfBus } from "../../identity/peer_of_bus.ts";
import { peerOfPid } from "../../identity/peer_of_pid.ts";
import { Pin, pinPeer, pinPidfd } from "../../identity/process/pidfd.ts";
import { needs, testWith } from "../support/suite.ts";
import { pidfds } from "../support/peers.ts";

const here = [needs.linux, needs.peerPidfd];

const openDescriptors = (): number => readdirSync("/proc/self/fd").length;

/** Our system with some calls replaced, without caches. */
function systemWith(replaced: Partial<LinuxCalls>, getsockopt?: Libc["getsockopt"]): System {
  const { libc, ...system } = openedSystem();
  const linux = { ...libc.linux!, ...replaced };
  return { ...system, libc: { ...libc, ...(getsockopt && { getsockopt }), linux } };
}

const openPidfd = (): number =>
  openedSystem().libc.linux!.syscall(SYS_PIDFD_OPEN, process.pid, 0, 0);

/** Pins our own process, as if it had this pid, with some calls replaced. */
function pinWith(
  replaced: Partial<LinuxCalls>,
  { pid }: { readonly pid: number | undefined } = process,
): Pin {
  const system = systemWith(replaced);
  return new Pin(system, system.libc.linux!, openPidfd(), "accept", pid).retain();
}

/** Replaces files by these texts or −errno. The names are prefixes of paths. */
function withFiles(files: { readonly [path: string]: string | number }): Partial<LinuxCalls> {
  const { open, read, epoll_create1 } = openedSystem().libc.linux!;
  let left = "", standIn = -1;
  return {
    open: (path, flags) => {
      const name = new TextDecoder().decode(path.bytes.subarray(0, path.bytes.indexOf(0)));
      const found = Object.entries(files).find(([prefix]) => name.startsWith(prefix))?.[1];
      if (typeof found === "number") return found;
      const fd = found === undefined ? open(path, flags) : epoll_create1(0);
      [left, standIn] = [found ?? "", found === undefined ? -1 : fd];
      return fd;
    },
    read: (fd, into) => {
      if (fd !== standIn) return read(fd, into);
      const { written } = new TextEncoder().encodeInto(left, into.bytes);
      left = "";
      return written;
    },
  };
}

/** An fstatfs(2) as before Linux 6.9, where all pidfds have one inode number. */
const fstatfs: LinuxCalls["fstatfs"] = (_fd, into) => into.words.fill(0x09041934) && 0;

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
  const hidden = pinWith(withFiles({ [`/proc/${process.pid}/stat`]: -LINUX_ERRNO.ENOENT }));
  assert.throws(() => hidden.verified("look", "readlink", () => -LINUX_ERRNO.ENOENT), {
    ...{ code: "ERR_UCRED_PERMISSION", errno: LINUX_ERRNO.ENOENT, syscall: "readlink" },
    hint: /ProtectProc=/,
  });
  for (const each of [nameless, pin, hidden]) each.release();
});

testWith(here, "readIds() returns no ids of an earlier answer when the kernel wrote none", () => {
  let ioctl = answering({});
  const pin = pinWith({ ioctl: (...call) => ioctl(...call) });
  assert.equal(pin.readIds().source, "kernel@now");
  ioctl = () => 0;
  assert.equal(pin.readIds().source, "procfs@now");
  pin.release();
});

testWith(
  here,
  "verified() throws when /proc shows another pid namespace, or hides processes",
  () => {
    const look = () => assert.fail("not reached");
    const files: { [path: string]: string | number } = {};
    const pin = pinWith(withFiles(files));
    for (const status of ["NSpid:\t42\t7\n", "Name:\tx\n", -LINUX_ERRNO.ENOENT]) {
      files["/proc/self/status"] = status;
      const message = "Cannot look: /proc is not mounted, or shows another pid namespace";
      const error = { code: "ERR_UCRED_UNSUPPORTED", message, hint: /^Mount proc / };
      assert.throws(() => pin.verified("look", "read", look), error);
    }
    files["/proc/self/status"] = "NSpid:\t42\nGid:\t5\t5\t5\t5\nGroups:\t\n";
    assert.equal(pin.verified("look", "read", () => "found"), "found");
    files["/proc/self/mountinfo"] = "63 45 0:39 / /proc rw - proc proc rw,hidepid=2\n";
    for (
      const [name, isHidden] of [["EACCES", true], ["EPERM", true], ["EMFILE", false]] as const
    ) {
      const message = isHidden ? /: \/proc hides the process, by hidepid=/ : /: read failed with /;
      assert.throws(() => pin.verified("look", "read", () => -LINUX_ERRNO[name]), { message });
    }
    pin.release();
  },
);

testWith(here, "Pin recognises its pidfd by the pid in fdinfo, before Linux 6.9", () => {
  const { close } = openedSystem().libc.linux!;
  const files: { [path: string]: string | number } = {};
  const fdinfo = "/proc/self/fdinfo/";
  const start = () => {
    files[fdinfo] = "pos:\t0\nPid:\t42\n";
    return pinWith({ ...withFiles(files), fstatfs });
  };
  const pin = start();
  for (const now of ["Pid:\t42\n", "Pid:\t-1\n"]) {
    files[fdinfo] = now;
    assert.deepEqual([pin.isAlive(), pin.inode()], [true, undefined], now);
  }
  files[fdinfo] = -LINUX_ERRNO.EMFILE;
  assert.throws(() => pin.isAlive(), { code: "ERR_UCRED_SYSCALL", syscall: "open" });
  const { fd } = pin;
  pin.close();
  assert.deepEqual([pin.isStolen, close(fd)], [false, -LINUX_ERRNO.EBADF], "the inode is enough");
  for (const now of ["Pid:\t43\n", "Pid:\t4\n", "pos:\t0\n", -LINUX_ERRNO.ENOENT]) {
    for (const use of [(pin: Pin) => pin.isAlive(), (pin: Pin) => pin.close()]) {
      const other = start();
      const { fd } = other;
      files[fdinfo] = now;
      try {
        use(other);
      } catch (error) {
        assert.equal((error as { readonly code?: string }).code, "ERR_UCRED_NO_FD");
      }
      assert.deepEqual([other.isStolen, close(fd)], [true, 0], `it stays open: ${now}`);
    }
  }
});

testWith(
  here,
  "Pin throws, and closes the descriptor, without a property that identifies it",
  () => {
    const { close, epoll_create1 } = openedSystem().libc.linux!;
    const anonymous = { message: /: \/proc\/self\/fdinfo does not show its pid$/ };
    const failed = (call: string) => ({ message: new RegExp(`: ${call}$`) });
    for (
      const [replaced, fd, error] of [
        [{}, 0x7ffffff0, failed("fstat failed with EBADF")],
        [{}, epoll_create1(0), anonymous],
        [{ fstatfs: () => -LINUX_ERRNO.EIO }, openPidfd(), failed("fstatfs failed with EIO")],
        [
          { fstatfs, open: () => -LINUX_ERRNO.EMFILE },
          openPidfd(),
          failed("open failed with EMFILE"),
        ],
        [{ fstatfs, open: () => -LINUX_ERRNO.ENOENT }, openPidfd(), anonymous],
      ] as const
    ) {
      const system = systemWith(replaced);
      const { linux } = system.libc;
      assert.throws(() => new Pin(system, linux!, fd, "accept", 1), error);
      assert.equal(close(fd), -LINUX_ERRNO.EBADF);
    }
    const system = systemWith({});
    const pin = new Pin(system, system.libc.linux!, openPidfd(), "accept", process.pid);
    assert.equal(
      pin.inode() ?? "",
      statSync(`/proc/self/fd/${pin.fd}`, { bigint: true }).ino.toString(),
    );
    const other = epoll_create1(0);
    assert.throws(
      () => new Pin(system, system.libc.linux!, other, "accept", 1),
      anonymous,
    );
    pin.close();
  },
);

testWith(
  here,
  "pinPidfd() knows no pid of a process that was reaped, or is in another namespace",
  () => {
    for (const [text, pid] of [["-1", undefined], ["0", undefined], ["42", 42]] as const) {
      const system = systemWith(withFiles({ "/proc/self/fdinfo/": `Pid:\t${text}\n` }));
      const pin = pinPidfd(system, system.libc.linux!, openPidfd());
      assert.deepEqual([pin.pid, pin.kind], [pid, "connect"]);
      pin.close();
    }
  },
);

testWith(here, "pinPeer() pins by number only the process with the ids that connected", () => {
  const { ENOPROTOOPT, EINVAL, ENOENT, ESRCH, EMFILE, EPERM } = LINUX_ERRNO;
  const ours = { pid: process.pid, uid: process.geteuid!(), gid: process.getegid!() };
  const before = pidfds();
  const old = systemWith({}, () => ENOPROTOOPT);
  const pin = pinPeer(old, 7, ours);
  assert.deepEqual([pin.kind, pin.pid, pin.isAlive()], ["accept", process.pid, true]);
  pin.close();
  const without = (errno: number) => systemWith({ syscall: () => -errno }, () => ENOPROTOOPT);
  for (
    const [system, of, code] of [
      [old, { ...ours, uid: ours.uid + 1 }, "ERR_UCRED_UNSUPPORTED"],
      [old, { ...ours, gid: ours.gid + 1 }, "ERR_UCRED_UNSUPPORTED"],
      [old, { ...ours, pid: undefined }, "ERR_UCRED_UNSUPPORTED"],
      ...([EINVAL, ENOENT, ESRCH].map((e) => [without(e), ours, "ERR_UCRED_PEER_GONE"] as const)),
      [without(EMFILE), ours, "ERR_UCRED_SYSCALL"],
      [systemWith({}, () => EINVAL), ours, "ERR_UCRED_PEER_GONE"],
      [systemWith({}, () => EPERM), ours, "ERR_UCRED_PERMISSION"],
      [systemWith({}, () => EMFILE), ours, "ERR_UCRED_SYSCALL"],
    ] as const
  ) {
    assert.throws(() => pinPeer(system, 7, of), { name: "UcredError", code });
  }
  assert.ok(pidfds() <= before);
});

testWith(here, "close() leaves a number open that refers to another file", () => {
  const { close, epoll_create1 } = openedSystem().libc.linux!;
  const pin = pinWith({});
  const { fd } = pin;
  close(fd);
  assert.equal(epoll_create1(0), fd);
  pin.close();
  assert.deepEqual([pin.closed, pin.isStolen, close(fd)], [true, true, 0]);
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
  const { fcntl } = openedSystem().libc.linux!;
  const GETFD = 1;
  const pin = pinWith({});
  const { fd } = pin.retain();
  pin.release();
  assert.deepEqual([pin.closed, pin.fd, fcntl(fd, GETFD, 0)], [false, fd, 1]);
  pin.release();
  const isOpen = fcntl(fd, GETFD, 0) >= 0;
  assert.deepEqual([pin.closed, pin.isStolen, isOpen], [true, false, false]);
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
  const ended = Number(execFileSync("sh", ["-c", "echo $$"], { encoding: "utf8" }));
  const before = openDescriptors();
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
