/** Explains a decision rule by rule: which conditions held, which did not, and near misses. */

import { type CheckedCondition, compileCondition, type Truth } from "../decide/condition.ts";
import type { Decision } from "../decide/decision.ts";
import { compileGlob } from "../decide/glob.ts";
import { type IdRange, intersect, unite } from "../decide/id_ranges.ts";
import type { FactName, Subject } from "../decide/subject.ts";
import type { CheckedPolicy } from "../document/check.ts";

/** One condition of a rule, and its outcome. */
export interface ConditionExplanation {
  /** Text of the condition: "group docker"; nested conditions with "any of", "all of" and "not". */
  readonly text: string;
  /** `undefined`: unknown. */
  readonly holds: boolean | undefined;
  /** The unknown facts that the condition tests. */
  readonly unknown: readonly FactName[];
  /** The reasons why they are unknown, if the peer reports them. */
  readonly why: readonly string[];
}

/** One rule, and its outcome. */
export interface RuleExplanation {
  /** Its name. */
  readonly rule: string;
  /** The effect of the rule if it matches. */
  readonly effect: "allow" | "deny";
  /**
   * - `decided`: it was the first rule that matched.
   * - `not reached`: an earlier rule decided.
   * - `other action`: its `actions` do not match.
   * - `no match`: a condition did not hold.
   * - `unknown`: an allowing rule with a condition that is unknown.
   */
  readonly outcome: "decided" | "not reached" | "other action" | "no match" | "unknown";
  /** The conditions that must all hold; empty for `not reached` and `other action`. */
  readonly conditions: readonly ConditionExplanation[];
  /** What would make an allowing rule match, if a single condition keeps it from matching. */
  readonly nearMiss: string | undefined;
}

/** A decision with its reasons. `String(explanation)` is text for a terminal. */
export interface Explanation {
  /** The decision, as `decide()` returns it. */
  readonly decision: Decision;
  /** Every rule, in order. */
  readonly rules: readonly RuleExplanation[];
  /** Lines of text. */
  toString(): string;
}

/** Explains a decision of these rules. */
export function explain(
  { rules, vocabulary }: Pick<CheckedPolicy, "rules" | "vocabulary">,
  decision: Decision,
  subject: Subject,
  action: string | undefined,
): Explanation {
  let decided = false;
  const explained = rules.map((rule): RuleExplanation => {
    const { name, grants, actions } = rule;
    const effect = grants === undefined ? "deny" : "allow";
    const common = { rule: name, effect, conditions: [], nearMiss: undefined } as const;
    if (decided) return { ...common, outcome: "not reached" };
    const isAbout = vocabulary?.refusalOf(action) === undefined && (actions === undefined ||
      (action !== undefined && actions.some((glob) => compileGlob(glob)(action))));
    if (!isAbout) return { ...common, outcome: "other action" };
    const parts = [...partsOf(rule.when), ...partsOf(rule.where)];
    const conditions = parts.map((part) => explainCondition(part, subject));
    const truth = allOf(conditions.map(({ holds }) => holds));
    decided = truth ?? effect === "deny";
    const outcome = decided ? "decided" : truth === undefined ? "unknown" : "no match";
    const nearMiss = decided || effect === "deny" ? undefined : nearMissOf(parts, conditions);
    return { ...common, outcome, conditions, nearMiss };
  });
  return {
    decision,
    rules: explained,
    toString: () => explanationText(decision, explained),
  };
}

/** The conditions of a rule that must all hold. */
function partsOf(condition: CheckedCondition | undefined): readonly CheckedCondition[] {
  if (condition === undefined) return [];
  return condition.kind === "all" ? condition.of.flatMap(partsOf) : [condition];
}

function explainCondition(condition: CheckedCondition, subject: Subject): ConditionExplanation {
  subject.missing = undefined;
  const holds = compileCondition(condition)(subject);
  const unknown = holds === undefined ? [...subject.missing ?? []] as FactName[] : [];
  const why = new Set(unknown.map((fact) => subject.reasonOf(fact) ?? `${fact} is not known`));
  return { text: describeCondition(condition), holds, unknown, why: [...why] };
}

function describeCondition(condition: CheckedCondition): string {
  switch (condition.kind) {
    case "not":
      return `not (${describeCondition(condition.of)})`;
    case "any":
    case "all": {
      if (condition.of.length === 1) return describeCondition(condition.of[0]!);
      const parts = condition.of.map(describeCondition).join("; ");
      return `${condition.kind} of (${parts})`;
    }
  }
  return condition.text;
}

/**
 * Describes the single change that would make the rule match. `undefined` if another condition tests the
 * same fact: that condition might then fail.
 */
function nearMissOf(
  parts: readonly CheckedCondition[],
  conditions: readonly ConditionExplanation[],
): string | undefined {
  const [at, ...others] = [...conditions.keys()].filter((each) => conditions[each]!.holds !== true);
  if (at === undefined || others.length > 0) return undefined;
  const rest = testedByAll(parts.filter((_, each) => each !== at).map(testedBy));
  if (touches(testedBy(parts[at]!), rest)) return undefined;
  if (testsTwice(parts[at]!)) return undefined;
  return conditions[at]!.holds === undefined
    ? `would match if it were known that ${sentence(parts[at]!, "is")}`
    : `would match if ${sentence(parts[at]!, "were")}`;
}

/** The facts that conditions test. */
interface Tested {
  /** Facts other than groups. */
  readonly facts: ReadonlySet<string>;
  /** Tested as the primary group. */
  readonly gids: readonly IdRange[];
  /** Tested as any group. */
  readonly groups: readonly IdRange[];
}

function testedBy(condition: CheckedCondition): Tested {
  switch (condition.kind) {
    case "any":
    case "all":
      return testedByAll(condition.of.map(testedBy));
    case "not":
      return testedBy(condition.of);
    case "gid":
      return { facts: new Set([condition.kind]), gids: condition.ranges, groups: [] };
    case "group":
      return { facts: new Set(), gids: [], groups: condition.ranges };
  }
  const isSelf = "test" in condition && condition.test.type === "self";
  const facts = new Set<string>([condition.kind, ...(isSelf ? ["uid"] : [])]);
  return { facts, gids: [], groups: [] };
}

function testedByAll(each: readonly Tested[]): Tested {
  return {
    facts: new Set(each.flatMap(({ facts }) => [...facts])),
    gids: unite(each.flatMap(({ gids }) => gids)),
    groups: unite(each.flatMap(({ groups }) => groups)),
  };
}

/** Whether two of the conditions test the same fact. */
function isTestedTwice(each: readonly Tested[]): boolean {
  const all = testedByAll(each);
  const sum = (of: (tested: Tested) => number) => each.reduce((sum, tested) => sum + of(tested), 0);
  const ids = (ranges: readonly IdRange[]) =>
    ranges.reduce((sum, { first, last }) => sum + last - first + 1, 0);
  return sum(({ facts }) => facts.size) > all.facts.size ||
    sum(({ groups }) => ids(groups)) > ids(all.groups) ||
    all.gids.length > 0 && all.groups.length > 0;
}

/** Whether one of the facts that `one` tests cannot change without a fact that `rest` tests. */
function touches(one: Tested, rest: Tested): boolean {
  return [...one.facts].some((fact) => rest.facts.has(fact)) ||
    intersect(one.groups, rest.groups).length > 0 ||
    one.gids.length > 0 && rest.groups.length > 0 || // another gid also changes the list of groups
    intersect(one.groups, rest.gids).length > 0;
}

/** Whether two conditions inside this one, which must both hold, test the same fact. */
function testsTwice(condition: CheckedCondition, isNot = false): boolean {
  switch (condition.kind) {
    case "not":
      return testsTwice(condition.of, !isNot);
    case "any":
    case "all": {
      const all = (condition.kind === "all") !== isNot;
      return all && isTestedTwice(condition.of.map(testedBy)) ||
        condition.of.some((each) => testsTwice(each, isNot));
    }
  }
  return false;
}

/** "its uid were 0", "it is known that the peer is not in group docker". */
function sentence(condition: CheckedCondition, verb: "is" | "were", isNot = false): string {
  const be = isNot ? `${verb} not` : verb;
  switch (condition.kind) {
    case "any":
    case "all": {
      const [one, ...others] = condition.of;
      if (one !== undefined && others.length === 0) return sentence(one, verb, isNot);
      const all = (condition.kind === "all") !== isNot; // not any of (a, b): not a and not b
      return condition.of.map((each) => sentence(each, verb, isNot)).join(all ? " and " : " or ");
    }
    case "not":
      return sentence(condition.of, verb, !isNot);
    case "group":
      return `the peer ${be} in ${condition.text}`;
    case "sameNamespaces":
      return `it ${be} in ${condition.text}`;
    case "unchanged":
      return `it ${condition.value === isNot ? `${verb} not` : verb} as it was at connect`;
  }
  const [field, ...values] = condition.text.split(" ");
  return `${"test" in condition ? "the request's" : "its"} ${field} ${be} ${values.join(" ")}`;
}

const allOf = (truths: readonly Truth[]): Truth =>
  truths.includes(false) ? false : truths.includes(undefined) ? undefined : true;

const MARKS = { true: "yes", false: "no", undefined: "unknown" } as const;

function explanationText({ allowed, reason }: Decision, rules: readonly RuleExplanation[]): string {
  const width = rules.reduce((most, { rule }) => Math.max(most, rule.length), 0);
  const lines = rules.flatMap(({ rule, effect, outcome, conditions, nearMiss }) => [
    `${rule.padEnd(width)}  ${effect.padEnd(5)}  ${outcome}`,
    ...conditions.map(({ text, holds, why }) =>
      `${" ".repeat(width)}    ${text}: ${MARKS[`${holds}`]}${
        why.length > 0 ? ` (${why.join("; ")})` : ""
      }`
    ),
    ...(nearMiss === undefined ? [] : [`${" ".repeat(width)}    ${nearMiss}`]),
  ]);
  return [...lines, `${allowed ? "Allowed" : "Denied"}: ${reason}`].join("\n");
}
