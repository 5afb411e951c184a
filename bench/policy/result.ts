/** The result of a run: samples, ratios and targets. */

import type { Absent as AbsentRuntime, Runtime, Setting } from "../benchmark.ts";
import { type Spread, spread, type Target } from "../result.ts";

/** The times of one contender on one runtime with a policy of one size. */
export interface Row {
  readonly runtime: Runtime;
  readonly contender: string;
  readonly rules: number;
  /** The number of peers. Each is decided in turn. */
  readonly peers: number;
  /** ns per decision, round by round. */
  readonly samples: readonly number[];
  readonly nanoseconds: Spread;
  /** Ratio to ucred with plain objects and the same rules, on the same runtime in the same round. */
  readonly ratio: Spread;
}

/** A row without what {@link rowsOf} computes. */
export type Samples = Omit<Row, "nanoseconds" | "ratio">;

/** A contender that does not run on a runtime. */
export interface Absent {
  readonly runtime: Runtime;
  readonly contender: string;
  readonly why: string;
}

/** The result of a run. */
export interface Result extends Setting {
  readonly rounds: number;
  /** Versions by contender and runtime. */
  readonly versions: { readonly [name: string]: string };
  readonly rows: readonly Row[];
  readonly absent: readonly Absent[];
  /** The runtimes that cannot run here. */
  readonly absentRuntimes: readonly AbsentRuntime[];
  readonly targets: readonly Target[];
}

/** The contenders of ucred without attributes. All contenders are compared with the first one. */
export const OURS = ["ucred", "ucred, peers"] as const;

/** The contender of ucred with attributes. */
const ATTRIBUTES = "ucred, attributes";

/** Target for the ratio of a decision with attributes to one without. */
const MAX_ATTRIBUTES_RATIO = 2;

/** Target for the time of a decision. */
const MAX_DECISION_NS = 200;

/** Target for the ratio of the slowest policy size to the fastest one. */
const MAX_SIZE_RATIO = 2;

export function rowsOf(all: readonly Samples[]): readonly Row[] {
  return all.map((row) => {
    const { samples: baseline } = all.find(({ runtime, rules, contender }) =>
      runtime === row.runtime && rules === row.rules && contender === OURS[0]
    )!;
    // Both samples of a ratio are of the same round, so that a busy moment slows both.
    const ratios = row.samples.map((sample, round) => sample / baseline[round]!);
    return { ...row, nanoseconds: spread(row.samples), ratio: spread(ratios) };
  });
}

export function targetsOf(rows: readonly Row[]): readonly Target[] {
  const runtimes = [...new Set(rows.map(({ runtime }) => runtime))];
  const withAttributes = runtimes.flatMap((runtime) => {
    const ratios = rows
      .filter((row) => row.runtime === runtime && row.contender === ATTRIBUTES)
      .map(({ ratio }) => ratio.median);
    const found = Math.max(...ratios);
    return ratios.length === 0 ? [] : [{
      text: `${runtime}, ${ATTRIBUTES}: at most ${MAX_ATTRIBUTES_RATIO} × without`,
      found,
      isMet: found <= MAX_ATTRIBUTES_RATIO,
    }];
  });
  const times = runtimes.flatMap((runtime) =>
    OURS.flatMap((contender) => {
      const medians = rows
        .filter((row) => row.runtime === runtime && row.contender === contender)
        .map(({ nanoseconds }) => nanoseconds.median);
      const [least, most] = [Math.min(...medians), Math.max(...medians)];
      const what = `${runtime}, ${contender}`;
      return [
        {
          text: `${what}: at most ${MAX_DECISION_NS} ns`,
          found: most,
          isMet: most <= MAX_DECISION_NS,
        },
        {
          text: `${what}: the slowest size at most ${MAX_SIZE_RATIO} × the fastest`,
          found: most / least,
          isMet: most / least <= MAX_SIZE_RATIO,
        },
      ];
    })
  );
  return [...times, ...withAttributes];
}
