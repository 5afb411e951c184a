/** Finds and escapes invisible characters, and converts thrown values to text. */

/**
 * Characters that are invisible, or change the order of others: a text with them differs from the text
 * that people read. These are controls, line separators, direction marks, surrogates, and the ignorable
 * ones: joiners, soft hyphens, fillers, variation selectors and tags.
 */
export const UNSEEN = /[\p{Cc}\p{Cf}\p{Default_Ignorable_Code_Point}\u2028\u2029\p{Cs}]/u;

export const EACH_UNSEEN = new RegExp(UNSEEN, "gu");

/** Returns the first invisible character of a text. */
export const unseenIn = (text: string): Found | undefined => firstOf(UNSEEN, text);

/** Escapes the characters of a text that are invisible or only look like a space: "\u202e". */
export function visible(text: string): string {
  return text.replace(EACH_HIDDEN, (character) => {
    const code = character.codePointAt(0)!;
    return code > 0xffff ? `\\u{${hex(code)}}` : `\\u${hex(code)}`;
  });
}

export const hex = (code: number): string => code.toString(16).padStart(4, "0");

/** Converts a thrown value to text; some values have none. */
export function textOf(thrown: unknown): string {
  try {
    return String(thrown);
  } catch {
    return "something that cannot be printed";
  }
}

/** Returns the stack of a thrown value, for the detail of a warning; "" if it has none. */
export function stackOf(thrown: unknown): string {
  try {
    return thrown instanceof Error ? String(thrown.stack ?? "") : "";
  } catch {
    return "";
  }
}

/** Characters that only look like a space: a text with one differs from the text that people type. */
const SPACE_LIKE = /[^\P{Zs} ]|\u2800/u;

export const EACH_HIDDEN = new RegExp(`${UNSEEN.source}|${SPACE_LIKE.source}`, "gu");

/** A character that was found in a text. */
export interface Found {
  readonly at: number;
  /** "U+202E". */
  readonly name: string;
}

/** Yields every invisible character of a text. */
export function* everyUnseenIn(text: string): Generator<Found> {
  for (const { 0: character, index } of text.matchAll(EACH_UNSEEN)) {
    yield { at: index, name: nameOf(character) };
  }
}

/** Returns the first character of a text that only looks like a space, such as U+00A0 or U+3000. */
export const spaceLikeIn = (text: string): Found | undefined => firstOf(SPACE_LIKE, text);

export function firstOf(characters: RegExp, text: string): Found | undefined {
  const at = text.search(characters);
  return at < 0 ? undefined : { at, name: nameOf(text.slice(at)) };
}

const nameOf = (text: string): string => `U+${hex(text.codePointAt(0)!).toUpperCase()}`;
