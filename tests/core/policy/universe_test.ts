/**
 * Tests of the analyses against a small set of cases that contains every combination of facts that the
 * policies here can distinguish. Results are compared with the decisions about all of these cases.
 */

import fc from "../../support/properties.ts";
import assert from "node:assert/strict";
import { test } from "node:test";
import { Budget } from "../../../core/policy/analyze/budget.ts";
import { difference, widening } from "../../../core/policy/analyze/difference.ts";
import type { Finding } from "../../../core/policy/analyze/findings.ts";
import { lintRules } from "../../../core/policy/analyze/lint.ts";
import { RuleRegions } from "../../../core/policy/analyze/reach.ts";
import { whoCan } from "../../../core/policy/analyze/who.ts";
import type { PlainPeer } from "../../../core/policy/decide/subject.ts";
import { checkPolicy } from "../../../core/policy/document/check.ts";
import type { Condition, RuleDocument } from "../../../core/policy/document/types.ts";
import { cases } from "../../support/suite.ts";
import { decideNaively, globMatches, holds, resolve } from "./policies.ts";

// The policies.

const FACTS: readonly (readonly Condition[])[] = [
  [{ uid: 0 }, { uid: "0-1" }, { uid: [1, 5] }, { sameUser: true }],
  [
    ...[{ gid: 3 }, { gid: "4-4294967294" }, { gid: [3, 65534] }, { group: "docker" }],
    ...[{ group: ["docker", "users"] }, { group: "users" }, { group: "none" }],
  ],
  [{ unit: "a" }, { unit: "*" }, { unit: ["a*", "b"] }, { unit: "**" }],
  [{ unchanged: true }, { unchanged: false }, { sameNamespaces: ["user", "pid"] }],
];

function conditionOf(fact: fc.Arbitrary<Condition>, depth: number): fc.Arbitrary<Condition> {
  if (depth === 0) return fact;
  const inner = conditionOf(fact, depth - 1);
  const several = fc.array(inner, { minLength: 1, maxLength: 3 });
  return fc.oneof(
    { weight: 3, arbitrary: fact },
    fc.tuple(fact, fact).map(([a, b]): Condition => ({ ...a, ...b })),
    several.map((any): Condition => ({ any })),
    several.map((all): Condition => ({ all })),
    inner.map((not): Condition => ({ not })),
  );
}

/** Rules about one or two kinds of facts, so that the world is small. */
const policyOf = (kinds: readonly (readonly Condition[])[]) => {
  const condition = conditionOf(fc.constantFrom(...kinds.flat()), 2);
  return fc.array(
    fc.record({
      when: fc.option(condition, { nil: undefined, freq: 8 }),
      actions: fc.option(fc.constantFrom("x", "*", ["x", "y*"], "**"), { nil: undefined }),
      effect: fc.constantFrom<Pick<RuleDocument, "allow" | "deny">[]>(
        ...[{ allow: true as const }, { allow: ["r", "w"] }, { allow: "r" }, { deny: "No" }],
      ),
    }),
    { maxLength: 5 },
  ).map((rules) =>
    rules.map(({ when, actions, effect }, at): RuleDocument => ({
      name: `rule ${at}`,
      ...(when && { when }),
      ...(actions !== undefined && { actions }),
      ...effect,
    }))
  );
};
const kinds = fc.shuffledSubarray([...FACTS], { minLength: 1, maxLength: 2 });
const policy = kinds.chain(policyOf);

// The cases: for each fact all values that such policies can distinguish, and unknown.

const WORLD: { readonly [fact: string]: readonly object[] } = {
  uid: [{}, { uid: 0 }, { uid: 1 }, { uid: 2 }, { uid: 5 }, { uid: 7 }],
  groups: [{}, { gid: 3 }, { gid: 6 }, { gid: 7 }, { gid: 2 }, { gid: 65534 }].flatMap((gid) => [
    ...[[], [3], [6], [3, 6], [65534], [3, 65534], [6, 65534], [3, 6, 65534]]
      .map((groups) => ({ ...gid, groups })),
    ...[[], [3], [6], [3, 65534, 6]]
      .map((groups) => ({ ...gid, groups, ambiguous: ["groups"] })),
  ]),
  unit: [{}, ...[null, "a", "aa", "b", "c", "/"].map((unit) => ({ unit }))],
  unchanged: [{}, { unchanged: true }, { unchanged: false }],
  namespaces: [{}, { ours: true }, { ours: false }].flatMap((user) =>
    [{}, { ours: true }, { ours: false }].map((pid) => ({
      namespaces: { ...("ours" in user && { user }), ...("ours" in pid && { pid }) },
    }))
  ),
  action: [{}, { action: "x" }, { action: "y" }, { action: "z" }, { action: "y/" }],
};

interface Case {
  readonly peer: PlainPeer;
  readonly action: string | undefined;
}

/** Every case that these rules can distinguish. */
function world(...policies: readonly (readonly RuleDocument[])[]): Case[] {
  const text = JSON.stringify(policies);
  const tests: { readonly [fact: string]: RegExp } = {
    uid: /"uid"|"sameUser"/,
    groups: /"gid"|"group"/,
    unit: /"unit"/,
    unchanged: /"unchanged"/,
    namespaces: /"sameNamespaces"/,
    action: /"actions"/,
  };
  let all: { [field: string]: unknown }[] = [{}];
  for (const [fact, values] of Object.entries(WORLD)) {
    if (!tests[fact]!.test(text)) continue;
    all = all.flatMap((one) => values.map((value) => ({ ...one, ...value })));
  }
  return all.map(({ action, unit, namespaces, ...rest }) => ({
    action: action as string | undefined,
    peer: {
      ...rest,
      process: {
        ...(unit !== undefined && { unit }),
        ...(namespaces !== undefined && { namespaces }),
      },
    } as PlainPeer,
  }));
}

/** Whether every fact that these rules test is known. */
function isKnown(rules: readonly RuleDocument[], { peer }: Case): boolean {
  const text = JSON.stringify(rules);
  const { uid, gid, groups, ambiguous, unchanged, process } = peer;
  const { unit, namespaces } = process!;
  return !(/"uid"|"sameUser"/.test(text) && uid === undefined) &&
    !(/"gid"|"group"/.test(text) &&
      (gid === undefined || groups === undefined || ambiguous !== undefined)) &&
    !(text.includes('"unit"') && unit === undefined) &&
    !(text.includes('"unchanged"') && unchanged === undefined) &&
    !(text.includes('"sameNamespaces"') &&
      (namespaces?.user === undefined || namespaces.pid === undefined));
}

const checkedOf = (rules: readonly RuleDocument[]) => {
  const result = checkPolicy({ version: 1, rules }, resolve);
  assert.ok("checked" in result, JSON.stringify(result));
  return result.checked;
};

const lint = (rules: readonly RuleDocument[], budget?: Budget): readonly Finding[] => {
  const { named } = checkedOf(rules);
  const context = { named, namesakes: () => [], where: undefined };
  return lintRules(checkedOf(rules).rules, context, budget);
};

const decide = (rules: readonly RuleDocument[], { peer, action }: Case) =>
  decideNaively({ version: 1, rules }, peer, action);

/** The outcome of a decision: the grants, or "deny". */
const outcome = (rules: readonly RuleDocument[], one: Case): string => {
  const { allowed, grants } = decide(rules, one);
  return allowed ? JSON.stringify([...new Set(grants)].sort()) : "deny";
};

/** The findings that `lint()` must report about the reach of each rule, computed from all cases. */
function reachOf(rules: readonly RuleDocument[]): string[] {
  const cases = world(rules).map((one) => ({
    ...one,
    isKnown: isKnown(rules, one),
    decided: rules.findIndex(({ name }) => name === decide(rules, one).rule),
  }));
  const outcomes = rules.map(({ allow }) => JSON.stringify(allow && [allow].flat().toSorted()));
  return rules.flatMap(({ name, when, actions, allow }, at) => {
    const isAbout = (action: string | undefined) =>
      actions === undefined ||
      action !== undefined && [actions].flat().some((glob) => globMatches(glob, action));
    const meeting = cases.filter(({ isKnown, peer }) =>
      isKnown && (when === undefined || holds(when, peer) === true)
    );
    const theirs = meeting.filter(({ action }) => isAbout(action));
    const decides = cases.filter(({ decided }) => decided === at);
    const found: string[] = [];
    if (theirs.length === 0) found.push(decides.length > 0 ? "only-unknown" : "contradiction");
    else if (decides.length === 0) found.push("never");
    else if (!decides.some(({ isKnown }) => isKnown)) found.push("only-unknown");
    else if (theirs.some(({ decided }) => decided < at && outcomes[decided] !== outcomes[at])) {
      found.push("shadowed");
    }
    const everybody = cases.filter(({ isKnown }) => isKnown);
    if (allow !== undefined && meeting.length === everybody.length) found.push("everyone");
    return found.map((kind) => `${kind} ${name}`);
  });
}

const REACH = ["contradiction", "never", "only-unknown", "shadowed", "everyone"];
const inShort = (findings: readonly Finding[]) =>
  findings.filter(({ kind }) => REACH.includes(kind)).map(({ kind, rule }) => `${kind} ${rule}`);

/** Examples that each run includes: each kind of finding, and equal and different pairs. */
const EXAMPLES: RuleDocument[][] = [
  [
    { name: "rule 0", when: { uid: "0-1" }, allow: "r" },
    { name: "rule 1", when: { uid: 1 }, allow: "r" },
    { name: "rule 2", when: { uid: 1 }, deny: true },
    { name: "rule 3", when: { uid: [1, 5] }, allow: true },
    { name: "rule 4", when: { uid: 0, not: { uid: "0-1" } }, deny: true },
  ],
  [
    { name: "rule 0", when: { uid: 0, all: [{ uid: 1 }] }, deny: true },
    { name: "rule 1", when: { uid: 5, not: { uid: "0-4294967294" } }, allow: true },
    { name: "rule 2", deny: true },
    { name: "rule 3", when: { uid: 0, all: [{ uid: 1 }] }, deny: true },
  ],
  [
    { name: "rule 0", when: { group: "docker" }, deny: true },
    { name: "rule 1", when: { not: { group: "docker" } }, allow: "r" },
    { name: "rule 2", allow: true },
  ],
  [
    { name: "rule 0", when: { unit: ["a*", "b"] }, actions: "x", deny: "No" },
    { name: "rule 1", when: { unit: "*" }, actions: ["x", "y*"], allow: ["r", "w"] },
    { name: "rule 2", when: { unit: "**" }, actions: "**", allow: "r" },
    { name: "rule 3", when: { any: [{ unit: "a" }, { not: { unit: "a" } }] }, allow: true },
  ],
];
const RUNS = { numRuns: cases(200), examples: EXAMPLES.map((rules): [RuleDocument[]] => [rules]) };

test("RuleRegions.ruleOf() returns the rule that decides each case", () => {
  fc.assert(
    fc.property(policy, (rules) => {
      const reach = new RuleRegions(checkedOf(rules).rules, new Budget());
      for (const one of world(rules)) {
        const rule = reach.ruleOf(one, new Budget());
        const decided = rule === undefined ? undefined : rules[rule]!.name;
        assert.equal(decided, decide(rules, one).rule, JSON.stringify(one));
      }
    }),
    { ...RUNS, numRuns: cases(100) },
  );
});

test("lint() reports exactly the findings that decisions about all cases show", () => {
  fc.assert(
    fc.property(policy, (rules) => {
      const findings = lint(rules);
      assert.deepEqual(inShort(findings), reachOf(rules));
      for (const { kind, rule, example } of findings) {
        if (!["never", "only-unknown", "shadowed"].includes(kind)) continue;
        const decided = decide(rules, example!);
        assert.equal(decided.rule === rule, kind === "only-unknown");
        if (kind === "only-unknown") continue;
        const { when } = rules.find(({ name }) => name === rule)!;
        assert.ok(when === undefined || holds(when, example!.peer), "the example is of the rule");
      }
    }),
    RUNS,
  );
});

/** Regression: with two rules over budget, the second was reported to never decide. */
const TIGHT: [RuleDocument[], number, boolean][] = [[
  [
    { name: "rule 0", when: { not: { unchanged: false } }, allow: true },
    { name: "rule 1", actions: "x", allow: true },
    { name: "rule 2", when: { unchanged: true }, deny: "No" },
  ],
  8,
  false,
]];
for (let bits = 1; bits < 17; bits++) {
  for (const rules of EXAMPLES) {
    for (const isRoom of [true, false]) TIGHT.push([rules, bits, isRoom]);
  }
}

test("lint() with a small budget reports only true findings, and the rest as unsettled", () => {
  fc.assert(
    fc.property(policy, fc.integer({ min: 1, max: 16 }), fc.boolean(), (rules, bits, isRoom) => {
      const budget = isRoom ? new Budget(2 ** bits) : new Budget(undefined, 2 ** bits);
      const some = lint(rules, budget);
      const all = reachOf(rules);
      const unsettled = some.filter(({ kind }) => kind === "unsettled").map(({ rule }) => rule);
      const found = inShort(some);
      for (const each of found) assert.ok(all.includes(each), each);
      for (const each of all) {
        if (found.includes(each)) continue;
        assert.ok(unsettled.some((rule) => each.endsWith(rule)), `${each} was left out`);
      }
    }),
    { numRuns: cases(300), examples: TIGHT },
  );
});

test("who() includes exactly the peers that decisions about all cases allow", () => {
  const action = fc.constantFrom(undefined, "x", "y", "z");
  fc.assert(
    fc.property(policy, action, fc.integer({ min: 8, max: 40 }), (rules, action, bits) => {
      let who: ReturnType<typeof whoCan>;
      try {
        who = whoCan(checkedOf(rules).rules, action, new Budget(2 ** bits));
      } catch (error) {
        assert.ok(bits < 30, String(error));
        assert.equal((error as { code?: string }).code, "ERR_UCRED_POLICY");
        assert.match((error as Error).message, /^Cannot list who may do it: .* in too many ways$/);
        return;
      }
      const can = new Set<string>();
      const cannot = new Set<string>();
      for (const one of world(rules)) {
        if (one.action !== undefined || !isKnown(rules, one)) continue;
        const { uid = 7, gid = 7, groups = [] } = one.peer;
        const ids = JSON.stringify({ uid, gid, groups });
        (decide(rules, { ...one, action }).allowed ? can : cannot).add(ids);
      }
      for (const ids of can) assert.ok(who.includes(JSON.parse(ids)), `${ids} can`);
      for (const ids of cannot) {
        if (!can.has(ids)) assert.ok(!who.includes(JSON.parse(ids)), `${ids} cannot`);
      }
      for (const { rule, grants, example } of who.clauses) {
        const { gid, groups = [] } = example;
        assert.ok(gid === undefined || groups.includes(gid), "groups are all groups");
        const decided = decide(rules, { peer: example, action });
        assert.deepEqual(decided, { allowed: true, rule, grants });
      }
    }),
    { numRuns: cases(300) },
  );
});

/** A policy, and the same policy after an edit, which may change no decision. */
const pair = kinds.chain((kinds) => fc.tuple(policyOf(kinds), policyOf(kinds)));
const edited = fc.tuple(pair, fc.nat(4), fc.nat(4), fc.constantFrom(..."sdcnm".split("")))
  .map(([[rules, others], a, b, how]): [RuleDocument[], RuleDocument[]] => {
    const after = [...rules];
    const [at, to] = [a % (rules.length || 1), b % (rules.length || 1)];
    const rule = rules[at];
    if (rule === undefined || how === "n") return [rules, others];
    if (how === "s") [after[at], after[to]] = [rules[to]!, rule];
    if (how === "d") after.splice(at, 1);
    if (how === "c") after.push({ ...rule, name: "copy" });
    if (how === "m") after[at] = { ...rule, when: { not: { not: rule.when ?? { uid: 0 } } } };
    return [rules, after];
  });

const PAIRS: [[RuleDocument[], RuleDocument[]], number][] = EXAMPLES.flatMap((rules) => [
  [[rules, rules.toReversed()], 40],
  [[rules, [...rules, { ...rules[0]!, name: "again" }]], 40],
  [[rules, rules.slice(1)], 40],
]);

/** Whether the second rules give more than the first. A denial gives nothing. */
const givesMore = (before: readonly RuleDocument[], after: readonly RuleDocument[], one: Case) => {
  const [was, is] = [decide(before, one), decide(after, one)];
  return is.allowed &&
    (!was.allowed || is.grants.some((grant) => !(was.grants as readonly string[]).includes(grant)));
};

const COMPARISONS: readonly (readonly [string, typeof difference, typeof givesMore])[] = [
  [
    "equivalent() finds a case that differs wherever there is one, and it does differ",
    difference,
    (before, after, one) => outcome(before, one) !== outcome(after, one),
  ],
  [
    "narrower() finds a case that the second policy gives more in wherever there is one",
    widening,
    givesMore,
  ],
];

for (const [name, find, differ] of COMPARISONS) {
  test(name, () => {
    fc.assert(
      fc.property(edited, fc.integer({ min: 8, max: 40 }), ([before, after], bits) => {
        let found: ReturnType<typeof difference>;
        try {
          const [a, b] = [checkedOf(before), checkedOf(after)];
          found = find(a.rules, b.rules, new Budget(2 ** bits));
        } catch (error) {
          assert.ok(bits < 30, String(error));
          assert.equal((error as { code?: string }).code, "ERR_UCRED_POLICY");
          assert.match((error as Error).message, /^Cannot compare the policies: .* too many ways$/);
          return;
        }
        const differs = (one: Case) => differ(before, after, one);
        const both = [...before, ...after];
        if (found === undefined) {
          for (const one of world(before, after)) assert.ok(!differs(one), JSON.stringify(one));
        } else {
          assert.ok(differs(found), JSON.stringify(found));
          assert.ok(found.peer.groups?.every(Number.isInteger) ?? true);
          const isKnownCase = isKnown(both, { ...found, peer: { process: {}, ...found.peer } });
          if (!isKnownCase) {
            for (const one of world(before, after)) {
              assert.ok(!(isKnown(both, one) && differs(one)));
            }
          }
        }
      }),
      { numRuns: cases(300), examples: PAIRS },
    );
  });
}
