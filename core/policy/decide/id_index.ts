/** Rules by the ids that they are about, so that a decision looks at those alone. */

import { type Candidates, type Positions, RuleBucket } from "./candidates.ts";
import type { CheckedCondition } from "./condition.ts";
import type { IdRange } from "./id_ranges.ts";

/** What ids a rule needs, so that it cannot match a peer with others. */
export interface IdCondition {
  readonly kind: "uid" | "gid" | "group";
  readonly ranges: readonly IdRange[];
}

/**
 * Guards that follow from a condition: a peer that meets none of them does not meet it. `undefined`
 * where there are none that are sure.
 */
export function idConditionsOf(
  condition: CheckedCondition | undefined,
): readonly IdCondition[] | undefined {
  switch (condition?.kind) {
    case "uid":
    case "gid":
    case "group":
      return [condition];
    case "all":
      return condition.of.map(idConditionsOf).reduce(better, undefined);
    case "any": {
      const each = condition.of.map(idConditionsOf);
      return each.includes(undefined) ? undefined : each.flatMap((guards) => guards!);
    }
  }
  return undefined;
}

/** Of two lists of guards the one that lets fewer pass, as far as can be told; uids are one's own. */
function better(
  a: readonly IdCondition[] | undefined,
  b: readonly IdCondition[] | undefined,
): readonly IdCondition[] | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  const others = (guards: readonly IdCondition[]) =>
    guards.filter(({ kind }) => kind !== "uid").length;
  return others(b) < others(a) ? b : a;
}

/** Whether the guards are all that the condition asks for. */
export function areIdConditionsAlone(condition: CheckedCondition | undefined): boolean {
  switch (condition?.kind) {
    case "all":
      return condition.of.length === 1 && areIdConditionsAlone(condition.of[0]);
    case "any":
      return condition.of.every(areIdConditionsAlone);
  }
  return idConditionsOf(condition) !== undefined;
}

/** A rule to be found by its ids. */
export interface Guarded {
  readonly position: number;
  readonly ranges: readonly IdRange[];
  /** Whether it asks for nothing else. */
  readonly isMet: boolean;
}

/** Ranges of so many ids or fewer are stored id by id. */
const NARROW = 16;

/**
 * Pieces that no rule is met in yet; in others, later rules are not looked for. A rule that asks for
 * nothing but ids thus costs as much as it adds, however many ranges there are over its own.
 */
class UncoveredPieces {
  /** For each piece: itself, or one between it and the next unmet one. */
  readonly #next: Uint32Array;

  constructor(length: number) {
    this.#next = Uint32Array.from({ length: length + 1 }, (_, at) => at);
  }

  delete(at: number): void {
    this.#next[at] = at + 1;
  }

  /** The first one there or behind; the number of pieces if there is none. */
  from(at: number): number {
    const next = this.#next;
    let found = at;
    while (next[found]! !== found) found = next[found]!;
    for (let behind = next[at]!; behind !== found; at = behind, behind = next[at]!) {
      next[at] = found; // so that the next walk is short
    }
    return found;
  }
}

/** Rules by id: single ids in a table, wide ranges cut into pieces that do not overlap. */
export class IdIndex {
  /** Every rule in it, for peers whose id is unknown. */
  readonly all: Positions;
  readonly #single: ReadonlyMap<number, RuleBucket>;
  /** Where each piece of the wide ranges begins. */
  readonly #starts: Float64Array;
  /** The rules of each piece. */
  readonly #pieces: readonly RuleBucket[];
  /** Ids in stripes of one width, and the piece that each begins in. */
  readonly #stripe: number;
  readonly #stripes: Uint32Array;
  /** Rules whose ranges overlap so much that to list them piece by piece would take too much memory. */
  readonly #overlapping: number[] = [];

  /**
   * @param rules In order.
   * @param end The position behind the last rule of the policy.
   */
  constructor(rules: readonly Guarded[], end: number) {
    this.all = rules.map(({ position }) => position);
    const single = new Map<number, RuleBucket>();
    const wide: (readonly [Guarded, IdRange])[] = [];
    for (const rule of rules) {
      for (const range of rule.ranges) {
        if (range.last - range.first >= NARROW) {
          wide.push([rule, range]);
          continue;
        }
        for (let id = range.first; id <= range.last; id++) {
          const standing = single.get(id) ?? new RuleBucket(end);
          single.set(id, standing);
          standing.add(rule.position, rule.isMet);
        }
      }
    }
    const edges = wide.flatMap(([, { first, last }]) => [first, last + 1]);
    this.#starts = Float64Array.from(new Set([0, ...edges])).sort();
    this.#stripe = (this.#starts.at(-1)! + 1) / this.#starts.length;
    // The last piece that begins before each stripe does, or with it.
    const stripes = new Uint32Array(this.#starts.length + 1);
    for (let stripe = 1, piece = 0; stripe < stripes.length; stripe++) {
      while (this.#starts[piece + 1]! <= stripe * this.#stripe) piece++;
      stripes[stripe] = piece;
    }
    this.#stripes = stripes;
    const pieces = Array.from(this.#starts, () => new RuleBucket(end));
    const unmet = new UncoveredPieces(pieces.length);
    let room = 4096 + 64 * rules.length;
    for (const [{ position, isMet }, { first, last }] of wide) {
      const behind = this.#pieceOf(last) + 1;
      let at = unmet.from(this.#pieceOf(first));
      // What is not listed in every piece is asked of every peer: twice does no harm.
      for (; at < behind && (isMet || --room >= 0); at = unmet.from(at + 1)) {
        pieces[at]!.add(position, isMet);
        if (isMet) unmet.delete(at);
      }
      if (at < behind) this.#overlapping.push(position);
    }
    this.#single = single;
    this.#pieces = pieces;
  }

  /** Adds the rules about this id. */
  collect(id: number, candidates: Candidates): void {
    const single = this.#single.get(id);
    if (single !== undefined) candidates.add(single);
    if (this.#overlapping.length > 0) candidates.addUndecided(this.#overlapping);
    if (this.#starts.length > 1) candidates.add(this.#pieces[this.#pieceOf(id)]!);
  }

  /** The piece that the id is in: by its stripe, and there by halving. */
  #pieceOf(id: number): number {
    const starts = this.#starts;
    const stripe = Math.min(Math.floor(id / this.#stripe), this.#stripes.length - 2);
    let low = this.#stripes[stripe]!;
    let high = this.#stripes[stripe + 1]!;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (starts[middle]! <= id) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}
