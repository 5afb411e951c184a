/** Rules by the ids that they are about, so that a decision looks at those alone. */

import type { Checked } from "./condition.ts";
import type { IdRange } from "./ids.ts";

/** What ids a rule needs, so that it cannot match a peer with others. */
export interface Guard {
  readonly kind: "uid" | "gid" | "group";
  readonly ranges: readonly IdRange[];
}

/** A guard that follows from a condition, if there is one. */
export function guardOf(condition: Checked | undefined): Guard | undefined {
  switch (condition?.kind) {
    case "uid":
    case "gid":
    case "group":
      return condition;
    case "all": {
      const guards = condition.of.map(guardOf).filter((guard) => guard !== undefined);
      return guards.find(({ kind }) => kind === "uid") ?? guards[0];
    }
  }
  return undefined;
}

/** Positions of rules, ascending. */
export type Positions = readonly number[];

const NOBODY: Positions = [];

/** Ranges of so many ids or fewer are stored id by id. */
const NARROW = 16;

/** Rules by id: single ids in a table, wide ranges cut into pieces that do not overlap. */
export class IdIndex {
  /** Every rule in it, for peers whose id is unknown. */
  readonly all: Positions;
  readonly #single = new Map<number, number[]>();
  /** Where each piece of the wide ranges begins, and the rules about it. */
  readonly #starts: Float64Array;
  readonly #pieces: readonly Positions[];
  /** Ids in stripes of one width, and the piece that each begins in. */
  readonly #stripe: number;
  readonly #stripes: Uint32Array;
  /** Rules whose ranges overlap so much that to list them piece by piece would take too much memory. */
  readonly #overlapping: number[] = [];

  /** @param rules Positions, ascending, with the ids that each is about. */
  constructor(rules: readonly (readonly [position: number, ranges: readonly IdRange[]])[]) {
    this.all = rules.map(([position]) => position);
    const wide: (readonly [number, IdRange])[] = [];
    for (const [position, ranges] of rules) {
      for (const range of ranges) {
        if (range.last - range.first >= NARROW) wide.push([position, range]);
        else this.#addSingles(position, range);
      }
    }
    const edges = wide.flatMap(([, { first, last }]) => [first, last + 1]);
    this.#starts = Float64Array.from(new Set([0, ...edges])).sort();
    const end = this.#starts.at(-1)! + 1;
    this.#stripe = end / this.#starts.length;
    // The last piece that begins before each stripe does, or with it.
    const stripes = new Uint32Array(this.#starts.length + 1);
    for (let stripe = 1, piece = 0; stripe < stripes.length; stripe++) {
      while (this.#starts[piece + 1]! <= stripe * this.#stripe) piece++;
      stripes[stripe] = piece;
    }
    this.#stripes = stripes;
    const pieces = Array.from(this.#starts, (): number[] => []);
    let room = 4096 + 64 * rules.length;
    for (const [position, { first, last }] of wide) {
      const begin = this.#pieceOf(first);
      room -= this.#pieceOf(last) - begin + 1;
      if (room < 0) {
        this.#overlapping.push(position);
        continue;
      }
      for (let at = begin; this.#starts[at]! <= last; at++) {
        const piece = pieces[at]!;
        if (piece.at(-1) !== position) piece.push(position);
      }
    }
    this.#pieces = pieces;
  }

  #addSingles(position: number, { first, last }: IdRange): void {
    for (let id = first; id <= last; id++) {
      const list = this.#single.get(id);
      if (list === undefined) this.#single.set(id, [position]);
      else if (list.at(-1) !== position) list.push(position);
    }
  }

  /** Adds to `lists` the rules about this id. */
  collect(id: number, lists: Positions[]): void {
    const single = this.#single.get(id);
    if (single !== undefined) lists.push(single);
    if (this.#overlapping.length > 0) lists.push(this.#overlapping);
    if (this.#starts.length === 1) return;
    const piece = this.#pieces[this.#pieceOf(id)] ?? NOBODY;
    if (piece.length > 0) lists.push(piece);
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
