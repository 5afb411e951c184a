/** What a run of the policies' benchmark found, and what follows from it. */

import type { Runtime, Setting } from "../conduct.ts";
import { type Spread, spread, type Target } from "../result.ts";

/** What one contender took on one runtime, for policies of one size. */
export interface Row {
  readonly runtime: Runtime;
  readonly contender: string;
  readonly rules: number;
  /** How many peers asked, in turn. */
  readonly peers: number;
  /** ns for each decision, round by round. */
  readonly samples: readonly number[];
  readonly nanoseconds: Spread;
  /** To ours with plain objects, as many rules, on the same runtime in the same round. */
  readonly ratio: Spread;
}

/** What contenders' rounds gave. */
export type Samples = Omit<Row, "nanoseconds" | "ratio">;

/** A contender that a runtime cannot run. */
export interface Absent {
  readonly runtime: Runtime;
  readonly contender: string;
  readonly why: string;
}

/** Everything that a run found. */
export interface Result extends Setting {
  readonly rounds: number;
  /** Names of what took part, with their versions. */
  readonly versions: { readonly [name: string]: string };
  readonly rows: readonly Row[];
  readonly absent: readonly Absent[];
  readonly targets: readonly Target[];
}

/** The library's own, the first of them with plain objects: what the others are compared with. */
export const OURS = ["ucred", "ucred, peers"] as const;

/** ns that a decision may take. */
const MOST = 200;

/** What the dearest size may take, as a multiple of the cheapest. */
const MAX_UNEVEN = 2;

export function rowsOf(all: readonly Samples[]): readonly Row[] {
  return all.map((row) => {
    const { samples: baseline } = all.find(({ runtime, rules, contender }) =>
      runtime === row.runtime && rules === row.rules && contender === OURS[0]
    )!;
    // Round by round: what slows the machine down for a while slows both sides of each ratio.
    const ratios = row.samples.map((sample, round) => sample / baseline[round]!);
    return { ...row, nanoseconds: spread(row.samples), ratio: spread(ratios) };
  });
}

export function targetsOf(rows: readonly Row[]): readonly Target[] {
  const runtimes = [...new Set(rows.map(({ runtime }) => runtime))];
  return runtimes.flatMap((runtime) =>
    OURS.flatMap((contender) => {
      const medians = rows
        .filter((row) => row.runtime === runtime && row.contender === contender)
        .map(({ nanoseconds }) => nanoseconds.median);
      const [least, most] = [Math.min(...medians), Math.max(...medians)];
      const what = `${runtime}, ${contender}`;
      return [
        { text: `${what}: at most ${MOST} ns`, found: most, isMet: most <= MOST },
        {
          text: `${what}: the dearest size at most ${MAX_UNEVEN} × the cheapest`,
          found: most / least,
          isMet: most / least <= MAX_UNEVEN,
        },
      ];
    })
  );
}
