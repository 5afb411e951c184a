/** Compares two policies: do they decide alike, or is one only narrower? If not, a case that shows it. */

import type { Attributes, Decision } from "../decide/decision.ts";
import type { PlainPeer } from "../decide/subject.ts";
import { UcredError } from "../../errors.ts";
import type { CheckedPolicy, CheckedRule } from "../document/check.ts";
import { type Policy, sourceOf } from "../policy.ts";
import { Budget } from "./budget.ts";
import {
  type AnalyzedRule,
  analyzedRules,
  outcomeOf,
  Outcomes,
  RuleRegions,
  withinBudget,
} from "./reach.ts";
import { exampleIn, isEmpty, NoExample, type PolicyCase, whereKnown } from "./region.ts";

/** A case that two policies decide differently. */
export interface Counterexample {
  /** The peer. Every relevant fact is known, if there is such a case. */
  readonly peer: PlainPeer;
  /** The action; `undefined` for a decision without an action. */
  readonly action: string | undefined;
  /** The attributes of the request, for policies about a vocabulary. */
  readonly attributes?: Attributes;
  /** The first policy's decision. */
  readonly before: Decision;
  /** The second policy's decision. */
  readonly after: Decision;
}

/**
 * Compares two policies. Returns a case that they decide differently, or `undefined` if there is none:
 * then the second policy can replace the first.
 *
 * Exact, unknown facts included. Reasons and names of rules do not count.
 *
 * @throws {UcredError} `ERR_UCRED_POLICY` if the conditions can be combined in too many ways, or the
 * policies are about different vocabularies.
 * @throws {TypeError} If a policy is not one of `definePolicy()`, `parsePolicy()` or `loadPolicy()`: of a
 * watched or shadowed policy, pass `current`.
 *
 * @example Check that an edit changes nothing
 * ```ts
 * import { definePolicy } from "ucred";
 * import { equivalent } from "ucred/policy";
 *
 * const before = definePolicy({ version: 1, rules: [{ name: "a", when: { uid: "1-9" }, allow: true }] });
 * const after = definePolicy({ version: 1, rules: [{ name: "a", when: { uid: "1-8" }, allow: true }] });
 * console.log(equivalent(before, after)?.peer.uid); // 9
 * ```
 */
export function equivalent(before: Policy, after: Policy): Counterexample | undefined {
  return compare("equivalent()", before, after, difference);
}

/**
 * Checks that an edit only narrows a policy. Returns a case in which `after` gives more than `before`: it
 * allows what `before` denies, or gives another grant. `undefined` if there is none.
 *
 * Exact, unknown facts included.
 *
 * @throws {UcredError} `ERR_UCRED_POLICY` if the conditions can be combined in too many ways, or the
 * policies are about different vocabularies.
 * @throws {TypeError} If a policy is not one of `definePolicy()`, `parsePolicy()` or `loadPolicy()`: of a
 * watched or shadowed policy, pass `current`.
 *
 * @example Reject an edit that allows a peer more
 * ```ts
 * import { definePolicy } from "ucred";
 * import { narrower } from "ucred/policy";
 *
 * const wide = definePolicy({ version: 1, rules: [{ name: "a", when: { uid: "1-9" }, allow: true }] });
 * const narrow = definePolicy({ version: 1, rules: [{ name: "a", when: { uid: "1-8" }, allow: true }] });
 * console.log(narrower(wide, narrow), narrower(narrow, wide)?.peer.uid); // undefined 9
 * ```
 */
export function narrower(before: Policy, after: Policy): Counterexample | undefined {
  return compare("narrower()", before, after, widening);
}

function compare(
  caller: string,
  before: Policy,
  after: Policy,
  find: typeof difference,
): Counterexample | undefined {
  const [a, b] = [sourceOf(before, caller).checked, sourceOf(after, caller).checked];
  requireSameVocabulary(a.vocabulary, b.vocabulary);
  const found = find(analyzedRules(a), analyzedRules(b));
  if (found === undefined) return undefined;
  const { peer, action, attributes } = found;
  return {
    ...found,
    before: before.decide(peer, { action, attributes }),
    after: after.decide(peer, { action, attributes }),
  };
}

/** Attributes of one name may mean different things in two vocabularies. */
function requireSameVocabulary(
  a: CheckedPolicy["vocabulary"],
  b: CheckedPolicy["vocabulary"],
): void {
  if (a === b || JSON.stringify(a) === JSON.stringify(b)) return;
  const nameOf = (vocabulary: typeof a) =>
    vocabulary === undefined ? "no vocabulary" : JSON.stringify(vocabulary.name);
  const message = `Cannot compare the policies: one is about ${nameOf(a)}, ` +
    `and the other about ${a?.name === b?.name ? "another version of it" : nameOf(b)}`;
  throw new UcredError("ERR_UCRED_POLICY", message, {
    hint: "Compare policies about the same vocabulary",
  });
}

/** Returns a case that these rules decide differently; `undefined` if there is none. */
export function difference(
  before: readonly AnalyzedRule[],
  after: readonly AnalyzedRule[],
  budget: Budget = new Budget(),
): PolicyCase | undefined {
  return findCase(before, after, budget, (first, second) => outcomeOf(first) !== outcomeOf(second));
}

/** Returns a case in which `after` gives more than `before`; `undefined` if there is none. */
export function widening(
  before: readonly AnalyzedRule[],
  after: readonly AnalyzedRule[],
  budget: Budget = new Budget(),
): PolicyCase | undefined {
  return findCase(before, after, budget, (first, second) => {
    if (second?.grants === undefined) return false;
    return first?.grants === undefined ||
      !second.grants.every((grant) => first.grants!.includes(grant));
  });
}

/** The rule of one policy that decides a case; `undefined` if no rule matches. */
type Decider = CheckedRule | undefined;

/** Returns a case whose two deciding rules differ by `differ`. Rules with the same outcome never differ. */
function findCase(
  before: readonly AnalyzedRule[],
  after: readonly AnalyzedRule[],
  budget: Budget,
  differ: (first: Decider, second: Decider) => boolean,
): PolicyCase | undefined {
  return withinBudget("compare the policies", () => {
    const outcomes = new Outcomes();
    const [a, b] = [
      new RuleRegions(before, budget, outcomes),
      new RuleRegions(after, budget, outcomes),
    ];
    a.requireAll();
    b.requireAll();
    const facts = new Set([...a.facts, ...b.facts]);
    // A case that no changed rule covers is decided alike by both.
    const [changed, instead] = changes(before, after);
    const regions = [
      ...changed.flatMap((rule) => a.regionsOf(rule)),
      ...instead.flatMap((rule) => b.regionsOf(rule)),
    ];
    let unsettled: NoExample | undefined;
    // A case whose facts are all known is the better example, so these are tried first.
    for (const wanted of [facts, []]) {
      for (const region of regions) {
        const world = whereKnown(region, wanted, budget);
        if (isEmpty(world, budget)) continue;
        for (const [part, first] of a.divide(world, budget)) {
          for (const [rest, second] of b.divide(part, budget)) {
            if (!differ(ruleAt(before, first), ruleAt(after, second))) continue;
            try {
              return exampleIn(rest, wanted, budget);
            } catch (error) {
              if (!(error instanceof NoExample)) throw error;
              unsettled = error; // another part may have an example
            }
          }
        }
      }
    }
    if (unsettled !== undefined) throw unsettled;
    return undefined;
  });
}

const ruleAt = (rules: readonly AnalyzedRule[], position: number | undefined): Decider =>
  position === undefined ? undefined : rules[position];

/** Positions of the rules between the first and the last that differ. */
function changes(
  before: readonly AnalyzedRule[],
  after: readonly AnalyzedRule[],
): readonly [readonly number[], readonly number[]] {
  const [a, b] = [before, after].map((rules) =>
    rules.map((rule) => JSON.stringify([rule.when, rule.where, rule.actions, outcomeOf(rule)]))
  ) as [string[], string[]];
  let begin = 0;
  while (begin < a.length && begin < b.length && a[begin] === b[begin]) begin++;
  let end = 0;
  while (
    end < a.length - begin && end < b.length - begin && a.at(-1 - end) === b.at(-1 - end)
  ) end++;
  const between = (rules: readonly string[]) => [...rules.keys()].slice(begin, rules.length - end);
  return [between(a), between(b)];
}
