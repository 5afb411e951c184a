/** Decisions: the answer of a policy, with its grants and its reason. */

import type { Evaluate, Truth } from "./condition.ts";
import type { FactName } from "./subject.ts";

/** The decision about a peer and an action. Frozen; equal decisions may be the same object. */
export interface Decision {
  /** Whether the action is allowed. */
  readonly allowed: boolean;
  /** The rule that decided; `undefined` if no rule matched, which denies. */
  readonly rule: string | undefined;
  /** The grants in `allow`. Empty for `allow: true`, and if the action is denied. */
  readonly grants: readonly string[];
  /** Unknown facts that may have changed the decision. */
  readonly unknown: readonly FactName[];
  /** One sentence with the name of the rule, for logs. */
  readonly reason: string;
  /** The `deny` text of the rule, meant for the peer; `undefined` if there is none. */
  readonly message: string | undefined;
}

/** Options of `decide()`. */
export interface DecideOptions {
  /** The action that the peer requests, in the spelling of the rules' `actions`: "GET /metrics". */
  readonly action?: string | undefined;
  /**
   * The attributes of the request, by name, for a policy with `about`: plain data, as the vocabulary
   * describes it. A missing attribute, or one of another type, is unknown.
   */
  readonly attributes?: Attributes | undefined;
}

/** Attributes of a request, by name. */
export interface Attributes {
  /** The value of an attribute. */
  readonly [name: string]: unknown;
}

export interface CompiledRule {
  readonly name: string;
  readonly evaluate: Evaluate | undefined;
  /** The same without the condition on attributes. */
  readonly evaluatePeer: Evaluate | undefined;
  /** Whether the rule depends on the action or on attributes. */
  readonly isAboutRequest: boolean;
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
    this.reason = reasonOf(rule, truth, unknown); // an own property, so that JSON logs contain it
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
    ? `Rule "${name}" may match, and denies it${because}; unknown: ${unknown.join(", ")}`
    : `Rule "${name}" denies it${because}`;
}
