/** Rules of suggested policies: what they allow, and that merged rules allow no more. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { defineVocabulary } from "../../core/policy/document/vocabulary.ts";
import {
  type AttributeTest,
  conditionOf,
  mergeRules,
  type SuggestedRule,
  type TestedValue,
  type Tests,
} from "../../interop/suggested_rules.ts";
import { definePolicy } from "../../policy/define.ts";
import fc from "../support/properties.ts";
import { cases } from "../support/suite.ts";

const vocabulary = defineVocabulary({
  name: "test",
  actions: { a: "Acts.", b: "Acts otherwise." },
  attributes: {
    image: { type: "text", description: "A text, or null." },
    flag: { type: "boolean", description: "A flag." },
    size: { type: "number", description: "A number." },
    binds: { type: "texts", description: "Texts." },
  },
});

/** The values of the attributes of a request. */
interface Values {
  readonly image: string | null;
  readonly flag: boolean;
  readonly size: number;
  readonly binds: readonly string[];
}
interface Request {
  readonly action: string;
  readonly attributes: Values;
}

/** Whether a request passes the tests of a rule. */
function passes(tests: Tests, attributes: Values): boolean {
  return [...tests].every(([name, test]) => {
    const value = attributes[name as keyof Values];
    if (test.kind === "values") return test.values.includes(value as TestedValue);
    const { within, required = [] } = test;
    const texts = value as readonly string[];
    return required.every((text) => texts.includes(text)) &&
      (within === undefined || texts.every((text) => within.includes(text)));
  });
}

const allows = (rules: readonly SuggestedRule[], { action, attributes }: Request) =>
  rules.some(({ actions, tests }) => actions.includes(action) && passes(tests, attributes));

/** The policy of rules. */
function policyOf(rules: readonly SuggestedRule[]) {
  return definePolicy({
    version: 1,
    about: "test",
    rules: rules.map(({ actions, tests }, at) => {
      const where = conditionOf(tests);
      return {
        name: `${at}`,
        actions,
        allow: true,
        ...(where !== undefined && { where }),
      } as const;
    }),
  }, { vocabularies: [vocabulary] });
}

const VALUES = {
  image: ["x", "y", null],
  flag: [true, false],
  size: [1, 2],
  binds: [[], ["/a"], ["/b"], ["/a", "/b"]],
} as const;
const REQUESTS: readonly Request[] = VALUES.image.flatMap((image) =>
  VALUES.flag.flatMap((flag) =>
    VALUES.size.flatMap((size) =>
      VALUES.binds.flatMap((binds) =>
        ["a", "b"].map((action) => ({ action, attributes: { image, flag, size, binds } }))
      )
    )
  )
);

const valuesTest = (values: readonly TestedValue[]) =>
  fc.subarray([...values], { minLength: 1 }).map((values) => ({ kind: "values", values } as const));
const texts = fc.option(fc.subarray(["/a", "/b"]), { nil: undefined });
const listTest = fc.record({ kind: fc.constant("list" as const), within: texts, required: texts });
const OF_VALUES = {
  image: valuesTest(VALUES.image),
  flag: valuesTest(VALUES.flag),
  size: valuesTest(VALUES.size),
};

const rulesWith = (tests: { readonly [name: string]: fc.Arbitrary<AttributeTest> }) =>
  fc.array(
    fc.record({
      actions: fc.constantFrom(["a"], ["b"]),
      tests: fc.record(tests, { requiredKeys: [] }).map((each) => new Map(Object.entries(each))),
      count: fc.constant(1),
    }) as fc.Arbitrary<SuggestedRule>,
    { minLength: 1, maxLength: 6 },
  );

test("conditionOf() allows the requests that pass the tests of a rule", () => {
  const property = fc.property(rulesWith({ ...OF_VALUES, binds: listTest }), (rules) => {
    const policy = policyOf(rules);
    for (const request of REQUESTS) {
      const found = policy.decide({ uid: 1 }, request as never).allowed;
      assert.equal(found, allows(rules, request), JSON.stringify([policy, request]));
    }
  });
  fc.assert(property, { numRuns: cases(200) });
});

test("mergeRules() allows what the rules allow, and nothing else without lists", () => {
  const property = fc.property(rulesWith(OF_VALUES), (rules) => {
    const merged = mergeRules(rules);
    for (const request of REQUESTS) {
      assert.equal(allows(merged, request), allows(rules, request), JSON.stringify(rules));
    }
    const counts = merged.map(({ count }) => count);
    assert.equal(counts.reduce((one, other) => one + other, 0), rules.length);
  });
  fc.assert(property, { numRuns: cases(500) });
});

test("mergeRules() keeps each allowed request, and each text apart from others", () => {
  const property = fc.property(rulesWith({ image: OF_VALUES.image, binds: listTest }), (rules) => {
    const merged = mergeRules(rules);
    for (const request of REQUESTS) {
      if (allows(rules, request)) assert.ok(allows(merged, request), JSON.stringify(rules));
    }
  });
  fc.assert(property, { numRuns: cases(500) });
});

const list = (within?: readonly string[], required?: readonly string[]): AttributeTest => ({
  kind: "list",
  within,
  required,
});

test("mergeRules() unites lists that differ in one way", () => {
  const rows: readonly (readonly [AttributeTest, AttributeTest, AttributeTest | undefined])[] = [
    [list(["a"]), list(["b"]), list(["a", "b"])],
    [list(["b"]), list(["a"]), list(["a", "b"])],
    [list(["a"], ["x"]), list(["b"], ["x"]), list(["a", "b"], ["x"])],
    [list(["a"], ["x"]), list(["b"], ["y"]), undefined],
    [list(["a"], ["x"]), list(["b"]), undefined],
    [list(["a"]), list(), undefined],
    [list(), list(["a"]), undefined],
    [list(undefined, ["x"]), list(undefined, ["x", "y"]), list(undefined, ["x"])],
    [list(undefined, ["x", "y"]), list(undefined, ["x"]), list(undefined, ["x"])],
    [list(["a"], ["x"]), list(["a"], ["y", "x"]), list(["a"], ["x"])],
    [list(undefined, ["x"]), list(undefined, ["y", "z"]), undefined],
    [list(undefined, ["x", "y"]), list(undefined, ["x", "z"]), undefined],
    [list(undefined, ["x"]), list(), undefined],
    [list(), list(undefined, ["x"]), undefined],
    [list(), list(), list()],
    [list(["a"]), { kind: "values", values: ["a"] }, undefined],
    [{ kind: "values", values: ["a"] }, list(["a"]), undefined],
    [{ kind: "values", values: ["b"] }, { kind: "values", values: ["a", "b"] }, {
      ...{ kind: "values", values: ["a", "b"] },
    }],
  ];
  for (const [one, other, united] of rows) {
    const rules = [one, other].map((test) => ({
      ...{ actions: ["a"], tests: new Map([["l", test]]), count: 2 },
    }));
    const expected = united === undefined
      ? rules
      : [{ actions: ["a"], tests: new Map([["l", united]]), count: 4 }];
    assert.deepEqual(mergeRules(rules), expected);
  }
});

test("mergeRules() merges by one attribute or by the actions, and attributes in any order", () => {
  const value = (value: string): AttributeTest => ({ kind: "values", values: [value] });
  const rule = (actions: string[], ...tests: [string, AttributeTest][]): SuggestedRule => ({
    ...{ actions, tests: new Map(tests), count: 1 },
  });
  assert.deepEqual(
    mergeRules([
      rule(["b"], ["x", value("1")], ["y", value("2")]),
      rule(["a"], ["y", value("2")], ["x", value("1")]),
    ]).map(({ actions, count }) => [actions, count]),
    [[["a", "b"], 2]],
  );
  const apart = [
    rule(["a"], ["x", value("1")], ["y", value("1")]),
    rule(["a"], ["x", value("2")], ["y", value("2")]),
    rule(["b"], ["x", value("3")]),
    rule(["b"]),
  ];
  assert.deepEqual(mergeRules(apart), apart);
  const twice = [rule(["a"]), rule(["a"]), rule(["b"], ["x", value("1")])];
  assert.deepEqual(mergeRules(twice), [{ ...twice[0]!, count: 2 }, twice[2]]);
});
