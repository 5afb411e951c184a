/**
 * What an analysis may do and hold in all, counted and not timed: the same policy gives the same
 * answer on every machine, and none makes it hang or fills the memory.
 */

import { compileGlob } from "../decide/glob.ts";

/** Thrown when a {@link Budget} is used up. */
export class BudgetExceeded extends Error {
  /** The rule at hand. */
  rule: string | undefined;
}

/** A look at an id range or a letter is one step, some nanoseconds: a few seconds in all. */
const STEPS = 400_000_000;

/** Of about 8 bytes: what is held at once. */
const CELLS = 8 << 20;

/** Of globs and their letters, in cells, beside those of the analysis. */
const GLOBS = 4 << 20;

/** Counts down. */
export class Budget {
  /** What is left. */
  steps: number;
  cells: number;
  readonly #globs: Map<string, Glob>;
  #room: { left: number };

  /** One for a whole analysis. */
  constructor(steps: number = STEPS, cells: number = CELLS, of?: Budget) {
    this.steps = steps;
    this.cells = cells;
    this.#globs = of === undefined ? new Map() : of.#globs;
    this.#room = of === undefined ? { left: GLOBS } : of.#room;
  }

  /** Takes steps. @throws {BudgetExceeded} */
  spend(steps: number): void {
    if (steps > this.steps) throw new BudgetExceeded();
    this.steps -= steps;
  }

  /** Takes cells, or gives them back. @throws {BudgetExceeded} */
  keep(cells: number): void {
    if (cells > this.cells) throw new BudgetExceeded();
    this.cells -= cells;
  }

  /**
   * Asks one of so many questions that are left: each may take its share, and a hard one more, but
   * none so much that little is left for others. What it holds is given back.
   *
   * @returns Whether it was answered.
   */
  ask(among: number, run: (part: Budget) => void): boolean {
    const share = Math.max(this.steps / among, this.steps / 64);
    const part = new Budget(share, this.cells, this);
    try {
      run(part);
      return true;
    } catch (error) {
      if (!(error instanceof BudgetExceeded)) throw error;
      return false;
    } finally {
      this.steps -= share - part.steps;
    }
  }

  /** A glob, compiled once as long as there is room. */
  glob(text: string): Glob {
    this.spend(20);
    const known = this.#globs.get(text);
    if (known !== undefined) return known;
    const cells = 100 + 5 * text.length;
    if (cells > GLOBS / 4) throw new BudgetExceeded();
    this.spend(cells);
    if ((this.#room.left -= cells) < 0) {
      this.#globs.clear();
      this.#room.left = GLOBS - cells;
    }
    const glob = new Glob(text);
    this.#globs.set(text, glob);
    return glob;
  }
}

/** In the place of a star: "*". */
export const ONE = -1;
/** "**". */
const MANY = -2;

/** A glob, and what it takes to look at it. */
export class Glob {
  readonly isLiteral: boolean;
  readonly #text: string;
  readonly #beginning: string;
  readonly #end: string;
  readonly #stars: number;
  #test: ((text: string) => boolean) | undefined;
  #pieces: Int32Array | undefined;

  constructor(text: string) {
    const literals = text.split(/\*+/);
    this.#text = text;
    this.#beginning = literals[0]!;
    this.#end = literals.at(-1)!;
    this.#stars = literals.length - 1;
    this.isLiteral = this.#stars === 0;
  }

  /** Whether it matches. */
  matches(text: string, budget: Budget): boolean {
    budget.spend(10);
    if (this.isLiteral) return text === this.#text;
    if (!text.startsWith(this.#beginning) || !text.endsWith(this.#end)) return false;
    budget.spend(2 * this.#stars * text.length);
    return (this.#test ??= compileGlob(this.#text))(text);
  }

  /** Whether its beginning or its end alone keeps it from matching what the other matches. */
  isApart(other: Glob, budget: Budget): boolean {
    budget.spend(10);
    const begin = this.#beginning.startsWith(other.#beginning) ||
      other.#beginning.startsWith(this.#beginning);
    const end = this.#end.endsWith(other.#end) || other.#end.endsWith(this.#end);
    return !begin || !end;
  }

  /** A number for each letter and star: the letter's code, or {@link ONE}, or one below it. */
  pieces(budget: Budget): Int32Array {
    budget.spend(this.#text.length);
    return this.#pieces ??= Int32Array.from(
      this.#text.match(/\*+|[^*]/g) ?? [],
      (piece) => piece === "*" ? ONE : piece.startsWith("*") ? MANY : piece.charCodeAt(0),
    );
  }
}
