/** Anchored globs over texts. */

/**
 * Compiles a glob: `*` is any run of characters but "/", `**` any run at all, and every other
 * character is itself.
 *
 * @returns A test that takes time linear in the text for each star.
 */
export function compileGlob(glob: string): (text: string) => boolean {
  if (!glob.includes("*")) return (text) => text === glob;
  if (glob === "**") return () => true;
  const parts = partsOf(glob);
  return (text) => matches(parts, text);
}

/** Literal texts with the stars between them. */
type Part = string | typeof RUN | typeof ANY;

const RUN: unique symbol = Symbol("*");
const ANY: unique symbol = Symbol("**");

function partsOf(glob: string): readonly Part[] {
  return glob.split(/(\*+)/).filter((part) => part !== "").map((part) =>
    part.startsWith("*") ? part.length === 1 ? RUN : ANY : part
  );
}

/**
 * Which positions of the text can be reached, part by part: no backtracking, so no text takes more
 * than (parts × length) steps.
 */
function matches(parts: readonly Part[], text: string): boolean {
  let reached: Uint8Array = new Uint8Array(text.length + 1);
  reached[0] = 1;
  for (const part of parts) {
    const next = new Uint8Array(text.length + 1);
    let isOpen = false;
    for (let at = 0; at <= text.length; at++) {
      if (typeof part === "string") {
        if (reached[at] === 1 && text.startsWith(part, at)) next[at + part.length] = 1;
        continue;
      }
      if (reached[at] === 1) isOpen = true;
      if (isOpen) next[at] = 1;
      if (part === RUN && text[at] === "/") isOpen = false;
    }
    reached = next;
  }
  return reached[text.length] === 1;
}
