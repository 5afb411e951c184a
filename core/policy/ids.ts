/** Sets of ids, as ranges: uint32 without 2³² − 1, which is never an identity. */

import { NO_ID } from "../credentials.ts";

/** Ids from `first` to `last`, both in. */
export interface Range {
  readonly first: number;
  readonly last: number;
}

/** Whether any of the ranges has the id. */
export function hasId(ranges: readonly Range[], id: number): boolean {
  return ranges.some(({ first, last }) => first <= id && id <= last);
}

/** "1000", "1000-1999" or a number → a range; `undefined` where it is none. */
export function parseRange(text: number | string): Range | undefined {
  const [, first, last = first] = /^(\d{1,10})(?:-(\d{1,10}))?$/.exec(String(text)) ?? [];
  const range = { first: Number(first), last: Number(last) };
  return range.first <= range.last && range.last < NO_ID ? range : undefined;
}
