/** Sets of texts that globs describe: is there a text that some globs match, and others do not? */

import { compileGlob } from "./glob.ts";

/** Counts down; an analysis that would take too long ends with an error instead. */
export interface Budget {
  left: number;
}

/** Thrown when a {@link Budget} is used up. */
export class OutOfBudget extends Error {}

/** Takes from the budget. */
export function spend(budget: Budget, steps = 1): void {
  if ((budget.left -= steps) < 0) throw new OutOfBudget();
}

/** The texts that at least one glob of each list in `in` matches, and no glob in `out`. */
export interface Texts {
  readonly in: readonly (readonly string[])[];
  readonly out: readonly string[];
}

/**
 * A text in the set, as short as any but not empty if that can be; `undefined` where there is none.
 *
 * Searches the texts letter by letter, breadth first. What matters of a text is only which places
 * of each glob it has reached: of these there are finitely many, so the search ends.
 */
export function findText(texts: Texts, budget: Budget): string | undefined {
  const literal = texts.in.find((globs) => !globs.some((glob) => glob.includes("*")));
  if (literal !== undefined) {
    spend(budget, literal.length);
    const tests = texts.in.map((globs) => globs.map(compileGlob));
    const outs = texts.out.map(compileGlob);
    return literal.find((text) =>
      tests.every((globs) => globs.some((test) => test(text))) && !outs.some((test) => test(text))
    );
  }
  return search(texts, budget);
}

/** One glob, as one piece for each character and star. */
type Pieces = readonly string[];

const piecesOf = (glob: string): Pieces => glob.match(/\*+|[^*]/g) ?? [];

/** How far texts have come: for each glob the places that they have reached. */
type Places = readonly (readonly number[])[];

function search({ in: wanted, out }: Texts, budget: Budget): string | undefined {
  const globs = [...wanted.flat(), ...out].map(piecesOf);
  // Which list each glob is of; −1: of those that must not match.
  const lists = [...wanted.flatMap((globs, list) => globs.map(() => list)), ...out.map(() => -1)];
  const other = letterBeside(globs);

  const isEnd = (glob: number, places: readonly number[]) => places.includes(globs[glob]!.length);
  const accepts = (reached: Places) => {
    const ended = new Set(lists.filter((_, glob) => isEnd(glob, reached[glob]!)));
    return !ended.has(-1) && wanted.every((_, list) => ended.has(list));
  };
  const isHopeless = (reached: Places) =>
    wanted.some((_, list) => lists.every((of, glob) => of !== list || reached[glob]!.length === 0));

  const start = globs.map((pieces) => closure(pieces, [0]));
  const seen = new Set([JSON.stringify(start)]);
  const queue: (readonly [text: string, Places])[] = [["", start]];
  for (const [text, reached] of queue) {
    if (text !== "" && accepts(reached)) return text;
    for (const letter of lettersAfter(globs, reached, other)) {
      spend(budget, globs.length);
      const next = reached.map((places, glob) => step(globs[glob]!, places, letter));
      const key = JSON.stringify(next);
      if (isHopeless(next) || seen.has(key)) continue;
      seen.add(key);
      queue.push([text + letter, next]);
    }
  }
  return accepts(start) ? "" : undefined;
}

/** Stars may stand for nothing. */
function closure(pieces: Pieces, places: readonly number[]): readonly number[] {
  const all = new Set<number>();
  for (let place of places) {
    all.add(place);
    while (pieces[place]?.startsWith("*")) all.add(++place);
  }
  return [...all].sort((a, b) => a - b);
}

function step(pieces: Pieces, places: readonly number[], letter: string): readonly number[] {
  const next = places.flatMap((place) => {
    const piece = pieces[place];
    if (piece === undefined || (piece === "*" && letter === "/")) return [];
    if (piece.startsWith("*")) return [place];
    return piece === letter ? [place + 1] : [];
  });
  return closure(pieces, next);
}

/** The letters that can make a difference next. */
function lettersAfter(globs: readonly Pieces[], reached: Places, other: string): Iterable<string> {
  const letters = new Set([other, "/"]);
  for (const [glob, places] of reached.entries()) {
    for (const place of places) {
      const piece = globs[glob]![place];
      if (piece !== undefined && !piece.startsWith("*")) letters.add(piece);
    }
  }
  return letters;
}

/** A letter that no glob names: it stands for all of them. */
function letterBeside(globs: readonly Pieces[]): string {
  const used = new Set(globs.flat());
  for (let code = 97;; code++) {
    const letter = String.fromCharCode(code);
    if (!used.has(letter)) return letter;
  }
}
