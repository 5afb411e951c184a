/** Documents and peers that are not what they seem. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { UcredError } from "../../../core/errors.ts";
import type { Peer } from "../../../core/peer.ts";
import { equivalent } from "../../../core/policy/analyze/difference.ts";
import { who } from "../../../core/policy/analyze/who.ts";
import type { PlainPeer } from "../../../core/policy/decide/subject.ts";
import { checkPolicy } from "../../../core/policy/document/check.ts";
import { MAX_VALUES } from "../../../core/policy/document/plain_copy.ts";
import { PLAIN_PATTERN, SEEN_PATTERN } from "../../../core/policy/document/json_schema.ts";
import type { Condition, RuleDocument } from "../../../core/policy/document/types.ts";
import { compilePolicy, type RulePolicy } from "../../../core/policy/policy.ts";
import { spaceLikeIn, unseenIn } from "../../../core/text.ts";
import { compile, resolve } from "./policies.ts";

/** Makes a policy of anything. @throws {Error} With the problems, a line for each. */
function define(...rules: readonly unknown[]): RulePolicy {
  return defineAll({ version: 1, rules });
}

function defineAll(document: unknown): RulePolicy {
  const result = checkPolicy(document, resolve);
  if ("checked" in result) return compilePolicy(result.checked);
  const lines = result.problems.first.map(({ path, message }) => `${path.join(".")}: ${message}`);
  throw new Error(lines.join("\n"));
}

const nest = (depth: number): Condition => depth === 0 ? { uid: 0 } : { not: nest(depth - 1) };

test("definePolicy() copies the document, so later changes have no effect", () => {
  const actions = ["GET /x"];
  const allow = ["read"];
  const when = { label: ["a"], any: [{ uid: [1] }] };
  const policy = compile({ name: "r", when, actions, allow });
  actions.push("PUT /x");
  allow.push("admin");
  when.label.push("b");
  when.any.push({ uid: [2] });
  when.any[0]!.uid.push(3);
  const same = compile({
    name: "r",
    when: { label: "a", any: [{ uid: 1 }] },
    actions: "GET /x",
    allow: "read",
  });
  assert.equal(equivalent(policy, same), undefined);
  assert.equal(String(who(policy, "PUT /x")), "no peer");
  assert.equal(String(who(policy, "GET /x")), String(who(same, "GET /x")));
  for (const action of ["GET /x", "PUT /x"]) {
    for (const peer of [{ uid: 1, label: "a" }, { uid: 2, label: "b" }, { uid: 3, label: "a" }]) {
      const { allowed, grants } = policy.decide(peer, { action });
      assert.equal(allowed, peer.uid === 1 && action === "GET /x");
      assert.deepEqual(grants, allowed ? ["read"] : []);
      assert.equal(policy.explain(peer, { action }).decision.allowed, allowed);
    }
  }
  assert.throws(() => (who(policy, "GET /x").clauses[0]!.grants as string[]).push("admin"));
});

test("checkPolicy() reads each field of a document once", () => {
  let reads = 0;
  const rule = {
    name: "r",
    get allow() {
      return reads++ === 0 ? "read" : ["admin"];
    },
  };
  assert.deepEqual(define(rule).decide({}).grants, ["read"]);
  assert.equal(reads, 1);
});

test("checkPolicy() ignores inherited fields of a document", () => {
  const prototype = Object.prototype as { allow?: true; when?: object };
  prototype.allow = true;
  try {
    assert.throws(() => define({ name: "r", when: { uid: 0 } }), /neither allow nor deny/);
  } finally {
    delete prototype.allow;
  }
  prototype.when = { uid: 5 };
  try {
    const policy = define({ name: "r", deny: true });
    assert.equal(policy.decide({ uid: 0 }).rule, "r", "a rule without `when` is about everyone");
  } finally {
    delete prototype.when;
  }
});

test("checkPolicy() rejects objects that are not plain data", () => {
  class Rule {
    name = "r";
    allow = true;
    get when() {
      return { uidd: 0 };
    }
  }
  const hidden = Object.defineProperty({ uid: 0 }, "group", { value: "docker" });
  const cases: readonly (readonly [unknown, RegExp])[] = [
    [new Rule(), /^rules\.0: an object of a class/],
    [{ name: "r", when: hidden, allow: true }, /^rules\.0\.when: a hidden field "group"/],
    [{ name: "r", when: { uid: 0, [Symbol("x")]: 1 }, allow: true }, /hidden field "Symbol\(x\)"/],
    [{ name: "r", when: new Map([["uid", 0]]), allow: true }, /^rules\.0\.when: an object of/],
    [{ name: "r", when: { uid: new Set([0]) }, allow: true }, /^rules\.0\.when\.uid: an object of/],
    [{ name: "r", when: new Date(), allow: true }, /^rules\.0\.when: an object of a class/],
    [{ name: Object("r"), allow: true }, /^rules\.0\.name: an object of a class/],
    [
      { name: "r", when: { uid: [0, , 5] }, allow: true },
      /^rules\.0\.when\.uid\.1: .* not nothing/,
    ],
    [{ name: "r", when: { uid: 1n }, allow: true }, /^rules\.0\.when\.uid: .* not 1n$/],
    [{ name: Symbol("r"), allow: true }, /^rules\.0\.name: name is a text, not Symbol\(r\)$/],
    [{ name: () => 1, allow: true }, /^rules\.0\.name: name is a text, not a function$/],
  ];
  for (const [rule, message] of cases) assert.throws(() => define(rule), { message });
  assert.throws(() => defineAll({ version: 1n, rules: [] }), { message: /^version: .* not 1n$/ });
});

test("checkPolicy() accepts objects without a prototype", () => {
  const bare = (fields: object) => Object.assign(Object.create(null), fields);
  const rules = [
    bare({ name: "a", when: bare({ any: [bare({ uid: 0 })] }), allow: true }),
    bare({ name: "b", when: bare({ not: bare({ all: [bare({ uid: "0-9" })] }) }), allow: "b" }),
  ];
  const policy = define(...rules);
  assert.deepEqual([0, 5, 10].map((uid) => policy.decide({ uid }).rule), ["a", undefined, "b"]);
});

test("checkPolicy() rejects cyclic and oversized documents", () => {
  const itself: { not?: unknown } = {};
  itself.not = itself;
  const twice: { any?: unknown[] } = {};
  twice.any = [twice, twice];
  let [deep, wide]: Condition[] = [{ uid: 0 }, { uid: 0 }];
  for (let i = 0; i < 25; i++) wide = { any: [wide!, wide!] };
  for (let i = 0; i < 70; i++) deep = { not: deep! };
  const rule = (when: unknown) => ({ name: "r", when, allow: true });
  for (const when of [itself, twice, deep]) {
    assert.throws(
      () => define(rule(when)),
      /^Error: rules\.0\.when\..*: nested more than 64 deep$/,
    );
  }
  assert.ok(define(rule(nest(60))));
  const tooMany = `: more than ${MAX_VALUES} values`;
  const holes: unknown[] = [];
  holes.length = 2 ** 32 - 1;
  for (const when of [wide, { uid: Array(MAX_VALUES).fill(0) }, { uid: holes }]) {
    assert.throws(() => define(rule(when)), { message: tooMany });
  }
});

const NOBODY: readonly unknown[] = [
  ...["1000", "", "0", "x", [1000], [], 1000n, NaN, -1, 0.5, 2 ** 32 - 1, 2 ** 32, Infinity],
  ...[true, false, null, {}, new Number(1000), new Date(0)],
];

test("decide() treats an id outside of uint32 as unknown", () => {
  const deny = compile(
    { name: "no", when: { uid: 1000 }, deny: true },
    { name: "gids", when: { any: [{ gid: 1000 }] }, deny: true },
    { name: "all", allow: true },
  );
  const allow = compile(
    { name: "root", when: { uid: "0" }, allow: true },
    { name: "any", when: { any: [{ uid: 0 }, { gid: 0 }, { group: "wheel" }] }, allow: true },
    { name: "none", when: { not: { uid: "1-999" } }, allow: true },
    { name: "group", when: { group: "wheel" }, allow: true },
  );
  const known = { uid: 1, gid: 1, groups: [] };
  assert.ok(deny.decide(known).allowed);
  for (const id of NOBODY) {
    for (const field of ["uid", "gid"]) {
      const peer = { ...known, [field]: id } as PlainPeer;
      const { allowed, unknown } = deny.decide(peer);
      assert.deepEqual([allowed, unknown], [false, [field]], String(id));
      assert.equal(allow.decide(peer).allowed, false, String(id));
    }
  }
  assert.equal(compile({ name: "r", when: { uid: 0 }, allow: true }).decide({ uid: -0 }).rule, "r");
});

test("decide() treats groups as unknown when they are not a list, and as incomplete when one is not an id", () => {
  const deny = compile(
    { name: "no", when: { group: "docker" }, deny: true },
    { name: "all", allow: true },
  );
  const allow = compile({ name: "wheel", when: { group: "wheel" }, allow: true });
  const inAny = compile({ name: "wheel", when: { any: [{ group: "wheel" }] }, allow: true });
  const ask = (groups: unknown) => {
    const peer = { uid: 1, gid: 1, groups } as PlainPeer;
    assert.equal(inAny.decide(peer).allowed, allow.decide(peer).allowed);
    const { allowed, unknown } = deny.decide(peer);
    return [allowed, ...unknown, allow.decide(peer).allowed];
  };
  assert.deepEqual(ask([]), [true, false]);
  for (const groups of ["0", 0, null, {}, new Set([0]), { includes: () => true }]) {
    assert.deepEqual(ask(groups), [false, "groups", false]);
  }
  for (const group of NOBODY) {
    assert.deepEqual(ask([group]), [false, "groups", false], String(group));
    assert.deepEqual(ask([group, 0]), [false, "groups", true], String(group));
  }
  assert.deepEqual(ask(Array(3)), [false, "groups", false]);
});

test("decide() treats a group condition as unknown when the gid is unknown", () => {
  const policy = compile(
    { name: "never", when: { group: "docker" }, deny: true },
    { name: "nested", when: { any: [{ group: "users" }] }, deny: true },
    { name: "all", allow: true },
  );
  for (const gid of [undefined, null, "1"]) {
    const { allowed, rule, unknown } = policy.decide({ uid: 1, gid, groups: [] } as object);
    assert.deepEqual([allowed, rule, unknown], [false, "never", ["gid"]]);
  }
  assert.ok(policy.decide({ uid: 1, gid: 1, groups: [] }).allowed);
  const both = policy.decide({ uid: 1 });
  assert.deepEqual([both.rule, both.unknown], ["never", ["groups"]]);
  // The list of a Peer has the gid, even if that one is ambiguous.
  const real = { uid: 1, gid: 65534, groups: [5, 65534], ambiguous: ["gid"], facts: {} };
  assert.equal(policy.decide(real as unknown as Peer).rule, "all");
  const inside = compile({ name: "r", when: { group: "docker" }, allow: true });
  assert.ok(inside.decide({ groups: [3] }).allowed, "it is in it whatever the gid");
});

test("decide() treats ambiguous ids as unknown, and trusts no group of an ambiguous list", () => {
  const uid = compile({ name: "r", when: { uid: 65534 }, allow: true });
  const gid = compile({ name: "r", when: { gid: 65534 }, allow: true });
  const group = compile({ name: "r", when: { group: "none" }, allow: true });
  const wheel = compile({ name: "r", when: { group: "wheel" }, allow: true });
  const peer = { uid: 65534, gid: 65534, groups: [0, 65534] };
  for (const policy of [uid, gid, group, wheel]) assert.ok(policy.decide(peer).allowed);
  const ask = (policy: RulePolicy, ambiguous: unknown, gid = 65534) => {
    const { allowed, unknown } = policy.decide({ ...peer, gid, ambiguous } as PlainPeer);
    return allowed || unknown.join();
  };
  assert.deepEqual([ask(uid, ["uid"]), ask(uid, ["gid", "groups"])], ["uid", true]);
  assert.deepEqual([ask(gid, ["gid"]), ask(gid, ["uid", "groups"])], ["gid", true]);
  assert.deepEqual([ask(group, ["groups"], 7), ask(group, ["groups"])], ["groups", true]);
  assert.deepEqual([ask(group, ["gid"]), ask(wheel, ["uid", "gid", "groups"])], [
    true,
    "groups",
  ]);
  // The system may set any id for unmapped ones: kernel.overflowgid.
  const games = { uid: 1000, gid: 1000, groups: [0, 1000], ambiguous: ["groups"] } as const;
  assert.deepEqual(wheel.decide(games).unknown, ["groups"]);
  const deny = compile({ name: "r", when: { not: { group: "wheel" } }, allow: true });
  assert.equal(deny.decide(games).allowed, false);
  // What is no list may be any.
  for (const ambiguous of ["gid", "x", true, { length: 1 }]) {
    assert.equal(ask(uid, ambiguous), "uid");
    assert.equal(ask(group, ambiguous), "groups");
  }
  for (const none of [[], null, undefined]) assert.equal(ask(uid, none), true);
});

test("decide() treats facts of another type as unknown", () => {
  const ask = (when: Condition, peer: unknown) => {
    const yes = compile({ name: "r", when, allow: true }).decide(peer as PlainPeer).allowed;
    const no = compile({ name: "r", when: { not: when }, allow: true }).decide(peer as PlainPeer);
    return yes ? true : no.allowed ? false : undefined;
  };
  for (const odd of [5, true, ["x"], {}, undefined, Object("x")]) {
    assert.equal(ask({ label: "**" }, { label: odd }), undefined);
    for (const field of ["exe", "unit", "cgroup", "container"]) {
      assert.equal(ask({ [field]: "**" }, { process: { [field]: odd } }), undefined);
    }
    assert.equal(ask({ exeSha256: "0".repeat(64) }, { process: { exeSha256: odd } }), undefined);
  }
  const callable = Object.assign(() => {}, { pid: { ours: true } });
  for (const odd of ["yes", "no", 0, 1, null, {}, callable]) {
    assert.equal(ask({ unchanged: true }, { unchanged: odd }), undefined);
    for (const pid of [{ ours: odd }, odd]) {
      const peer = { process: { namespaces: { pid } } };
      assert.equal(ask({ sameNamespaces: "pid" }, peer), undefined);
    }
    assert.equal(ask({ sameNamespaces: "pid" }, { process: { namespaces: odd } }), undefined);
    assert.equal(ask({ unit: "x" }, { process: odd }), undefined);
  }
  for (const ours of [true, false]) {
    assert.equal(
      ask({ sameNamespaces: "pid" }, { process: { namespaces: { pid: { ours } } } }),
      ours,
    );
  }
});

test("decide() tests cgroup, container and exeSha256 each alone, and denies when they are unknown", () => {
  const right = { cgroup: "/a/b", container: "c1", exeSha256: "a".repeat(64) };
  const facts: Condition = { cgroup: "/a/*", container: "c*", exeSha256: right.exeSha256 };
  const policy = compile({ name: "r", when: facts, allow: true });
  assert.ok(policy.decide({ process: right }).allowed);
  for (const field of ["cgroup", "container", "exeSha256"] as const) {
    const when = { [field]: facts[field] };
    const allow = compile({ name: "r", when, allow: true });
    const deny = compile({ name: "no", when, deny: true }, { name: "all", allow: true });
    const denyOthers = compile({ name: "no", when: { not: when }, deny: true }, {
      name: "all",
      allow: true,
    });
    const ask = (value: string | null | undefined) => {
      const process = { ...right, [field]: value };
      assert.equal(policy.decide({ process }).allowed, allow.decide({ process }).allowed);
      return [allow, deny, denyOthers].map((each) => {
        const { allowed, unknown } = each.decide({ process });
        return [allowed, ...unknown].join(" ");
      });
    };
    assert.deepEqual(ask(right[field]), ["true", "false", "true"]);
    for (const other of ["/other/x", "b".repeat(64), "", null]) {
      assert.deepEqual(ask(other), ["false", "true", "false"], `${field} ${other}`);
    }
    assert.deepEqual(ask(undefined), Array(3).fill(`false ${field}`));
  }
});

test("decide() evaluates more conditions than a call can take as arguments", () => {
  const any = Array(200_000).fill({ uid: 5 });
  const policy = define({ name: "r", when: { any, gid: 7 }, allow: true });
  assert.deepEqual([5, 6].map((uid) => policy.decide({ uid, gid: 7 }).allowed), [true, false]);
});

test("decide() reads each fact of a plain peer at most once, and only facts that a rule tests", () => {
  const read = new Map<string, number>();
  const counting = (of: object, prefix: string): object =>
    new Proxy(of, {
      get: (target, name) => {
        const path = `${prefix}${String(name)}`;
        read.set(path, (read.get(path) ?? 0) + 1);
        const value = Reflect.get(target, name);
        return path === "process" ? counting(value, "process.") : value;
      },
    });
  const ask = (peer: object, ...rules: RuleDocument[]) => {
    read.clear();
    const decision = compile(...rules).decide(counting(peer, "") as PlainPeer);
    read.delete("ambiguous");
    return [decision, [...read.keys()].sort().join(" ")] as const;
  };
  const peer = {
    ...{ uid: 5, gid: 16, groups: [7], label: "x", unchanged: true },
    process: { exe: "/a", unit: "u", cgroup: "c", namespaces: {} },
  };
  const [, all] = ask(
    peer,
    { name: "a", when: { uid: 5, gid: 9 }, deny: true },
    { name: "b", when: { group: "docker", gid: 16 }, deny: true },
    { name: "c", when: { any: [{ group: "users" }, { gid: 8 }, { uid: 9 }] }, deny: true },
    { name: "d", when: { not: { label: "x" }, uid: 5 }, deny: true },
    { name: "e", when: { exe: "/a", unit: "v", label: "x" }, allow: true },
    { name: "f", when: { unit: "w", unchanged: true, sameNamespaces: "pid" }, allow: true },
  );
  assert.equal(all, "gid groups label process process.exe process.unit uid");
  assert.ok([...read.values()].every((count) => count === 1), JSON.stringify([...read]));
  const [, none] = ask(peer, { name: "a", allow: true });
  assert.equal(none, "");
  const [, unit] = ask(peer, { name: "a", when: { unit: "u", uid: 5 }, allow: true });
  assert.equal(unit, "process process.unit uid");
  const [, gid] = ask(peer, { name: "a", when: { gid: 16, unchanged: true }, allow: true });
  assert.equal(gid, "gid unchanged");
  // One that says another id each time is whoever it said first.
  let uid = 1000;
  const flips = {
    get uid() {
      return [uid, uid = 0][0];
    },
  };
  const [decision] = ask(
    flips,
    { name: "root", when: { any: [{ uid: 0 }] }, allow: "root" },
    { name: "n", when: { uid: 1000, not: { uid: 0 } }, deny: true },
  );
  assert.equal(decision.rule, "n");
});

test("decide() reads each fact of a Peer at most once for any number of rules", () => {
  const asked: string[] = [];
  const counting = <T extends object>(name: string, values: T): T =>
    Object.defineProperties(
      {},
      Object.fromEntries(
        Object.entries(values).map(([field, value]) => [field, {
          get: () => {
            asked.push(`${name}${field}`);
            return value;
          },
        }]),
      ),
    ) as T;
  const known = (value: unknown) => ({ state: "known", value, source: "procfs@now" });
  const peerOf = (drift: () => unknown, unit: object) =>
    ({
      ...{ ambiguous: [], facts: counting("facts.", { label: known("x") }), drift },
      get uid() {
        return asked.push("uid"), 1;
      },
      get gid() {
        return asked.push("gid"), 2;
      },
      get groups() {
        return asked.push("groups"), [2, 9];
      },
      get process() {
        asked.push("process");
        const namespaces = known({ pid: { ours: true } });
        const facts = {
          ...{ exe: known("/bin/a"), exeSha256: known("0".repeat(64)), namespaces, unit },
          ...{ cgroup: known("/c"), container: known("d") },
        };
        return { facts: counting("process.", facts) };
      },
    }) as unknown as Peer;
  const one = (...each: readonly Condition[]) => each;
  const each = [
    ...one({ uid: 9 }, { gid: 9 }, { group: "docker" }, { label: "y" }, { unchanged: false }),
    ...one({ exe: "/x" }, { exeSha256: "f".repeat(64) }, { unit: "y" }, { cgroup: "/y" }),
    ...one({ container: "y" }, { not: { sameNamespaces: "pid" } }, { sameUser: true }),
  ];
  const rules = [...each, { any: each }, { all: each }, { not: { not: { any: each } } }].map(
    (when, at): RuleDocument => ({
      name: `r${at}`,
      when,
      ...(at % 2 ? { deny: true } : { allow: true }),
    }),
  );
  const policy = compile(...rules);
  const drift = () => (asked.push("drift"), []);
  const none = { state: "none", source: "procfs@now" };
  for (const question of ["decide", "admits", "explain"] as const) {
    asked.length = 0;
    policy[question](peerOf(drift, none));
    assert.deepEqual(asked.toSorted(), [
      ...["drift", "facts.label", "gid", "groups", "process", "process.cgroup"],
      ...["process.container", "process.exe", "process.exeSha256", "process.namespaces"],
      ...["process.unit", "uid"],
    ]);
  }
  const changed = peerOf(() => [{ fact: "uid", then: 1, now: 0 }], none);
  for (const unchanged of [true, false]) {
    const one = compile({ name: "r", when: { unchanged }, allow: true });
    assert.deepEqual(
      [one.decide(changed).allowed, one.decide(peerOf(drift, none)).allowed],
      [!unchanged, unchanged],
    );
  }
  // What cannot be known is asked for once as well.
  const cannot = new UcredError("ERR_UCRED_PEER_GONE", "It has gone", { hint: "" });
  const lost = () => {
    asked.push("drift");
    throw cannot;
  };
  asked.length = 0;
  const twice = compile(
    { name: "a", when: { unit: "u" }, allow: true },
    { name: "b", when: { unchanged: true }, allow: true },
    { name: "c", when: { any: [{ not: { unit: "v" } }, { unchanged: false }] }, allow: true },
  );
  const { allowed, unknown } = twice.decide(peerOf(lost, { state: "unknown", reason: cannot }));
  assert.deepEqual([allowed, [...unknown].sort()], [false, ["unchanged", "unit"]]);
  assert.deepEqual(asked.toSorted(), ["drift", "process", "process.unit"]);
  const broken = () => {
    throw new TypeError("a bug");
  };
  assert.throws(() => twice.decide(peerOf(broken, none)), TypeError);
});

test("decide() reads no fact of the process once unknown facts have settled the rule", () => {
  const hash = "0".repeat(64);
  const dear: Condition = { any: [{ exeSha256: hash }, { exe: "/a", sameNamespaces: "pid" }] };
  /** What a decision reads of the process of a peer with unknown ids, and what it could not know. */
  const ask = (when: Condition, effect: { allow: true } | { deny: true }, peer: object = {}) => {
    const read: string[] = [];
    const process = new Proxy({}, {
      get: (_, name) => {
        read.push(String(name));
        return name === "exeSha256" ? hash : undefined;
      },
    });
    const policy = compile({ name: "r", when, ...effect });
    const asked = { uid: 65534, ambiguous: ["uid", "gid", "groups"], ...peer, process };
    const admits = policy.admits(asked as PlainPeer);
    const { allowed, rule, unknown } = policy.decide(asked as PlainPeer);
    assert.equal(admits, allowed);
    return [read.join(), rule, unknown.join()];
  };
  const allow = { allow: true } as const;
  const deny = { deny: true } as const;
  const settled: readonly (readonly [Condition, { allow: true } | { deny: true }, string])[] = [
    [{ uid: 990, exeSha256: hash }, allow, "uid"],
    [{ group: "docker", exeSha256: hash }, allow, "groups"],
    [{ gid: 970, all: [dear] }, allow, "gid"],
    [{ label: "x", exeSha256: hash }, allow, "label"],
    [{ uid: 990, group: "docker", label: "x", ...dear }, allow, "uid,groups,label"],
    // The order in the document does not matter.
    [{ ...dear, label: "x", group: "docker", gid: 970 }, allow, "gid,groups,label"],
    [{ exeSha256: hash, label: "x", group: "docker", uid: 990 }, allow, "uid,groups,label"],
    [{ exe: "/a", label: "x", any: [{ uid: 990 }, { gid: 970 }] }, allow, "uid,gid,label"],
    [{ unit: "u", not: { any: [{ label: "x" }] }, group: "docker" }, allow, "groups,label"],
    [{ any: [{ uid: 990, unit: "u" }, { uid: 991, exeSha256: hash }] }, allow, "uid"],
    [{ not: { any: [{ uid: 990 }, dear] } }, allow, "uid"],
    [{ any: [{ uid: 990 }, dear] }, deny, "uid"],
    [{ not: { uid: 990, exeSha256: hash } }, deny, "uid"],
  ];
  for (const [when, effect, unknown] of settled) {
    const rule = effect === deny ? "r" : undefined;
    assert.deepEqual(ask(when, effect), ["", rule, unknown], JSON.stringify(when));
  }
  // What can still be met, or rule it out, is read.
  const read = ["exeSha256,exeSha256", undefined];
  assert.deepEqual(ask({ any: [{ uid: 990 }, { exeSha256: hash }] }, allow), [read[0], "r", ""]);
  assert.deepEqual(ask({ uid: 990, exeSha256: "f".repeat(64) }, deny), [...read, ""]);
  assert.deepEqual(ask({ uid: 990, label: "x" }, allow, { label: "y" }), ["", undefined, ""]);
});

test("decide() reads cheap facts first, and no dear ones once a condition does not hold", () => {
  const hash = "0".repeat(64);
  const process = {
    ...{ exe: "/b", unit: "u", cgroup: "/c", container: "c", exeSha256: "f".repeat(64) },
    namespaces: { pid: { ours: false } },
  };
  const rows: readonly (readonly [Condition, string])[] = [
    [{ exeSha256: hash, label: "y", group: "docker", uid: 9 }, "uid"],
    [{ label: "y", not: { uid: 1 } }, "uid"],
    [{ all: [{ not: { gid: 5, group: "docker" } }, { not: { gid: 2 } }] }, "gid"],
    [{ all: [{ not: { group: "docker" } }, { not: { gid: 2 } }] }, "gid"],
    [{ label: "y", not: { group: "docker" } }, "gid,groups,label"],
    [{ exeSha256: hash, sameNamespaces: "pid", exe: "/a", label: "y" }, "label"],
    [{ exeSha256: hash, exe: "/a" }, "process.exe"],
    [{ exeSha256: hash, sameNamespaces: "pid" }, "process.namespaces"],
    [{ exeSha256: hash, unchanged: true }, "unchanged"],
    [{ sameNamespaces: "pid", exe: "/a" }, "process.exe"],
    [{ unchanged: true, cgroup: "/a" }, "process.cgroup"],
    [{ exeSha256: hash, not: { unit: "u" } }, "process.unit"],
    [
      { all: [{ exeSha256: hash }], any: [{ container: "x" }, { unit: "x" }] },
      "process.container,process.unit",
    ],
    [{ not: { exeSha256: hash }, all: [{ label: "y" }] }, "label"],
  ];
  for (const [when, expected] of rows) {
    const read: string[] = [];
    const reading = (of: object, prefix: string): object =>
      new Proxy(of, {
        get: (target, name) => {
          if (!["ambiguous", "process"].includes(String(name))) {
            read.push(`${prefix}${String(name)}`);
          }
          const value = Reflect.get(target, name);
          return name === "process" ? reading(value, "process.") : value;
        },
      });
    const peer = { uid: 1, gid: 2, groups: [], label: "x", unchanged: false, process };
    const { rule } = compile({ name: "r", when, allow: true })
      .decide(reading(peer, "") as PlainPeer);
    assert.deepEqual([rule, read.join()], [undefined, expected], JSON.stringify(when));
  }
});

test("decide() ignores fields of Object.prototype in peers and options", () => {
  const policy = compile(
    { name: "root", when: { uid: 0 }, allow: true },
    { name: "gid", when: { gid: 5 }, allow: true },
    { name: "docker", when: { group: "docker" }, allow: true },
    { name: "label", when: { label: "x" }, allow: true },
    { name: "same", when: { unchanged: true }, allow: true },
    { name: "exe", when: { exe: "/a" }, allow: true },
    { name: "pid", when: { sameNamespaces: "pid" }, allow: true },
    { name: "reads", actions: "GET /x", allow: true },
  );
  const fact = { state: "known", value: "x" };
  const given: { readonly [field: string]: unknown } = {
    ...{ uid: 0, gid: 5, groups: [3], label: "x", unchanged: true, process: { exe: "/a" } },
    ...{ exe: "/a", namespaces: { pid: { ours: true } }, pid: { ours: true }, ours: true },
    ...{ action: "GET /x", facts: { label: fact }, ambiguous: ["uid", "gid", "groups"] },
  };
  const peers = (): PlainPeer[] => [
    {},
    { uid: 0 },
    { gid: 5, groups: [9] },
    { process: {} },
    { process: { namespaces: {} } },
    { process: { namespaces: { pid: {} as never } } },
    Object.create({}),
    new class Someone {}(),
  ];
  const prototype = Object.prototype as { [field: string]: unknown };
  const ask = () =>
    peers().map((peer) => [
      ...[policy.decide(peer, {}), policy.admits(peer)],
      policy.decide(peer, { action: "GET /x" }),
    ]);
  const expected = ask();
  for (const [field, value] of Object.entries(given)) {
    prototype[field] = value;
    let found, explained;
    try {
      found = ask();
      explained = policy.explain({}, {}).decision;
    } finally {
      delete prototype[field];
    }
    assert.deepEqual(found, expected, field);
    assert.deepEqual(explained, expected[0]![0], field);
  }
  // Nor is a peer's own field, or its class's, hidden by such a one.
  class Root {
    get uid() {
      return 0;
    }
  }
  prototype["uid"] = 7;
  try {
    for (const peer of [{ uid: 0 }, new Root(), new class extends Root {}()]) {
      assert.equal(policy.decide(peer).rule, "root");
    }
    const facts = { label: { state: "none" } };
    const real = { uid: 1, gid: 1, groups: [1], ambiguous: [], facts, drift: () => [] };
    prototype["facts"] = facts;
    assert.equal(policy.decide(real as unknown as Peer).rule, "same");
    delete prototype["facts"];
    assert.equal(policy.decide(real as unknown as Peer).rule, "same");
  } finally {
    delete prototype["uid"];
    delete prototype["facts"];
  }
});

test("decide() throws a TypeError when the peer is not an object or the action not a text", () => {
  const policy = compile({ name: "all", allow: true });
  for (const peer of [undefined, null]) {
    assert.throws(() => policy.decide(peer as never), TypeError);
    assert.throws(() => policy.admits(peer as never), TypeError);
    assert.throws(() => policy.explain(peer as never), TypeError);
  }
  for (const action of [null, 5, ["GET /"], {}, Object("GET /")]) {
    assert.throws(() => policy.decide({}, { action } as object), TypeError);
  }
  const wrong = { actoin: "GET /" } as object;
  for (const ask of ["decide", "explain"] as const) {
    const message = `${ask}() has no option "actoin"; did you mean "action"?`;
    assert.throws(() => policy[ask]({}, wrong), { name: "TypeError", message });
  }
});

test("checkPolicy() rejects a name that resolves to no id", () => {
  const rules = [{
    name: "r",
    when: { any: [{ user: "ghost" }, { group: "ghost" }] },
    allow: true,
  }];
  const ask = (id: unknown) => {
    const accounts = { ...resolve, uid: () => id, gid: () => id } as typeof resolve;
    const result = checkPolicy({ version: 1, rules }, accounts);
    return "problems" in result ? result.problems.first.map(({ message }) => message) : [];
  };
  for (const none of [undefined, null]) {
    assert.deepEqual(ask(none), ['no user "ghost"', 'no group "ghost"']);
  }
  for (const id of NOBODY) {
    if (id === null) continue;
    assert.match(ask(id).join("\n"), /^user "ghost" has the id .*, which is not an id\ngroup/);
  }
  assert.deepEqual(ask(7), []);
});

test("the schema's patterns exclude exactly the misleading characters", () => {
  const seen = new RegExp(SEEN_PATTERN, "u");
  const plain = new RegExp(PLAIN_PATTERN, "u");
  for (let code = 0; code < 0x110000; code++) {
    if (code >= 0xd800 && code < 0xe000) continue; // halves of pairs, of which no file has any
    const character = String.fromCodePoint(code);
    const isSeen = unseenIn(character) === undefined;
    const isPlain = isSeen && spaceLikeIn(character) === undefined;
    if (seen.test(character) === isSeen && plain.test(character) === isPlain) continue;
    assert.fail(`U+${code.toString(16)}`);
  }
});
