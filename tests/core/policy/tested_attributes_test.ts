/** Which attributes of a request audit records have. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { definePolicy, type Policy, type PolicyDocument } from "../../../mod.ts";
import { defineVocabulary, shadowPolicy } from "../../../policy/mod.ts";
import { ForwardingPolicy } from "../../../core/policy/forward.ts";
import { mayTest, testedAttributes } from "../../../core/policy/tested_attributes.ts";

const vocabulary = defineVocabulary({
  name: "jobs",
  actions: { start: "Starts a job.", stop: "Stops a job." },
  attributes: {
    privileged: { type: "boolean", description: "Whether the job is privileged." },
    weight: { type: "number", description: "The weight of the job." },
    owner: { type: "id", description: "The uid of the owner." },
    image: { type: "text", description: "The name of the image." },
    token: { type: "text", description: "A token.", secret: true },
    mounts: { type: "texts", description: "The paths that are mounted." },
    environment: { type: "texts", description: "The environment.", secret: true },
    query: { type: "parameters", description: "The parameters." },
    form: { type: "parameters", description: "The fields of the form.", secret: true },
  },
});

const policyOf = (rules: PolicyDocument["rules"]) =>
  definePolicy({ version: 1, about: "jobs", rules }, { vocabularies: [vocabulary] });

const uid = 1000;

/** What a log has of a request. */
function logged(policy: ReturnType<typeof policyOf>, attributes: { [name: string]: unknown }) {
  const decision = policy.decide({ uid }, { action: "start", attributes });
  return testedAttributes(policy, decision, attributes);
}

test("testedAttributes() returns the attributes of the rule that decided", () => {
  const policy = policyOf([
    { name: "privileged", where: { privileged: true }, deny: "no" },
    {
      name: "light",
      where: {
        any: [{ weight: "0-9" }, { not: { owner: "self" } }],
        query: { a: { empty: false } },
      },
      allow: true,
    },
    { name: "rest", where: { image: "safe/*" }, allow: true },
    { name: "root", when: { uid: 0 }, allow: true },
  ]);
  const all = { privileged: false, weight: 3, owner: 5, query: { a: ["1"], b: ["2"] }, image: "x" };
  assert.deepEqual(logged(policy, { ...all, privileged: true }), { privileged: true });
  assert.deepEqual(logged(policy, all), { weight: 3, owner: 5, "query.a": ["1"] });
  // No rule matches: any of them could have decided.
  assert.deepEqual(logged(policy, { ...all, query: {} }), {
    ...{ privileged: false, weight: 3, owner: 5, "query.a": [], image: "x" },
  });
  const attributes = { privileged: false, image: "x" };
  const asRoot = policy.decide({ uid: 0 }, { action: "start", attributes });
  assert.equal(asRoot.rule, "root");
  assert.deepEqual(testedAttributes(policy, asRoot, attributes), undefined);
  // Of a policy that was replaced since the decision.
  assert.deepEqual(testedAttributes(policy, { ...asRoot, rule: "gone" }, attributes), undefined);
});

test("testedAttributes() omits unknown attributes, and never throws", () => {
  const policy = policyOf([{ name: "a", where: { privileged: true, image: "*" }, allow: true }]);
  assert.deepEqual(logged(policy, {}), undefined);
  assert.deepEqual(logged(policy, { privileged: "true", image: null }), { image: null });
  const broken = Object.defineProperty({ privileged: false }, "image", {
    get: () => {
      throw new Error("broken");
    },
  });
  assert.deepEqual(logged(policy, broken), { privileged: false });
  const custom = { needsPin: false, decide: () => policy.decide({ uid }), admits: () => true };
  assert.equal(testedAttributes(custom, custom.decide(), { image: "x" }), undefined);
});

test("testedAttributes() has no values of secret attributes", () => {
  const policy = policyOf([{
    name: "all",
    where: {
      token: "*",
      environment: { some: "**" },
      form: { password: { empty: false }, other: { empty: true } },
      mounts: { every: "/srv/**" },
    },
    allow: true,
  }]);
  const secret = "s3cret";
  const attributes = {
    token: secret,
    environment: [secret, secret],
    form: { password: [secret] },
    mounts: ["/srv/a"],
  };
  assert.deepEqual(logged(policy, attributes), {
    token: 1,
    environment: 2,
    "form.password": 1,
    "form.other": 0,
    mounts: ["/srv/a"],
  });
  assert.deepEqual(logged(policy, { token: null }), { token: null });
});

test("testedAttributes() is bounded, whatever the request contains", () => {
  const names = Array.from({ length: 100 }, (_, at) => `name${at}`);
  const policy = policyOf([{
    name: "long",
    where: {
      mounts: { every: "**" },
      image: "**",
      query: Object.fromEntries(names.map((name) => [name, { empty: false }])),
    },
    allow: true,
  }]);
  const long = "\u{1f600}".repeat(5000);
  const found = logged(policy, {
    mounts: Array.from({ length: 1000 }, () => long),
    image: long,
    query: Object.fromEntries(names.map((name) => [name, [long]])),
  })!;
  assert.equal(Object.keys(found).length, 32);
  assert.equal((found["mounts"] as string[]).at(-1), "… (984 more)");
  assert.equal((found["mounts"] as string[])[0], `${long.slice(0, 256)}… (10000 characters)`);
  assert.ok(JSON.stringify(found).length < 6000);

  const most = "x".repeat(256);
  const exact = { mounts: Array(7).fill(most), image: most, query: { name0: ["y"] } };
  assert.deepEqual(logged(policy, exact), {
    ...{ mounts: exact.mounts, image: most, "query.name0": ["… (1 characters)"] },
    ...Object.fromEntries(names.slice(1, 30).map((name) => [`query.${name}`, []])),
  });
  assert.equal(logged(policy, { image: `${most}y` })!["image"], `${most}… (257 characters)`);
  const many = (count: number) => logged(policy, { mounts: Array(count).fill("") })!["mounts"];
  assert.deepEqual(many(16), Array(16).fill(""));
  assert.deepEqual(many(17), [...Array(16).fill(""), "… (1 more)"]);
});

test("testedAttributes() asks the policy in force", () => {
  const active = policyOf([{ name: "a", where: { image: "*" }, allow: true }]);
  const candidate = policyOf([{ name: "a", where: { owner: "self" }, allow: true }]);
  const policy = shadowPolicy(active, candidate);
  const attributes = { image: "x", owner: 1 };
  const decision = policy.decide({ uid }, { action: "start", attributes });
  assert.deepEqual(testedAttributes(policy, decision, attributes), { image: "x" });
});

test("mayTest() is false only if no policy that decides has rules about the vocabulary", () => {
  const about = policyOf([{ name: "all", allow: true }]);
  const plain = definePolicy({ version: 1, rules: [{ name: "all", allow: true }] });
  const custom = { needsPin: false, decide: () => about.decide({ uid }), admits: () => true };
  class Forwarding extends ForwardingPolicy<Policy> {
    readonly current = about;
  }
  const forwarding = new Forwarding();
  const request = { action: "start" };
  assert.deepEqual(forwarding.decide({ uid }, request), about.decide({ uid }, request));
  assert.deepEqual([forwarding.admits({ uid }), forwarding.needsPin], [true, false]);
  const rows: readonly (readonly [Policy, boolean])[] = [
    [about, true],
    [plain, false],
    [custom, true],
    [forwarding, true],
    [shadowPolicy(plain, about), true],
    [shadowPolicy(about, plain), true],
    [shadowPolicy(plain, forwarding), true],
    [shadowPolicy(plain, plain), false],
  ];
  for (const [at, [policy, expected]] of rows.entries()) {
    assert.equal(mayTest(policy, "jobs"), expected, `${at}`);
    assert.equal(mayTest(policy, "http"), policy === custom, `${at}`);
  }
});
