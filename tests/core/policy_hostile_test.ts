/** Documents and peers that are not what they seem. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { checkPolicy } from "../../core/policy/check.ts";
import type { Condition } from "../../core/policy/document.ts";
import { MOST_VALUES } from "../../core/policy/plain.ts";
import { compilePolicy, equivalent, type Policy } from "../../core/policy/policy.ts";
import { compile, resolve } from "./policies.ts";

/** Makes a policy of anything. @throws {Error} With the problems, a line for each. */
function define(...rules: readonly unknown[]): Policy {
  return defineAll({ version: 1, rules });
}

function defineAll(document: unknown): Policy {
  const result = checkPolicy(document, resolve);
  if ("checked" in result) return compilePolicy(result.checked);
  const lines = result.problems.map(({ path, message }) => `${path.join(".")}: ${message}`);
  throw new Error(lines.join("\n"));
}

const nest = (depth: number): Condition => depth === 0 ? { uid: 0 } : { not: nest(depth - 1) };

test("a document that changes later changes no policy", () => {
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
  assert.equal(String(policy.who("PUT /x")), "nobody");
  assert.equal(String(policy.who("GET /x")), String(same.who("GET /x")));
  for (const action of ["GET /x", "PUT /x"]) {
    for (const peer of [{ uid: 1, label: "a" }, { uid: 2, label: "b" }, { uid: 3, label: "a" }]) {
      const { allowed, grants } = policy.decide(peer, { action });
      assert.equal(allowed, peer.uid === 1 && action === "GET /x");
      assert.deepEqual(grants, allowed ? ["read"] : []);
      assert.equal(policy.explain(peer, { action }).decision.allowed, allowed);
    }
  }
  assert.throws(() => (policy.who("GET /x").clauses[0]!.grants as string[]).push("admin"));
});

test("each field of a document is read once", () => {
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

test("what a document seems to have from elsewhere counts for nothing", () => {
  const prototype = Object.prototype as { allow?: true; when?: object };
  prototype.allow = true;
  try {
    assert.throws(() => define({ name: "r", when: { uid: 0 } }), /either allow or deny/);
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

test("what is no plain data is refused", () => {
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

test("objects without a prototype are as good as others", () => {
  const bare = (fields: object) => Object.assign(Object.create(null), fields);
  const rules = [
    bare({ name: "a", when: bare({ any: [bare({ uid: 0 })] }), allow: true }),
    bare({ name: "b", when: bare({ not: bare({ all: [bare({ uid: "0-9" })] }) }), allow: "b" }),
  ];
  const policy = define(...rules);
  assert.deepEqual([0, 5, 10].map((uid) => policy.decide({ uid }).rule), ["a", undefined, "b"]);
});

test("a document without an end, or too large, is refused", () => {
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
  const tooMany = `: more than ${MOST_VALUES} values`;
  const holes: unknown[] = [];
  holes.length = 2 ** 32 - 1;
  for (const when of [wide, { uid: Array(MOST_VALUES).fill(0) }, { uid: holes }]) {
    assert.throws(() => define(rule(when)), { message: tooMany });
  }
});
