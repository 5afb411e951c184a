/** What a run found: the samples, and what follows from them. */

import type { Setting } from "./conduct.ts";
import { type Lookup, LOOKUPS, type Tool, TOOLS, type Usage } from "./contenders.ts";

/** The middle and the ends of some samples. */
export interface Spread {
  readonly median: number;
  readonly least: number;
  readonly most: number;
}

/** One contender at one kind of lookup. */
export interface Row {
  readonly name: string;
  readonly lookup: Lookup;
  readonly isOurs: boolean;
  readonly tellsNames: boolean;
  readonly lookupsPerRound: number;
  /** ns for each lookup, round by round. */
  readonly samples: readonly number[];
  readonly nanoseconds: Spread;
  /** To C in the same round, doing the same system calls. */
  readonly ratio: Spread;
  /** To C in the same round, doing a single getsockopt(SO_PEERCRED). */
  readonly ratioToOneCall: Spread;
}

/** A limit that the library sets itself. */
export interface Target {
  readonly text: string;
  readonly found: number;
  readonly isMet: boolean;
}

/** What a runtime held before and after many lookups. */
export interface Leak {
  readonly name: string;
  readonly lookup: Lookup;
  readonly lookups: number;
  readonly before: Usage;
  readonly after: Usage;
  readonly hasLeaked: boolean;
}

/** A tool that took part, or the reason why it did not. */
export interface Participant {
  readonly name: string;
  readonly version?: string;
  readonly absent?: string;
}

/** Everything that a run found. */
export interface Result extends Setting {
  readonly participants: readonly Participant[];
  readonly rounds: number;
  readonly rows: readonly Row[];
  readonly targets: readonly Target[];
  readonly leaks: readonly Leak[];
}

/** What a contender's rounds gave. */
export interface Samples {
  readonly tool: Tool;
  readonly lookup: Lookup;
  readonly lookupsPerRound: number;
  readonly samples: readonly number[];
}

/** × C that each runtime may take for the same calls. */
const MOST: { readonly [name: string]: number } = { Deno: 1.3, Bun: 1.3, Node: 1.7 };

/** Languages that each runtime should be faster than. */
const SLOWER: readonly string[] = ["Go", "Python"];

/** Resident memory comes and goes with the collector; a leaked 80-byte object each is 76 MiB. */
const MAX_GROWTH_BYTES = 32 * 2 ** 20; // bytes

export function spread(samples: readonly number[]): Spread {
  const sorted = samples.toSorted((a, b) => a - b);
  const half = (sorted.length - 1) / 2;
  return {
    median: (sorted[Math.floor(half)]! + sorted[Math.ceil(half)]!) / 2,
    least: sorted[0]!,
    most: sorted.at(-1)!,
  };
}

/** Compares each contender with C, the first of the tools. */
export function rowsOf(all: readonly Samples[]): readonly Row[] {
  const baseline = (lookup: Lookup): readonly number[] =>
    all.find((other) => other.lookup === lookup && other.tool === TOOLS[0])!.samples;
  return all.map(({ tool, lookup, lookupsPerRound, samples }) => {
    // Round by round: what slows the machine down for a while slows both sides of each ratio.
    const over = (others: readonly number[]) =>
      spread(samples.map((sample, round) => sample / others[round]!));
    return {
      name: tool.name,
      lookup,
      isOurs: tool.isOurs ?? false,
      tellsNames: tool.tellsNames ?? false,
      lookupsPerRound,
      samples,
      nanoseconds: spread(samples),
      ratio: over(baseline(lookup)),
      ratioToOneCall: over(baseline("again")),
    };
  });
}

/** Both ways to look, beside the single call that the others make. */
export function targetsOf(rows: readonly Row[]): readonly Target[] {
  const of = (which: Lookup) => rows.filter(({ lookup }) => lookup === which);
  const others = of("again").filter(({ name }) => SLOWER.includes(name));
  return [...of("again"), ...of("first")].flatMap(({ name, lookup, ratio, ratioToOneCall }) => {
    const most = MOST[name];
    if (most === undefined) return [];
    const when = `${name}, ${LOOKUPS[lookup].title.toLowerCase()}`;
    return [
      {
        text: `${when}: at most ${most.toFixed(1)} × C's same calls`,
        found: ratio.median,
        isMet: ratio.median <= most,
      },
      ...others.map((other) => {
        const text = `${when}: faster than ${other.name}, ${
          other.ratio.median.toFixed(2)
        } × C's call`;
        const found = ratioToOneCall.median;
        return { text, found, isMet: found < other.ratio.median };
      }),
    ];
  });
}

export function hasLeaked(before: Usage, after: Usage): boolean {
  return after.descriptors !== before.descriptors || after.bytes - before.bytes > MAX_GROWTH_BYTES;
}
