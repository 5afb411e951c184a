/** Compiles anchored globs. */

/**
 * Compiles a glob: `*` matches any run of characters except "/", `**` any run of characters, and every
 * other character matches itself.
 *
 * @returns A test that takes linear time per star, and almost none for a text with another beginning or end.
 */
export function compileGlob(glob: string): (text: string) => boolean {
  const [beginning = "", ...between] = glob.split(/(\*+)/); // texts with stars between them
  const end = between.pop();
  if (end === undefined) return (text) => text === glob;
  const least = glob.replaceAll("*", "").length;
  const first = between.shift() === "*";
  const parts: Part[] = [];
  for (let at = 0; at < between.length; at += 2) {
    parts.push({ text: between[at]!, isOne: between[at + 1] === "*" });
  }
  return (text) => {
    if (text.length < least || !text.startsWith(beginning) || !text.endsWith(end)) return false;
    const last = text.length - end.length;
    return parts.length === 0 // the usual case, without lists
      ? !first || segmentEnd(text, beginning.length) >= last
      : matches(first, parts, text.slice(beginning.length, last));
  };
}

/** A text between two stars, and the star after it: "*" or "**". */
interface Part {
  readonly text: string;
  readonly isOne: boolean;
}

/**
 * Computes the reachable positions of the text, part by part and without backtracking. After a star these
 * are disjoint ranges, each up to the next "/" or to the end.
 */
function matches(first: boolean, parts: readonly Part[], text: string): boolean {
  let begins = [0];
  let ends = [first ? segmentEnd(text, 0) : text.length];
  for (const part of parts) {
    const nextBegins: number[] = [];
    const nextEnds: number[] = [];
    let range = 0;
    for (let at = text.indexOf(part.text, begins[0]); at >= 0;) {
      while (range < ends.length && ends[range]! < at) range++;
      if (range === ends.length) break;
      if (at < begins[range]!) {
        at = text.indexOf(part.text, begins[range]);
        continue;
      }
      const begin = at + part.text.length;
      const end = part.isOne ? segmentEnd(text, begin) : text.length;
      nextBegins.push(begin);
      nextEnds.push(end);
      if (end === text.length) break;
      // Further matches before the same "/" reach no further position.
      at = text.indexOf(part.text, end + 1 - part.text.length);
    }
    if (nextBegins.length === 0) return false;
    [begins, ends] = [nextBegins, nextEnds];
  }
  return ends.at(-1) === text.length;
}

/** The position of the next "/", or the text's length. */
function segmentEnd(text: string, from: number): number {
  const at = text.indexOf("/", from);
  return at < 0 ? text.length : at;
}
