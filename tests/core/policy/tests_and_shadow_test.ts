/** A policy's own tests, shadow policies, and the schema beside the check. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Ajv2020 } from "ajv/dist/2020.js";
import fc from "../../support/properties.ts";
import { runTests } from "../../../core/policy/analyze/run_tests.ts";
import { who } from "../../../core/policy/analyze/who.ts";
import { checkPolicy } from "../../../core/policy/document/check.ts";
import { policySchema } from "../../../core/policy/document/json_schema.ts";
import type { PolicyDocument, TestDocument } from "../../../core/policy/document/types.ts";
import { compilePolicy, type Policy } from "../../../core/policy/policy.ts";
import { type ShadowCase, shadowPolicy } from "../../../core/policy/shadow.ts";
import { compile, peer, resolve, rules, RUNS, text } from "./policies.ts";

const RULES: PolicyDocument["rules"] = [
  { name: "never", when: { group: "users" }, deny: "Not you" },
  { name: "root", when: { uid: 0 }, allow: "full" },
  { name: "docker", when: { group: "docker" }, actions: ["GET /**"], allow: ["read", "list"] },
  { name: "unit", when: { user: "ada", unit: "web.service" }, allow: true },
];

function withTests(...tests: readonly TestDocument[]): Policy {
  const result = checkPolicy({ version: 1, rules: RULES, tests }, resolve);
  assert.ok("checked" in result, JSON.stringify(result));
  return compilePolicy(result.checked);
}

test("runTests() runs a policy's tests, and lists the rules that decide none", () => {
  const report = runTests(withTests(
    { peer: { uid: 0, gid: 0, groups: [] }, expect: { allow: "full", rule: "root" } },
    {
      name: "docker reads",
      peer: { uid: 4242, gid: 9, groups: ["docker"] },
      action: "GET /x",
      expect: { allow: ["list", "read"] },
    },
    {
      peer: { uid: 4242, gid: 9, groups: ["docker"] },
      action: "PUT /x",
      expect: { deny: true, rule: null },
    },
    { peer: { user: "ben", group: "users" }, expect: { deny: true, rule: "never" } },
  ));
  assert.deepEqual([report.passed, report.uncovered], [true, ["unit"]]);
  assert.equal(
    String(report),
    [
      ...["test 1", "docker reads", "test 3", "test 4"].map((name) => `ok      ${name}`),
      'No test is decided by rule "unit"',
      "4 passed, 0 failed",
    ].join("\n"),
  );
});

test("checkPolicy() resolves each name of rules and tests once", () => {
  const lookups: string[] = [];
  const found = (id: number | undefined, name: string) => (lookups.push(name), id);
  const accounts = {
    ...resolve,
    uid: (name: string) => found(resolve.uid(name), name),
    gid: (name: string) => found(resolve.gid(name), name),
  };
  const expect = { deny: true } as const;
  const result = checkPolicy({
    version: 1,
    rules: [{ name: "a", when: { user: ["ada", "ben"], group: "docker" }, allow: true }],
    tests: [
      { peer: { user: "ada", group: "docker", groups: [7, "users", "docker"] }, expect },
      { peer: { uid: 4, gid: 8, label: "x" }, expect },
      { peer: {}, expect: { allow: ["x"], rule: null } },
    ],
  }, accounts);
  assert.ok("checked" in result);
  const { tests, named } = result.checked;
  assert.deepEqual(lookups, ["ada", "ben", "docker", "users"]);
  assert.deepEqual(tests.map(({ peer }) => peer), [
    { uid: 1, gid: 3, groups: [7, 6, 3] },
    { uid: 4, gid: 8, label: "x" },
    {},
  ]);
  assert.deepEqual(tests.map(({ grants, rule, path }) => [grants, rule, ...path]), [
    [undefined, undefined, "tests", 0],
    [undefined, undefined, "tests", 1],
    [["x"], null, "tests", 2],
  ]);
  assert.deepEqual(named[0], {
    kind: "user",
    name: "ada",
    id: 1,
    path: ["rules", 0, "when", "user", 0],
  });
  assert.deepEqual(named.map(({ kind, name, id }) => `${kind} ${name} ${id}`), [
    ...["user ada 1", "user ben 5", "group docker 3", "user ada 1", "group docker 3"],
    ...["group users 6", "group docker 3"],
  ]);
});

test("runTests() reports each kind of failure", () => {
  const root = { uid: 0, gid: 0, groups: [] };
  const cases: readonly [TestDocument["expect"], string?][] = [
    [{ allow: true }],
    [{ allow: "full" }],
    [{ deny: true }, "Expected: denied"],
    [{ allow: "read" }, "Expected the grants read"],
    [{ allow: true, rule: "docker" }, 'Expected rule "docker" to decide'],
    [{ allow: true, rule: null }, "Expected no rule to decide"],
  ];
  for (const [expect, message] of cases) {
    const { passed, results: [result] } = runTests(withTests({ peer: root, expect }));
    assert.equal(passed, message === undefined);
    if (message === undefined) assert.equal(result!.message, undefined);
    else assert.ok(result!.message!.startsWith(`${message}. The decision is: allowed`), message);
  }
  const { results: [denied] } = runTests(withTests({ peer: {}, expect: { allow: true } }));
  assert.match(
    denied!.message!,
    /^Expected: allowed\. The decision is: denied\. .*unknown: groups/,
  );
  assert.equal(runTests(withTests()).passed, true);
});

test("checkPolicy() reports each problem of a test, with its path", () => {
  const result = checkPolicy({
    version: 1,
    rules: RULES,
    tests: [
      { peer: { uid: 0, user: "ada" }, expect: { allow: true } },
      { peer: { user: "adaa", groups: ["dokcer", -1] }, expect: { allow: true, deny: true } },
      { peer: { proces: {} }, expect: { rule: "rot", deny: true } },
      { expect: { deny: "no" } },
      { peer: { label: undefined, process: { unit: 7 } }, expect: {} },
    ],
  }, resolve);
  assert.ok("problems" in result);
  assert.deepEqual(
    result.problems.first.map(({ path, message }) => `${path.join(".")}: ${message}`),
    [
      "tests.0.peer.user: a peer has either uid or user",
      'tests.1.peer.user: no user "adaa"; did you mean "ada"?',
      'tests.1.peer.groups.0: no group "dokcer"; did you mean "docker"?',
      "tests.1.peer.groups.1: groups is an id from 0 to 4294967294, not -1",
      "tests.1.expect: an expectation has both allow and deny",
      'tests.2.peer.proces: no field "proces" here; did you mean "process"?',
      "tests.3.peer: a peer is an object, not nothing",
      'tests.3.expect.deny: deny is true, not "no"',
      "tests.4.peer.label: label is a text, not nothing",
      "tests.4.peer.process.unit: unit is a text, not 7",
      "tests.4.expect: an expectation has neither allow nor deny",
      'tests.2.expect.rule: no rule "rot"; did you mean "root"?',
    ],
  );
});

test("shadowPolicy() returns the active decision, and counts differences by pair of rules", () => {
  const active = compile(
    { name: "people", when: { uid: "1-5" }, allow: "read" },
    { name: "rest", deny: true },
  );
  const candidate = compile(
    { name: "some", when: { uid: "1-3" }, allow: "read" },
    { name: "ben", when: { uid: 5 }, allow: ["read", "write"] },
    { name: "six", when: { uid: 6 }, allow: "read" },
  );
  const told: ShadowCase[] = [];
  const policy = shadowPolicy(active, candidate, { onDifference: (each) => void told.push(each) });
  for (const uid of [1, 4, 4, 5, 6, 7]) {
    assert.deepEqual(policy.decide({ uid }, { action: "x" }), active.decide({ uid }));
  }
  assert.deepEqual([policy.decisions, policy.differing, policy.failed], [6, 4, 0]);
  assert.deepEqual(
    policy.differences.map(({ active, candidate, wasAllowed, wouldBeAllowed, count }) =>
      [active, candidate, wasAllowed, wouldBeAllowed, count] as const
    ),
    [
      ["people", undefined, true, false, 2],
      ["people", "ben", true, true, 1],
      ["rest", "six", false, true, 1],
    ],
  );
  assert.deepEqual(
    told.map(({ uid, action }) => [uid, action]),
    [4, 4, 5, 6].map((uid) => [uid, "x"]),
  );
  assert.deepEqual([policy.admits({ uid: 6 }), policy.explain?.({ uid: 6 }).decision.allowed], [
    false,
    false,
  ]);
  assert.throws(() => who(policy), { name: "TypeError", message: /^who\(\) takes .*`current`$/ });
  assert.equal(String(who(policy.current)), String(who(active)));
});

test("shadowPolicy() admits peers by the active policy, and counts those that the candidate would admit", () => {
  const active = compile({ name: "one", when: { uid: 1 }, actions: "GET /**", allow: true });
  const candidate = compile(
    { name: "not one", when: { uid: 1 }, deny: true },
    { name: "all", actions: "**", allow: true },
  );
  const policy = shadowPolicy(active, candidate);
  for (const uid of [1, 5, 6]) assert.equal(policy.admits({ uid }), active.admits({ uid }));
  const { decisions, differing, wouldAdmit, wouldRefuse, failed } = policy;
  assert.deepEqual([decisions, differing, wouldAdmit, wouldRefuse, failed], [0, 0, 2, 1, 0]);
  const same = shadowPolicy(active, active);
  assert.deepEqual([1, 5].map((uid) => same.admits({ uid })), [true, false]);
  assert.deepEqual([same.wouldAdmit, same.wouldRefuse], [0, 0]);
  const broken = shadowPolicy(active, { admits: () => assert.fail("broken") } as unknown as Policy);
  assert.deepEqual([broken.admits({ uid: 1 }), broken.admits({}), broken.failed], [true, false, 2]);
});

test("shadowPolicy() counts a pair of rules again when a reload changes their effect", () => {
  const [allows, denies] = [
    compile({ name: "r", allow: "a" }),
    compile({ name: "r", deny: true }),
  ];
  let current = allows;
  const watched = { decide: () => current.decide({}) } as unknown as Policy;
  const policy = shadowPolicy(watched, compile({ name: "r", allow: "b" }));
  policy.decide({});
  current = denies;
  policy.decide({});
  assert.deepEqual(
    policy.differences.map((
      { wasAllowed, wouldBeAllowed, count, first },
    ) => [wasAllowed, wouldBeAllowed, count, first.active.allowed]),
    [[true, true, 1, true], [false, true, 1, false]],
  );
});

test("shadowPolicy() returns the active decision when the candidate or the listener throws", () => {
  const active = compile({ name: "all", allow: true });
  const broken = { decide: () => assert.fail("broken") } as unknown as Policy;
  const policy = shadowPolicy(active, broken);
  assert.equal(policy.decide({}).allowed, true);
  const loud = shadowPolicy(active, compile(), { onDifference: () => assert.fail("loud") });
  assert.equal(loud.decide({}).allowed, true);
  assert.deepEqual([policy.failed, loud.failed, loud.differing], [1, 1, 1]);
});

test("shadowPolicy() compares grants as sets", () => {
  const grants = (...allow: string[]) => compile({ name: "r", allow });
  const rows = [
    [["a", "b"], ["b", "a"], 0],
    [["a"], ["a", "a"], 0],
    [["a", "b"], ["a"], 1],
    [["a"], ["a", "b"], 1],
    [["a", "b"], ["a", "c"], 1],
  ] as const;
  for (const [active, candidate, differing] of rows) {
    const policy = shadowPolicy(grants(...active), grants(...candidate));
    policy.decide({});
    assert.equal(policy.differing, differing, `${active} ${candidate}`);
  }
});

test("shadowPolicy() lists at most a thousand pairs of rules", () => {
  const many = Array.from({ length: 1500 }, (_, uid) => ({
    name: `r${uid}`,
    when: { uid },
    allow: true as const,
  }));
  const policy = shadowPolicy(compile(...many), compile());
  for (const uid of many.keys()) policy.decide({ uid });
  assert.deepEqual([policy.differing, policy.differences.length], [1500, 1000]);
  for (const uid of [7, 999, 1499, 999]) policy.decide({ uid });
  const [most, second] = policy.differences;
  assert.deepEqual([most!.active, most!.count, most!.first.uid], ["r999", 3, 999]);
  assert.deepEqual([second!.active, second!.count, policy.differences.length], ["r7", 2, 1000]);
});

test("policySchema() accepts every valid document, and rejects only documents that checkPolicy() rejects", () => {
  const isRight = new Ajv2020({ allErrors: false, strict: true, strictRequired: false })
    .compile(policySchema());
  const accepts = (document: unknown) => "checked" in checkPolicy(document, resolve);
  fc.assert(
    fc.property(rules, fc.array(fc.tuple(peer, text)), (rules, cases) => {
      const tests = cases.map(([peer, action]) => ({
        peer,
        ...(action !== "" && { action }),
        expect: { deny: true as const },
      }));
      const document = JSON.parse(JSON.stringify({ version: 1, rules, tests }));
      if (!accepts(document)) return; // a label may be empty
      assert.ok(isRight(document), JSON.stringify(isRight.errors));
    }),
    { numRuns: RUNS.numRuns / 5 },
  );
  // Right documents with one value replaced.
  const anything = fc.oneof(
    fc.constantFrom(...["", "x", "root", 0, -1, 1.5, true, null, [], {}, [[]], "1-2"]),
    fc.jsonValue(),
  );
  const right = {
    version: 1,
    rules: [
      {
        name: "a",
        when: { any: [{ uid: [1, "2-3"] }, { not: { exe: "/x" } }], sameNamespaces: ["pid"] },
        actions: ["GET /"],
        allow: ["x"],
      },
      {
        name: "b",
        when: { group: "docker", unchanged: true, exeSha256: "0".repeat(64) },
        deny: "No",
      },
    ],
    tests: [{
      name: "t",
      peer: { uid: 1, groups: [1, "users"], label: null, process: { unit: "x" } },
      action: "GET /",
      expect: { allow: ["x"], rule: "a" },
    }],
  };
  assert.ok(accepts(right) && isRight(right), JSON.stringify(isRight.errors));
  const places: (readonly (string | number)[])[] = [];
  const visit = (value: unknown, path: readonly (string | number)[]): void => {
    places.push(path);
    if (typeof value !== "object" || value === null) return;
    for (const [key, each] of Object.entries(value)) {
      visit(each, [...path, Array.isArray(value) ? Number(key) : key]);
    }
  };
  visit(right, []);
  /** Whether the document is refused that has this in the place of, or beside, what is there. */
  const isRefused = (path: readonly (string | number)[], wrong: unknown, key: string | null) => {
    const document = structuredClone(right) as unknown;
    let at = document as { [key: string]: unknown };
    for (const step of path.slice(0, -1)) at = at[step] as typeof at;
    const last = path.at(-1);
    if (last === undefined) return false;
    if (key === null) at[last] = wrong;
    else if (!Array.isArray(at)) {
      // As a file has it, "__proto__" too.
      Object.defineProperty(at, key, { value: wrong, enumerable: true, configurable: true });
    }
    if (isRight(document)) return false;
    assert.ok(!accepts(document), JSON.stringify(document));
    return true;
  };
  const key = fc.option(fc.string());
  fc.assert(
    fc.property(fc.constantFrom(...places), anything, key, (...edit) => void isRefused(...edit)),
    { numRuns: RUNS.numRuns * 2 },
  );
  for (const place of places.slice(1)) assert.ok(isRefused(place, [[]], null), place.join());
  for (const name of ["x", "__proto__"]) {
    assert.ok(isRefused(["rules", 0, "name"], true, name) && isRefused(["version"], true, name));
  }
});
