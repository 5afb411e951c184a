/** The rules that can decide about one peer, in order. */

/** Positions of rules in the policy, ascending. */
export type Positions = readonly number[];

/** The rules that match or may match all peers with one id. */
export class RuleBucket {
  /** The first rule that has no condition but the id; the number of rules if there is none. */
  first: number;
  /** Rules before it that have further conditions; `undefined` if there are none. */
  undecided: number[] | undefined;

  /** @param end The number of rules in the policy. */
  constructor(end: number) {
    this.first = end;
  }

  /**
   * Adds a rule. Rules are added in order.
   *
   * @param isMet Whether it has no condition but the id.
   */
  add(position: number, isMet: boolean): void {
    if (position >= this.first) return; // an earlier rule always decides
    if (isMet) this.first = position;
    else if (this.undecided?.at(-1) !== position) (this.undecided ??= []).push(position);
  }
}

/** The rules that can decide about one peer. */
export class Candidates {
  /** The first rule that certainly matches; the number of rules if there is none. */
  first: number;
  /** Lists of rules to evaluate. They may overlap. */
  #lists: Positions[] | undefined;
  /** How many entries of each list have been passed. */
  #passed: number[] | undefined;
  #last = -1;

  /** @param always The rules that do not depend on ids. */
  constructor({ first, undecided }: RuleBucket) {
    this.first = first;
    if (undecided !== undefined) this.#lists = [undecided];
  }

  /** Adds the rules of an id. */
  add({ first, undecided }: RuleBucket): void {
    if (first < this.first) this.first = first;
    if (undecided !== undefined) this.addUndecided(undecided);
  }

  /** Adds rules to evaluate. */
  addUndecided(positions: Positions): void {
    (this.#lists ??= []).push(positions);
  }

  /** Returns the next rule to evaluate, each once; `first` when none before that is left. */
  next(): number {
    const lists = this.#lists;
    if (lists === undefined) return this.first;
    const passed = this.#passed ??= lists.map(() => 0);
    let least = this.first;
    for (let list = 0; list < lists.length; list++) {
      const positions = lists[list]!;
      let at = passed[list]!;
      while (at < positions.length && positions[at]! <= this.#last) at++;
      passed[list] = at;
      if (at < positions.length && positions[at]! < least) least = positions[at]!;
    }
    return this.#last = least;
  }
}
