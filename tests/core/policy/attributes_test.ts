/** Tests of policies about a vocabulary: conditions on attributes, beside a naive evaluator. */

import { Ajv2020 } from "ajv/dist/2020.js";
import fc from "../../support/properties.ts";
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Peer } from "../../../core/peer.ts";
import { runTests } from "../../../core/policy/analyze/run_tests.ts";
import { MAX_LIST_TEXTS } from "../../../core/policy/decide/attributes.ts";
import type { Attributes } from "../../../core/policy/decide/decision.ts";
import { checkPolicy, type PolicyVocabulary } from "../../../core/policy/document/check.ts";
import { policySchema } from "../../../core/policy/document/json_schema.ts";
import type {
  AttributeCondition,
  RuleDocument,
  TestDocument,
} from "../../../core/policy/document/types.ts";
import {
  defineVocabulary,
  type VocabularyDocument,
} from "../../../core/policy/document/vocabulary.ts";
import { compilePolicy, type RulePolicy } from "../../../core/policy/policy.ts";
import { type ShadowCase, shadowPolicy } from "../../../core/policy/shadow.ts";
import { cases } from "../../support/suite.ts";
import { resolve } from "./policies.ts";
import {
  ACTIONS,
  anyAttributes,
  attributePolicy,
  attributeRules,
  decideByAttributes,
  peerOfRequest,
  STORE,
  storeCopy,
} from "./attribute_policies.ts";

const compile = (...rules: readonly RuleDocument[]) => attributePolicy(rules);

/** Whether a request passes an allowing rule with this condition, and a denying one; the unknown facts. */
function outcomesOf(where: AttributeCondition) {
  const store = storeCopy();
  const rest = { name: "rest", allow: true } as const;
  const allowing = attributePolicy([{ name: "r", where, allow: true }], [], store);
  const denying = attributePolicy([{ name: "r", where, deny: true }, rest], [], store);
  return (attributes: unknown) => {
    const request = { action: "read", attributes: attributes as Attributes };
    const { allowed, unknown } = allowing.decide({ uid: 1 }, request);
    const { allowed: passes } = denying.decide({ uid: 1 }, request);
    return { allowed, passes, unknown: unknown.join() };
  };
}

const outcomeOf = (where: AttributeCondition, attributes: unknown) => outcomesOf(where)(attributes);

const MET = { allowed: true, passes: false, unknown: "" };
const MISSED = { allowed: false, passes: true, unknown: "" };
const UNKNOWN = (...facts: string[]) => ({
  allowed: false,
  passes: false,
  unknown: facts.map((fact) => `attributes.${fact}`).join(),
});

test("decide() tests attributes of each type", () => {
  const met: [AttributeCondition, Attributes][] = [
    [{ secret: false }, { secret: false }],
    [{ size: 5 }, { size: 5 }],
    [{ size: [1, "4-6"] }, { size: 5.5 }],
    [{ size: -0.5 }, { size: -0.5 }],
    [{ name: "a*" }, { name: "abc" }],
    [{ name: ["x", "**/c"] }, { name: "a/b/c" }],
    [{ tags: { every: "a*" } }, { tags: [] }],
    [{ tags: { every: ["a", "b"] } }, { tags: ["b", "a", "b"] }],
    [{ tags: { some: "b" } }, { tags: ["a", "b"] }],
    [{ tags: { none: "c*" } }, { tags: ["a", "b"] }],
    [{ tags: { empty: true } }, { tags: [] }],
    [{ tags: { empty: false, every: "a" } }, { tags: ["a"] }],
    [{ owner: 7 }, { owner: 7 }],
    [{ owner: ["5-9", "self"] }, { owner: 1 }],
    [{ owner: "self" }, { owner: 1 }],
    [{ labels: { env: { some: "test" } } }, { labels: { env: ["prod", "test"] } }],
    [{ labels: { env: { empty: true } } }, { labels: {} }],
    [{ not: { secret: true } }, { secret: false }],
    [{ any: [{ secret: true }, { name: "a" }] }, { name: "a" }],
    [{ all: [{ size: 1 }, { name: "a" }] }, { name: "a", size: 1 }],
    [{ not: { name: "**" } }, { name: null }],
  ];
  for (const [where, attributes] of met) {
    assert.deepEqual(outcomeOf(where, attributes), MET, JSON.stringify(where));
    assert.deepEqual(outcomeOf({ not: where }, attributes), MISSED, JSON.stringify(where));
  }
  const missed: [AttributeCondition, Attributes][] = [
    [{ secret: false }, { secret: true }],
    [{ size: [1, "4-6"] }, { size: 6.5 }],
    [{ name: ["x", "a/*"] }, { name: "a/b/c" }],
    [{ name: "**" }, { name: null }],
    [{ tags: { every: "a" } }, { tags: ["a", "b"] }],
    [{ tags: { some: "a" } }, { tags: [] }],
    [{ tags: { none: ["x", "a"] } }, { tags: ["b", "a"] }],
    [{ tags: { empty: true } }, { tags: [""] }],
    [{ owner: ["5-9", 12] }, { owner: 10 }],
    [{ owner: "self" }, { owner: 2 }],
    [{ owner: ["5-9", "self"] }, { owner: 2 }],
    [{ labels: { env: { some: "test" } } }, { labels: { other: ["test"] } }],
    [{ labels: { env: { none: "a" }, b: { empty: true } } }, { labels: { b: ["a"] } }],
  ];
  for (const [where, attributes] of missed) {
    assert.deepEqual(outcomeOf(where, attributes), MISSED, JSON.stringify(where));
    assert.deepEqual(outcomeOf({ not: where }, attributes), MET, JSON.stringify(where));
  }
  const rules = [[true, true], [false, true], [true, false], [false, false]]
    .map(([secret, other]) => ({
      name: `${secret} ${other}`,
      where: { secret: secret!, tags: { empty: other! } },
      allow: true as const,
    }));
  const policy = attributePolicy(rules, [], storeCopy());
  for (const { name, where: { secret, tags } } of rules) {
    const attributes = { secret, tags: tags.empty ? [] : ["a"] };
    assert.equal(policy.decide({ uid: 1 }, { action: "read", attributes }).rule, name);
  }
});

// Skipper CVE-2026-50197, CVE-2026-65838: denying rules did not match a body that was too large or
// had no length, because the policy received none.
test("decide() treats a missing attribute, or one of another type, as unknown", () => {
  const wrong: [string, AttributeCondition, unknown[]][] = [
    ["secret", { secret: false }, ["false", 0, null, [], undefined, {}]],
    ["size", { size: "0-9" }, ["5", NaN, Infinity, -Infinity, null, [5], 5n]],
    ["name", { name: "**" }, [5, true, ["a"], {}, undefined, Symbol("a"), () => "a"]],
    ["tags", { tags: { every: "**" } }, ["a", null, {}, [1], ["a", null], Array(2), { length: 0 }]],
    ["owner", { owner: "0-4294967294" }, [-1, 2 ** 32 - 1, 1.5, "1", null, NaN]],
    ["owner", { owner: "self" }, [-1, 2 ** 32 - 1, "1", null, undefined]],
    ["labels.env", { labels: { env: { none: "x" } } }, [
      ...[null, [], "x", 5, { env: "x" }, { env: [1] }, { env: null }],
    ]],
  ];
  for (const [fact, where, values] of wrong) {
    const [name] = fact.split(".") as [string];
    for (const outcomeOf of [outcomesOf(where), outcomesOf({ not: where })]) {
      for (const value of values) {
        assert.deepEqual(outcomeOf({ [name]: value }), UNKNOWN(fact), String(fact));
      }
      for (const none of [{}, undefined, null, [], "x", 5, () => {}]) {
        assert.deepEqual(outcomeOf(none), UNKNOWN(fact), String(none));
      }
    }
  }
});

test("decide() treats self as unknown when the uid is", () => {
  const policy = compile({ name: "own", where: { owner: "self" }, allow: true });
  const request = { action: "read", attributes: { owner: 1 } };
  const ambiguous = policy.decide({ uid: 1, ambiguous: ["uid"] }, request);
  assert.deepEqual([ambiguous.allowed, ambiguous.unknown], [false, ["uid"]]);
  assert.equal(policy.decide({}, request).allowed, false);
  assert.equal(policy.decide({ uid: 1 }, request).allowed, true);
});

test("decide() ignores inherited attributes", () => {
  const where = { secret: false, labels: { env: { empty: true } } };
  assert.deepEqual(
    outcomeOf(where, Object.create({ secret: false, labels: {} })),
    UNKNOWN("secret", "labels.env"),
  );
  const withClass = new class {
    get secret() {
      return false;
    }
  }();
  assert.deepEqual(outcomeOf({ secret: false }, withClass), UNKNOWN("secret"));
  const inherited = Object.prototype as { secret?: unknown; attributes?: unknown; env?: unknown };
  const secret = outcomesOf({ secret: false });
  const labels = outcomesOf({ labels: { env: { some: "x" } } });
  const policy = compile({ name: "r", where: { secret: false }, allow: true });
  try {
    inherited.secret = false;
    inherited.attributes = { secret: false };
    inherited.env = ["x"];
    assert.deepEqual(secret({}), UNKNOWN("secret"));
    assert.equal(policy.decide({ uid: 1 }, { action: "read" }).allowed, false);
    assert.deepEqual(labels({ labels: {} }), MISSED);
  } finally {
    delete inherited.secret;
    delete inherited.attributes;
    delete inherited.env;
  }
  for (const name of ["__proto__", "constructor", "toString"]) {
    const labels = JSON.parse(`{"labels": {"${name}": {"some": "**"}}}`);
    assert.deepEqual(outcomeOf(labels, { labels: {} }), MISSED, name);
    const given = JSON.parse(`{"labels": {"${name}": ["x"]}}`);
    assert.deepEqual(outcomeOf(labels, given), MET, name);
  }
});

/** A policy about this many boolean attributes. Its rules test each, in order, and then each again. */
function policyAboutMany(count: number): { names: readonly string[]; policy: RulePolicy } {
  const names = Array.from({ length: count }, (_, at) => `a${at}`);
  const attribute = { type: "boolean", description: "An attribute." } as const;
  const vocabulary = defineVocabulary({
    name: "many",
    actions: { read: "Reads." },
    attributes: Object.fromEntries(names.map((name) => [name, attribute])),
  });
  const rules: RuleDocument[] = [
    ...names.map((name) => ({ name: `no ${name}`, where: { [name]: true }, deny: true } as const)),
    ...names.map((name) =>
      ({ name: `yes ${name}`, where: { not: { [name]: false } }, allow: true }) as const
    ),
    { name: "last", where: { all: names.map((name) => ({ [name]: false })) }, allow: true },
  ];
  const vocabularies = [vocabulary as unknown as PolicyVocabulary];
  const result = checkPolicy({ version: 1, about: "many", rules }, { ...resolve, vocabularies });
  assert.ok("checked" in result);
  return { names, policy: compilePolicy(result.checked) };
}

test("decide() reads each attribute once for any number of rules", () => {
  for (const count of [1, 2, 3, 8, 9, 12]) {
    const { names, policy } = policyAboutMany(count);
    const reads: string[] = [];
    const changing = Object.defineProperties(
      {},
      Object.fromEntries(
        names.map((name) => [name, {
          get: () => reads.includes(name) || (reads.push(name), false),
        }]),
      ),
    );
    const { rule } = policy.decide({ uid: 1 }, { action: "read", attributes: changing });
    assert.deepEqual([rule, reads], ["last", names]);
  }
});

test("decide() ignores fields of Array.prototype", () => {
  const { names, policy } = policyAboutMany(12);
  const requests = names.map((wrong) => ({
    action: "read",
    attributes: Object.fromEntries(names.map((name) => [name, name === wrong])),
  }));
  const prototype = Array.prototype as unknown as { [index: number]: unknown };
  const found: (string | undefined)[] = [];
  for (let index = 0; index < 12; index++) prototype[index] = false;
  try {
    for (const request of requests) found.push(policy.decide({ uid: 1 }, request).rule);
  } finally {
    for (let index = 0; index < 12; index++) delete prototype[index];
  }
  assert.deepEqual(found, names.map((name) => `no ${name}`));
});

test("decide() treats attributes that cannot be read as unknown", () => {
  const boom = () => assert.fail("read");
  const throwing = [
    {
      get secret() {
        return boom();
      },
    },
    new Proxy({}, { has: boom, get: boom, getOwnPropertyDescriptor: boom }),
    new Proxy({ secret: false }, { get: boom }),
  ];
  for (const attributes of throwing) {
    assert.deepEqual(outcomeOf({ secret: false }, attributes), UNKNOWN("secret"));
  }
  const list = Object.defineProperty(["a"], 0, { get: boom });
  assert.deepEqual(outcomeOf({ tags: { every: "a" } }, { tags: list }), UNKNOWN("tags"));

  let elements = 0;
  const tags = Object.defineProperty(["a"], 0, { get: () => elements++ === 0 ? "evil" : "a" });
  const lists = compile(
    { name: "no", where: { tags: { some: "evil" } }, deny: true },
    { name: "yes", where: { tags: { every: "a" } }, allow: true },
  );
  assert.equal(lists.decide({ uid: 1 }, { action: "read", attributes: { tags } }).rule, "no");
  assert.equal(elements, 1);
});

test("decide() reads no fact of the process once an unknown attribute has settled the rule", () => {
  const reads = ([{ allow: true }, { deny: true }] as const).map((effect) => {
    let reads = 0;
    const peer = {
      uid: 1,
      get process() {
        reads++;
        return { unit: "v" };
      },
    };
    const policy = compile({ name: "r", when: { unit: "u" }, where: { secret: true }, ...effect });
    assert.equal(policy.decide(peer, { action: "read" }).rule, undefined);
    return reads;
  });
  // The unit can still show that the denying rule does not match.
  assert.deepEqual(reads, [0, 1]);
});

test("decide() treats a list of too many texts as unknown", () => {
  const where = { tags: { every: "a" } };
  const most = Array(MAX_LIST_TEXTS).fill("a");
  assert.deepEqual(outcomeOf(where, { tags: most }), MET);
  assert.deepEqual(outcomeOf(where, { tags: [...most, "a"] }), UNKNOWN("tags"));
  assert.deepEqual(outcomeOf(where, { tags: Array(2 ** 32 - 1) }), UNKNOWN("tags"));
  const labels = { labels: { env: { none: "b" } } };
  assert.deepEqual(outcomeOf(labels, { labels: { env: [...most, "a"] } }), UNKNOWN("labels.env"));
});

test("decide() denies an action that the vocabulary does not have", () => {
  const policy = compile({ name: "all", allow: true });
  for (const action of ["read", "copy", undefined]) {
    assert.equal(policy.decide({ uid: 1 }, { action }).allowed, true, `${action}`);
  }
  for (const action of ["", "Read", "read ", "__proto__", "constructor", "x".repeat(1000)]) {
    const { allowed, rule, reason } = policy.decide({ uid: 1 }, { action });
    assert.deepEqual([allowed, rule], [false, undefined], action);
    assert.match(reason, /^The vocabulary "store" has no action ".{0,70}"$/u);
    const explanation = policy.explain({ uid: 1 }, { action });
    assert.deepEqual(explanation.rules.map(({ outcome }) => outcome), ["other action"]);
    assert.equal(explanation.decision.allowed, false);
  }
  assert.throws(() => policy.decide({}, { action: 5 as unknown as string }), TypeError);
});

test("a policy without about ignores attributes", () => {
  const result = checkPolicy({ version: 1, rules: [{ name: "all", allow: true }] }, resolve);
  assert.ok("checked" in result);
  const policy = compilePolicy(result.checked);
  const attributes = new Proxy({}, { get: () => assert.fail("read") });
  assert.equal(policy.decide({}, { action: "anything", attributes }).rule, "all");
});

test("admits() is true when some action with some attributes could be allowed", () => {
  const policy = compile(
    { name: "secret", where: { secret: true }, deny: true },
    { name: "banned", when: { uid: 7 }, deny: true },
    { name: "own", when: { uid: "5-9" }, where: { owner: "self" }, allow: true },
  );
  assert.deepEqual([5, 7, 10].map((uid) => policy.admits({ uid })), [true, false, false]);
  assert.equal(policy.admits({}), false);
  assert.equal(compile({ name: "r", where: { secret: true }, allow: true }).admits({}), true);
});

test("explain() reports conditions on attributes, near misses and unknown attributes", () => {
  const policy = compile(
    { name: "open", when: { uid: 1 }, where: { secret: false, tags: { none: "x" } }, allow: true },
    { name: "own", where: { owner: "self" }, allow: true },
  );
  const request = { action: "read", attributes: { secret: true, tags: [] } };
  assert.equal(
    String(policy.explain({ uid: 1 }, request)),
    [
      "open  allow  no match",
      "        uid 1: yes",
      "        secret false: no",
      "        not (tags some x): yes",
      "        would match if the request's secret were false",
      "own   allow  unknown",
      "        owner self: unknown (attributes.owner is not known)",
      "        would match if it were known that the request's owner is self",
      "Denied: No rule matches; unknown: attributes.owner",
    ].join("\n"),
  );
  const real = { uid: 1, gid: 1, groups: [1], ambiguous: [], facts: {} } as unknown as Peer;
  assert.equal(String(policy.explain(real, request)), String(policy.explain({ uid: 1 }, request)));
  const other = policy.explain({ uid: 1 }, {
    ...request,
    attributes: { secret: false, tags: ["x"] },
  });
  assert.match(String(other), /would match if the request's tags were not some x/);
  const both = compile({ name: "r", when: { uid: 2 }, where: { owner: "self" }, allow: true });
  const { rules: [rule] } = both.explain({ uid: 1 }, { action: "read", attributes: { owner: 1 } });
  assert.equal(rule!.nearMiss, undefined, "another uid would no longer be the owner's");
});

test("runTests() decides tests with their attributes", () => {
  const tests: readonly TestDocument[] = [
    {
      peer: { uid: 1 },
      action: "read",
      attributes: { secret: false },
      expect: { allow: true, rule: "open" },
    },
    { peer: { uid: 1 }, action: "read", expect: { deny: true, rule: null } },
    { peer: { uid: 1 }, action: "read", attributes: { secret: true }, expect: { allow: true } },
  ];
  const rules = [{ name: "open", where: { secret: false }, allow: true }] as const;
  const { results } = runTests(attributePolicy(rules, tests));
  assert.deepEqual(results.map(({ passed }) => passed), [true, true, false]);
});

test("shadowPolicy() passes attributes to both policies, and reports them", () => {
  const differences: ShadowCase[] = [];
  const policy = shadowPolicy(
    compile({ name: "all", allow: true }),
    compile({ name: "open", where: { secret: false }, allow: true }),
    { onDifference: (difference) => void differences.push(difference) },
  );
  policy.decide({ uid: 1 }, { action: "read", attributes: { secret: false } });
  policy.decide({ uid: 1 }, { action: "read", attributes: { secret: true } });
  assert.deepEqual(differences.map(({ attributes }) => attributes), [{ secret: true }]);
});

const problemsOf = (document: object, vocabularies: readonly unknown[] = [storeCopy()]) => {
  const options = { ...resolve, vocabularies: vocabularies as readonly PolicyVocabulary[] };
  const result = checkPolicy({ version: 1, ...document }, options);
  return "problems" in result
    ? result.problems.first.map(({ path, message }) => `${path.join(".")}: ${message}`)
    : [];
};

test("checkPolicy() reports each mistake about a vocabulary, with its path and a suggestion", () => {
  const rule = (rest: object) => ({ about: "store", rules: [{ name: "r", allow: true, ...rest }] });
  const cases: [object, ...string[]][] = [
    [{ about: "stroe", rules: [] }, 'about: no vocabulary "stroe"; did you mean "store"?'],
    [{ about: {}, rules: [] }, "about: no vocabulary {}"],
    [{ about: null, rules: [] }, "about: no vocabulary null"],
    [
      { rules: rule({ where: { secret: true } }).rules },
      'rules.0.where: no field "where" here: name a vocabulary in about',
    ],
    [rule({ where: {} }), "rules.0.where: a condition on attributes has at least one field"],
    [
      rule({ where: undefined }),
      "rules.0.where: a condition on attributes is an object, not nothing",
    ],
    [
      rule({ where: { secert: true } }),
      'rules.0.where.secert: no field "secert" here; did you mean "secret"?',
    ],
    [
      rule({ where: { secret: "yes" } }),
      'rules.0.where.secret: secret is true or false, not "yes"',
    ],
    [
      rule({ where: { size: "9-1" } }),
      'rules.0.where.size: size is a number, or a range like "0-1023", not "9-1"',
    ],
    [rule({ where: { name: [] } }), "rules.0.where.name: name is at least one text, not []"],
    [
      rule({ where: { tags: ["a"] } }),
      "rules.0.where.tags: a condition on a list is an object, not a list",
    ],
    [
      rule({ where: { tags: {} } }),
      "rules.0.where.tags: a condition on a list has at least one field",
    ],
    [
      rule({ where: { tags: { evry: "a" } } }),
      'rules.0.where.tags.evry: no field "evry" here; did you mean "every"?',
    ],
    [
      rule({ where: { owner: "slef" } }),
      'rules.0.where.owner: owner is an id from 0 to 4294967294, a range like "1000-1999", or self, not "slef"',
    ],
    [
      rule({ where: { labels: {} } }),
      "rules.0.where.labels: a condition on parameters has at least one field",
    ],
    [
      rule({ where: { labels: { env: "x" } } }),
      'rules.0.where.labels.env: a condition on a list is an object, not "x"',
    ],
    [
      rule({ where: { any: [{ not: { nmae: "x" } }] } }),
      'rules.0.where.any.0.not.nmae: no field "nmae" here; did you mean "name"?',
    ],
    [rule({ actions: "" }), 'rules.0.actions: actions is a text or a list of them, not ""'],
    [
      rule({ actions: [5], where: { secret: true } }),
      "rules.0.actions.0: actions is a text or a list of them, not 5",
    ],
    [{ about: "store", rules: [null] }, "rules.0: a rule is an object, not null"],
    [{ about: "store", rules: [], tests: [null] }, "tests.0: a test is an object, not null"],
    [
      { about: "store", rules: [], tests: [{ peer: {}, action: 5, expect: { deny: true } }] },
      "tests.0.action: action is a text, not 5",
    ],
    [rule({ actions: "raed" }), 'rules.0.actions: no action "raed"; did you mean "read"?'],
    [rule({ actions: ["read", "x*"] }), 'rules.0.actions.1: no action "x*"'],
    [
      rule({ actions: [["read"]] }),
      "rules.0.actions.0: actions is a text or a list of them, not a list",
    ],
    [
      rule({ actions: ["read", "wr*"], where: { all: [{ target: "x" }] } }),
      'rules.0.where.all.0.target: "read" has no attribute "target": "copy" has it',
    ],
    [
      { about: "store", rules: [], tests: [{ peer: {}, action: "raed", expect: { deny: true } }] },
      'tests.0.action: no action "raed"; did you mean "read"?',
    ],
    [
      {
        about: "store",
        rules: [],
        tests: [{
          peer: {},
          action: "read",
          attributes: { secret: "x", ownr: 1, target: "y" },
          expect: { deny: true },
        }],
      },
      'tests.0.attributes.ownr: no field "ownr" here; did you mean "owner"?',
      'tests.0.attributes.secret: secret is true or false, not "x"',
      'tests.0.attributes.target: "read" has no attribute "target": "copy" has it',
    ],
  ];
  for (const [document, ...expected] of cases) {
    assert.deepEqual(problemsOf(document), expected);
  }
  for (const name of ["__proto__", "constructor", "toString"]) {
    const where = JSON.parse(`{"${name}": true}`);
    assert.match(problemsOf(rule({ where })).join("\n"), /^rules\.0\.where\.[a-zA-Z_]+: no field/);
    assert.match(problemsOf(rule({ actions: name })).join("\n"), /: no action "/);
    assert.match(problemsOf({ about: name, rules: [] }).join("\n"), /^about: no vocabulary/);
  }
  assert.deepEqual(problemsOf(rule({ actions: ["*", "c*"], where: { target: "x" } })), []);
  assert.deepEqual(problemsOf({ about: "store", rules: [] }, []), ['about: no vocabulary "store"']);
});

test("checkPolicy() compares globs for actions with the globs of the vocabulary", () => {
  const web = defineVocabulary({
    name: "web",
    actions: { "* /**": "A request.", ping: "A ping.", pong: "A reply." },
    attributes: {
      host: { type: "text", description: "The host.", actions: ["* /**", "pong"] },
    },
  }) as unknown as PolicyVocabulary;
  const check = (rule: object, tests: object[] = []) => {
    const rules = [{ name: "r", ...rule, allow: true }];
    return problemsOf({ about: "web", rules, tests }, [web]);
  };
  for (const actions of ["GET /", "GET /a/**", "* /b", "**x", "**", "ping", "p*", "*i*"]) {
    assert.deepEqual(check({ actions }), [], actions);
  }
  assert.deepEqual(check({ actions: "pig" }), [
    'rules.0.actions: no action "pig"; did you mean "ping"?',
  ]);
  for (const actions of ["x*y", "GET", "/**", "PING"]) {
    assert.match(check({ actions }).join("\n"), /^rules\.0\.actions: no action "/, actions);
  }
  assert.deepEqual(check({ actions: ["ping", "GET /"], where: { host: "x" } }), []);
  assert.deepEqual(check({ where: { host: "x" } }), []);
  assert.deepEqual(check({ actions: "pi*", where: { not: { any: [{ host: "x" }] } } }), [
    'rules.0.where.not.any.0.host: "ping" has no attribute "host": "* /**", "pong" have it',
  ]);
  const test = (action: string) => ({
    ...{ peer: {}, action, attributes: { host: "x" }, expect: { deny: true } },
  });
  assert.deepEqual(check({}, [test("GET /"), test("ping"), test("GET"), test("p*")]), [
    'tests.2.action: no action "GET"',
    'tests.3.action: no action "p*"',
    'tests.1.attributes.host: "ping" has no attribute "host": "* /**", "pong" have it',
  ]);
  const result = checkPolicy(
    { version: 1, about: "web", rules: [{ name: "all", allow: true }] },
    { ...resolve, vocabularies: [web] },
  );
  assert.ok("checked" in result);
  const policy = compilePolicy(result.checked);
  const decide = (action: string) => policy.decide({}, { action }).allowed;
  assert.deepEqual(["GET /", "GET /a/b", "ping", "GET", "pin", "* /**"].map(decide), [
    ...[true, true, true, false, false, true],
  ]);
});

test("defineVocabulary() reports each mistake, and copies the document", () => {
  const right = {
    name: "x",
    actions: { read: "Reads." },
    attributes: { a: { type: "boolean", description: "A." } },
  };
  const wrong: [unknown, RegExp][] = [
    [undefined, /: vocabulary: a vocabulary is an object, not nothing$/],
    [new (class {})(), /: vocabulary: an object of a class, which is no plain data$/],
    ...["X", "", "1x", "x_", "x".repeat(65), 5, null, undefined].map((name): [unknown, RegExp] => [
      { ...right, name },
      /: name: name is a word in lower case, not [^\n]+$/,
    ]),
    [{ ...right, actions: [] }, /: actions: actions are an object, not \[\]$/],
    [{ ...right, actions: { "": "Reads." } }, /: actions\.: not a name: ""$/],
    [{ ...right, attributes: 5 }, /: attributes: attributes are an object, not 5$/],
    ...["any", "all", "not", "toString", "__proto__", "a.b", "1a", "a_", ""].map((
      name,
    ): [unknown, RegExp] => [
      { ...right, attributes: { [name]: right.attributes.a } },
      /: attributes\.[^ ]*: not a name: "[^ ]*"$/,
    ]),
    ...[
      [{ type: "constructor" }, /: attributes\.a\.type: type is boolean or [a-z ]+, not "constr/],
      [{ type: 5 }, /: attributes\.a\.type: type is boolean or [a-z ]+, not 5$/],
      [{ description: "" }, /: attributes\.a\.description: description is a text, not ""$/],
      [{ secret: "yes" }, /: attributes\.a\.secret: secret is true or false, not "yes"$/],
      [{ actions: [] }, /: attributes\.a\.actions: actions is a list of actions, not \[\]$/],
      [{ actions: "read" }, /: actions is a list of actions, not "read"$/],
      [{ essential: [] }, /: essential is a list of actions, not \[\]$/],
      [{ essential: ["read", "raed"] }, /: attributes\.a\.essential\[1\]: no action "raed"; did/],
    ].map(([wrong, message]): [unknown, RegExp] => [
      { ...right, attributes: { a: { ...right.attributes.a, ...wrong as object } } },
      message as RegExp,
    ]),
    [{ ...right, actions: { read: 5 } }, /actions\.read: read is a text, not 5/],
    [{ ...right, attributes: { any: right.attributes.a } }, /attributes\.any: not a name: "any"/],
    [
      { ...right, attributes: { constructor: right.attributes.a } },
      /attributes\.constructor: not a name: "constructor"/,
    ],
    [{ ...right, attributes: { a: { type: "bool", description: "A." } } }, /type is boolean or/],
    [
      { ...right, attributes: { a: { ...right.attributes.a, actions: ["raed"] } } },
      /attributes\.a\.actions\[0\]: no action "raed"; did you mean "read"\?/,
    ],
    [{ ...right, more: 1 }, /more: no field "more" here/],
  ];
  for (const [document, message] of wrong) {
    assert.throws(() => defineVocabulary(document as VocabularyDocument), {
      name: "TypeError",
      message,
    });
  }
  assert.equal(
    defineVocabulary({ ...right, name: "x".repeat(64) } as VocabularyDocument).name.length,
    64,
  );
  const document = structuredClone(right) as VocabularyDocument;
  const vocabulary = defineVocabulary(document);
  (document.actions as { [name: string]: string })["write"] = "Writes.";
  assert.deepEqual(Object.keys(vocabulary.actions), ["read"]);
  assert.ok(Object.isFrozen(vocabulary) && Object.isFrozen(vocabulary.actions));
});

test("decide() agrees with the naive evaluator about random attributes", () => {
  let [allowed, unknown] = [0, 0];
  fc.assert(
    fc.property(
      attributeRules,
      fc.array(fc.tuple(peerOfRequest, fc.constantFrom(...ACTIONS), anyAttributes), {
        minLength: 20,
        maxLength: 20,
      }),
      (rules, requests) => {
        const policy = compile(...rules);
        for (const [peer, action, attributes] of requests) {
          const decision = policy.decide(peer, { action, attributes });
          const expected = decideByAttributes(rules, peer, action, attributes);
          const { allowed: isAllowed, rule, grants } = decision;
          assert.deepEqual({ allowed: isAllowed, rule, grants }, expected);
          if (isAllowed) assert.ok(policy.admits(peer));
          assert.deepEqual(policy.explain(peer, { action, attributes }).decision, decision);
          if (isAllowed) allowed++;
          if (decision.unknown.length > 0) unknown++;
        }
      },
    ),
    { numRuns: cases(1000) },
  );
  assert.ok(allowed > 0 && unknown > 0);
});

test("policySchema() accepts every valid policy about a vocabulary, and no policy with a mistake", () => {
  const isRight = new Ajv2020({ allErrors: false, strict: true, strictRequired: false })
    .compile<object>(policySchema([STORE]));
  fc.assert(
    fc.property(attributeRules, (rules) => {
      const document = JSON.parse(JSON.stringify({ version: 1, about: "store", rules }));
      assert.ok(isRight(document), JSON.stringify(isRight.errors));
      assert.deepEqual(problemsOf(document), []);
    }),
    { numRuns: cases(200) },
  );
  const rule = (where: object) => ({
    version: 1,
    about: "store",
    rules: [{ name: "r", where, allow: true }],
  });
  const wrong = [
    ...[{ secert: true }, { secret: 1 }, { size: "x" }, { tags: [] }, { tags: {} }, { owner: -1 }],
    ...[{ labels: { a: "x" } }, {}, { any: [] }, { not: { nmae: "x" } }, { name: "" }],
  ].map(rule);
  const { about: _, ...without } = rule({ secret: true });
  const unknown = { ...rule({ secret: true }), about: "x" };
  for (const document of [...wrong, without, unknown] as readonly object[]) {
    assert.ok(!isRight(document), JSON.stringify(document));
    assert.notDeepEqual(problemsOf(document), []);
  }
});
