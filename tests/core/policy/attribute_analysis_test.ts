/** Tests of the analyses of policies about a vocabulary: each result is checked by decisions. */

import fc from "../../support/properties.ts";
import assert from "node:assert/strict";
import { test } from "node:test";
import { UcredError } from "../../../core/errors.ts";
import { Budget } from "../../../core/policy/analyze/budget.ts";
import { equivalent, narrower } from "../../../core/policy/analyze/difference.ts";
import { lint } from "../../../core/policy/analyze/lint.ts";
import { analyzedRules, RuleRegions } from "../../../core/policy/analyze/reach.ts";
import { otherNumbers } from "../../../core/policy/analyze/region.ts";
import { who } from "../../../core/policy/analyze/who.ts";
import type { Attributes } from "../../../core/policy/decide/decision.ts";
import type { PlainPeer } from "../../../core/policy/decide/subject.ts";
import { checkPolicy, type PolicyVocabulary } from "../../../core/policy/document/check.ts";
import type { AttributeCondition, RuleDocument } from "../../../core/policy/document/types.ts";
import { defineVocabulary, type Vocabulary } from "../../../core/policy/document/vocabulary.ts";
import { compilePolicy, type Policy, sourceOf } from "../../../core/policy/policy.ts";
import { cases, soak } from "../../support/suite.ts";
import { resolve } from "./policies.ts";
import {
  ACTIONS,
  anyAttributes,
  attributePolicy,
  attributeRules,
  decideByAttributes,
  peerOfRequest,
  STORE,
} from "./attribute_policies.ts";

const compile = (...rules: readonly RuleDocument[]) => attributePolicy(rules);
const allow = (where: AttributeCondition, more: Partial<RuleDocument> = {}): RuleDocument => ({
  ...{ name: "r", where, allow: true as const },
  ...more,
});

interface Request {
  readonly peer: PlainPeer;
  readonly action: string | undefined;
  readonly attributes: Attributes;
}

const requests = fc.array(
  fc.record({
    peer: peerOfRequest,
    action: fc.constantFrom(...ACTIONS),
    attributes: anyAttributes,
  }),
  { minLength: 60, maxLength: 60 },
);

const outcome = (policy: Policy, { peer, action, attributes }: Request) => {
  const { allowed, grants } = policy.decide(peer, { action, attributes });
  return allowed ? JSON.stringify([...new Set(grants)].sort()) : "deny";
};

/** Runs an analysis; `undefined` if it reports that it cannot answer. */
function answerOf<T>(analyze: () => T): { readonly answer: T } | undefined {
  try {
    return { answer: analyze() };
  } catch (error) {
    if (!(error instanceof UcredError) || error.code !== "ERR_UCRED_POLICY") throw error;
    return undefined;
  }
}

/** A policy, and the same policy after an edit, which may change no decision. */
const edited = fc.tuple(attributeRules, attributeRules, fc.nat(3), fc.constantFrom(..."sdcmn"))
  .map(([rules, others, at, how]): [RuleDocument[], RuleDocument[]] => {
    const after = [...rules];
    const rule = rules[at];
    if (rule === undefined || how === "n") return [rules, others];
    if (how === "s") after.push(...after.splice(0, 1));
    if (how === "d") after.splice(at, 1);
    if (how === "c") after.push({ ...rule, name: "copy" });
    if (how === "m" && rule.where) after[at] = { ...rule, where: { not: { not: rule.where } } };
    return [rules, after];
  });

test("RuleRegions.ruleOf() returns the rule that decides each request", () => {
  fc.assert(
    fc.property(attributeRules, requests, (rules, requests) => {
      const policy = compile(...rules);
      const reach = new RuleRegions(
        analyzedRules(sourceOf(policy, "test").checked),
        new Budget(),
      );
      for (const { peer: { ambiguous, ...peer }, action, attributes } of requests) {
        if (ambiguous?.length) continue; // an example never has an ambiguous uid
        const rule = reach.ruleOf({ peer, action, attributes }, new Budget());
        const decided = policy.decide(peer, { action, attributes }).rule;
        assert.equal(rule === undefined ? undefined : rules[rule]!.name, decided);
      }
    }),
    { numRuns: cases(soak(250, 500)) },
  );
});

test("equivalent() and narrower() agree with random requests about attributes", () => {
  const found = { different: 0, equal: 0, wider: 0, narrower: 0, unsettled: 0 };
  fc.assert(
    fc.property(edited, requests, ([before, after], requests) => {
      const [a, b] = [compile(...before), compile(...after)];
      const compared = answerOf(() => equivalent(a, b));
      if (compared === undefined) found.unsettled++;
      else if (compared.answer === undefined) {
        found.equal++;
        for (const request of requests) assert.equal(outcome(a, request), outcome(b, request));
      } else {
        found.different++;
        const request = { attributes: {}, ...compared.answer };
        assert.notEqual(outcome(a, request), outcome(b, request));
        const { peer, action, attributes } = request;
        for (
          const [rules, decision] of [
            [before, compared.answer.before],
            [after, compared.answer.after],
          ] as const
        ) {
          const { allowed, rule, grants } = decision;
          const expected = decideByAttributes(rules, peer, action, attributes);
          assert.deepEqual({ allowed, rule, grants }, expected);
        }
      }
      const givesMore = (request: Request) => {
        const { peer, action, attributes } = request;
        const [was, is] = [a, b].map((policy) => policy.decide(peer, { action, attributes }));
        return is!.allowed &&
          (!was!.allowed || is!.grants.some((grant) => !was!.grants.includes(grant)));
      };
      const widened = answerOf(() => narrower(a, b));
      if (widened === undefined) found.unsettled++;
      else if (widened.answer === undefined) {
        found.narrower++;
        for (const request of requests) assert.ok(!givesMore(request));
      } else {
        found.wider++;
        assert.ok(givesMore({ attributes: {}, ...widened.answer }));
      }
    }),
    { numRuns: cases(soak(400, 1000)) },
  );
  const { unsettled, ...settled } = found;
  const total = Object.values(settled).reduce((sum, count) => sum + count, 0);
  assert.ok(Object.values(settled).every((count) => count > 0), JSON.stringify(found));
  assert.ok(unsettled < total / 10, JSON.stringify(found));
});

test("lint() reports about attributes only what requests confirm", () => {
  fc.assert(
    fc.property(attributeRules, requests, (rules, requests) => {
      const policy = compile(...rules);
      const findings = lint(policy);
      const kinds = (name: string) =>
        findings.filter(({ rule }) => rule === name).map(({ kind }) => kind);
      for (const { peer, action, attributes } of requests) {
        const { rule } = policy.decide(peer, { action, attributes });
        if (rule === undefined) continue;
        assert.ok(!kinds(rule).includes("never") && !kinds(rule).includes("contradiction"), rule);
      }
      for (const { kind, rule, example } of findings) {
        if (kind !== "only-unknown" && kind !== "shadowed" && kind !== "never") continue;
        const { peer, action, attributes } = example!;
        const decided = policy.decide(peer, { action, attributes }).rule;
        assert.equal(decided === rule, kind === "only-unknown", kind);
      }
    }),
    { numRuns: cases(soak(250, 500)) },
  );
});

test("who() includes every peer that may do an action with some attributes, with an example", () => {
  let clauses = 0;
  fc.assert(
    fc.property(
      attributeRules,
      fc.constantFrom(...ACTIONS),
      requests,
      (rules, action, requests) => {
        const policy = compile(...rules);
        const found = answerOf(() => who(policy, action));
        if (found === undefined) return;
        for (const { rule, grants, example, attributes } of found.answer.clauses) {
          clauses++;
          const decision = policy.decide(example, { action, attributes });
          assert.deepEqual([decision.allowed, decision.rule, decision.grants], [
            true,
            rule,
            grants,
          ]);
        }
        for (const { peer, attributes } of requests) {
          const { uid, gid, groups = [], ambiguous = [] } = peer;
          if (uid === undefined || gid === undefined || ambiguous.length > 0) continue;
          if (!policy.decide(peer, { action, attributes }).allowed) continue;
          assert.ok(found.answer.includes({ uid, gid, groups }), JSON.stringify(peer));
        }
      },
    ),
    { numRuns: cases(soak(250, 500)) },
  );
  assert.ok(clauses > 0);
});

test("equivalent() decides conditions of each type exactly", () => {
  const equal: [AttributeCondition, AttributeCondition][] = [
    [{ secret: true }, { not: { secret: false } }],
    [{ size: ["0-5", "5-9"] }, { size: "0-9" }],
    [{ name: ["a", "b"] }, { any: [{ name: "a" }, { name: "b" }] }],
    [{ tags: { none: "a" } }, { not: { tags: { some: "a" } } }],
    [{ tags: { empty: true } }, { tags: { none: "**" } }],
    [
      { tags: { every: ["a", "b"], none: "a", some: "b" } },
      { tags: { every: "b", empty: false } },
    ],
    [{ owner: ["self", 5] }, { any: [{ owner: 5 }, { owner: "self" }] }],
    [
      { labels: { x: { empty: true }, y: { some: "a" } } },
      { all: [{ labels: { y: { some: "a" } } }, { labels: { x: { none: "**" } } }] },
    ],
  ];
  for (const [a, b] of equal) {
    assert.equal(equivalent(compile(allow(a)), compile(allow(b))), undefined, JSON.stringify(a));
  }
  const different: [AttributeCondition, AttributeCondition, Attributes][] = [
    [{ size: ["0-5", "6-9"] }, { size: "0-9" }, { size: 5.000000000000001 }],
    [{ size: 0 }, { size: [0, "0-1"] }, { size: 5e-324 }],
    [{ name: "a*" }, { name: ["a*", "b"] }, { name: "b" }],
    [{ name: "**" }, { not: { name: "a" } }, { name: null }],
    [{ tags: { every: "a" } }, { tags: { some: "a" } }, { tags: [] }],
    [{ tags: { some: "a", every: "*" } }, { tags: { some: "a" } }, { tags: ["/", "a"] }],
    [{ labels: { x: { some: "a" } } }, { labels: { y: { some: "a" } } }, {
      labels: {
        x: ["a"],
        y: [],
      },
    }],
  ];
  for (const [a, b, attributes] of different) {
    const found = equivalent(compile(allow(a)), compile(allow(b)));
    assert.ok(found !== undefined && found.before.allowed !== found.after.allowed);
    assert.deepEqual(Object.keys(found.attributes ?? {}), Object.keys(attributes));
    const request = { action: "read", attributes };
    const isAllowed = (where: AttributeCondition) =>
      compile(allow(where)).decide({}, request).allowed;
    assert.notEqual(isAllowed(a), isAllowed(b), JSON.stringify(attributes));
  }
});

test("equivalent() relates self to the uid", () => {
  const own = (uid: number) => allow({ owner: "self" }, { when: { uid } });
  const fixed = (uid: number, owner = uid) => allow({ owner }, { when: { uid } });
  const found = equivalent(compile(own(5)), compile(fixed(5, 6)));
  assert.ok(found !== undefined && found.before.allowed !== found.after.allowed);
  assert.equal(found.peer.uid, 5);
  // Equal, but only if the analysis knew that self is 5 here: it must not report a difference.
  assert.equal(answerOf(() => equivalent(compile(own(5)), compile(fixed(5))))?.answer, undefined);
  assert.throws(() => equivalent(compile(own(5)), compile(fixed(5))), {
    code: "ERR_UCRED_POLICY",
    message: /^Cannot compare the policies: no case was found for conditions with self$/,
  });
  assert.equal(equivalent(compile(own(5)), compile(own(5))), undefined);
  const wider = narrower(
    compile(own(5)),
    compile(allow({ owner: ["self", 7] }, { when: { uid: 5 } })),
  );
  assert.deepEqual([wider?.peer.uid, wider?.attributes?.["owner"]], [5, 7]);
});

test("equivalent() ignores actions that the vocabulary does not have", () => {
  const all = compile({ name: "all", allow: true });
  const named = compile(
    { name: "named", actions: ["read", "write", "copy"], allow: true },
    { name: "connect", allow: true },
  );
  assert.equal(equivalent(all, named), undefined);
  const most = compile({ name: "most", actions: ["read", "write"], allow: true });
  assert.equal(narrower(all, most), undefined);
  assert.ok(["copy", undefined].includes(equivalent(all, most)!.action));
  assert.equal(String(who(all, "other")), "no peer");
  assert.deepEqual(
    lint(compile(
      { name: "each", actions: ["read", "write", "copy"], deny: true },
      { name: "late", actions: "**", allow: true },
    )).map(({ kind, rule }) => `${kind} ${rule}`).filter((each) => !each.startsWith("everyone")),
    ["never late"],
  );
});

test("equivalent() and narrower() reject policies about different vocabularies", () => {
  const about = (vocabulary: Vocabulary | undefined) => {
    const document = {
      ...{ version: 1, rules: [{ name: "all", allow: true }] },
      ...(vocabulary && { about: vocabulary.name }),
    };
    const vocabularies = vocabulary ? [vocabulary as Vocabulary & PolicyVocabulary] : [];
    const result = checkPolicy(document, { ...resolve, vocabularies });
    return "checked" in result ? compilePolicy(result.checked) : assert.fail();
  };
  const { name, actions, attributes } = STORE;
  const copy = defineVocabulary({ name, actions, attributes });
  const newer = defineVocabulary({ name, actions: { ...actions, list: "Lists." }, attributes });
  const other = defineVocabulary({ name: "other", actions, attributes });
  assert.equal(equivalent(about(STORE), about(copy)), undefined);
  for (
    const [a, b, what] of [
      [STORE, undefined, '"store", and the other about no vocabulary'],
      [undefined, STORE, 'no vocabulary, and the other about "store"'],
      [STORE, newer, '"store", and the other about another version of it'],
      [STORE, other, '"store", and the other about "other"'],
    ] as const
  ) {
    for (const compare of [equivalent, narrower]) {
      assert.throws(() => compare(about(a), about(b)), {
        code: "ERR_UCRED_POLICY",
        message: `Cannot compare the policies: one is about ${what}`,
      });
    }
  }
});

test("lint() reports rules about attributes that never decide, and exceptions that they bypass", () => {
  const kinds = (...rules: readonly RuleDocument[]) =>
    lint(compile(...rules)).map(({ kind, rule }) => `${kind} ${rule}`);
  assert.deepEqual(
    kinds(
      allow({ tags: { every: "a*" } }, { name: "wide" }),
      allow({ tags: { every: ["a", "ab"] } }, { name: "late" }),
      allow({ size: "1-5", not: { size: "0-9" } }, { name: "none" }),
    ),
    ["never late", "contradiction none"],
  );
  const exception = allow({ secret: true }, { name: "secret", allow: "read", when: { uid: 5 } });
  const [finding] = lint(compile(exception, {
    name: "wider",
    when: { uid: 5 },
    allow: ["read", "write"],
  })).filter(({ kind }) => kind === "widened");
  assert.match(finding!.message, /^If secret is unknown, rule "secret" does not match/);
  assert.deepEqual(kinds(allow({ any: [{ secret: true }, { secret: false }] }, { name: "all" })), [
    "everyone all",
  ]);
});

test("String(who()) describes conditions on attributes", () => {
  const policy = compile(
    allow({ secret: false, size: "1-5", name: "a*", owner: "self" }, { when: { uid: 5 } }),
    allow(
      { tags: { every: "a*", some: "ab" }, labels: { x: { none: "b" } } },
      { name: "s", when: { uid: 6 } },
    ),
  );
  assert.equal(
    String(who(policy, "read")),
    [
      'uid 5; secret false; size 1 to 5; name a*; owner is self (rule "r")',
      'uid 6; tags every a*; tags some ab; labels.x every not b (rule "s")',
    ].join("\n"),
  );
});

test("otherNumbers() is the complement of ranges of doubles", () => {
  const number = fc.double({ noNaN: true, noDefaultInfinity: true });
  fc.assert(
    fc.property(fc.uniqueArray(number, { maxLength: 6 }), number, (edges, value) => {
      const sorted = [...new Set(edges.map((edge) => edge + 0))].sort((a, b) => a - b);
      const ranges = Array.from({ length: sorted.length >> 1 }, (_, at) => ({
        first: sorted[2 * at]!,
        last: sorted[2 * at + 1]!,
      }));
      const has = (list: typeof ranges, value: number) =>
        list.some(({ first, last }) => first <= value && value <= last);
      for (const each of [value, ...sorted, 0, -0, Number.MAX_VALUE, -Number.MAX_VALUE]) {
        assert.notEqual(has(ranges, each), has([...otherNumbers(ranges)], each), `${each}`);
      }
    }),
    { numRuns: cases(soak(400, 1000)) },
  );
});
