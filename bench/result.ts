/** The result of a run: samples, ratios, targets and leaks. */

import type { Setting } from "./benchmark.ts";
import { type Lookup, LOOKUPS, type Tool, TOOLS, type Usage } from "./contenders.ts";

/** Median, minimum and maximum of samples. */
export interface Spread {
  readonly median: number;
  readonly least: number;
  readonly most: number;
}

/** The times of one contender for one kind of lookup. */
export interface Row {
  readonly name: string;
  readonly lookup: Lookup;
  readonly isOurs: boolean;
  readonly returnsNames: boolean;
  readonly lookupsPerRound: number;
  /** ns per lookup, round by round. */
  readonly samples: readonly number[];
  readonly nanoseconds: Spread;
  /** Ratio to C with the same system calls, in the same round. */
  readonly ratio: Spread;
  /** Ratio to C with one getsockopt(SO_PEERCRED), in the same round. */
  readonly ratioToOneCall: Spread;
}

/** A target of ucred, and whether the run meets it. */
export interface Target {
  readonly text: string;
  readonly found: number;
  readonly isMet: boolean;
}

/** The resources of a runtime before and after many lookups. */
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

/** The result of a run. */
export interface Result extends Setting {
  readonly participants: readonly Participant[];
  readonly rounds: number;
  readonly rows: readonly Row[];
  readonly targets: readonly Target[];
  readonly leaks: readonly Leak[];
}

/** The samples of one contender for one kind of lookup. */
export interface Samples {
  readonly tool: Tool;
  readonly lookup: Lookup;
  readonly lookupsPerRound: number;
  readonly samples: readonly number[];
}

/** Maximum ratio to C with the same system calls, by runtime. */
const MAX_RATIO: { readonly [name: string]: number } = { Deno: 1.3, Bun: 1.3, Node: 1.7 };

/** Languages that must take longer than each runtime. */
const SLOWER_LANGUAGES: readonly string[] = ["Go", "Python"];

/** Resident memory varies with garbage collection. A leak of 80 bytes per lookup would be 76 MiB. */
const MAX_GROWTH_BYTES = 32 * 2 ** 20;

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
    // Both samples of a ratio are of the same round, so that a busy moment slows both.
    const over = (others: readonly number[]) =>
      spread(samples.map((sample, round) => sample / others[round]!));
    return {
      name: tool.name,
      lookup,
      isOurs: tool.isOurs ?? false,
      returnsNames: tool.returnsNames ?? false,
      lookupsPerRound,
      samples,
      nanoseconds: spread(samples),
      ratio: over(baseline(lookup)),
      ratioToOneCall: over(baseline("again")),
    };
  });
}

/** The targets for repeated and first lookups. The other languages make one call for either. */
export function targetsOf(rows: readonly Row[]): readonly Target[] {
  const of = (which: Lookup) => rows.filter(({ lookup }) => lookup === which);
  const others = of("again").filter(({ name }) => SLOWER_LANGUAGES.includes(name));
  const rated = [...of("again"), ...of("first"), ...of("accepted")];
  return rated.flatMap(({ name, lookup, ratio, ratioToOneCall }) => {
    const max = MAX_RATIO[name];
    if (max === undefined) return [];
    const when = `${name}, ${LOOKUPS[lookup].title.toLowerCase()}`;
    return [
      {
        text: `${when}: at most ${max.toFixed(1)} × C's same calls`,
        found: ratio.median,
        isMet: ratio.median <= max,
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
