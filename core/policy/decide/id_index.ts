/** An index of rules by id, so that a decision evaluates only the rules for the peer's ids. */

import { type Candidates, type Positions, RuleBucket } from "./candidates.ts";
import type { CheckedCondition } from "./condition.ts";
import type { IdRange } from "./id_ranges.ts";

/** The ids of which a peer must have one to match a rule. */
export interface IdCondition {
  readonly kind: "uid" | "gid" | "group";
  readonly ranges: readonly IdRange[];
}

/**
 * Returns id conditions that a condition implies: a peer that meets none of them does not meet the
 * condition. `undefined` if it implies none.
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
      return each.includes(undefined) ? undefined : each.flatMap((conditions) => conditions!);
    }
  }
  return undefined;
}

/** Returns the more selective of two lists: fewer peers share a uid than a gid or group. */
function better(
  a: readonly IdCondition[] | undefined,
  b: readonly IdCondition[] | undefined,
): readonly IdCondition[] | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  const others = (conditions: readonly IdCondition[]) =>
    conditions.filter(({ kind }) => kind !== "uid").length;
  return others(b) < others(a) ? b : a;
}

/** Whether the condition tests nothing but the ids. */
export function areIdConditionsAlone(condition: CheckedCondition | undefined): boolean {
  switch (condition?.kind) {
    case "all":
      return condition.of.length === 1 && areIdConditionsAlone(condition.of[0]);
    case "any":
      return condition.of.every(areIdConditionsAlone);
  }
  return idConditionsOf(condition) !== undefined;
}

/** A rule of the index. */
export interface Guarded {
  readonly position: number;
  readonly ranges: readonly IdRange[];
  /** Whether the rule has no condition but the ids. */
  readonly isMet: boolean;
}

/** Ranges of at most this many ids are stored id by id. */
const MAX_NARROW_IDS = 16;

/**
 * Union-find over the pieces that no unconditional rule covers yet; later rules skip covered pieces. So the
 * cost of an unconditional rule does not grow with the number of ranges that overlap its own.
 */
class UncoveredPieces {
  /** For each piece: itself if uncovered, or a later piece up to the next uncovered one. */
  readonly #next: Uint32Array;

  constructor(length: number) {
    this.#next = Uint32Array.from({ length: length + 1 }, (_, at) => at);
  }

  delete(at: number): void {
    this.#next[at] = at + 1;
  }

  /** The first uncovered piece at or after `at`; the number of pieces if there is none. */
  from(at: number): number {
    const next = this.#next;
    let found = at;
    while (next[found]! !== found) found = next[found]!;
    for (let behind = next[at]!; behind !== found; at = behind, behind = next[at]!) {
      next[at] = found; // path compression
    }
    return found;
  }
}

/** Bits of a filter for each id in it: few enough for the cache, many enough for few false positives. */
const BITS_PER_ID = 16;

/**
 * Returns a Bloom filter with one hash function: its result `false` is certain. A decision looks up each
 * group of a peer, and most groups are in no rule. With 100 rules or more, a decision with the map alone
 * takes up to twice as long.
 */
function filterOf(ids: ReadonlyMap<number, unknown>): (id: number) => boolean {
  const exponent = Math.ceil(Math.log2(BITS_PER_ID * (ids.size + 2)));
  const bits = new Uint32Array(2 ** exponent / 32);
  // Fibonacci hashing: the factor is 2³² divided by the golden ratio.
  const bitOf = (id: number) => Math.imul(id, 0x9e3779b1) >>> (32 - exponent);
  // A shift uses only the lowest five bits of its count.
  for (const id of ids.keys()) bits[bitOf(id) >>> 5]! |= 1 << bitOf(id);
  return (id) => (bits[bitOf(id) >>> 5]! >>> bitOf(id) & 1) > 0;
}

/** Rules by id: single ids in a map, wide ranges cut into pieces that do not overlap. */
export class IdIndex {
  /** Every rule of the index, for peers with an unknown id. */
  readonly all: Positions;
  readonly #single: ReadonlyMap<number, RuleBucket>;
  readonly #mayHave: (id: number) => boolean;
  /** The first id of each piece of the wide ranges. */
  readonly #starts: Float64Array;
  /** The rules of each piece. */
  readonly #pieces: readonly RuleBucket[];
  /** The id space in stripes of equal width, and the piece in which each stripe begins. */
  readonly #stripe: number;
  readonly #stripes: Uint32Array;
  /** Rules with so many overlapping ranges that listing them piece by piece would take too much memory. */
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
        if (range.last - range.first >= MAX_NARROW_IDS) {
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
    // For each stripe the last piece that begins at or before it.
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
      // A rule that is not listed in every piece is evaluated for every peer; listing it twice is harmless.
      for (; at < behind && (isMet || --room >= 0); at = unmet.from(at + 1)) {
        pieces[at]!.add(position, isMet);
        if (isMet) unmet.delete(at);
      }
      if (at < behind) this.#overlapping.push(position);
    }
    this.#single = single;
    this.#mayHave = filterOf(single);
    this.#pieces = pieces;
  }

  /** Adds the rules for this id. */
  collect(id: number, candidates: Candidates): void {
    const single = this.#mayHave(id) ? this.#single.get(id) : undefined;
    if (single !== undefined) candidates.add(single);
    if (this.#overlapping.length > 0) candidates.addUndecided(this.#overlapping);
    if (this.#starts.length > 1) candidates.add(this.#pieces[this.#pieceOf(id)]!);
  }

  /** The piece of an id: by its stripe, then by binary search. */
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
