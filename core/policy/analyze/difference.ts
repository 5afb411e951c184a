/** Two policies → whether they decide alike, or a case in which they do not. */

import type { Decision } from "../decide/decision.ts";
import type { PlainPeer } from "../decide/subject.ts";
import type { CheckedRule } from "../document/check.ts";
import { Budget } from "./budget.ts";
import { outcomeOf, Outcomes, RuleRegions, withinBudget } from "./reach.ts";
import { exampleIn, isEmpty, type Region, whereKnown } from "./region.ts";

/** A case that two policies decide otherwise. */
export interface Counterexample {
  /** Who asks: with every fact known that matters, if there is such a case. */
  readonly peer: PlainPeer;
  /** For what; `undefined` for a decision without an action. */
  readonly action: string | undefined;
  /** What the first policy says. */
  readonly before: Decision;
  /** What the second policy says. */
  readonly after: Decision;
}

/** A case in which these rules decide otherwise than those; `undefined` where there is none. */
export function difference(
  before: readonly CheckedRule[],
  after: readonly CheckedRule[],
  budget: Budget = new Budget(),
): Omit<Counterexample, "before" | "after"> | undefined {
  return withinBudget("compare the policies", () => {
    const outcomes = new Outcomes();
    const [a, b] = [
      new RuleRegions(before, budget, outcomes),
      new RuleRegions(after, budget, outcomes),
    ];
    a.requireAll();
    b.requireAll();
    const facts = new Set([...a.facts, ...b.facts]);
    // Whom no rule is about that differs, both decide alike.
    const [changed, instead] = changes(before, after);
    const regions = [
      ...changed.flatMap((rule) => a.regionsOf(rule)),
      ...instead.flatMap((rule) => b.regionsOf(rule)),
    ];
    // A case in which everything is known says more.
    for (const wanted of [facts, []]) {
      for (const region of regions) {
        const world = whereKnown(region, wanted, budget);
        if (isEmpty(world, budget)) continue;
        const found = search(a, b, outcomes.of(undefined), world, budget);
        if (found !== undefined) return exampleIn(found, wanted, budget);
      }
    }
    return undefined;
  });
}

/** Positions of the rules between the first and the last that differ. */
function changes(
  before: readonly CheckedRule[],
  after: readonly CheckedRule[],
): readonly [readonly number[], readonly number[]] {
  const [a, b] = [before, after].map((rules) =>
    rules.map((rule) => JSON.stringify([rule.when, rule.actions, outcomeOf(rule)]))
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

/** @param none What it counts as where no rule matches. */
function search(
  a: RuleRegions,
  b: RuleRegions,
  none: number,
  world: Region,
  budget: Budget,
): Region | undefined {
  const said = (by: RuleRegions, rule: number | undefined) =>
    rule === undefined ? none : by.outcomes[rule];
  for (const [part, first] of a.divide(world, budget)) {
    for (const [rest, second] of b.divide(part, budget)) {
      if (said(a, first) !== said(b, second)) return rest;
    }
  }
  return undefined;
}
