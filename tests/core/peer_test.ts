/** Errors, facts, credentials and options as values, and pure functions about texts and files. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { inspectAs } from "../../core/console.ts";
import { credentials, isId, NO_ID } from "../../core/credentials.ts";
import { UcredError } from "../../core/errors.ts";
import { type Fact, known, none, unknown, valueOf } from "../../core/facts.ts";
import { requireOptions } from "../../core/options.ts";
import { isSticky, unsafeFileReason, unsafeFolderReason } from "../../core/ownership.ts";
import { peerJSON } from "../../core/peer_json.ts";
import type { Peer } from "../../core/peer.ts";
import { addressOf, displayName } from "../../core/socket_name.ts";
import { everyUnseenIn, spaceLikeIn, stackOf, textOf, unseenIn, visible } from "../../core/text.ts";

test("UcredError has exactly the properties of its details", () => {
  const cause = new Error("why");
  const error = new UcredError("ERR_UCRED_SYSCALL", "Cannot read: getsockopt failed with EIO", {
    hint: "Try again",
    errno: 5,
    syscall: "getsockopt",
    cause,
  });
  assert.ok(error instanceof Error);
  assert.deepEqual({ ...error }, {
    code: "ERR_UCRED_SYSCALL",
    errno: 5,
    syscall: "getsockopt",
    hint: "Try again",
  });
  assert.equal(error.cause, cause);
  assert.equal(String(error), "UcredError: Cannot read: getsockopt failed with EIO");

  const problems = [
    { message: "Wrong", path: ["a"], file: undefined, line: undefined, column: undefined },
  ];
  const wrong = new UcredError("ERR_UCRED_POLICY", "Cannot use it", { hint: "Fix it", problems });
  assert.deepEqual({ ...wrong }, { code: "ERR_UCRED_POLICY", hint: "Fix it", problems });

  const bare = new UcredError("ERR_UCRED_NO_FD", "Cannot read", { hint: "Open it" });
  assert.deepEqual(Object.keys(bare), ["code", "hint"]);
  assert.ok(!("errno" in bare) && !("syscall" in bare) && !("cause" in bare));
});

test("credentials() returns undefined for the id -1 and negative pids, and freezes its result", () => {
  assert.equal(credentials(1, NO_ID, 0), undefined);
  assert.equal(credentials(1, 0, NO_ID), undefined);
  assert.equal(credentials(-1, 0, 0), undefined);
  const found = credentials(0, NO_ID - 1, 0)!;
  assert.deepEqual(found, { pid: undefined, uid: 4294967294, gid: 0 });
  assert.throws(() => Object.assign(found, { uid: 0 }), TypeError);
  assert.deepEqual(credentials(1, 0, NO_ID - 1), { pid: 1, uid: 0, gid: 4294967294 });
});

test("isId() accepts integers from 0 to 2³²−2 only", () => {
  for (const id of [0, -0, 1, 65534, 2 ** 31, NO_ID - 1]) assert.ok(isId(id), String(id));
  const wrong = [NO_ID, 2 ** 32, 2 ** 32 + 1, -1, 0.5, NaN, Infinity, "1", "", 1n, null, undefined];
  for (const value of [...wrong, true, [], [1], {}, new Number(1)]) {
    assert.equal(isId(value), false, String(value));
  }
});

test("known(), none() and unknown() return frozen facts", () => {
  const reason = new UcredError("ERR_UCRED_SYSCALL", "Cannot read", { hint: "Try again" });
  const facts = [known(1, "kernel@connect"), none("accounts@now"), unknown(reason)];
  assert.deepEqual(facts, [
    { state: "known", value: 1, source: "kernel@connect" },
    { state: "none", source: "accounts@now" },
    { state: "unknown", reason },
  ]);
  assert.deepEqual(facts.map(valueOf), [1, undefined, undefined]);
  for (const fact of facts) {
    assert.throws(() => Object.assign(fact, { state: "known", value: 0 }), TypeError);
  }
});

test("peerJSON() has the known facts, and the reasons of unknown ones", () => {
  const fact = (value: unknown): Fact<unknown> =>
    value === undefined ? none("test") : known(value, "test");
  const lost = (message: string) =>
    unknown(new UcredError("ERR_UCRED_SYSCALL", message, { hint: "Try again" }));
  const all = {
    ...{ pid: 7, uid: 1, gid: 2, groups: [2, 3], label: "x", user: "ada" },
    ...{
      groupNames: ["users", null],
      ambiguous: ["gid"],
      pinned: "connect",
      alive: true,
      key: "k",
    },
  };
  const facts = Object.fromEntries(Object.entries(all).map(([name, value]) => [name, fact(value)]));
  const process = { toJSON: () => ({ exe: "/bin/a" }) };
  const jsonOf = (peer: object) => peerJSON({ ...peer, process } as unknown as Peer);
  assert.deepEqual(jsonOf({ ...all, facts }), { ...all, process: { exe: "/bin/a" } });
  assert.deepEqual(jsonOf({ uid: 0, gid: 0, ambiguous: [], facts: {} }), { uid: 0, gid: 0 });
  // The key of a peer without a pin is always unknown, for the same reason.
  const bare = { uid: 0, gid: 0, ambiguous: [], label: "" };
  const unpinned = { label: lost("No label"), key: lost("No pin"), user: fact(undefined) };
  assert.deepEqual(jsonOf({ ...bare, key: "k", facts: unpinned }), {
    ...{ uid: 0, gid: 0, label: "" },
    unknown: { label: "No label" },
  });
  assert.deepEqual(jsonOf({ ...bare, pinned: "accept", alive: false, facts: unpinned }), {
    ...{ uid: 0, gid: 0, label: "", pinned: "accept", alive: false },
    unknown: { label: "No label", key: "No pin" },
  });
});

test("requireOptions() rejects unknown options, and suggests the probable one", () => {
  const names = { policy: true, mode: true, onError: true } as const;
  for (
    const options of [{}, { policy: 1, mode: 0 }, { polcy: undefined }, Object.create({ x: 1 })]
  ) {
    requireOptions("f()", options, names);
  }
  const wrong: readonly (readonly [unknown, string])[] = [
    [undefined, "takes an object of options, not undefined"],
    [null, "takes an object of options, not null"],
    ["policy", 'takes an object of options, not "policy"'],
    [() => {}, "takes an object of options, not a function"],
    [{ polcy: 1 }, 'has no option "polcy"; did you mean "policy"?'],
    [{ policy: 1, polcy: null }, 'has no option "polcy"; did you mean "policy"?'],
    [{ pol: 1 }, 'has no option "pol"; did you mean "policy"?'],
    [{ policyFileName: 1 }, 'has no option "policyFileName"; did you mean "policy"?'],
    [{ constructor: 1 }, 'has no option "constructor"; it has "policy", "mode", "onError"'],
    [["x"], 'has no option "0"; it has "policy", "mode", "onError"'],
  ];
  for (const [options, problem] of wrong) {
    const message = `f() ${problem}`;
    assert.throws(() => requireOptions("f()", options, names), { name: "TypeError", message });
  }
});

test("unsafeFileReason() and unsafeFolderReason() report owners and modes by which others can write", () => {
  const isTrusted = (uid: number) => uid === 0 || uid === 1000;
  const others = "may be written by others";
  const rows: readonly (readonly [uid: number, mode: number, ...(string | undefined)[]])[] = [
    // The reason for a file, for a folder, and for both if the group is trusted.
    [0, 0o100755, undefined, undefined, undefined, undefined],
    [1000, 0o40700, undefined, undefined, undefined, undefined],
    [1001, 0o600, ...Array(4).fill("belongs to uid 1001")],
    [1001, 0o41777, ...Array(4).fill("belongs to uid 1001")],
    [0, 0o775, others, others, undefined, undefined],
    [0, 0o620, others, others, undefined, undefined],
    [0, 0o666, others, others, others, others],
    [0, 0o602, others, others, others, others],
    [0, 0o40777, others, others, others, others],
    [0, 0o41777, others, undefined, others, undefined],
    [0, 0o41770, others, undefined, undefined, undefined],
  ];
  for (const [uid, mode, ...expected] of rows) {
    const file = { uid, mode };
    let lookups = 0;
    const trusts = () => (lookups++, true);
    const found = [
      unsafeFileReason(file, isTrusted),
      unsafeFolderReason(file, isTrusted),
      unsafeFileReason(file, isTrusted, trusts),
      unsafeFolderReason(file, isTrusted, trusts),
    ];
    assert.deepEqual(found, expected, `${uid} ${mode.toString(8)}`);
    if ((mode & 0o020) === 0) assert.equal(lookups, 0, "only a group that can write is looked up");
    assert.equal(unsafeFileReason(file, isTrusted, () => false), expected[0]);
  }
  assert.deepEqual([0o41777, 0o1000, 0o40777, 0].map((mode) => isSticky({ uid: 0, mode })), [
    ...[true, true, false, false],
  ]);
});

test("visible() escapes characters that are invisible or only look like a space", () => {
  assert.equal(visible("a b\tc\u202ed\u00a0e\u{e0041}"), "a b\\u0009c\\u202ed\\u00a0e\\u{e0041}");
  assert.deepEqual(unseenIn("ab\u200bc\u202e"), { at: 2, name: "U+200B" });
  assert.deepEqual(unseenIn("\u{e0041}"), { at: 0, name: "U+E0041" });
  assert.deepEqual([...everyUnseenIn("a\u200bb\u{e0041}\n")], [
    { at: 1, name: "U+200B" },
    { at: 3, name: "U+E0041" },
    { at: 5, name: "U+000A" },
  ]);
  assert.deepEqual(spaceLikeIn("a b\u3000"), { at: 3, name: "U+3000" });
  assert.deepEqual(
    [unseenIn("a b\u3000"), spaceLikeIn("a b"), unseenIn("")],
    Array(3).fill(undefined),
  );
});

test("textOf() and stackOf() accept any thrown value", () => {
  const boom = () => assert.fail("read");
  const unprintable = { toString: boom };
  const broken = Object.defineProperty(new Error("x"), "stack", { get: boom });
  const stackless = Object.defineProperty(new Error("x"), "stack", { value: undefined });
  assert.deepEqual([5, undefined, new Error("why"), unprintable].map(textOf), [
    ...["5", "undefined", "Error: why", "something that cannot be printed"],
  ]);
  assert.deepEqual([5, { stack: "x" }, stackless, broken].map(stackOf), ["", "", "", ""]);
  assert.match(stackOf(new Error("why")), /peer_test/);
});

test("addressOf() and displayName() convert abstract names, and keep paths", () => {
  const rows = [["@a", "\0a"], ["@", "\0"], ["@@a", "\0@a"], ["/run/@a", "/run/@a"], [
    "",
    "",
  ]] as const;
  for (const [name, address] of rows) {
    assert.equal(addressOf(name), address);
    assert.equal(displayName(address), name);
  }
});

test("inspectAs() writes the name and the plain data", () => {
  const data = { uid: 1 };
  const options = { depth: 2 };
  const inspect = (...given: unknown[]) => JSON.stringify(given);
  assert.equal(inspectAs("Peer", data, [1, options, inspect]), 'Peer [{"uid":1},{"depth":2}]');
});
