/** Which rules can decide about one peer, in order. */

/** Positions of rules in the policy, ascending. */
export type Positions = readonly number[];

/** The rules that one id leaves standing, as far as any of them can decide. */
export class RuleBucket {
  /** The first rule that asks for nothing but the id; the position behind the last rule if none does. */
  first: number;
  /** Rules before it, which ask for more. */
  open: number[] | undefined;

  /** @param end The position behind the last rule of the policy. */
  constructor(end: number) {
    this.first = end;
  }

  /**
   * Adds a rule. Rules are added in order.
   *
   * @param isMet Whether it asks for nothing but the id.
   */
  add(position: number, isMet: boolean): void {
    if (position >= this.first) return; // what is behind that one cannot decide
    if (isMet) this.first = position;
    else if (this.open?.at(-1) !== position) (this.open ??= []).push(position);
  }
}

/** The rules that can decide about one peer. */
export class Candidates {
  /** The first rule that the peer meets for certain; the position behind the last rule if none. */
  first: number;
  /** Rules to be asked, in lists that may overlap. */
  #lists: Positions[] | undefined;
  /** Of each list, how many have been passed. */
  #passed: number[] | undefined;
  #last = -1;

  /** @param always What is left standing whatever the ids are. */
  constructor({ first, open }: RuleBucket) {
    this.first = first;
    if (open !== undefined) this.#lists = [open];
  }

  /** Adds a rule that the peer meets. */
  meet(position: number): void {
    if (position < this.first) this.first = position;
  }

  /** Adds rules that are to be asked. */
  ask(positions: Positions): void {
    (this.#lists ??= []).push(positions);
  }

  /** The next rule to be asked, each once; `first` where none before that is left. */
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

/** Lists of rules to be asked, by numbers from 1, so that typed arrays can refer to them. */
export class OpenLists {
  readonly #lists: Positions[] = [];

  /** The number of what is open; 0 for nothing. */
  numberOf({ open }: RuleBucket): number {
    return open === undefined ? 0 : this.#lists.push(open);
  }

  ask(number: number, candidates: Candidates): void {
    if (number !== 0) candidates.ask(this.#lists[number - 1]!);
  }
}
