/** Which rule decides where: rules in order, as regions. */

import { UcredError } from "../errors.ts";
import type { CheckedRule } from "./check.ts";
import { type Budget, OutOfBudget } from "./language.ts";
import {
  both,
  EVERYTHING,
  type FactKey,
  factsOf,
  type Ids,
  type Outcome,
  type Region,
  regionsOf,
  TextValues,
  without,
} from "./region.ts";

/** A part of what a rule decides if no rule before it does. */
interface Entry {
  readonly region: Region;
  /** Position of the rule. */
  readonly rule: number;
}

/** Steps that one question may take: about a second. */
const BUDGET = 2_000_000;

/** Answers a question within the budget. @throws {UcredError} `ERR_UCRED_POLICY` beyond it. */
export function withinBudget<T>(what: string, run: (budget: Budget) => T): T {
  try {
    return run({ left: BUDGET });
  } catch (error) {
    if (!(error instanceof OutOfBudget)) throw error;
    const message = `Cannot ${what}: the conditions can be combined in too many ways`;
    const hint = "Write conditions with fewer any, not and globs, or split the policy";
    throw new UcredError("ERR_UCRED_POLICY", message, { hint });
  }
}

/** Rules in order. */
export class Reach {
  readonly rules: readonly CheckedRule[];
  /** Facts that some rule asks for. */
  readonly facts: ReadonlySet<FactKey>;
  readonly #entries: readonly Entry[];
  /** Where each rule's entries begin. */
  readonly #begins: readonly number[];
  /** Entries that are about few uids, by each; and the rest. */
  readonly #byUid = new Map<number, number[]>();
  readonly #others: number[] = [];

  /** @throws {OutOfBudget} */
  constructor(rules: readonly CheckedRule[], budget: Budget) {
    this.rules = rules;
    this.facts = new Set(rules.flatMap(({ when, actions }) => [
      ...factsOf(when),
      ...(actions === undefined ? [] : ["action" as const]),
    ]));
    const entries: Entry[] = [];
    this.#begins = rules.map((rule, position) => {
      const begin = entries.length;
      // An unknown condition keeps an allowing rule from matching, and not a denying one.
      const outcome = rule.grants === undefined ? "not false" : "true";
      for (const region of matches(rule, outcome, budget)) entries.push({ region, rule: position });
      return begin;
    });
    this.#entries = entries;
    for (const [at, { region }] of entries.entries()) {
      const uids = region.get("uid") as Ids | undefined;
      const ids = uids && singlesOf(uids);
      if (ids === undefined) this.#others.push(at);
      for (const id of ids ?? []) {
        const list = this.#byUid.get(id);
        if (list === undefined) this.#byUid.set(id, [at]);
        else list.push(at);
      }
    }
  }

  /** The regions that a rule decides if no rule before it does. */
  regionsOf(rule: number): readonly Region[] {
    return this.#entries.slice(this.#begins[rule], this.#begins[rule + 1])
      .map(({ region }) => region);
  }

  /**
   * Divides a region by the rule that decides; `undefined` for none. The parts do not overlap.
   *
   * @param before Only rules before this one.
   */
  *divide(
    region: Region,
    budget: Budget,
    before = this.rules.length,
  ): Generator<readonly [part: Region, rule: number | undefined]> {
    const end = this.#begins[before] ?? this.#entries.length;
    const open: [Region, number][] = [[region, 0]];
    for (let next; (next = open.pop()) !== undefined;) {
      const [region, from] = next;
      let isDecided = false;
      for (const at of this.#candidates(region)) {
        if (at < from) continue;
        if (at >= end) break;
        const entry = this.#entries[at]!;
        const part = both(region, entry.region, budget);
        if (part === undefined) continue;
        yield [part, entry.rule];
        for (const rest of without(region, entry.region, budget)) open.push([rest, at + 1]);
        isDecided = true;
        break;
      }
      if (!isDecided) yield [region, undefined];
    }
  }

  /** Where a region meets what rules before this one would decide; the parts may overlap. */
  *meeting(
    region: Region,
    budget: Budget,
    before: number,
  ): Generator<readonly [part: Region, rule: number]> {
    const end = this.#begins[before] ?? this.#entries.length;
    for (const at of this.#candidates(region)) {
      if (at >= end) break;
      const entry = this.#entries[at]!;
      const part = both(region, entry.region, budget);
      if (part !== undefined) yield [part, entry.rule];
    }
  }

  /** What is left of a region after the rules before this one. */
  *leftOf(region: Region, budget: Budget, before: number): Generator<Region> {
    for (const [part, rule] of this.divide(region, budget, before)) {
      if (rule === undefined) yield part;
    }
  }

  /** Positions of the entries that may meet a region, ascending. */
  #candidates(region: Region): Iterable<number> {
    const uids = region.get("uid") as Ids | undefined;
    const id = uids && !uids.unknown && uids.ranges.length === 1 &&
        uids.ranges[0]!.first === uids.ranges[0]!.last
      ? uids.ranges[0]!.first
      : undefined;
    if (id === undefined) return this.#entries.keys();
    return [...this.#byUid.get(id) ?? [], ...this.#others].sort((a, b) => a - b);
  }
}

/** The regions in which a rule's condition turns out so, and that its actions are about. */
export function matches(
  { when, actions }: CheckedRule,
  outcome: Outcome,
  budget: Budget,
): readonly Region[] {
  const regions = when === undefined
    ? outcome === "true" || outcome === "not false" ? [EVERYTHING] : []
    : regionsOf(when, outcome, budget);
  if (actions === undefined) return regions;
  const about: Region = new Map([
    ["action", new TextValues({ in: [actions], out: [] }, false, false)],
  ]);
  return regions.flatMap((region) => both(region, about, budget) ?? []);
}

/** Sets of so many ids or fewer are listed by id. */
const FEW = 16;

function singlesOf({ ranges }: Ids): readonly number[] | undefined {
  const count = ranges.reduce((sum, { first, last }) => sum + last - first + 1, 0);
  if (count > FEW) return undefined;
  return ranges.flatMap(({ first, last }) =>
    Array.from({ length: last - first + 1 }, (_, at) => first + at)
  );
}
