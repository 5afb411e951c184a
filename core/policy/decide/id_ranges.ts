/** Sets of ids as ranges of uint32, without 2³² − 1, which is never an identity. */

import { NO_ID } from "../../credentials.ts";

/** Ids from `first` to `last`, inclusive. */
export interface IdRange {
  /** The smallest id. */
  readonly first: number;
  /** The largest id. */
  readonly last: number;
}

/** Whether an id is in a set made by {@link unite}, by binary search. */
export function hasId(ranges: readonly IdRange[], id: number): boolean {
  let low = 0;
  let high = ranges.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (ranges[middle]!.last < id) low = middle + 1;
    else high = middle;
  }
  return low < ranges.length && ranges[low]!.first <= id;
}

/** Parses "1000", "1000-1999" or a number; `undefined` if it is not a range. */
export function parseRange(text: number | string): IdRange | undefined {
  const [, first, last = first] = /^(\d{1,10})(?:-(\d{1,10}))?$/.exec(String(text)) ?? [];
  const range = { first: Number(first), last: Number(last) };
  return range.first <= range.last && range.last < NO_ID ? range : undefined;
}

/** Returns the same ids as ascending ranges that neither overlap nor touch. */
export function unite(ranges: readonly IdRange[]): readonly IdRange[] {
  const united: IdRange[] = [];
  for (const range of ranges.toSorted((a, b) => a.first - b.first)) {
    const before = united.at(-1);
    if (before === undefined || range.first > before.last + 1) united.push(range);
    else if (range.last > before.last) {
      united[united.length - 1] = { first: before.first, last: range.last };
    }
  }
  return united;
}

/** The union of two sets made by {@link unite}. */
export function join(a: readonly IdRange[], b: readonly IdRange[]): readonly IdRange[] {
  if (a.length === 0) return b;
  return b.length === 0 ? a : unite(a.concat(b));
}

/** The intersection of two sets made by {@link unite}. */
export function intersect(a: readonly IdRange[], b: readonly IdRange[]): readonly IdRange[] {
  const common: IdRange[] = [];
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    const left = a[i]!;
    const right = b[j]!;
    if (left.first >= right.first && left.last <= right.last) {
      common.push(left);
      i++;
      continue;
    }
    const first = Math.max(left.first, right.first);
    const last = Math.min(left.last, right.last);
    if (first <= last) common.push({ first, last });
    if (left.last < right.last) i++;
    else j++;
  }
  return common;
}

/** The complement of a set made by {@link unite}. */
export function others(ranges: readonly IdRange[]): readonly IdRange[] {
  const gaps: IdRange[] = [];
  let next = 0;
  for (const { first, last } of ranges) {
    if (first > next) gaps.push({ first: next, last: first - 1 });
    next = last + 1;
  }
  if (next < NO_ID) gaps.push({ first: next, last: NO_ID - 1 });
  return gaps;
}

/** Returns the name of the account with an id, if known. */
export type NameOfId = (id: number) => string | undefined;

/** "0, 1000-1999"; with names, "0 (root), 1000-1999". */
export function writeRanges(
  ranges: readonly IdRange[],
  nameOf: NameOfId = () => undefined,
): string {
  return ranges.map(({ first, last }) => {
    if (first !== last) return `${first}-${last}`;
    const name = nameOf(first);
    return name === undefined ? `${first}` : `${first} (${name})`;
  }).join(", ");
}
