/**
 * Descriptors of ours that other code of the process closes, with numbers that are then reused. Each use
 * must cause an error or an unknown fact, never a fact of another process. The new owner of the number
 * must keep it open.
 */

import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import {
  chmodSync,
  closeSync,
  openSync,
  readdirSync,
  readlinkSync,
  realpathSync,
  writeFileSync,
} from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { memoryOf } from "../../adapters/libc.ts";
import { openedSystem } from "../../adapters/select.ts";
import { AF_UNIX } from "../../ffi/abi.ts";
import { DATAGRAM_SOCKET, encodeAddress } from "../../ffi/message.ts";
import { SYS_PIDFD_OPEN } from "../../ffi/pidfd.ts";
import { KeptFile } from "../../system/kept_file.ts";
import { OwnedDescriptor } from "../../system/owned_descriptor.ts";
import { PrivateFolder, Purpose } from "../../system/private_folder.ts";
import { fdOf } from "../../identity/fd.ts";
import { identifyFd } from "../../identity/identify.ts";
import type { Peer } from "../../mod.ts";
import { receive } from "../../servers/datagram.ts";
import { compileProgram, temporaryFolder } from "../support/compile.ts";
import { needs, testWith, until } from "../support/suite.ts";
import { deny } from "../identity/denying.ts";
import { freshPath, startActor } from "../support/peers.ts";

const here = [needs.linux, needs.cc, needs.peerPidfd];
const { ENOPROTOOPT, ENOTTY } = constants.errno as { readonly [name: string]: number };

const calls = () => openedSystem().libc.linux!;

/** Returns every open descriptor of this process, with its link in /proc/self/fd. */
function descriptors(): Map<number, string> {
  const found = new Map<number, string>();
  for (const fd of readdirSync("/proc/self/fd")) {
    try {
      found.set(Number(fd), readlinkSync(`/proc/self/fd/${fd}`));
    } catch {
      // the descriptor that lists the folder
    }
  }
  return found;
}

/** Runs a function, and returns the one descriptor of a kind that it opened. */
function opening<T>(kind: RegExp, run: () => T): [result: T, fd: number] {
  const before = descriptors();
  const result = run();
  // The runtime opens and closes others meanwhile, and the number may be one of theirs.
  const opened = [...descriptors()].filter(([fd, link]) =>
    before.get(fd) !== link && kind.test(link)
  );
  assert.equal(opened.length, 1, JSON.stringify(opened));
  return [result, opened[0]![0]];
}

/** Closes a descriptor behind its owner's back, and duplicates another one to its number. */
function replace(fd: number, by: number | undefined): void {
  assert.equal(calls().close(fd), 0);
  if (by === undefined) return;
  const DUPFD = 0;
  assert.equal(calls().fcntl(by, DUPFD, fd), fd);
}

const PIDFD = /^(?:anon_inode:)?\[?pidfd/;
const EPOLL = /eventpoll/;

const strangers: ChildProcess[] = [];

/** Opens a pidfd of an unrelated process. */
function strangersPidfd(): number {
  const stranger = spawn("sleep", ["60"]);
  strangers.push(stranger);
  const pidfd = calls().syscall(SYS_PIDFD_OPEN, stranger.pid!, 0, 0);
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
    testWith(
      here,
      `process.facts are unknown when the pidfd's number is reused for ${reused}${name}`,
      async () => {
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
          assert.equal(descriptors().get(fd), descriptors().get(by), "the number is still open");
          calls().close(fd);
          calls().close(by);
        }
        killStrangers();
        actor.hangUp();
      },
    );
  }

  testWith(here, `close() of a peer leaves a reused number open${name}`, async () => {
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
  "signal aborts when only the watch can notice that the pidfd is stolen",
  async () => {
    const [[peer, fd], actor] = await startActor([], (socket) => {
      return opening(PIDFD, () => identifyFd(openedSystem(), fdOf(socket), { pin: true }));
    });
    const signal = peer.signal!;
    const by = strangersPidfd();
    replace(fd, by);
    await until(() => signal.aborted);
    assert.equal(signal.reason.code, "ERR_UCRED_NO_FD");
    assert.equal(descriptors().get(fd), descriptors().get(by), "the number is still open");
    calls().close(fd);
    calls().close(by);
    killStrangers();
    actor.hangUp();
  },
);

testWith(
  here,
  "identify() pins the next peer when it gets the number of a stolen pidfd",
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

testWith(
  here,
  "signal aborts when the peer ends after the number of the epoll was reused",
  async () => {
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
        assert.equal(descriptors().get(epoll), descriptors().get(by), "the number is still open");
        calls().close(epoll);
        calls().close(by);
      }
      killStrangers();
    }
  },
);

testWith(
  here,
  "close() of the last peer leaves the epoll's reused number open",
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

testWith(here, "read() of a receiver throws when another socket has its number", () => {
  const sender = compileProgram(new URL("sender.c", import.meta.url));
  const [receiver, fd] = opening(/^socket:/, () => receive(freshPath()));
  const [other, otherFd] = opening(/^socket:/, () => receive(freshPath()));
  execFileSync(sender, [other.path, "hello"]);
  replace(fd, otherFd);
  assert.throws(() => receiver.read(), { code: "ERR_UCRED_NO_FD", message: /has closed/ });
  receiver.close();
  assert.equal(descriptors().get(fd), descriptors().get(otherFd), "the number is still open");
  assert.equal(new TextDecoder().decode(other.read()!.data), "hello");
  other.close();
  calls().close(fd);
});

/** A thread closes the pidfd. It shares only the pid and the end of the loop with this one. */
const THIEF = new URL("thief.ts", import.meta.url);

testWith(
  here,
  "process.facts never describe another process when a thread closes the pidfd at any time",
  async () => {
    for (let round = 0; round < 5; round++) {
      const [[peer, fd], actor] = await startActor([], (socket) => {
        return opening(PIDFD, () => identifyFd(openedSystem(), fdOf(socket), { pin: true }));
      });
      const { pid, uid, key } = peer;
      const exe = peer.process.exe;
      assert.ok(pid !== undefined && key !== undefined && exe !== undefined);
      const by = strangersPidfd();
      const shared = new Int32Array(new SharedArrayBuffer(8));
      const worker = new Worker(THIEF, { workerData: { shared, fd, by } });
      const failed = new Promise((_, reject) => void worker.once("error", reject));
      const started = until(() => Atomics.load(shared, 0) > 0);
      await Promise.race([started, failed]);
      Atomics.add(shared, 0, 1); // the thread continues, at any point of the loop below
      Atomics.notify(shared, 0);
      let lost = false;
      while (!lost) {
        // Read before the facts: facts that are read after the theft must not be those of another process.
        const isOver = Atomics.load(shared, 1) !== 0;
        try {
          const live = peer.live();
          assert.ok(live.alive && live.uid === uid);
        } catch (error) {
          assert.equal((error as { code?: string }).code, "ERR_UCRED_NO_FD");
          lost = true;
        }
        assert.ok([key, undefined].includes(peer.key));
        const found = peer.process.facts.exe;
        if (found.state === "known") assert.equal(found.value, exe);
        else assert.equal(found.state === "unknown" && found.reason.code, "ERR_UCRED_NO_FD");
        assert.ok(!isOver || lost, "the theft was noticed");
      }
      await until(() => Atomics.load(shared, 1) !== 0);
      assert.equal(peer.alive, undefined);
      peer.close();
      const reused = Atomics.load(shared, 1);
      assert.match(descriptors().get(reused)!, PIDFD, "the number is still open");
      calls().close(reused);
      calls().close(by);
      await worker.terminate();
      killStrangers();
      actor.hangUp();
    }
  },
);

/**
 * A private folder that is used through descriptors, since every user can write beside it. Numbers that a
 * test takes from it stay open: in Deno's node:fs they still refer to the former file, and the kernel would
 * reuse them for the next one.
 */
function openPrivateFolder() {
  const outer = realpathSync(temporaryFolder());
  chmodSync(outer, 0o777);
  const path = join(outer, "s");
  const folder = PrivateFolder.open(path, true, new Purpose("listen", path));
  const fdAt = (path: string) => [...descriptors()].find(([, link]) => link === path)![0];
  const inner = fdAt(join(outer, ".s.ucred"));
  return { folder, outer: fdAt(outer), inner, lock: fdAt(join(outer, ".s.ucred/lock")) };
}

/** Binds a socket to a path. */
function bindSocket(path: string): number {
  const { libc } = openedSystem();
  const fd = calls().socket(AF_UNIX, DATAGRAM_SOCKET, 0);
  const address = encodeAddress(path)!;
  assert.equal(calls().bind(fd, memoryOf(libc, address), address.length), 0);
  return fd;
}

for (const which of ["outer", "inner"] as const) {
  testWith(
    [needs.linux],
    `PrivateFolder changes nothing when another folder has the number of its ${which} one`,
    () => {
      const opened = openPrivateFolder();
      const stranger = realpathSync(temporaryFolder());
      writeFileSync(join(stranger, "lock"), "");
      const by = openSync(stranger, "r");
      const socket = opened.folder.freeSocket();
      const bound = bindSocket(socket);
      replace(opened[which], by);
      const publish = () => opened.folder.publish(socket, { mode: 0o600 }, undefined);
      assert.throws(publish, { code: "ERR_UCRED_NO_FD", message: /has closed/ });
      opened.folder.end();
      assert.deepEqual(readdirSync(stranger), ["lock"]);
      assert.equal(descriptors().get(opened[which]), stranger, "the number is still open");
      calls().close(bound);
      closeSync(by);
    },
  );
}

testWith([needs.linux], "end() of a PrivateFolder leaves its lock's reused number open", () => {
  const { folder, lock } = openPrivateFolder();
  const other = join(realpathSync(temporaryFolder()), "other");
  writeFileSync(other, "");
  const by = openSync(other, "r");
  replace(lock, by);
  folder.end();
  assert.equal(descriptors().get(lock), other, "the number is still open");
  closeSync(by);
});

testWith([needs.linux], "KeptFile closes only the file that it was made for", () => {
  const folder = realpathSync(temporaryFolder());
  const [one, other] = ["one", "other"].map((name) => {
    writeFileSync(join(folder, name), "");
    return openSync(join(folder, name), "r");
  }) as [number, number];
  const kept = new KeptFile(one);
  assert.equal(kept.isOurs(), true);
  replace(one, other);
  assert.equal(kept.isOurs(), false);
  kept.close();
  assert.equal(descriptors().get(one), join(folder, "other"), "the number is still open");
  closeSync(other);
});

testWith([needs.linux], "OwnedDescriptor closes only the file that it was made for", () => {
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
  assert.equal(calls().close(fd), 0, "the new owner of the number is open");
});
