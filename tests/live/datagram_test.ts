/** Datagrams of real processes, with the sender that the kernel reports, also for false claims. */

import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import type { Memory } from "../../adapters/libc.ts";
import { openedSystem } from "../../adapters/select.ts";
import { NO_ID } from "../../core/credentials.ts";
import { CONTROL_SIZE } from "../../ffi/message.ts";
import { receiveOn } from "../../identity/datagram.ts";
import { notifyAt } from "../../system/sd_notify.ts";
import {
  type Datagram,
  receive,
  type ReceiveOptions,
  type Receiver,
} from "../../servers/datagram.ts";
import { compileProgram } from "../support/compile.ts";
import { needs, testWith } from "../support/suite.ts";
import { Child, freshPath } from "../support/peers.ts";

const here = [needs.linux, needs.cc, needs.peerPidfd];
const rootHere = [...here, needs.root];
const sender: string = needs.linux.met && needs.cc.met
  ? compileProgram(new URL("sender.c", import.meta.url))
  : "";

const contentOf = ({ data }: Datagram) => new TextDecoder().decode(data);
const openDescriptors = () => readdirSync("/proc/self/fd").length;

/** A receiver to which every user may send. */
function open(options: ReceiveOptions = {}): Receiver {
  const path = freshPath();
  chmodSync(dirname(path), 0o755);
  return receive(path, { mode: 0o666, ...options });
}

/** Sends one datagram; the sender then waits until its input ends. */
async function send(receiver: Receiver, ...options: string[]): Promise<[Datagram, Child, number]> {
  const path = receiver.path.replace(/^\0/, "@");
  const child = new Child(sender, ["--wait", ...options, path, "hello"]);
  const pid = await child.json<number>();
  const datagram = await receiver.next();
  assert.ok(datagram);
  return [datagram, child, pid];
}

for (const path of ["a path", "\0ucred-datagram-test"]) {
  testWith(here, `receive() reports the sender, at ${JSON.stringify(path)}`, async () => {
    using receiver = path === "a path" ? open() : receive(`${path}-${process.pid}`);
    const [datagram, child, pid] = await send(receiver);
    const { sender: peer, truncated, from, forged } = datagram;
    assert.deepEqual([contentOf(datagram), truncated, from, forged], [
      "hello",
      false,
      undefined,
      false,
    ]);
    assert.deepEqual([peer.pid, peer.uid, peer.gid], [pid, process.getuid!(), process.getgid!()]);
    assert.deepEqual([peer.pinned, peer.alive, peer.process.exe], ["connect", true, sender]);
    assert.equal(peer.facts.uid.state === "known" && peer.facts.uid.source, "kernel@send");
    assert.deepEqual([peer.groups, peer.facts.groups.state], [undefined, "unknown"]);
    assert.throws(() => peer.drift(), { name: "UcredError" }, "groups are not known");
    await child.end();
    assert.deepEqual(peer.drift(), [{ fact: "alive", then: true, now: false }]);
    assert.equal(receiver.read(), undefined);
    assert.equal(peer.alive, undefined, "closed by the next read");
  });
}

testWith(
  rootHere,
  "receive() reports the sender's ids unchanged, and the name that the sender bound",
  async () => {
    using receiver = open();
    for (const id of [1, 65534, 2147483648, 4294967294]) {
      const [{ sender: peer, from, forged }, child] = await send(
        receiver,
        ...["--uid", String(id), "--bind", `@ucred-${process.pid}`],
      );
      assert.deepEqual([peer.uid, peer.gid, forged], [id, id, false]);
      assert.equal(from, `\0ucred-${process.pid}`);
      await child.end();
    }
  },
);

testWith(here, "receive() returns every datagram, in the order of its sender", async () => {
  using receiver = open();
  const count = 3000;
  const children = ["a", "b"].map((text) => {
    return spawn(sender, ["--repeat", String(count), receiver.path, text], { stdio: "ignore" });
  });
  const next: { [text: string]: number } = { a: 0, b: 0 };
  const before = openDescriptors();
  for await (const datagram of receiver) {
    const [text, number] = [contentOf(datagram)[0]!, Number(contentOf(datagram).slice(1))];
    assert.equal(number, next[text]!++, text);
    assert.equal(datagram.sender.pid, children["ab".indexOf(text)]!.pid);
    if (next["a"] === count && next["b"] === count) break;
  }
  assert.equal(receiver.dropped, 0);
  assert.ok(openDescriptors() <= before + 1, "at most one sender is open");
});

testWith(
  here,
  "next() lets the event loop turn while datagrams are pending all the time",
  async () => {
    using receiver = open();
    let turns = 0;
    const timer = setInterval(() => turns++);
    try {
      for (let count = 0; count < 2000 || turns === 0; count++) {
        assert.ok(count < 100_000, "a due timer runs");
        notifyAt(openedSystem(), receiver.path, "x"); // one is pending at each call of next()
        assert.equal(contentOf((await receiver.next())!), "x");
      }
    } finally {
      clearInterval(timer);
    }
  },
);

testWith(here, "receive() marks truncated datagrams", async () => {
  using receiver = open({ maxBytes: 1000 });
  for (
    const [size, truncated] of [[999, false], [1000, false], [1001, true], [50_000, true]] as const
  ) {
    const [datagram, child] = await send(receiver, "--size", String(size));
    assert.deepEqual([datagram.data.length, datagram.truncated], [Math.min(size, 1000), truncated]);
    await child.end();
  }
});

testWith(
  rootHere,
  "receive() marks a sender with ids that its process does not have",
  async () => {
    using receiver = open();
    const other = spawn("sleep", ["60"], { uid: 4321, gid: 4321 });
    try {
      const claim = async (claim: string) => {
        const [{ sender: { pid, uid }, forged }, child] = await send(receiver, "--claim", claim);
        await child.end();
        return [pid, uid, forged];
      };
      assert.deepEqual(await claim(`${other.pid},0,0`), [other.pid, 0, true]);
      assert.deepEqual(await claim(`${other.pid},4321,0`), [other.pid, 4321, true]);
      assert.deepEqual(await claim(`${process.pid},4321,4321`), [process.pid, 4321, true]);
      // Root can name any process with its true ids, which is not detected: as documented.
      assert.deepEqual(await claim(`${other.pid},4321,4321`), [other.pid, 4321, false]);
    } finally {
      other.kill();
    }
  },
);

testWith(
  rootHere,
  "receive() never reports another process than the sender, when it has no privileges",
  () => {
    using receiver = open();
    for (const claim of [`${process.pid},4321,4321`, "1,0,0"]) {
      const { status } = spawnSync(sender, ["--uid", "4321", "--claim", claim, receiver.path, "x"]);
      assert.equal(status, 5, claim);
    }
    assert.equal(receiver.read(), undefined);
  },
);

for (const count of [1, 2, 3, 253]) {
  const args = ["--descriptors", String(count)];
  testWith(here, `receive() keeps none of ${count} passed descriptors`, () => {
    using receiver = open();
    const before = openDescriptors();
    const { status } = spawnSync(sender, [...args, receiver.path, "x"], { stdio: "ignore" });
    const datagram = receiver.read();
    if (status === 5) assert.equal(datagram, undefined); // since Linux 6.16 the kernel rejects them
    else assert.equal(datagram?.sender.uid, process.getuid!());
    datagram?.sender.close();
    assert.ok(openDescriptors() <= before);
  });

  testWith(
    here,
    `receive() closes ${count} passed descriptors, with closeDescriptors`,
    async () => {
      using receiver = open({ closeDescriptors: true });
      const before = openDescriptors();
      const [{ sender: peer }, child, pid] = await send(receiver, ...args);
      assert.deepEqual([peer.pid, peer.pinned, peer.process.exe], [pid, "connect", sender]);
      peer.close();
      await child.end();
      while (openDescriptors() > before) await sleep(5); // the child's pipes
    },
  );
}

testWith(here, "receive() reports a sender that has ended", () => {
  using receiver = open();
  execFileSync(sender, [receiver.path, "gone"]);
  const datagram = receiver.read();
  assert.ok(datagram);
  assert.equal(contentOf(datagram), "gone");
  assert.deepEqual([datagram.sender.uid, datagram.sender.alive], [process.getuid!(), false]);
  assert.equal(datagram.forged, undefined);
  assert.equal(datagram.sender.process.exe, undefined);
});

testWith(here, "receive() leaves senders open, with pin", async () => {
  using receiver = open({ pin: true });
  const [first, child] = await send(receiver);
  assert.equal(receiver.read(), undefined);
  assert.equal(first.sender.alive, true);
  const { signal } = first.sender;
  await child.end();
  while (!signal?.aborted) await sleep(5);
  first.sender.close();
});

testWith(here, "close() of a receiver leaves nothing behind, and later reads throw", async () => {
  const before = openDescriptors();
  const receiver = open();
  const waiting = receiver.next();
  receiver.close();
  receiver.close();
  assert.equal(await waiting, undefined);
  assert.equal(await receiver.next(), undefined);
  assert.throws(() => receiver.read(), { code: "ERR_UCRED_NO_FD" });
  for await (const _ of receiver) assert.fail("no datagram was sent");
  assert.equal(existsSync(receiver.path), false);
  assert.ok(openDescriptors() <= before);
});

testWith(
  here,
  "close() of a receiver keeps a file that another process created at the path",
  () => {
    const receiver = open();
    rmSync(receiver.path);
    writeFileSync(receiver.path, "another's");
    receiver.close();
    assert.ok(existsSync(receiver.path));
  },
);

testWith(here, "receive() sets the requested mode, or one for our own user", () => {
  using receiver = open({ mode: 0o620 });
  assert.equal(statSync(receiver.path).mode & 0o777, 0o620);
  using other = receive(freshPath());
  assert.equal(statSync(other.path).mode & 0o777, 0o600);
});

testWith(here, "receive() throws when the path is in use", () => {
  using receiver = open();
  const before = openDescriptors();
  assert.throws(() => receive(receiver.path), {
    name: "UcredError",
    message: `Cannot receive datagrams at "${receiver.path}": a socket is bound there`,
    code: "ERR_UCRED_LISTEN",
    errno: 98,
  });
  assert.ok(openDescriptors() <= before);
  assert.ok(existsSync(receiver.path), "the other file stays");
  const file = freshPath();
  writeFileSync(file, "another's");
  const message = /: the existing file is not a socket$/;
  assert.throws(() => receive(file), { code: "ERR_UCRED_LISTEN", message });
  assert.equal(readFileSync(file, "utf8"), "another's");
});

testWith(
  here,
  "read() of a receiver returns no pin when the kernel passed none, and drops messages without a sender",
  () => {
    const system = openedSystem();
    const linux = system.libc.linux!;
    const memories: Memory[] = [];
    let change: (control: Uint32Array) => void = () => {};
    const calls: Partial<typeof linux> = {
      address(memory) {
        memories.push(memory);
        return linux.address(memory);
      },
      recvmsg(fd, message, flags) {
        const result = linux.recvmsg(fd, message, flags);
        if (result >= 0) change(memories.find(({ bytes }) => bytes.length === CONTROL_SIZE)!.words);
        return result;
      },
    };
    const libc = { ...system.libc, linux: { ...linux, ...calls } };
    using receiver = receiveOn({ ...system, libc }, freshPath());
    const before = openDescriptors();
    const receive = (next: typeof change): Datagram | undefined => {
      change = next;
      notifyAt(system, receiver.path, "x");
      return receiver.read();
    };
    // A cmsghdr has 4 words: its length in two, the level, and the type.
    const at = (words: Uint32Array, type: number) => {
      for (let word = 0; word + 4 < words.length; word += 2) {
        if (words[word + 2] === 1 && words[word + 3] === type) return word;
      }
      return assert.fail(`there is a message of type ${type}`);
    };
    const CREDENTIALS = 2, PIDFD = 4;
    for (const [errno, code] of [[3, "ERR_UCRED_PEER_GONE"], [24, "ERR_UCRED_SYSCALL"]] as const) {
      const { sender, forged } = receive((control) => {
        const word = at(control, PIDFD) + 4;
        linux.close(control[word]!);
        control[word] = -errno >>> 0;
      })!;
      const { pinned } = sender.facts;
      assert.equal(pinned.state === "unknown" && pinned.reason.code, code);
      assert.deepEqual([sender.pid, sender.pinned, forged], [process.pid, undefined, undefined]);
      assert.equal(sender.alive, code === "ERR_UCRED_PEER_GONE" ? false : undefined);
    }
    assert.equal(receive((control) => control[at(control, CREDENTIALS) + 3] = 99), undefined);
    assert.equal(receive((control) => control[at(control, CREDENTIALS) + 5] = NO_ID), undefined);
    assert.equal(receiver.dropped, 2);
    assert.ok(openDescriptors() <= before, "the pidfds are closed");
  },
);

testWith([], "receive() throws when the path is not valid for a socket", () => {
  for (const path of ["", "x".repeat(108), `\0${"x".repeat(108)}`, "a\0b", "ü".repeat(54)]) {
    assert.throws(() => receive(path), RangeError);
  }
  for (const maxBytes of [0, -1, 1.5, NaN, 2 ** 25]) {
    assert.throws(() => receive("/nowhere", { maxBytes }), RangeError);
  }
  for (const options of [{ maxBytes: 1 }, { maxBytes: 1 << 24, mode: 0 }, { mode: 0o777 }]) {
    assert.throws(() => receive("/nowhere/s", options), { name: "UcredError" });
  }
  assert.throws(() => receive("/nowhere/s", { size: 1 } as never), TypeError);
});
