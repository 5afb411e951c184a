/** Rules that allow only recorded requests: their tests, and how rules are merged. */

import type { AttributeCondition } from "../core/policy/document/types.ts";

/** A value of an attribute. "self" is the uid of the caller. */
export type TestedValue = string | number | boolean | null;

/**
 * The test of a rule on one attribute. "values": the attribute has one of these values. "list": each of its
 * texts is in `within`, and it contains all texts of `required`.
 */
export type AttributeTest =
  | { readonly kind: "values"; readonly values: readonly TestedValue[] }
  | {
    readonly kind: "list";
    readonly within?: readonly string[] | undefined;
    readonly required?: readonly string[] | undefined;
  };

/** The tests of a rule, by attribute. */
export type Tests = ReadonlyMap<string, AttributeTest>;

/** A rule to suggest. */
export interface SuggestedRule {
  readonly actions: readonly string[];
  readonly tests: Tests;
  /** How many requests it allows. */
  readonly count: number;
}

/**
 * Merges rules that differ only in their actions, or only in the test of one attribute. The merged rule allows
 * a request if one of the rules allows it. Lists are united, so that texts of several requests may appear together.
 */
export function mergeRules(rules: readonly SuggestedRule[]): readonly SuggestedRule[] {
  let merged = rules;
  for (;;) {
    const before = merged.length;
    const names = new Set(merged.flatMap(({ tests }) => [...tests.keys()]));
    // Actions last: a rule for many actions should not depend on the image of one of them.
    for (const name of [...names, undefined]) merged = mergedBy(merged, name);
    if (merged.length === before) return merged;
  }
}

/** Merges rules that are equal but for one attribute; `undefined`: but for the actions. */
function mergedBy(
  rules: readonly SuggestedRule[],
  name: string | undefined,
): readonly SuggestedRule[] {
  const byRest = new Map<string, SuggestedRule[]>();
  for (const rule of rules) {
    const key = restOf(rule, name);
    const group = byRest.get(key) ?? [];
    byRest.set(key, group);
    const at = group.findIndex((other) => unite(other, rule, name) !== undefined);
    if (at < 0) group.push(rule);
    else group[at] = unite(group[at]!, rule, name)!;
  }
  return [...byRest.values()].flat();
}

/** A text that is the same for rules that differ at most in the attribute. */
function restOf({ actions, tests }: SuggestedRule, name: string | undefined): string {
  const sorted = [...tests].toSorted(([a], [b]) => a < b ? -1 : 1)
    .map(([key, test]) => key === name ? [key, test.kind] : [key, test]);
  return JSON.stringify([name === undefined ? [] : actions, sorted]);
}

function unite(
  a: SuggestedRule,
  b: SuggestedRule,
  name: string | undefined,
): SuggestedRule | undefined {
  const count = a.count + b.count;
  if (name === undefined) return { ...a, count, actions: union(a.actions, b.actions) };
  const [first, second] = [a.tests.get(name), b.tests.get(name)];
  if (first === undefined || second === undefined) {
    return first === second ? { ...a, count } : undefined;
  }
  const test = uniteTests(first, second);
  return test && { ...a, count, tests: new Map(a.tests).set(name, test) };
}

function uniteTests(a: AttributeTest, b: AttributeTest): AttributeTest | undefined {
  if (a.kind === "values" || b.kind === "values") {
    const isSame = a.kind === "values" && b.kind === "values";
    return isSame ? { kind: "values", values: union(a.values, b.values) } : undefined;
  }
  const isWithin = sameTexts(a.within, b.within), isRequired = sameTexts(a.required, b.required);
  if (isRequired && a.within !== undefined && b.within !== undefined) {
    return { ...a, within: union(a.within, b.within) };
  }
  if (!isWithin || a.required === undefined || b.required === undefined) {
    return isWithin && isRequired ? a : undefined;
  }
  // The list with fewer required texts allows what the other does.
  const [fewer, more] = a.required.length <= b.required.length ? [a, b] : [b, a];
  return fewer.required!.every((text) => more.required!.includes(text)) ? fewer : undefined;
}

const union = <T extends TestedValue>(a: readonly T[], b: readonly T[]): readonly T[] =>
  [...new Set([...a, ...b])].toSorted((a, b) => String(a) < String(b) ? -1 : 1);

const sameTexts = (a: readonly string[] | undefined, b: readonly string[] | undefined): boolean =>
  JSON.stringify(a) === JSON.stringify(b);

/** Returns the condition of a rule; `undefined` if it tests nothing. */
export function conditionOf(tests: Tests): AttributeCondition | undefined {
  const fields: { [name: string]: AttributeCondition[string] } = {};
  const all: AttributeCondition[] = [];
  for (const [name, test] of tests) {
    const conditions = test.kind === "values"
      ? [valuesCondition(name, test.values)]
      : listConditions(name, test);
    const [first, ...others] = conditions;
    if (first === undefined) continue;
    // One field of a condition can be written as a field of `where`.
    if (others.length === 0 && name in first) fields[name] = first[name];
    else all.push(...conditions);
  }
  if (all.length > 0) fields["all"] = all;
  return Object.keys(fields).length === 0 ? undefined : fields;
}

function valuesCondition(name: string, values: readonly TestedValue[]): AttributeCondition {
  const known = values.filter((value) => value !== null);
  if (known.some((value) => typeof value === "boolean")) {
    const each = known.map((value) => ({ [name]: value as boolean }));
    return each.length === 1 ? each[0]! : { any: each };
  }
  const of = { [name]: single(known as readonly (string | number)[]) };
  // No glob matches a text that is known to be absent.
  const absent = { not: { [name]: "**" } };
  return known.length === values.length ? of : known.length === 0 ? absent : { any: [of, absent] };
}

function listConditions(
  name: string,
  { within, required = [] }: Extract<AttributeTest, { kind: "list" }>,
): readonly AttributeCondition[] {
  const limit = within === undefined
    ? undefined
    : within.length === 0
    ? { empty: true }
    : { every: single(within) };
  const [first, ...others] = required;
  if (first === undefined) return limit === undefined ? [] : [{ [name]: limit }];
  return [
    { [name]: { ...limit, some: first } },
    ...others.map((text) => ({ [name]: { some: text } })),
  ];
}

const single = <T>(list: readonly T[]): T | readonly T[] => list.length === 1 ? list[0]! : list;
