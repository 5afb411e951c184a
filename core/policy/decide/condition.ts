/** Compiles a checked condition into a three-valued function of the facts. */

import type { NamespaceKind } from "../../process.ts";
import { compileGlob } from "./glob.ts";
import { hasId, type IdRange } from "./id_ranges.ts";
import type { AttributeFact, FactName, Subject } from "./subject.ts";

/** `undefined`: unknown. */
export type Truth = boolean | undefined;

/** A checked condition: names are resolved, and single values are lists. */
export type CheckedCondition =
  | CheckedFact
  | { readonly kind: "all" | "any"; readonly of: readonly CheckedCondition[] }
  | { readonly kind: "not"; readonly of: CheckedCondition };

/** A condition on one fact. */
export type CheckedFact =
  & (
    // Ranges are ascending, and neither overlap nor touch.
    | { readonly kind: "uid" | "gid" | "group"; readonly ranges: readonly IdRange[] }
    | { readonly kind: TextField; readonly globs: readonly string[] }
    | { readonly kind: "sameNamespaces"; readonly kinds: readonly NamespaceKind[] }
    | { readonly kind: "unchanged"; readonly value: boolean }
    | { readonly kind: AttributeFact; readonly test: AttributeTest; readonly evaluate: Evaluate }
  )
  & {
    /** The text of the condition: "group docker". */
    readonly text: string;
  };

/** The values of an attribute for which a condition holds. */
export type AttributeTest =
  | { readonly type: "boolean"; readonly value: boolean }
  // Ranges as for ids, but of any finite numbers.
  | { readonly type: "number"; readonly ranges: readonly IdRange[] }
  | { readonly type: "text"; readonly globs: readonly string[] }
  | {
    readonly type: "texts";
    readonly quantifier: "every" | "some";
    readonly globs: readonly string[];
  }
  | { readonly type: "id"; readonly ranges: readonly IdRange[] }
  /** The id equals the peer's uid. */
  | { readonly type: "self" };

/** Facts with a text as value. */
export const TEXT_FIELDS = ["label", "unit", "cgroup", "container", "exe", "exeSha256"] as const;
export type TextField = typeof TEXT_FIELDS[number];

/** Returns whether a condition holds for a peer. Adds unknown facts to `subject.missing`. */
export type Evaluate = (subject: Subject) => Truth;

/**
 * Compiles a condition. Cheap facts are read first.
 *
 * @param wanted The outcome the caller tests for (`true` for allow, `false` for deny). Once it is settled,
 * no more process facts are read. If omitted, evaluation continues after an unknown operand.
 */
export function compileCondition(checked: CheckedCondition, wanted?: boolean): Evaluate {
  switch (checked.kind) {
    case "uid":
    case "gid": {
      const { kind, ranges } = checked;
      return (subject) => {
        const id = subject[kind];
        return id === undefined ? missing(subject, kind) : hasId(ranges, id);
      };
    }
    case "group":
      return evaluateGroup(checked.ranges);
    case "sameNamespaces":
      return evaluateNamespaces(checked.kinds);
    case "unchanged": {
      const { value } = checked;
      return (subject) => {
        const found = subject.get("unchanged");
        return typeof found === "boolean" ? found === value : missing(subject, "unchanged");
      };
    }
    case "not": {
      const evaluate = compileCondition(checked.of, wanted === undefined ? undefined : !wanted);
      return (subject) => {
        const truth = evaluate(subject);
        return truth === undefined ? undefined : !truth;
      };
    }
    case "all":
    case "any":
      return evaluateMany(checked.of, checked.kind === "any", wanted);
  }
  return "evaluate" in checked ? checked.evaluate : evaluateText(checked.kind, checked.globs);
}

/** The conditions on single facts that a condition is made of. */
export function partsOf(condition: CheckedCondition | undefined): readonly CheckedFact[] {
  if (condition === undefined) return [];
  switch (condition.kind) {
    case "not":
      return partsOf(condition.of);
    case "all":
    case "any":
      return condition.of.flatMap(partsOf);
  }
  return [condition];
}

/** Records an unknown fact. */
export function missing(subject: Subject, fact: FactName): undefined {
  (subject.missing ??= new Set()).add(fact);
  return undefined;
}

/** Three-valued: one true operand makes `any` true, one false operand makes `all` false. */
function evaluateMany(
  conditions: readonly CheckedCondition[],
  decides: boolean,
  wanted: boolean | undefined,
): Evaluate {
  const sorted = conditions.toSorted((a, b) => costOf(a) - costOf(b));
  const evaluates = sorted.map((condition) => compileCondition(condition, wanted));
  if (evaluates.length === 1) return evaluates[0]!;
  // After an unknown operand the wanted outcome is out of reach: only cheap facts are still read.
  const free = sorted.filter((condition) => costOf(condition) < PROCESS_COST).length;
  const end = wanted === !decides ? free : evaluates.length;
  return (subject) => {
    let truth: Truth = !decides;
    for (let at = 0; at < evaluates.length; at++) {
      if (truth === undefined && at >= end) break;
      const found = evaluates[at]!(subject);
      if (found === decides) return decides;
      if (found === undefined) truth = undefined;
    }
    return truth;
  };
}

/** The gid or a supplementary group. A partly known list can still prove membership. */
function evaluateGroup(ranges: readonly IdRange[]): Evaluate {
  return (subject) => {
    const { gid, groups } = subject;
    if (gid !== undefined && hasId(ranges, gid)) return true;
    for (const group of groups) if (hasId(ranges, group)) return true;
    if (!subject.hasAllGroups) return missing(subject, "groups");
    return gid === undefined && !subject.groupsIncludeGid ? missing(subject, "gid") : false;
  };
}

function evaluateNamespaces(kinds: readonly NamespaceKind[]): Evaluate {
  return (subject) => {
    const ours = subject.get("namespaces");
    if (!ours) return missing(subject, "namespaces");
    let truth: Truth = true;
    for (const kind of kinds) {
      if (ours[kind] === false) return false;
      if (ours[kind] === undefined) truth = missing(subject, "namespaces");
    }
    return truth;
  };
}

function evaluateText(field: TextField, globs: readonly string[]): Evaluate {
  const tests = globs.map(compileGlob);
  return (subject) => {
    const text = subject.get(field);
    if (text === undefined) return missing(subject, field);
    return text !== null && tests.some((test) => test(text));
  };
}

/** Whether a condition on a peer reads facts that only a pinned peer has. */
export function needsPin(condition: CheckedCondition | undefined): boolean {
  if (condition === undefined) return false;
  switch (condition.kind) {
    case "uid":
    case "gid":
    case "group":
    case "label":
      return false;
    case "not":
      return needsPin(condition.of);
    case "all":
    case "any":
      return condition.of.some(needsPin);
  }
  return true;
}

/** Conditions of this cost or more read facts of the process. */
const PROCESS_COST = 3;

/** Relative cost: ids are in memory, a label costs a system call at most, `/proc` has the rest, a hash reads a file. */
function costOf(condition: CheckedCondition): number {
  switch (condition.kind) {
    case "uid":
    case "gid":
      return 0;
    case "group":
      return 1;
    case "label":
      return 2;
    case "not":
      return costOf(condition.of);
    case "all":
    case "any":
      return condition.of.reduce((most, part) => Math.max(most, costOf(part)), 0);
    case "exeSha256":
      return 5;
    case "unchanged":
    case "sameNamespaces":
      return 4;
    default:
      return "evaluate" in condition ? 1 : PROCESS_COST;
  }
}
