/** Findings of `lint()`. */

import type { DocumentPath } from "../document/problems.ts";
import type { PolicyCase } from "./region.ts";

/**
 * The kind of a finding.
 *
 * - `contradiction`: no peer can meet the conditions.
 * - `never`: earlier rules decide every case of the rule.
 * - `only-unknown`: the rule decides only if facts are unknown.
 * - `shadowed`: an earlier rule with another outcome decides some cases of the rule.
 * - `widened`: if a fact is unknown, a later rule gives more than this one.
 * - `everyone`: an allowing rule whose conditions every peer meets.
 * - `forgeable`: the rule tests a fact that other processes of the same user can imitate.
 * - `evadable`: the rule denies by a group that a peer can leave or hide.
 * - `recycled`: the rule tests an id that the system later gives to another service.
 * - `slow`: a peer can make the decision slow.
 * - `container`: the rule may confuse a process in a container with one of the host.
 * - `overflow`: the rule tests the id 65534.
 * - `same-id`: two accounts have the same id.
 * - `untested`: the rule allows by attributes of the request, but tests no essential one, for example `dangers`.
 * - `unsettled`: the analysis of the rule exceeded its budget.
 */
export type FindingKind =
  | "contradiction"
  | "never"
  | "only-unknown"
  | "shadowed"
  | "widened"
  | "everyone"
  | "forgeable"
  | "evadable"
  | "recycled"
  | "slow"
  | "container"
  | "overflow"
  | "same-id"
  | "untested"
  | "unsettled";

/** A doubtful rule. */
export interface Finding {
  /** The kind of the finding. */
  readonly kind: FindingKind;
  /** `error`: certainly a mistake. `warning`: probably one. `note`: for information. */
  readonly level: "error" | "warning" | "note";
  /** The rule's name. */
  readonly rule: string;
  /** One or two sentences. */
  readonly message: string;
  /** A case that shows the problem, if there is one. */
  readonly example: PolicyCase | undefined;
  /** Path in the document. */
  readonly path: readonly (string | number)[];
  /** "file:line:column"; `undefined` for a policy in code. */
  readonly where: string | undefined;
}

/** Reports a finding about the current rule. */
export type ReportFinding = (
  kind: FindingKind,
  level: Finding["level"],
  message: string,
  more?: { readonly example?: PolicyCase | undefined; readonly path?: DocumentPath },
) => void;
