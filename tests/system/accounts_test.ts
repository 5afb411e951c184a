/** Names of accounts: found, missing, or unknown after a failed lookup; and ambiguous ids. */

import assert from "node:assert/strict";
import { UcredError } from "../../core/errors.ts";
import { LINUX_OPTIONS } from "../../ffi/linux.ts";
import { accountId, groupName, idOf, userName } from "../../system/accounts.ts";
import { identifyFd } from "../../identity/identify.ts";
import { isAmbiguous } from "../../system/overflow_ids.ts";
import { needs, testWith } from "../support/suite.ts";
import { ACCOUNT_ANSWER, type Answer, FakeLibc, option, words } from "../support/fake_libc.ts";

const here = [needs.linux, needs.cc];
const fake = needs.linux.met && needs.cc.met ? new FakeLibc() : undefined!;
const text = (value: string) => new TextEncoder().encode(value);

const LOOKUPS = [["getpwuid_r", userName], ["getgrgid_r", groupName]] as const;
const EIO = 5, ENOENT = 2, ESRCH = 3, ERANGE = 34;
const found = (name: string): Partial<Answer> => ({
  size: ACCOUNT_ANSWER.found,
  bytes: text(`${name}\0`),
});
const missing = { size: ACCOUNT_ANSWER.missing };

for (const [call, lookUp] of LOOKUPS) {
  for (
    const [name, answer, state] of [
      ["an account", found("deploy"), "known"],
      ["an account with a long entry", { ...found("deploy"), need: 900_000 }, "known"],
      ["no account", missing, "none"],
      ["no account, by ENOENT", { ...missing, result: ENOENT }, "none"],
      ["no account, by ESRCH", { ...missing, result: ESRCH }, "none"],
      ["a failure", { ...missing, result: EIO }, "unknown"],
      ["a failure with an answer", { ...found("root"), result: EIO }, "unknown"],
      ["an entry that is too long", { ...found("root"), need: 2 ** 25 }, "unknown"],
      ["ERANGE for any size", { ...found("root"), result: ERANGE }, "unknown"],
      ["another account", { ...found("root"), size: ACCOUNT_ANSWER.otherId }, "unknown"],
      ["a name elsewhere in memory", { ...found("root"), size: ACCOUNT_ANSWER.outside }, "unknown"],
      ["an empty name", found(""), "unknown"],
    ] as readonly (readonly [string, Partial<Answer>, string])[]
  ) {
    testWith(here, `${lookUp.name}() returns ${state} for ${name}`, () => {
      fake.answer({ call, key: 4000000000, ...answer });
      const fact = lookUp(fake.open(), 4000000000);
      assert.equal(fact.state, state);
      if (fact.state === "known") {
        assert.deepEqual([fact.value, fact.source], ["deploy", "accounts@now"]);
      }
      if (fact.state === "unknown") {
        assert.deepEqual([fact.reason.code, fact.reason.syscall], ["ERR_UCRED_SYSCALL", call]);
      }
    });
  }

  testWith(
    here,
    `${lookUp.name}() caches found and missing accounts, but no failure`,
    () => {
      const system = fake.open();
      fake.answer({ call, key: 1, ...found("daemon") }, { call, key: 2, ...missing });
      for (let time = 0; time < 3; time++) {
        assert.equal(lookUp(system, 1).state, "known");
        assert.equal(lookUp(system, 2).state, "none");
      }
      assert.equal(fake.count(call), 2);

      fake.answer({ call, key: 3, ...missing, result: EIO });
      assert.equal(lookUp(system, 3).state, "unknown");
      fake.answer({ call, key: 3, ...found("sys") });
      assert.equal(lookUp(system, 3).state, "known");
    },
  );
}

const { SOL_SOCKET, SO_PEERCRED, SO_PEERGROUPS } = LINUX_OPTIONS[process.arch] ??
  LINUX_OPTIONS["x64"]!;
const socketOption = (name: number, bytes: Uint8Array): Answer => ({
  call: "getsockopt",
  key: option(SOL_SOCKET, name),
  size: bytes.length,
  bytes,
});

/** Returns answers for a peer with these ids, on a Unix connection. */
const peerWith = (uid: number, gid: number, ...groups: number[]): Answer[] => [
  socketOption(SO_PEERCRED, words(42, uid, gid)),
  socketOption(SO_PEERGROUPS, words(...groups)),
  { call: "getpeername", size: 2, bytes: new Uint8Array(new Uint16Array([1]).buffer) },
];

testWith(here, "accountId() reads digits as an id when no account has that name", () => {
  const id = (name: string, ...answers: Answer[]) => {
    fake.answer(...answers);
    return accountId("user", name, fake.open());
  };
  const none: Answer = { call: "getpwnam_r", key: 4, ...missing };
  assert.equal(id("1000", none), 1000);
  assert.equal(id("1000", { call: "getpwnam_r", key: 4, size: 0, bytes: words(7) }), 7);
  assert.equal(id("0x10", none), undefined);
  assert.equal(id("1e10", none), undefined);
  assert.equal(id("0100", none), undefined);
  assert.equal(id("4294967295", { ...none, key: 10 }), undefined);
  assert.equal(id("4294967294", { ...none, key: 10 }), 4294967294);
  assert.throws(() => id("1000", { ...none, result: EIO }), { code: "ERR_UCRED_SYSCALL" });
});

testWith(
  here,
  "idOf() reads an entry of up to 16 MiB, and throws for a longer one",
  () => {
    const group = (need: number): Answer => ({
      ...{ call: "getgrnam_r", key: 5, need },
      ...{ size: 0, bytes: words(42) },
    });
    fake.answer(group(15 << 20));
    assert.equal(accountId("group", "games", fake.open()), 42);
    fake.answer(group(17 << 20));
    assert.throws(() => accountId("group", "games", fake.open()), {
      code: "ERR_UCRED_SYSCALL",
      message: 'Cannot look up group "games": an entry is larger than 16 MiB',
      hint: /\/etc\/group/,
    });
  },
);

testWith(here, "identify() distinguishes a missing account from a failing lookup", () => {
  const names = (...answers: Answer[]) => {
    fake.answer(...peerWith(1000, 100), ...answers);
    const peer = identifyFd(fake.open(), 7);
    const { user, groupNames } = peer.facts;
    assert.deepEqual([peer.user, peer.groupNames], [valueOf(user), valueOf(groupNames)]);
    return [user.state, groupNames.state, valueOf(groupNames)];
  };
  const user: Answer = { call: "getpwuid_r", key: 1000 };
  const group: Answer = { call: "getgrgid_r", key: 100 };
  assert.deepEqual(names({ ...user, ...found("u") }, { ...group, ...found("g") }), [
    "known",
    "known",
    ["g"],
  ]);
  assert.deepEqual(names({ ...user, ...missing }, { ...group, ...missing }), ["none", "known", [
    null,
  ]]);
  const failing = { ...missing, result: EIO };
  assert.deepEqual(names({ ...user, ...failing }, { ...group, ...failing }), [
    "unknown",
    "unknown",
    undefined,
  ]);
});

function valueOf<T>(fact: { readonly state: string; readonly value?: T }): T | undefined {
  return fact.value;
}

testWith(here, "identify() looks up names on first use, and only once", () => {
  fake.answer(...peerWith(1000, 100, 7), { call: "getpwuid_r", key: 1000, ...found("u") });
  const peer = identifyFd(fake.open(), 7);
  assert.deepEqual([fake.count("getpwuid_r"), fake.count("getgrgid_r")], [0, 0]);
  assert.equal(peer.user, "u");
  assert.equal(peer.facts.user, peer.facts.user);
  assert.deepEqual([fake.count("getpwuid_r"), fake.count("getgrgid_r")], [1, 0]);
});

/** Returns answers for files in /proc: the fake library distinguishes them by the length of their names. */
function proc(files: { overflow?: string; map?: string }): Answer[] {
  const read = (path: string, content: string | undefined): Answer[] =>
    content === undefined
      ? [{ call: "read", key: path.length, result: -1, error: EIO }]
      : [{ call: "read", key: path.length, result: content.length, bytes: text(content) }];
  return [
    { call: "open", result: 1000 },
    ...read("/proc/sys/kernel/overflowuid", files.overflow),
    ...read("/proc/self/uid_map", files.map),
  ];
}

const FULL = "         0          0 4294967295\n";
for (
  const [name, files, id, expected] of [
    ["every id is mapped", { overflow: "65534\n", map: FULL }, 65534, false],
    [
      "every id is mapped, in two parts",
      {
        overflow: "65534\n",
        map: "0 0 1000\n1000 1000 4294966295\n",
      },
      65534,
      false,
    ],
    ["one id is mapped", { overflow: "65534\n", map: "0 1000 1\n" }, 65534, true],
    ["nothing is mapped", { overflow: "65534\n", map: "" }, 65534, true],
    ["the map is garbage", { overflow: "65534\n", map: "4294967295\n" }, 65534, true],
    ["the map cannot be read", { overflow: "65534\n" }, 65534, true],
    ["nothing can be read", {}, 65534, true],
    ["nothing can be read and the id is another one", {}, 65533, false],
    ["the system has another overflow id", { overflow: "99\n", map: "0 1000 1\n" }, 99, true],
    ["the system has another overflow id", { overflow: "99\n", map: "0 1000 1\n" }, 65534, false],
  ] as const
) {
  testWith(here, `isAmbiguous() returns ${expected} for ${id} when ${name}`, () => {
    fake.answer(...proc(files));
    assert.equal(isAmbiguous(fake.open(), "uid", id), expected);
  });
}

testWith(here, "isAmbiguous() follows the overflow id that the system sets at run time", () => {
  const map = "0 1000 65536\n";
  fake.answer(...proc({ overflow: "65534\n", map }));
  const system = fake.open();
  assert.deepEqual([5, 65534].map((id) => isAmbiguous(system, "uid", id)), [false, true]);
  fake.answer(...proc({ overflow: "5\n", map }));
  // An id that was read before the change may have been the previous overflow id.
  assert.deepEqual([5, 65534, 6].map((id) => isAmbiguous(system, "uid", id)), [true, true, false]);
  fake.answer({ call: "open", result: -1, error: EIO });
  assert.deepEqual([5, 65534, 6].map((id) => isAmbiguous(system, "uid", id)), [true, true, false]);
});

testWith(here, "isAmbiguous() returns true for 65534 when no file can be opened", () => {
  fake.answer({ call: "open", result: -1, error: 13 });
  assert.equal(isAmbiguous(fake.open(), "uid", 65534), true);
});

testWith(here, "isAmbiguous() returns false on systems without user namespaces", () => {
  fake.answer();
  assert.equal(isAmbiguous(fake.open("darwin", "arm64"), "uid", 65534), false);
  assert.equal(isAmbiguous(fake.open("freebsd", "x64"), "gid", 65534), false);
});

for (const [kind, call] of [["user", "getpwnam_r"], ["group", "getgrnam_r"]] as const) {
  const answer = (answer: Partial<Answer>): Answer => ({ call, key: 3, ...answer });
  const ada = (fields: Partial<Answer> = {}) =>
    answer({ bytes: words(4000000000), size: 0, ...fields });

  testWith(here, `idOf() returns the id of a ${kind}, with growing memory`, () => {
    for (const need of [0, 4000, 1 << 19]) {
      fake.answer(ada({ need }));
      assert.equal(idOf(kind, "ada", fake.open()), 4000000000);
    }
  });

  testWith(
    here,
    `idOf() returns undefined for a missing ${kind}, and throws when the lookup fails`,
    () => {
      for (const result of [0, 2, 3]) {
        fake.answer(answer({ result, size: ACCOUNT_ANSWER.missing }));
        assert.equal(idOf(kind, "ada", fake.open()), undefined);
      }
      fake.answer(ada());
      for (const name of ["", "a\0a"]) assert.equal(idOf(kind, name, fake.open()), undefined);
      for (
        const [answer, errno] of [
          [ada({ result: 5 }), 5],
          [ada({ result: 13 }), 13],
          [ada({ need: 1 << 24 }), 34],
          [ada({ bytes: words(-1) }), undefined],
        ] as const
      ) {
        fake.answer(answer);
        assert.throws(() => idOf(kind, "ada", fake.open()), (error) => {
          assert.ok(error instanceof UcredError);
          assert.deepEqual([error.code, error.errno], ["ERR_UCRED_SYSCALL", errno]);
          return true;
        });
      }
    },
  );
}

testWith([], "idOf() returns root's ids, and undefined for a name without an account", () => {
  assert.equal(idOf("user", "root"), 0);
  assert.equal(idOf("user", "nobody-of-this-name"), undefined);
  assert.equal(idOf("group", "nobody-of-this-name"), undefined);
});
