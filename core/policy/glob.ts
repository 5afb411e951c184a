/** Anchored globs over texts. */

/**
 * Compiles a glob: `*` is any run of characters but "/", `**` any run at all, and every other
 * character is itself.
 *
 * @returns A test that takes time linear in the text for each star, and next to none for a text with
 * another beginning or end.
 */
export function compileGlob(glob: string): (text: string) => boolean {
  const [beginning = "", ...between] = glob.split(/(\*+)/); // texts with stars between them
  const end = between.pop();
  if (end === undefined) return (text) => text === glob;
  const least = glob.replaceAll("*", "").length;
  return (text) =>
    text.length >= least && text.startsWith(beginning) && text.endsWith(end) &&
    matches(between, text.slice(beginning.length, text.length - end.length));
}

/**
 * Which positions of the text can be reached, part by part: no backtracking, so no text takes more
 * than (parts × length) steps.
 *
 * @param parts Stars with texts between them.
 */
function matches(parts: readonly string[], text: string): boolean {
  if (parts.length === 1) return parts[0] !== "*" || !text.includes("/");
  let reached: Uint8Array = new Uint8Array(text.length + 1);
  reached[0] = 1;
  for (const part of parts) {
    const next = new Uint8Array(text.length + 1);
    const isStar = part.startsWith("*");
    let isOpen = false;
    for (let at = 0; at <= text.length; at++) {
      if (!isStar) {
        if (reached[at] === 1 && text.startsWith(part, at)) next[at + part.length] = 1;
        continue;
      }
      if (reached[at] === 1) isOpen = true;
      if (isOpen) next[at] = 1;
      if (part === "*" && text[at] === "/") isOpen = false;
    }
    reached = next;
  }
  return reached[text.length] === 1;
}
