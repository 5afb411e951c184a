/**
 * The steps and the memory that an analysis may use. They are counted rather than timed, so that a policy
 * gets the same answer on every machine, and no policy makes an analysis hang or fill the memory.
 */

import { compileGlob } from "../decide/glob.ts";

/** Thrown when a {@link Budget} is exhausted. */
export class BudgetExceeded extends Error {
  /** The rule being analysed. */
  rule: string | undefined;
}

/** Comparing an id range or a character takes one step of some nanoseconds: a few seconds in all. */
const MAX_STEPS = 400_000_000;

/** Memory in use at a time, in cells of about 8 bytes. */
const MAX_CELLS = 8 << 20;

/** Memory of compiled globs, in cells, beside that of the analysis. */
const MAX_GLOB_CELLS = 4 << 20;

/**
 * A limit on steps and memory cells.
 *
 * A limit on steps alone could bound memory only if each cell cost 50 steps, because steps are never given back.
 * A region of 50 cells, which takes about 100 steps to make, would then cost 2,500, and policies of thousands of
 * rules, which now need a tenth of the steps, would exceed the limit.
 */
export class Budget {
  /** Steps and cells that are left. */
  steps: number;
  cells: number;
  readonly #globs: Map<string, Glob>;
  #room: { left: number };

  constructor(steps: number = MAX_STEPS, cells: number = MAX_CELLS, of?: Budget) {
    this.steps = steps;
    this.cells = cells;
    this.#globs = of === undefined ? new Map() : of.#globs;
    this.#room = of === undefined ? { left: MAX_GLOB_CELLS } : of.#room;
  }

  /** Takes steps. @throws {BudgetExceeded} */
  spend(steps: number): void {
    if (steps > this.steps) throw new BudgetExceeded();
    this.steps -= steps;
  }

  /** Takes cells; a negative number releases them. @throws {BudgetExceeded} */
  keep(cells: number): void {
    if (cells > this.cells) throw new BudgetExceeded();
    this.cells -= cells;
  }

  /**
   * Runs one of `among` remaining analyses with 1/among of the steps, but at least 1/64. Cells are
   * released afterwards.
   *
   * @returns Whether the analysis finished within its share.
   */
  attempt(among: number, run: (part: Budget) => void): boolean {
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

  /** Returns a glob, from a cache of limited size. */
  glob(text: string): Glob {
    this.spend(20);
    const known = this.#globs.get(text);
    if (known !== undefined) return known;
    const cells = 100 + 5 * text.length;
    if (cells > MAX_GLOB_CELLS / 4) throw new BudgetExceeded();
    this.spend(cells);
    if ((this.#room.left -= cells) < 0) {
      this.#globs.clear();
      this.#room.left = MAX_GLOB_CELLS - cells;
    }
    const glob = new Glob(text);
    this.#globs.set(text, glob);
    return glob;
  }
}

/** The code of "*" in {@link Glob.pieces}. */
export const ONE = -1;
/** The code of "**". */
const MANY = -2;

/** A glob whose operations take steps from a budget. */
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

  /** Whether it matches the text. */
  matches(text: string, budget: Budget): boolean {
    budget.spend(10);
    if (this.isLiteral) return text === this.#text;
    if (!text.startsWith(this.#beginning) || !text.endsWith(this.#end)) return false;
    budget.spend(2 * this.#stars * text.length);
    return (this.#test ??= compileGlob(this.#text))(text);
  }

  /** Whether the literal beginnings or ends alone prove that no text matches both globs. */
  isApart(other: Glob, budget: Budget): boolean {
    budget.spend(10);
    const begin = this.#beginning.startsWith(other.#beginning) ||
      other.#beginning.startsWith(this.#beginning);
    const end = this.#end.endsWith(other.#end) || other.#end.endsWith(this.#end);
    return !begin || !end;
  }

  /** The UTF-16 codes of the characters, with {@link ONE} for "*" and {@link MANY} for "**". */
  pieces(budget: Budget): Int32Array {
    budget.spend(this.#text.length);
    return this.#pieces ??= Int32Array.from(
      this.#text.match(/\*+|[^*]/g) ?? [],
      (piece) => piece === "*" ? ONE : piece.startsWith("*") ? MANY : piece.charCodeAt(0),
    );
  }
}
