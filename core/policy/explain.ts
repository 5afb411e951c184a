/** Why a decision is what it is: rule by rule, what held, what did not, and what came close. */

import type { CheckedRule } from "./check.ts";
import { type Checked, compileCondition, type Truth } from "./condition.ts";
import { compileGlob } from "./glob.ts";
import type { DecideOptions, Decision } from "./policy.ts";
import type { FactName, Subject } from "./subject.ts";

/** One condition of a rule, and what became of it. */
export interface ConditionExplanation {
  /** As it is written: "group docker"; nested ones with "any of", "all of" and "not". */
  readonly text: string;
  /** `undefined`: unknown. */
  readonly holds: boolean | undefined;
  /** The facts that it asked for in vain. */
  readonly unknown: readonly FactName[];
}

/** One rule, and what became of it. */
export interface RuleExplanation {
  /** Its name. */
  readonly rule: string;
  /** What it does where it matches. */
  readonly effect: "allow" | "deny";
  /**
   * - `decided`: it was the first that matched.
   * - `not reached`: an earlier one had decided.
   * - `other action`: it is about other actions.
   * - `no match`: a condition did not hold.
   * - `unknown`: an allowing rule whose conditions cannot all be known.
   */
  readonly outcome: "decided" | "not reached" | "other action" | "no match" | "unknown";
  /** The conditions that must all hold; none where it is not reached or about other actions. */
  readonly conditions: readonly ConditionExplanation[];
  /** Where a single condition is in the way of an allowing rule: what would have to be so. */
  readonly nearMiss: string | undefined;
}

/** A decision with its reasons. `String(explanation)` is for a person at a terminal. */
export interface Explanation {
  /** The decision, as `decide()` gives it. */
  readonly decision: Decision;
  /** Every rule, in order. */
  readonly rules: readonly RuleExplanation[];
  /** Lines of text. */
  toString(): string;
}

/** Explains a decision that was made of these rules. */
export function explain(
  rules: readonly CheckedRule[],
  decision: Decision,
  subject: Subject,
  { action }: DecideOptions,
): Explanation {
  let decided = false;
  const explained = rules.map((rule): RuleExplanation => {
    const { name, grants, actions } = rule;
    const effect = grants === undefined ? "deny" : "allow";
    const common = { rule: name, effect, conditions: [], nearMiss: undefined } as const;
    if (decided) return { ...common, outcome: "not reached" };
    const isAbout = actions === undefined ||
      (action !== undefined && actions.some((glob) => compileGlob(glob)(action)));
    if (!isAbout) return { ...common, outcome: "other action" };
    const conditions = partsOf(rule.when).map((part) => explainCondition(part, subject));
    const truth = allOf(conditions.map(({ holds }) => holds));
    decided = truth ?? effect === "deny";
    const outcome = decided ? "decided" : truth === undefined ? "unknown" : "no match";
    const inTheWay = conditions.filter(({ holds }) => holds !== true);
    const nearMiss = !decided && effect === "allow" && inTheWay.length === 1
      ? inTheWay[0]!.holds === undefined
        ? `would match if it were known that ${inTheWay[0]!.text} holds`
        : `would match if ${inTheWay[0]!.text} held`
      : undefined;
    return { ...common, outcome, conditions, nearMiss };
  });
  return {
    decision,
    rules: explained,
    toString: () => textOf(decision, explained),
  };
}

/** What a rule demands, one by one. */
function partsOf(condition: Checked | undefined): readonly Checked[] {
  if (condition === undefined) return [];
  return condition.kind === "all" ? condition.of.flatMap(partsOf) : [condition];
}

function explainCondition(condition: Checked, subject: Subject): ConditionExplanation {
  subject.missing = undefined;
  const holds = compileCondition(condition)(subject);
  const unknown = holds === undefined ? [...subject.missing ?? []] as FactName[] : [];
  return { text: describe(condition), holds, unknown };
}

function describe(condition: Checked): string {
  switch (condition.kind) {
    case "not":
      return `not (${describe(condition.of)})`;
    case "any":
    case "all": {
      if (condition.of.length === 1) return describe(condition.of[0]!);
      const parts = condition.of.map(describe).join("; ");
      return `${condition.kind} of (${parts})`;
    }
  }
  return condition.text;
}

const allOf = (truths: readonly Truth[]): Truth =>
  truths.includes(false) ? false : truths.includes(undefined) ? undefined : true;

const MARKS = { true: "yes", false: "no", undefined: "unknown" } as const;

function textOf({ allowed, reason }: Decision, rules: readonly RuleExplanation[]): string {
  const width = rules.reduce((most, { rule }) => Math.max(most, rule.length), 0);
  const lines = rules.flatMap(({ rule, effect, outcome, conditions, nearMiss }) => [
    `${rule.padEnd(width)}  ${effect.padEnd(5)}  ${outcome}`,
    ...conditions.map(({ text, holds, unknown }) =>
      `${" ".repeat(width)}    ${text}: ${MARKS[`${holds}`]}${
        unknown.length > 0 ? ` (${unknown.join(", ")} not known)` : ""
      }`
    ),
    ...(nearMiss === undefined ? [] : [`${" ".repeat(width)}    ${nearMiss}`]),
  ]);
  return [...lines, `${allowed ? "Allowed" : "Denied"}: ${reason}`].join("\n");
}
