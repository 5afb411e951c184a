/**
 * Descriptors of ours that other code of the process closes, and whose numbers it then uses: an error or an
 * unknown fact each time, never another process's answer; and what has the number now is left alone.
 */

import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { readdirSync, readlinkSync } from "node:fs";
import { constants } from "node:os";
import { openedSystem } from "../../adapters/select.ts";
import { SYS_PIDFD_OPEN } from "../../ffi/pidfd.ts";
import { OwnedDescriptor } from "../../system/owned_descriptor.ts";
import { fdOf } from "../../identity/fd.ts";
import { identifyFd } from "../../identity/identify.ts";
import type { Peer } from "../../mod.ts";
import { receive } from "../../servers/datagram.ts";
import { compileProgram } from "../support/compile.ts";
import { needs, testWith, until } from "../support/suite.ts";
import { deny } from "../identity/denying.ts";
import { freshPath, startActor } from "../support/peers.ts";

const here = [needs.linux, needs.cc, needs.peerPidfd];
const { ENOPROTOOPT, ENOTTY } = constants.errno as { readonly [name: string]: number };

const calls = () => openedSystem().libc.linux!;

/** Every open descriptor of this process, with what it is. */
function descriptors(): Map<number, string> {
  const found = new Map<number, string>();
  for (const fd of readdirSync("/proc/self/fd")) {
    try {
      found.set(Number(fd), readlinkSync(`/proc/self/fd/${fd}`));
    } catch {
      // the folder's own
    }
  }
  return found;
}

/** Runs something, and finds the one descriptor of a kind that it has opened. */
function opening<T>(kind: RegExp, run: () => T): [result: T, fd: number] {
  const before = descriptors();
  const result = run();
  const opened = [...descriptors()].filter(([fd, link]) => !before.has(fd) && kind.test(link));
  assert.equal(opened.length, 1, JSON.stringify(opened));
  return [result, opened[0]![0]];
}

/** Closes a number behind our back, and gives it to what another one means. */
function replace(fd: number, by: number | undefined): void {
  assert.equal(calls().close(fd), 0);
  if (by === undefined) return;
  const DUPFD = 0;
  assert.equal(calls().fcntl(by, DUPFD, fd), fd);
}

const PIDFD = /^(?:anon_inode:)?\[?pidfd/;
const EPOLL = /eventpoll/;

const strangers: ChildProcess[] = [];

/** A pidfd of a process that has nothing to do with us. */
function strangersPidfd(): number {
  const stranger = spawn("sleep", ["60"]);
  strangers.push(stranger);
  const pidfd = calls().syscall(SYS_PIDFD_OPEN, stranger.pid!, 0);
  assert.ok(pidfd >= 0);
  return pidfd;
}

const killStrangers = () => strangers.splice(0).forEach((stranger) => stranger.kill("SIGKILL"));

const kernels = [
  ["", undefined],
  [", on Linux before 6.9", { PEERPIDFD: ENOPROTOOPT, STATFS: 0, GET_INFO: ENOTTY }],
] as const;

for (const [name, denied] of kernels) {
  for (const reused of ["a stranger's pidfd", "no pidfd", "nothing"]) {
    testWith(here, `a pin whose number means ${reused} answers nothing${name}`, async () => {
      const system = denied === undefined ? openedSystem() : deny(denied);
      const [[peer, fd], actor] = await startActor([], (socket) => {
        return opening(PIDFD, () => identifyFd(system, fdOf(socket), { pin: true }));
      });
      assert.equal(peer.alive, true);
      const { signal } = peer;
      const by = reused === "nothing"
        ? undefined
        : reused === "no pidfd"
        ? calls().epoll_create1(0)
        : strangersPidfd();
      const snapshot = peer.process;
      replace(fd, by);
      const stolen = { name: "UcredError", code: "ERR_UCRED_NO_FD", message: /closed/ };
      assert.throws(() => peer.live(), stolen);
      assert.throws(() => peer.live(), stolen);
      assert.throws(() => peer.drift(), stolen);
      assert.equal(peer.alive, undefined);
      assert.equal(peer.key, undefined);
      for (const process of [snapshot, peer.process]) {
        for (const fact of ["exe", "exeSha256", "comm", "unit", "startTime"] as const) {
          const found = process.facts[fact];
          assert.equal(found.state === "unknown" && found.reason.code, "ERR_UCRED_NO_FD", fact);
        }
      }
      await until(() => signal?.aborted);
      assert.equal(signal!.reason.code, "ERR_UCRED_NO_FD");
      assert.equal(peer.signal?.aborted, true);
      peer.close();
      if (by === undefined) assert.equal(descriptors().has(fd), false);
      else {
        assert.equal(descriptors().get(fd), descriptors().get(by), "the number was left alone");
        calls().close(fd);
        calls().close(by);
      }
      killStrangers();
      actor.hangUp();
    });
  }

  testWith(here, `closing a pin closes no other descriptor${name}`, async () => {
    const system = denied === undefined ? openedSystem() : deny(denied);
    for (const by of [strangersPidfd(), calls().epoll_create1(0)]) {
      const [[peer, fd], actor] = await startActor([], (socket) => {
        return opening(PIDFD, () => identifyFd(system, fdOf(socket), { pin: true }));
      });
      replace(fd, by);
      peer.close();
      assert.equal(descriptors().get(fd), descriptors().get(by));
      calls().close(fd);
      calls().close(by);
      actor.hangUp();
    }
    killStrangers();
  });
}

testWith(
  here,
  "a pin whose number the next pin has got is lost, and the next one works",
  async () => {
    const [[first, second], actor] = await startActor([], (socket) => {
      const pin = () => identifyFd(openedSystem(), fdOf(socket), { pin: true });
      const [first, fd] = opening(PIDFD, pin);
      replace(fd, undefined);
      const [second, again] = opening(PIDFD, pin);
      assert.equal(again, fd);
      return [first, second];
    });
    assert.throws(() => first.live(), { code: "ERR_UCRED_NO_FD" });
    first.close();
    assert.equal(second.alive, true);
    second.close();
    actor.hangUp();
  },
);

testWith(here, "the end of a peer is noticed, whatever became of one descriptor", async () => {
  const pinned = async () =>
    await startActor([], (socket) => identifyFd(openedSystem(), fdOf(socket), { pin: true }));
  for (const reused of ["another epoll", "no epoll", "nothing"]) {
    const [[one, first], [other, second]] = await Promise.all([pinned(), pinned()]);
    const [signal, epoll] = opening(EPOLL, () => one.signal!);
    const ofOther = other.signal!;
    const by = reused === "nothing"
      ? undefined
      : reused === "no epoll"
      ? strangersPidfd()
      : calls().epoll_create1(0);
    replace(epoll, by);
    first.child.process.kill("SIGKILL");
    await until(() => signal.aborted);
    assert.equal(signal.reason.code, "ERR_UCRED_PEER_GONE");
    assert.equal(ofOther.aborted, false);
    const [third, actor] = await pinned();
    assert.equal(third.signal?.aborted, false); // watched, too
    second.child.process.kill("SIGKILL");
    await until(() => ofOther.aborted);
    actor.child.process.kill("SIGKILL");
    await until(() => third.signal!.aborted);
    for (const peer of [one, other, third] as Peer[]) peer.close();
    if (by !== undefined) {
      assert.equal(descriptors().get(epoll), descriptors().get(by), "the number was left alone");
      calls().close(epoll);
      calls().close(by);
    }
    killStrangers();
  }
});

testWith(
  here,
  "an epoll whose number means another one is not closed with the last peer",
  async () => {
    const [peer, actor] = await startActor([], (socket) => {
      return identifyFd(openedSystem(), fdOf(socket), { pin: true });
    });
    const [, epoll] = opening(EPOLL, () => peer.signal!);
    const by = calls().epoll_create1(0);
    replace(epoll, by);
    peer.close();
    assert.equal(descriptors().get(epoll), descriptors().get(by));
    calls().close(epoll);
    calls().close(by);
    actor.hangUp();
  },
);

testWith(here, "receive() takes nothing from another socket that has its number", () => {
  const sender = compileProgram(new URL("sender.c", import.meta.url));
  const [receiver, fd] = opening(/^socket:/, () => receive(freshPath()));
  const [other, otherFd] = opening(/^socket:/, () => receive(freshPath()));
  execFileSync(sender, [other.path, "hello"]);
  replace(fd, otherFd);
  assert.throws(() => receiver.read(), { code: "ERR_UCRED_NO_FD", message: /has closed/ });
  receiver.close();
  assert.equal(descriptors().get(fd), descriptors().get(otherFd), "the number was left alone");
  assert.equal(new TextDecoder().decode(other.read()!.data), "hello");
  other.close();
  calls().close(fd);
});

testWith([needs.linux], "OwnedDescriptor proves what it is, and closes nothing else", () => {
  const system = openedSystem();
  const DUPFD = 0;
  const fd = calls().epoll_create1(0);
  assert.throws(() => new OwnedDescriptor(system, calls(), 0x7ffffff0, "look"), {
    code: "ERR_UCRED_SYSCALL",
    syscall: "fstat",
  });
  const owned = new OwnedDescriptor(system, calls(), fd, "look");
  assert.equal(owned.use("look"), fd);
  owned.close();
  owned.close();
  assert.throws(() => owned.use("look"), { code: "ERR_UCRED_NO_FD" });
  assert.equal(calls().fcntl(0, DUPFD, fd), fd, "it was closed");
  owned.close();
  assert.equal(calls().close(fd), 0, "and what has the number now was not");
});
