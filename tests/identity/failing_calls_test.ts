/** Linux calls that fail, or return short or malformed answers: each causes an error, never an identity. */

import assert from "node:assert/strict";
import { constants } from "node:os";
import { UcredError, type UcredErrorCode } from "../../core/errors.ts";
import { LINUX_ERRNO, namesOf } from "../../ffi/errno.ts";
import { LINUX_OPTIONS } from "../../ffi/linux.ts";
import { readCredentials } from "../../identity/credentials.ts";
import { readGroups, supplementaryGroups } from "../../identity/groups.ts";
import { identifyFd } from "../../identity/identify.ts";
import { readLabel } from "../../identity/security_label.ts";
import type { Fact } from "../../core/facts.ts";
import { needs, testWith } from "../support/suite.ts";
import { type Answer, FakeLibc, option, words } from "../support/fake_libc.ts";

const FD = 7;
const AF_UNIX = 1, AF_INET = 2, AF_BLUETOOTH = 31;
const { SOL_SOCKET, SO_PEERCRED, SO_ACCEPTCONN, SO_PEERGROUPS, SO_PEERSEC } =
  LINUX_OPTIONS[process.arch] ?? LINUX_OPTIONS["x64"]!;
const socketOption = (name: number) => option(SOL_SOCKET, name);

const family = (number: number, call: "getsockname" | "getpeername" = "getsockname"): Answer => ({
  call,
  size: 16,
  bytes: new Uint8Array(new Uint16Array([number]).buffer),
});
const accepting = (value: number): Answer => ({
  call: "getsockopt",
  key: socketOption(SO_ACCEPTCONN),
  bytes: words(value),
});
const peerName = family(AF_UNIX, "getpeername");
const connection = [peerName, family(AF_UNIX), accepting(0)];

const peercred = (answer: Partial<Answer>): Answer => ({
  call: "getsockopt",
  key: socketOption(SO_PEERCRED),
  ...answer,
});
const root = peercred({ bytes: words(42, 0, 0) });
const alice = peercred({ bytes: words(42, 1000, 100) });

const here = [needs.linux, needs.cc];
const fake = needs.linux.met && needs.cc.met ? new FakeLibc() : undefined!;

/** Expects this error twice, since a wrong answer must not be cached. */
function refused(answers: readonly Answer[], code: UcredErrorCode, errno?: number): void {
  fake.answer(...answers);
  const system = fake.open();
  for (let time = 0; time < 2; time++) {
    for (const ask of [readCredentials, identifyFd]) {
      assert.throws(() => ask(system, FD), (error) => {
        assert.ok(error instanceof UcredError, String(error));
        assert.deepEqual([error.code, error.errno], [code, errno], error.message);
        assert.ok(error.hint !== "");
        assert.match(error.message, /^Cannot .*: (?:getsock(?:opt|name) |it is )/);
        return true;
      });
    }
  }
}

testWith(here, "readCredentials() returns the credentials of a complete answer", () => {
  fake.answer(root, ...connection);
  assert.deepEqual(readCredentials(fake.open(), FD), { pid: 42, uid: 0, gid: 0 });
});

testWith(
  here,
  "readCredentials() makes one call for a certain connection of another process",
  () => {
    fake.answer(alice, ...connection);
    const expected = { pid: 42, uid: 1000, gid: 100 };
    assert.deepEqual(readCredentials(fake.open(), FD, true), expected);
    assert.deepEqual([fake.count("getsockopt"), fake.count("getpeername")], [1, 0]);
    assert.deepEqual(readCredentials(fake.open(), FD), expected);
    assert.equal(fake.count("getpeername"), 1);
  },
);

for (
  const [name, answers] of [
    ["our own pid, as of a listener", [
      peercred({ bytes: words(process.pid, 0, 0) }),
      ...[family(AF_UNIX), accepting(1)],
    ]],
    ["no pid", [peercred({ bytes: words(0, 0, 0) }), family(AF_UNIX), accepting(1)]],
    ["no peer", [peercred({ bytes: words(0, -1, -1) }), family(AF_UNIX), accepting(0)]],
  ] as const
) {
  testWith(here, `readCredentials() checks the socket if the answer has ${name}, always`, () => {
    fake.answer(...answers);
    for (const isConnection of [true, false]) {
      assert.throws(() => readCredentials(fake.open(), FD, isConnection), {
        code: "ERR_UCRED_NO_PEER",
      });
    }
  });
}

const CODES: { readonly [name: string]: UcredErrorCode } = {
  EBADF: "ERR_UCRED_NO_FD",
  ENOTSOCK: "ERR_UCRED_NOT_UNIX",
  ENOTCONN: "ERR_UCRED_NO_PEER",
  ENODATA: "ERR_UCRED_NO_PEER",
  ENOPROTOOPT: "ERR_UCRED_UNSUPPORTED",
  ESRCH: "ERR_UCRED_PEER_GONE",
  ENOSYS: "ERR_UCRED_UNSUPPORTED",
  EPERM: "ERR_UCRED_PERMISSION",
  EACCES: "ERR_UCRED_PERMISSION",
};

// polkit CVE-2021-3560: after an error, a request had the initial value of the uid, which was 0.
testWith(
  here,
  "readCredentials() throws an error with the errno and its name, for each errno from 1 to 133",
  () => {
    const numbers = constants.errno as { [name: string]: number };
    const codes = new Map(Object.entries(CODES).map(([name, code]) => [numbers[name], code]));
    const names = namesOf(LINUX_ERRNO);
    const system = fake.open();
    for (let error = 1; error <= 133; error++) {
      // The answer is root's, and would be accepted if the result was ignored.
      fake.answer(peercred({ result: -1, error, bytes: words(1, 0, 0) }), ...connection);
      assert.throws(() => readCredentials(system, FD), (thrown) => {
        assert.ok(thrown instanceof UcredError);
        assert.equal(thrown.errno, error);
        assert.equal(thrown.syscall, "getsockopt");
        assert.equal(thrown.code, codes.get(error) ?? "ERR_UCRED_SYSCALL");
        assert.ok(thrown.message.endsWith(`with ${names[error] ?? `errno ${error}`}`));
        return true;
      });
    }
  },
);

for (const result of [-1, -2, 1, 12, 0x7fffffff, -0x80000000]) {
  testWith(here, `readCredentials() throws when the result is ${result} without an errno`, () => {
    refused([peercred({ result, bytes: words(1, 0, 0) }), ...connection], "ERR_UCRED_SYSCALL");
  });
}

for (const size of [0, 4, 8, 11, 13, 16, 0xffffffff]) {
  testWith(
    here,
    `readCredentials() throws when the answer reports a length of ${size | 0} bytes`,
    () => {
      const bytes = words(1, 0, 0).subarray(0, Math.min(size, 12));
      // −1 makes the fake library keep the size; −2 stands for 2³² − 2.
      const reported = size === 0xffffffff ? -2 : size;
      refused([peercred({ size: reported, bytes }), ...connection], "ERR_UCRED_SYSCALL");
    },
  );
}

for (const length of [0, 4, 8]) {
  testWith(here, `readCredentials() throws when only ${length} of 12 bytes were written`, () => {
    const bytes = words(1, 0, 0).subarray(0, length);
    refused([peercred({ size: 12, bytes }), ...connection], "ERR_UCRED_NO_PEER");
  });
}

for (
  const [name, ids] of [
    ["no peer", [0, -1, -1]],
    ["uid 2³² − 1", [1, -1, 0]],
    ["gid 2³² − 1", [1, 0, -1]],
    ["a negative pid", [-1, 0, 0]],
    ["only ones", [-1, -1, -1]],
  ] as const
) {
  testWith(here, `readCredentials() throws when the answer has ${name}`, () => {
    refused([peercred({ bytes: words(...ids) }), ...connection], "ERR_UCRED_NO_PEER");
  });
}

for (
  const [name, answers, code, errno] of [
    ["a listener", [family(AF_UNIX), accepting(1)], "ERR_UCRED_NO_PEER"],
    ["a socket that may be a listener", [family(AF_UNIX), accepting(2)], "ERR_UCRED_NO_PEER"],
    ["TCP", [family(AF_INET), accepting(0)], "ERR_UCRED_NOT_UNIX"],
    ["Bluetooth, which also answers", [family(AF_BLUETOOTH), accepting(0)], "ERR_UCRED_NOT_UNIX"],
    ["TCP with a peer", [family(AF_INET, "getpeername"), family(AF_INET)], "ERR_UCRED_NOT_UNIX"],
    [
      "Bluetooth with a peer",
      [family(AF_BLUETOOTH, "getpeername"), family(AF_BLUETOOTH), accepting(0)],
      "ERR_UCRED_NOT_UNIX",
    ],
    ["a socket with a peer of no family", [
      { ...peerName, bytes: new Uint8Array() },
      ...[family(AF_UNIX), accepting(0)],
    ], "ERR_UCRED_NO_PEER"],
    ["a socket without a peer", [
      { ...peerName, result: -1, error: 107 },
      ...[family(AF_UNIX), accepting(0)],
    ], "ERR_UCRED_NO_PEER"],
    ["a socket without a family", [{ call: "getsockname" }, accepting(0)], "ERR_UCRED_NOT_UNIX"],
    [
      "a socket with a failing getsockname()",
      [{ call: "getsockname", result: -1, error: 12 }, accepting(0)],
      "ERR_UCRED_SYSCALL",
      12,
    ],
    [
      "a socket with a failing SO_ACCEPTCONN",
      [family(AF_UNIX), { ...accepting(0), result: -1, error: 22 }],
      "ERR_UCRED_SYSCALL",
      22,
    ],
    [
      "a socket with a short SO_ACCEPTCONN",
      [family(AF_UNIX), { ...accepting(0), size: 2 }],
      "ERR_UCRED_SYSCALL",
    ],
    [
      "a socket with an SO_ACCEPTCONN that was not written",
      [family(AF_UNIX), { ...accepting(0), bytes: new Uint8Array() }],
      "ERR_UCRED_NO_PEER",
    ],
  ] as readonly (readonly [string, readonly Answer[], UcredErrorCode, number?])[]
) {
  testWith(here, `readCredentials() throws for ${name}, with any credentials`, () => {
    for (const answer of [root, alice]) refused([answer, ...answers], code, errno);
  });
}

testWith(here, "readCredentials() verifies a descriptor again when it has another peer", () => {
  const system = fake.open();
  fake.answer(alice, ...connection);
  const first = readCredentials(system, FD);
  assert.equal(readCredentials(system, FD), first);
  assert.deepEqual([fake.count("getpeername"), fake.count("getsockname")], [1, 0]);
  for (const ids of [[43, 1000, 100], [42, 0, 100], [42, 1000, 0]]) {
    fake.answer(peercred({ bytes: words(...ids) }), family(AF_UNIX), accepting(1));
    assert.throws(() => readCredentials(system, FD), { code: "ERR_UCRED_NO_PEER" });
  }
  fake.answer(alice, family(AF_UNIX), accepting(1));
  assert.throws(() => readCredentials(system, FD + 1), { code: "ERR_UCRED_NO_PEER" });
});

for (const [name, pid] of [["our own pid", process.pid], ["no pid", 0]] as const) {
  testWith(here, `readCredentials() verifies each answer that has ${name}`, () => {
    const system = fake.open();
    for (const value of [0, 1]) {
      const kind = value === 0 ? connection : [family(AF_UNIX), accepting(value)];
      fake.answer(peercred({ bytes: words(pid, 0, 0) }), ...kind);
      if (value === 0) assert.equal(readCredentials(system, FD).uid, 0);
      else assert.throws(() => readCredentials(system, FD), { code: "ERR_UCRED_NO_PEER" });
    }
  });
}

const groups = (answer: Partial<Answer>): Answer => ({
  call: "getsockopt",
  key: socketOption(SO_PEERGROUPS),
  ...answer,
});
const OF = { pid: 42, uid: 1000, gid: 100 };
const many = Uint32Array.from({ length: 65536 }, (_, index) => index);

for (
  const [name, answer, expected] of [
    ["only the gid without supplementary groups", { size: 0 }, [100]],
    ["nine groups", { size: 36, bytes: words(1, 2, 3, 4, 5, 6, 7, 8, 9) }, [
      1,
      2,
      3,
      4,
      5,
      6,
      7,
      8,
      9,
      100,
    ]],
    ["32 groups, which just fit", { size: 128, bytes: words(...many.subarray(200, 232)) }, [
      100,
      ...many.subarray(200, 232),
    ]],
    ["33 groups, which need more memory", {
      need: 132,
      size: 132,
      bytes: words(...many.subarray(200, 233)),
    }, [
      100,
      ...many.subarray(200, 233),
    ]],
    ["65536 groups", { need: 262144, size: 262144, bytes: words(...many) }, [...many]],
    ["sorted groups without duplicates", { size: 16, bytes: words(9, 100, 3, 9) }, [3, 9, 100]],
    ["groups above 2³¹", { size: 8, bytes: words(4294967294, 2147483648) }, [
      100,
      2147483648,
      4294967294,
    ]],
  ] as readonly (readonly [string, Partial<Answer>, readonly number[]])[]
) {
  testWith(here, `readGroups() returns ${name}`, () => {
    fake.answer(groups(answer));
    const fact = readGroups(fake.open(), FD, OF);
    assert.deepEqual(fact, { state: "known", value: expected, source: "kernel@connect" });
  });
}

for (
  const [name, answer, code] of [
    ["an old kernel", { result: -1, error: 92 }, "ERR_UCRED_UNSUPPORTED"],
    ["no data", { result: -1, error: 61 }, "ERR_UCRED_NO_PEER"],
    ["another errno", { result: -1, error: 22 }, "ERR_UCRED_SYSCALL"],
    ["no errno", { result: -1 }, "ERR_UCRED_SYSCALL"],
    ["ERANGE for any size", { result: -1, error: 34 }, "ERR_UCRED_SYSCALL"],
    [
      "ERANGE with a useless size",
      { result: -1, error: 34, size: -2 },
      "ERR_UCRED_SYSCALL",
    ],
    ["half a group", { size: 6, bytes: words(0, 0) }, "ERR_UCRED_SYSCALL"],
    ["more bytes than requested", { size: 4096, bytes: words(0) }, "ERR_UCRED_SYSCALL"],
    ["groups that were not written", { size: 8, bytes: words(1) }, "ERR_UCRED_SYSCALL"],
  ] as readonly (readonly [string, Partial<Answer>, UcredErrorCode])[]
) {
  testWith(here, `identify() returns a peer with unknown groups after ${name}`, () => {
    fake.answer(alice, ...connection, groups(answer));
    const peer = identifyFd(fake.open(), FD);
    assert.deepEqual([peer.pid, peer.uid, peer.gid], [42, 1000, 100]);
    assert.equal(peer.groups, undefined);
    assert.equal(peer.groupNames, undefined);
    isUnknown(peer.facts.groups, code);
    isUnknown(peer.facts.groupNames, code);
  });
}

function isUnknown(fact: Fact<unknown>, code: UcredErrorCode): void {
  assert.equal(fact.state, "unknown");
  assert.equal(fact.state === "unknown" && fact.reason.code, code);
}

const label = (answer: Partial<Answer>): Answer => ({
  call: "getsockopt",
  key: socketOption(SO_PEERSEC),
  ...answer,
});
const text = (value: string) => new TextEncoder().encode(value);
const long = "system_u:system_r:".padEnd(1000, "x");

for (
  const [name, answer, expected] of [
    ["without a final NUL", { size: 10, bytes: text("unconfined") }, "unconfined"],
    ["with a final NUL", { size: 11, bytes: text("unconfined\0") }, "unconfined"],
    ["that is long", { need: 1000, size: 1000, bytes: text(long) }, long],
    ["beyond ASCII", { size: 5, bytes: text("fünf").subarray(0, 5) }, "fünf"],
  ] as readonly (readonly [string, Partial<Answer>, string])[]
) {
  testWith(here, `readLabel() returns a label ${name}`, () => {
    fake.answer(label(answer));
    const fact = readLabel(fake.open(), FD);
    assert.deepEqual(fact, { state: "known", value: expected, source: "kernel@connect" });
  });
}

for (
  const [name, answer] of [
    ["no module labels sockets", { result: -1, error: 92 }],
    ["the label is empty", { size: 0 }],
    ["the label is a NUL", { size: 1, bytes: text("\0") }],
  ] as readonly (readonly [string, Partial<Answer>])[]
) {
  testWith(here, `readLabel() returns none when ${name}`, () => {
    fake.answer(label(answer));
    assert.equal(readLabel(fake.open(), FD).state, "none");
  });
}

testWith(
  here,
  "readGroups() returns the kernel's answer each time, also after answers for other users",
  () => {
    const system = fake.open();
    const read = (uid: number, gid: number, ...list: number[]) => {
      fake.answer(groups({ size: 4 * list.length, bytes: words(...list) }));
      return readGroups(system, FD, { pid: 1, uid, gid });
    };
    const first = read(1, 5, 2, 3);
    assert.deepEqual(first, { state: "known", value: [2, 3, 5], source: "kernel@connect" });
    assert.equal(read(1, 5, 2, 3), first, "an equal answer returns the cached list");
    const list = first.state === "known" ? first.value : [];
    assert.deepEqual(supplementaryGroups(list), Uint32Array.of(2, 3));
    assert.equal(supplementaryGroups([...list]), undefined);
    const others: readonly [uid: number, gid: number, groups: number[], expected: number[]][] = [
      [1, 5, [2], [2, 5]],
      [1, 5, [], [5]],
      [1, 5, [2, 4], [2, 4, 5]],
      [1, 6, [2, 4], [2, 4, 6]],
      [2, 6, [7], [6, 7]],
      [1, 6, [2, 4], [2, 4, 6]],
      [1, 6, [2, 4, 9], [2, 4, 6, 9]],
    ];
    for (const [uid, gid, list, expected] of others) {
      const fact = read(uid, gid, ...list);
      assert.deepEqual(fact.state === "known" && fact.value, expected);
    }
    fake.answer(groups({ size: 6, bytes: words(1, 2) }));
    isUnknown(readGroups(system, FD, { pid: 1, uid: 2, gid: 6 }), "ERR_UCRED_SYSCALL");
    fake.answer(groups({ size: 4, bytes: words(0xffffffff) }));
    isUnknown(readGroups(system, FD, { pid: 1, uid: 2, gid: 6 }), "ERR_UCRED_SYSCALL");
  },
);

testWith(here, "readGroups() caches the lists of 256 users, of at most 256 groups each", () => {
  const system = fake.open();
  const { groups: cached } = system.remembered;
  const read = (uid: number) => {
    const fact = readGroups(system, FD, { pid: 1, uid, gid: uid });
    assert.deepEqual(fact.state === "known" && fact.value, [7, uid]);
  };
  fake.answer(groups({ size: 4, bytes: words(7) }));
  for (let uid = 1000; uid < 1256; uid++) read(uid);
  read(1255);
  assert.equal(cached.size, 256);
  fake.answer(groups({ size: 8, bytes: words(6, 7) }));
  readGroups(system, FD, { pid: 1, uid: 1255, gid: 7 });
  assert.equal(cached.size, 256, "another list of a cached user");
  fake.answer(groups({ size: 4, bytes: words(7) }));
  read(1256);
  assert.deepEqual([...cached.keys()], [1256]);
  for (const [uid, count] of [[1, 256], [2, 257]] as const) {
    const size = 4 * count;
    fake.answer(groups({ need: size, size, bytes: words(...many.subarray(0, count)) }));
    assert.equal(readGroups(system, FD, { pid: 1, uid, gid: 0 }).state, "known");
  }
  assert.deepEqual([...cached.keys()], [1256, 1]);
});

testWith(here, "identify() makes no pin of a malformed answer, and closes its descriptor", () => {
  const { SO_PEERPIDFD } = LINUX_OPTIONS[process.arch] ?? LINUX_OPTIONS["x64"]!;
  const key = socketOption(SO_PEERPIDFD);
  const closed: number[] = [];
  const close = (fd: number) => closed.push(fd) - 1;
  for (
    const [ids, answer, code] of [
      [alice, { bytes: words(-1) }, "ERR_UCRED_SYSCALL"],
      [alice, {}, "ERR_UCRED_SYSCALL"],
      [alice, { bytes: words(-3), size: 8 }, "ERR_UCRED_SYSCALL"],
      [alice, { bytes: words(1234), size: 8 }, "ERR_UCRED_SYSCALL"],
      [
        peercred({ bytes: words(0, 1000, 100) }),
        { result: -1, error: 92 },
        "ERR_UCRED_UNSUPPORTED",
      ],
    ] as const
  ) {
    fake.answer(ids, ...connection, { call: "getsockopt", key, ...answer });
    const { libc, ...system } = fake.open();
    const linux = { ...libc.linux!, close };
    const peer = identifyFd({ ...system, libc: { ...libc, linux } }, FD, { pin: true });
    assert.deepEqual([peer.uid, peer.pinned, peer.alive], [1000, undefined, undefined]);
    isUnknown(peer.facts.pinned, code);
  }
  assert.deepEqual(closed, [1234]);
});

testWith(here, "identify() throws errors of the program, instead of an unknown fact", () => {
  fake.answer(alice, ...connection);
  const system = fake.open();
  const { SO_PEERPIDFD } = LINUX_OPTIONS[process.arch] ?? LINUX_OPTIONS["x64"]!;
  for (const broken of [SO_PEERGROUPS, SO_PEERPIDFD]) {
    const { libc } = system;
    const getsockopt: typeof libc.getsockopt = (fd, level, name, ...rest) => {
      if (name === broken) throw new TypeError("broken");
      return libc.getsockopt(fd, level, name, ...rest);
    };
    const other = { ...system, libc: { ...libc, getsockopt } };
    assert.throws(() => identifyFd(other, FD, { pin: true }), { message: "broken" });
  }
});

for (
  const [name, answer, code] of [
    ["another errno", { result: -1, error: 22 }, "ERR_UCRED_SYSCALL"],
    ["no data", { result: -1, error: 61 }, "ERR_UCRED_NO_PEER"],
    ["a label longer than a page", { need: 8192 }, "ERR_UCRED_SYSCALL"],
    ["more bytes than requested", { size: 4096, bytes: text("root") }, "ERR_UCRED_SYSCALL"],
    ["what is no UTF-8", { size: 2, bytes: new Uint8Array([0x61, 0xff]) }, "ERR_UCRED_SYSCALL"],
    ["a label that was not written", { size: 4 }, "ERR_UCRED_SYSCALL"],
  ] as readonly (readonly [string, Partial<Answer>, UcredErrorCode])[]
) {
  testWith(here, `identify() returns a peer with an unknown label after ${name}`, () => {
    fake.answer(alice, ...connection, groups({ size: 0 }), label(answer));
    const peer = identifyFd(fake.open(), FD);
    assert.deepEqual([peer.uid, peer.label, peer.groups], [1000, undefined, [100]]);
    isUnknown(peer.facts.label, code);
    assert.ok("label" in peer.toJSON().unknown!);
  });
}
