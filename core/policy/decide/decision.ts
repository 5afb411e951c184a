/** What a policy answers: the decision, its grants, its reason. */

import type { Evaluate, Truth } from "./condition.ts";
import type { FactName } from "./subject.ts";

/** What a policy says of a peer and an action. Frozen; what is said again may be the same object. */
export interface Decision {
  /** Whether it may. */
  readonly allowed: boolean;
  /** The rule that decided; `undefined` where none matched, which is a no. */
  readonly rule: string | undefined;
  /** What it gives: the names behind `allow`. Empty where it denies, and behind `allow: true`. */
  readonly grants: readonly string[];
  /** Facts that could not be known, and on which the answer may have hung. */
  readonly unknown: readonly FactName[];
  /** Why, in a sentence, for logs: it names the rule. */
  readonly reason: string;
  /** What the denying rule's author wants the peer to be told; `undefined` for nothing. */
  readonly message: string | undefined;
}

/** What is decided beside who asks. */
export interface DecideOptions {
  /** What the peer wants to do, as `actions` of the rules spell it: "GET /metrics", say. */
  readonly action?: string | undefined;
}

export interface CompiledRule {
  readonly name: string;
  readonly evaluate: Evaluate | undefined;
  readonly actions: readonly ((action: string) => boolean)[] | undefined;
  readonly grants: readonly string[] | undefined;
  readonly why: string | undefined;
}

const NO_GRANTS: readonly string[] = Object.freeze([]);

export const NOTHING_UNKNOWN: readonly FactName[] = Object.freeze([]);

export class DecisionRecord implements Decision {
  readonly allowed: boolean;
  readonly rule: string | undefined;
  readonly grants: readonly string[];
  readonly unknown: readonly FactName[];
  readonly reason: string;
  readonly message: string | undefined;

  constructor(rule: CompiledRule | undefined, truth: Truth, unknown: readonly FactName[]) {
    this.allowed = rule?.grants !== undefined;
    this.rule = rule?.name;
    this.grants = rule?.grants ?? NO_GRANTS;
    this.unknown = unknown;
    this.reason = reasonOf(rule, truth, unknown); // its own, so that logs in JSON have it
    this.message = rule?.why;
    Object.freeze(this);
  }
}

function reasonOf(
  rule: CompiledRule | undefined,
  truth: Truth,
  unknown: readonly FactName[],
): string {
  if (rule === undefined) {
    return unknown.length === 0
      ? "No rule matches"
      : `No rule matches; unknown: ${unknown.join(", ")}`;
  }
  const { name, grants, why } = rule;
  if (grants !== undefined) {
    return `Rule "${name}" allows it${grants.length > 0 ? `: ${grants.join(", ")}` : ""}`;
  }
  const because = why === undefined ? "" : `: ${why}`;
  return truth === undefined
    ? `Rule "${name}" denies whom it may be about${because}; unknown: ${unknown.join(", ")}`
    : `Rule "${name}" denies it${because}`;
}
