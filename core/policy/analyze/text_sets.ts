/** Sets of texts that globs describe. Decides whether a set is empty, and finds a text in it. */

import { type Budget, ONE } from "./budget.ts";

/** The texts that at least one glob of each list in `in` matches, and no glob in `out`. */
export interface Texts {
  readonly in: readonly (readonly string[])[];
  readonly out: readonly string[];
}

/** Whether a text is in the set. */
export function hasText({ in: wanted, out }: Texts, text: string, budget: Budget): boolean {
  const matches = (glob: string) => budget.glob(glob).matches(text, budget);
  return wanted.every((globs) => globs.some(matches)) && !out.some(matches);
}

/** Finds a short text in the set, preferably not the empty text. `undefined` if the set is empty. */
export function findText(texts: Texts, budget: Budget): string | undefined {
  const isLiteral = (glob: string) => {
    budget.spend(5 + glob.length / 8);
    return !glob.includes("*");
  };
  const literal = texts.in.find((globs) => globs.every(isLiteral));
  if (literal !== undefined) return literal.find((text) => hasText(texts, text, budget));
  if (isCovered(texts, budget) || areApart(texts, budget)) return undefined;
  return guess(texts, budget) ?? search(texts, budget);
}

/** Whether every glob of some list is also in `out`. */
function isCovered({ in: wanted, out }: Texts, budget: Budget): boolean {
  if (out.length === 0) return false;
  budget.spend(10 * out.length);
  const names = new Set(out);
  return names.has("**") || wanted.some((globs) => {
    budget.spend(globs.length);
    return globs.every((glob) => names.has(glob));
  });
}

/** Whether the globs of two lists have beginnings or ends that exclude each other. */
function areApart({ in: wanted }: Texts, budget: Budget): boolean {
  for (const [at, globs] of wanted.entries()) {
    for (const others of wanted.slice(at + 1)) {
      const isApart = globs.every((a) =>
        others.every((b) => budget.glob(a).isApart(budget.glob(b), budget))
      );
      if (isApart) return true;
    }
  }
  return false;
}

/** Before the search, this many globs are tried with their stars replaced by a text. */
const MAX_GUESSES = 4;

function guess(texts: Texts, budget: Budget): string | undefined {
  const other = unusedLetter([...texts.in.flat(), ...texts.out], budget);
  const [first = ["**"], ...rest] = texts.in;
  const shortest = rest.reduce((a, b) => b.length < a.length ? b : a, first);
  for (const glob of shortest.slice(0, MAX_GUESSES)) {
    budget.spend(glob.length);
    for (const filler of ["", other]) {
      const text = glob.replaceAll(/\*+/g, filler);
      if (text !== "" && hasText(texts, text, budget)) return text;
    }
  }
  return undefined;
}

/** For each glob, in ascending order, the positions in it that a text has reached. */
type Positions = readonly (readonly number[])[];

/**
 * Searches letter by letter, breadth first, as in the product of the globs' automata. Texts that reach the
 * same positions of each glob are equivalent, and the number of such states is finite, so the search ends.
 */
function search({ in: wanted, out }: Texts, budget: Budget): string | undefined {
  const numbers = new Map<string, number>();
  const number = (glob: string): number => {
    const known = numbers.get(glob);
    if (known === undefined) numbers.set(glob, numbers.size);
    return known ?? numbers.size - 1;
  };
  const numbersOf = (globs: readonly string[]) => {
    budget.spend(10 * globs.length);
    return [...new Set(globs.map(number))];
  };
  const lists = wanted.map(numbersOf);
  const outs = numbersOf(out);
  const work = lists.reduce((sum, { length }) => sum + length, outs.length);
  let kept = 0;
  const keep = (cells: number) => {
    budget.keep(cells);
    kept += cells;
  };
  const globs = [...numbers.keys()].map((glob) => {
    keep(60 + glob.length);
    return budget.glob(glob).pieces(budget);
  });
  const other = unusedLetter([...numbers.keys()], budget).charCodeAt(0);

  const hasEnded = (places: readonly number[], glob: number) =>
    places.at(-1) === globs[glob]!.length;
  const accepts = (reached: Positions) =>
    lists.every((list) => list.some((glob) => hasEnded(reached[glob]!, glob))) &&
    !outs.some((glob) => hasEnded(reached[glob]!, glob));
  const isHopeless = (reached: Positions) =>
    lists.some((list) => list.every((glob) => reached[glob]!.length === 0));

  const seen = new Set<string>();
  const queue: (readonly [text: string, Positions])[] = [];
  const add = (text: string, reached: Positions) => {
    if (isHopeless(reached)) return;
    const key = reached.map((places) => places.join()).join(";");
    if (seen.has(key)) return;
    // Cells of the key and of the lists.
    keep(reached.reduce((sum, { length }) => sum + 10 + length, 40 + key.length / 8));
    seen.add(key);
    queue.push([text, reached.map((places) => places.slice())]); // an exact copy, without spare capacity
  };
  add("", globs.map((pieces) => reach(pieces, [], 0)));
  const start = queue[0]?.[1];
  for (const [text, reached] of queue) {
    if (text !== "" && accepts(reached)) {
      budget.keep(-kept);
      return text;
    }
    const places = reached.reduce((sum, { length }) => sum + length, 0);
    for (const letter of lettersAfter(globs, reached, other)) {
      budget.spend(60 + work + 20 * globs.length + 20 * places);
      add(
        text + String.fromCharCode(letter),
        reached.map((places, glob) => step(globs[glob]!, places, letter)),
      );
    }
  }
  budget.keep(-kept);
  return start !== undefined && accepts(start) ? "" : undefined;
}

const SLASH = "/".charCodeAt(0);

/** Adds a position, and the positions after it that are reachable because a star may match nothing. */
function reach(pieces: Int32Array, places: number[], place: number): number[] {
  for (;; place++) {
    if (places.length === 0 || places.at(-1)! < place) places.push(place);
    if (!(pieces[place]! < 0)) return places;
  }
}

function step(pieces: Int32Array, places: readonly number[], letter: number): number[] {
  let next: number[] = [];
  for (const place of places) {
    const piece = pieces[place];
    if (piece === undefined || (piece === ONE && letter === SLASH)) continue;
    if (piece === letter) reach(pieces, next, place + 1);
    // A "**" can reach everything that earlier positions can.
    else if (piece < ONE) next = reach(pieces, [], place);
    else if (piece === ONE) reach(pieces, next, place);
  }
  return next;
}

/** The letters that can lead to different states. */
function lettersAfter(
  globs: readonly Int32Array[],
  reached: Positions,
  other: number,
): Set<number> {
  const letters = new Set([other, SLASH]);
  for (const [glob, places] of reached.entries()) {
    for (const place of places) {
      const piece = globs[glob]![place];
      if (piece !== undefined && piece >= 0) letters.add(piece);
    }
  }
  return letters;
}

/** A letter that occurs in no glob, as the representative of all such letters. */
function unusedLetter(globs: readonly string[], budget: Budget): string {
  for (let code = 97;; code++) {
    const letter = String.fromCharCode(code);
    const isUsed = globs.some((glob) => {
      budget.spend(5 + glob.length / 4);
      return glob.includes(letter);
    });
    if (!isUsed) return letter;
  }
}
