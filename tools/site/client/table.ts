/** The decision as a table: a row for each rule, a column for each fact that rules test. */

import {
  type CheckedCondition,
  compileCondition,
  type Truth,
} from "../../../core/policy/decide/condition.ts";
import type { Attributes } from "../../../core/policy/decide/decision.ts";
import { compileGlob } from "../../../core/policy/decide/glob.ts";
import { type PlainPeer, Subject } from "../../../core/policy/decide/subject.ts";
import { type RulePolicy, sourceOf } from "../../../core/policy/policy.ts";

/** A test of one fact, and its outcome; `undefined`: unknown. */
export interface Test {
  readonly text: string;
  readonly holds: Truth;
}

/** A rule. */
export interface Row {
  readonly rule: string;
  readonly effect: "allow" | "deny";
  /** The tests of each fact, in the order of the columns. */
  readonly cells: readonly (readonly Test[])[];
}

/** The table. */
export interface Table {
  /** The names of the facts. */
  readonly facts: readonly string[];
  /** The facts of the peer and its request, in words. */
  readonly values: readonly string[];
  readonly rows: readonly Row[];
}

interface Literal extends Test {
  readonly fact: string;
}

/** Makes the table of a decision. */
export function tableOf(
  policy: RulePolicy,
  peer: PlainPeer,
  { action, attributes }: {
    readonly action: string | undefined;
    readonly attributes: Attributes | undefined;
  },
): Table {
  const { rules } = sourceOf(policy, "tableOf()").checked;
  const subject = new Subject(peer);
  subject.attributes = attributes;
  const literals = rules.map((rule): readonly Literal[] => [
    ...(rule.actions ?? []).map((glob): Literal => ({
      ...{ fact: "action", text: glob },
      holds: action !== undefined && compileGlob(glob)(action),
    })),
    ...literalsOf(rule.when, subject, false),
    ...literalsOf(rule.where, subject, false),
  ]);
  const facts = [...new Set(literals.flat().map(({ fact }) => fact))];
  const rows = rules.map(({ name, grants }, at): Row => ({
    rule: name,
    effect: grants === undefined ? "deny" : "allow",
    cells: facts.map((fact) => literals[at]!.filter((each) => each.fact === fact)),
  }));
  const values = facts.map((fact) =>
    fact === "action" ? action ?? "none" : valueOf(fact, subject, attributes)
  );
  return { facts, values, rows };
}

/** The tests of single facts in a condition. Inside a `not`, the outcome is inverted. */
function literalsOf(
  condition: CheckedCondition | undefined,
  subject: Subject,
  isNot: boolean,
): readonly Literal[] {
  if (condition === undefined) return [];
  switch (condition.kind) {
    case "any":
    case "all":
      return condition.of.flatMap((each) => literalsOf(each, subject, isNot));
    case "not":
      return literalsOf(condition.of, subject, !isNot);
  }
  const truth = compileCondition(condition)(subject);
  const fact = nameOf(condition.kind);
  const text = condition.text.startsWith(`${fact} `)
    ? condition.text.slice(fact.length + 1)
    : condition.text;
  const holds = truth === undefined ? undefined : truth !== isNot;
  // The condition `empty` is "not some **".
  if (text === "some **") return [{ fact, text: isNot ? "empty" : "not empty", holds }];
  return [{ fact, text: isNot ? `not ${text}` : text, holds }];
}

/** "attributes.owner" → "owner". */
function nameOf(kind: string): string {
  return kind.replace(/^attributes\./, "");
}

function valueOf(fact: string, subject: Subject, attributes: Attributes | undefined): string {
  switch (fact) {
    case "uid":
    case "gid":
      return inWords(subject[fact]);
    case "group": {
      const { gid } = subject;
      const groups = [...new Set([...(gid === undefined ? [] : [gid]), ...subject.groups])];
      const isComplete = gid !== undefined && subject.hasAllGroups;
      return isComplete ? inWords(groups) : [...groups, "others unknown"].join(", ");
    }
    case "sameNamespaces": {
      const ours = subject.get("namespaces");
      if (ours === undefined || ours === null) return "unknown";
      return Object.entries(ours).map(([kind, isOurs]) => `${kind}: ${isOurs ? "same" : "other"}`)
        .join(", ") || "unknown";
    }
    case "label":
    case "exe":
    case "exeSha256":
    case "unit":
    case "cgroup":
    case "container":
    case "unchanged":
      return inWords(subject.get(fact));
  }
  const [name = "", parameter] = fact.split(/\.(.*)/);
  const value = ownOf(attributes, name);
  return inWords(parameter === undefined ? value : ownOf(value, parameter));
}

function ownOf(object: unknown, name: string): unknown {
  return typeof object === "object" && object !== null && Object.hasOwn(object, name)
    ? (object as { readonly [name: string]: unknown })[name]
    : undefined;
}

function inWords(value: unknown): string {
  if (value === undefined) return "unknown";
  if (value === null) return "none";
  if (Array.isArray(value)) return value.length === 0 ? "empty" : value.join(", ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
