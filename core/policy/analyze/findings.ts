/** What lint() reports. */

import type { DocumentPath } from "../document/problems.ts";
import type { PolicyCase } from "./region.ts";

/**
 * What a finding is about.
 *
 * - `contradiction`: nobody can meet the conditions.
 * - `never`: the rule decides nothing, since earlier rules do.
 * - `only-unknown`: it decides only where facts are unknown.
 * - `shadowed`: an earlier rule that says otherwise decides for some whom it is about.
 * - `widened`: where a fact is unknown, a later rule gives more than this one.
 * - `everyone`: an allowing rule whose conditions everybody meets.
 * - `forgeable`: it rests on what other processes of the same user can take on.
 * - `evadable`: it keeps peers out by a group that they can leave, or need not show.
 * - `recycled`: it rests on an id that the system gives to another service later.
 * - `slow`: a peer can make it take long.
 * - `container`: it may take a process of a container for one of the host.
 * - `overflow`: it names 65534.
 * - `same-id`: two names stand for one id.
 * - `unsettled`: it could not be found out in reasonable time.
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
  | "unsettled";

/** Something doubtful about a policy. */
export interface Finding {
  /** What it is about. */
  readonly kind: FindingKind;
  /** `error`: surely a mistake. `warning`: probably. `note`: to be known. */
  readonly level: "error" | "warning" | "note";
  /** The rule's name. */
  readonly rule: string;
  /** A sentence or two for a person. */
  readonly message: string;
  /** A case that shows it, where there is one. */
  readonly example: PolicyCase | undefined;
  /** Where it stands in the document. */
  readonly path: readonly (string | number)[];
  /** Where it stands in the file, "file:line:column"; `undefined` for a policy that is from none. */
  readonly where: string | undefined;
}

/** Reports a finding about the rule at hand. */
export type Say = (
  kind: FindingKind,
  level: Finding["level"],
  message: string,
  more?: { readonly example?: PolicyCase | undefined; readonly path?: DocumentPath },
) => void;
