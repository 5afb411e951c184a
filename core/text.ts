/** Text that people read: invisible and control characters, and what a thrown value says. */

import { EACH_HIDDEN, firstOf, type Found } from "./policy/document/shape.ts";

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
