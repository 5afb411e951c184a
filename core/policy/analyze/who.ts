/** Finds the peers that may perform an action, as sets of ids. */

import { Budget } from "./budget.ts";
import type { CheckedRule } from "../document/check.ts";
import {
  hasId,
  type IdRange,
  type NameOfId,
  others,
  unite,
  writeRanges,
} from "../decide/id_ranges.ts";
import { type Policy, sourceOf } from "../policy.ts";
import { RuleRegions, withinBudget } from "./reach.ts";
import {
  attributeOf,
  EVERYTHING,
  exampleIn,
  type FactKey,
  Groups,
  Ids,
  Numbers,
  type PolicyCase,
  type Region,
  sizeOf,
  TextLists,
  TextValues,
  Truths,
  uidsIn,
  whereKnown,
} from "./region.ts";
import type { Texts } from "./text_sets.ts";
import type { Attributes } from "../decide/decision.ts";
import type { PlainPeer } from "../decide/subject.ts";

/** A set of peers that may perform the action. */
export interface WhoClause {
  /** The rule that allows them. */
  readonly rule: string;
  /** The grants of the rule. */
  readonly grants: readonly string[];
  /** Their uids; `undefined`: any. */
  readonly uids: readonly IdRange[] | undefined;
  /** Their gids; `undefined`: any. */
  readonly gids: readonly IdRange[] | undefined;
  /** They have at least one group of each of these sets; the primary group counts. */
  readonly groups: readonly (readonly IdRange[])[];
  /** They have none of these groups. */
  readonly notGroups: readonly IdRange[];
  /** Further conditions, in words. */
  readonly also: readonly string[];
  /** One such peer. */
  readonly example: PlainPeer;
  /** Attributes with which it may perform the action, for a policy about a vocabulary. */
  readonly attributes?: Attributes;
}

/** The peers that may perform an action, if all facts are known. Unknown facts never add peers. */
export interface Who {
  /** All of them. No peer with the same facts is in two. */
  readonly clauses: readonly WhoClause[];
  /** Whether a peer with these ids may perform the action if its other facts match. */
  includes(ids: {
    readonly uid: number;
    readonly gid: number;
    /** All groups; the gid counts in any case. */
    readonly groups: readonly number[];
  }): boolean;
  /** Lines of text, one for each clause; "no peer" if there is none. */
  toString(): string;
}

/**
 * Finds the peers that may perform an action, as sets of ids and further conditions.
 *
 * @param action The action; if omitted, decisions without an action.
 * @throws {UcredError} `ERR_UCRED_POLICY` if the conditions can be combined in too many ways.
 * @throws {TypeError} If the policy is not one of `definePolicy()`, `parsePolicy()` or `loadPolicy()`.
 *
 * @example List who may read the metrics
 * ```ts
 * import { definePolicy } from "ucred";
 * import { who } from "ucred/policy";
 *
 * const rules = [{ name: "people", when: { uid: "1000-1999" }, actions: "GET /**", allow: true }] as const;
 * const policy = definePolicy({ version: 1, rules });
 * console.log(String(who(policy, "GET /metrics"))); // uid 1000-1999 (rule "people")
 * ```
 */
export function who(policy: Policy, action?: string): Who {
  const { checked } = sourceOf(policy, "who()");
  const isUnknown = checked.vocabulary?.refusalOf(action) !== undefined;
  return whoCan(isUnknown ? [] : checked.rules, action);
}

/** {@link who}, for checked rules. */
export function whoCan(
  rules: readonly CheckedRule[],
  action: string | undefined,
  budget: Budget = new Budget(),
): Who {
  const clauses = withinBudget("list who may do it", () => clausesOf(rules, action, budget));
  return {
    clauses,
    includes: (ids) => clauses.some((clause) => has(clause, ids)),
    toString: () => writeWho(clauses),
  };
}

function clausesOf(
  rules: readonly CheckedRule[],
  action: string | undefined,
  budget: Budget,
): readonly WhoClause[] {
  // Only rules that match the action are analysed, so regions need no action.
  const isAbout = ({ actions }: CheckedRule) =>
    actions === undefined ||
    (action !== undefined && actions.some((glob) => budget.glob(glob).matches(action, budget)));
  const relevant = rules.filter(isAbout).map((rule) => ({ ...rule, actions: undefined }));
  const reach = new RuleRegions(relevant, budget);
  reach.requireAll();
  const parts = new Map<string, Part>();
  const world = whereKnown(EVERYTHING, reach.facts, budget);
  for (const [region, rule] of reach.divide(world, budget)) {
    if (rule === undefined || relevant[rule]!.grants === undefined) continue;
    const ranges = uidsIn(region);
    // Parts that differ only in their uids are merged.
    const key = JSON.stringify([rule, ...[...region].filter(([fact]) => fact !== "uid").sort()]);
    budget.spend(10 * key.length + ranges.length);
    const same = parts.get(key);
    budget.keep(ranges.length + (same === undefined ? sizeOf(region) + key.length / 8 : 0));
    if (same === undefined) parts.set(key, { rule, region, ranges: [...ranges] });
    else for (const range of ranges) same.ranges.push(range);
  }
  return [...parts.values()].sort((a, b) => a.rule - b.rule).map(({ rule, region, ranges }) =>
    clauseOf(relevant[rule]!, region, unite(ranges), exampleIn(region, reach.facts, budget))
  );
}

interface Part {
  readonly rule: number;
  readonly region: Region;
  readonly ranges: IdRange[];
}

function clauseOf(
  { name, grants = [] }: CheckedRule,
  region: Region,
  uids: readonly IdRange[],
  { peer, attributes }: PolicyCase,
): WhoClause {
  const { gid, hits, avoids } = region.get("groups") as Groups | undefined ?? new Groups({});
  const isAny = (ranges: readonly IdRange[]) => others(ranges).length === 0;
  return {
    rule: name,
    grants,
    uids: isAny(uids) ? undefined : uids,
    gids: isAny(gid.ranges) ? undefined : gid.ranges,
    groups: hits,
    notGroups: avoids,
    also: [...region].flatMap(([fact, values]) => describeFact(fact, values)),
    example: peer,
    ...(attributes !== undefined && { attributes }),
  };
}

/** Describes the condition on a fact; empty if it may have any value. */
function describeFact(fact: FactKey, values: unknown): readonly string[] {
  const name = attributeOf(fact) && fact.replace(/^[a-z]+ attributes\./, "");
  if (values instanceof Truths) {
    const truth = values.example();
    if (values.isOpen()) return [];
    if (name !== undefined) {
      return [
        fact.startsWith("self") ? `${name} is ${truth ? "" : "not "}self` : `${name} ${truth}`,
      ];
    }
    if (fact === "unchanged") return [truth === true ? "unchanged" : "changed since connect"];
    return [`${truth === true ? "our" : "another"} ${fact.slice("namespace ".length)} namespace`];
  }
  if (values instanceof Numbers) {
    if (values.ranges.every(isEveryNumber)) return [];
    return [`${name} ${values.ranges.map(writeNumbers).join(", ")}`];
  }
  if (values instanceof Ids && name !== undefined) {
    return others(values.ranges).length === 0 ? [] : [`${name} ${writeRanges(values.ranges)}`];
  }
  if (values instanceof TextLists) return values.lists ? describeLists(name!, values.lists) : [];
  if (!(values instanceof TextValues)) return [];
  return describeTexts(name ?? fact, values);
}

const isEveryNumber = ({ first, last }: IdRange) =>
  first === -Number.MAX_VALUE && last === Number.MAX_VALUE;

const writeNumbers = ({ first, last }: IdRange) =>
  first === last
    ? `${first}`
    : first === -Number.MAX_VALUE
    ? `at most ${last}`
    : last === Number.MAX_VALUE
    ? `at least ${first}`
    : `${first} to ${last}`;

/** Describes a condition on a list. */
function describeLists(
  name: string,
  { every, some }: NonNullable<TextLists["lists"]>,
): readonly string[] {
  const globs = (texts: Texts) =>
    [
      ...texts.in.map((globs) => globs.length === 0 ? "nothing" : globs.join(" or ")),
      ...(texts.out.length === 0 ? [] : [`not ${texts.out.join(" or ")}`]),
    ].join(" and ");
  const all = globs(every);
  return [
    ...(all === "" ? [] : [`${name} every ${all}`]),
    ...some.map((texts) => `${name} some ${globs(texts) || "text"}`),
  ];
}

/** Describes a condition on a text. */
function describeTexts(fact: string, { texts, none }: TextValues): readonly string[] {
  if (texts === undefined) return [`no ${fact}`];
  const { in: matched, out } = texts;
  if (none) return out.length === 0 ? [] : [`${fact} not ${out.join(" or ")}`];
  return [
    ...(matched.length === 0 ? [`some ${fact}`] : []),
    ...matched.map((globs) => `${fact} ${globs.join(" or ")}`),
    ...(out.length === 0 ? [] : [`${fact} not ${out.join(" or ")}`]),
  ];
}

function has(
  { uids, gids, groups, notGroups }: WhoClause,
  ids: Parameters<Who["includes"]>[0],
): boolean {
  const all = [ids.gid, ...ids.groups];
  return (uids === undefined || hasId(uids, ids.uid)) &&
    (gids === undefined || hasId(gids, ids.gid)) &&
    groups.every((set) => all.some((group) => hasId(set, group))) &&
    !all.some((group) => hasId(notGroups, group));
}

/** Writes lines of text, one for each clause; "no peer" if there is none. */
export function writeWho(
  clauses: readonly WhoClause[],
  nameOf?: { readonly user: NameOfId; readonly group: NameOfId },
): string {
  return clauses.map((clause) => clauseText(clause, nameOf?.user, nameOf?.group)).join("\n") ||
    "no peer";
}

function clauseText(
  { rule, grants, uids, gids, groups, notGroups, also }: WhoClause,
  user: NameOfId | undefined,
  group: NameOfId | undefined,
): string {
  const who = [
    uids === undefined ? "any uid" : `uid ${writeRanges(uids, user)}`,
    ...(gids === undefined ? [] : [`gid ${writeRanges(gids, group)}`]),
    ...groups.map((set) => `in group ${writeRanges(set, group)}`),
    ...(notGroups.length === 0 ? [] : [`not in group ${writeRanges(notGroups, group)}`]),
    ...also,
  ];
  const given = grants.length === 0 ? "" : `: ${grants.join(", ")}`;
  return `${who.join("; ")} (rule "${rule}"${given})`;
}
