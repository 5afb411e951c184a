/**
 * Single ids → the rules about them. In typed arrays, since a decision looks up each group of a peer,
 * most of them in vain: with a Map of objects 10,000 rules took 1.3 to 1.6 times as long as 10, with
 * these 1.1 to 1.3 times (`npm run bench:policy`).
 */

import { type Candidates, OpenLists, type RuleBucket } from "./candidates.ts";

/** Numbers for each id: a power of two, so that no id's cross a cache line. */
const SLOT = 4;

/** A hash table with linear probing, at most a quarter full. */
export class SingleIds {
  /** For each id: itself; 1 + the first rule met, or 0 if the slot is free; the rules to be asked. */
  readonly #slots: Uint32Array;
  readonly #shift: number;
  /**
   * By the same hash, bits at least 16 times as many as ids: where one is 0 no id is. So small that
   * the cache keeps it, and so sparse that a branch on it is foreseen: without, 10 rules took 1.1 times
   * as long, and 10,000 1.2 times.
   */
  readonly #marks: Uint32Array;
  readonly #markShift: number;
  readonly #lists = new OpenLists();

  constructor(ids: ReadonlyMap<number, RuleBucket>) {
    const bits = Math.ceil(Math.log2(4 * ids.size + 2));
    const slots = new Uint32Array(SLOT * 2 ** bits);
    this.#slots = slots;
    this.#shift = 32 - bits;
    const markBits = Math.max(bits + 2, 5);
    this.#marks = new Uint32Array(2 ** (markBits - 5));
    this.#markShift = 32 - markBits;
    for (const [id, standing] of ids) {
      const mark = hashOf(id) >>> this.#markShift;
      this.#marks[mark >>> 5]! |= 1 << (mark & 31);
      let slot = (hashOf(id) >>> this.#shift) * SLOT;
      while (slots[slot + 1] !== 0) slot = (slot + SLOT) % slots.length;
      slots.set([id, standing.first + 1, this.#lists.numberOf(standing)], slot);
    }
  }

  /** Adds the rules about this id. */
  collect(id: number, candidates: Candidates): void {
    const hash = hashOf(id);
    const mark = hash >>> this.#markShift;
    if (((this.#marks[mark >>> 5]! >>> (mark & 31)) & 1) === 0) return;
    const slots = this.#slots;
    for (let slot = (hash >>> this.#shift) * SLOT;; slot = (slot + SLOT) % slots.length) {
      const met = slots[slot + 1]!;
      if (met === 0) return;
      if (slots[slot] !== id) continue;
      candidates.meet(met - 1);
      return this.#lists.ask(slots[slot + 2]!, candidates);
    }
  }
}

/** Of 32 bits, the first of which tell where to look. */
function hashOf(id: number): number {
  return Math.imul(id, 0x9e3779b1); // 2³² divided by the golden ratio
}
