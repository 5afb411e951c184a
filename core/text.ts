/** Text that people read: invisible and control characters, and what a thrown value says. */

/**
 * Characters that do not show, or make others show in another order: what is written with them is not
 * what people read. Controls, ends of lines, direction marks, halves of surrogate pairs; and what
 * leaves no mark: joiners, soft hyphens, fillers, selectors of variants, tags.
 */
export const UNSEEN = /[\p{Cc}\p{Cf}\p{Default_Ignorable_Code_Point}\u2028\u2029\p{Cs}]/u;

export const EACH_UNSEEN = new RegExp(UNSEEN, "gu");

/** The first character of a text that does not show. */
export const unseenIn = (text: string): Found | undefined => firstOf(UNSEEN, text);

/** A text with each character that does not show, or only looks like a space, as its escape: "\u202e". */
export function visible(text: string): string {
  return text.replace(EACH_HIDDEN, (character) => {
    const code = character.codePointAt(0)!;
    return code > 0xffff ? `\\u{${hex(code)}}` : `\\u${hex(code)}`;
  });
}

export const hex = (code: number): string => code.toString(16).padStart(4, "0");

/** What was thrown, as text: not everything has one. */
export function textOf(thrown: unknown): string {
  try {
    return String(thrown);
  } catch {
    return "something that cannot be printed";
  }
}

/** Where it was thrown, for the detail of a warning; nothing where that is not told. */
export function stackOf(thrown: unknown): string {
  try {
    return thrown instanceof Error ? String(thrown.stack ?? "") : "";
  } catch {
    return "";
  }
}

/** Characters that look like a space and are none: a text with one is not equal to what is typed. */
const SPACE_LIKE = /[^\P{Zs} ]|\u2800/u;

export const EACH_HIDDEN = new RegExp(`${UNSEEN.source}|${SPACE_LIKE.source}`, "gu");

/** A character of a text. */
export interface Found {
  readonly at: number;
  /** "U+202E". */
  readonly name: string;
}

/** Every such character. */
export function* everyUnseenIn(text: string): Generator<Found> {
  for (const { 0: character, index } of text.matchAll(EACH_UNSEEN)) {
    yield { at: index, name: nameOf(character) };
  }
}

/** The first character of a text that looks like a space and is none: U+00A0, U+3000 and so on. */
export const spaceLikeIn = (text: string): Found | undefined => firstOf(SPACE_LIKE, text);

export function firstOf(characters: RegExp, text: string): Found | undefined {
  const at = text.search(characters);
  return at < 0 ? undefined : { at, name: nameOf(text.slice(at)) };
}

const nameOf = (text: string): string => `U+${hex(text.codePointAt(0)!).toUpperCase()}`;
