/** What grows, and the result of a run. */

import type { Absent, Runtime, Setting } from "../benchmark.ts";
import { type Spread, spread } from "../result.ts";

/** A quantity that grows, and what is measured. */
export interface Axis {
  readonly name: "connections" | "users" | "rules" | "groups" | "containers";
  readonly title: string;
  /** What a sample is. */
  readonly what: string;
  readonly unit: "µs" | "ns";
  readonly values: readonly number[];
  /** Whether other users' ids are needed. */
  readonly needsRoot?: boolean;
  /** Whether the same server without ucred is measured beside. */
  readonly hasBaseline?: boolean;
}

export const AXES: readonly Axis[] = [
  {
    name: "connections",
    title: "Open connections",
    what: "CPU time of a server for one more connection, while so many are open",
    unit: "µs",
    values: [10, 100, 1000, 10_000],
    hasBaseline: true,
  },
  {
    name: "users",
    title: "Users",
    what: "CPU time of a server for one more connection, while 1,000 of so many users are open",
    unit: "µs",
    values: [1, 10, 100, 1000],
    needsRoot: true,
  },
  {
    name: "rules",
    title: "Rules of a policy",
    what: "CPU time of a decision; each fourth peer matches no rule",
    unit: "ns",
    values: [10, 100, 1000, 10_000],
  },
  {
    name: "groups",
    title: "Groups of a peer",
    what: "CPU time of identify() with all groups, and of a decision by the last group",
    unit: "µs",
    values: [0, 16, 256, 4096, 65_536],
    needsRoot: true,
  },
  {
    name: "containers",
    title: "Containers of an engine",
    what: "CPU time of a guard in Docker mode for a list, of which the client may see half",
    unit: "µs",
    values: [1, 10, 100, 1000],
  },
];

/** The measurements of one runtime at one value of an axis. */
export interface Row {
  readonly axis: Axis["name"];
  readonly runtime: Runtime;
  /** Whether it is the server without ucred. */
  readonly isBaseline: boolean;
  readonly value: number;
  readonly samples: readonly number[];
  readonly spread: Spread;
  /** Ratio to the first value of the axis, in the same round. */
  readonly ratio: Spread;
}

/** A row without what {@link rowsOf} computes. */
export type Samples = Omit<Row, "spread" | "ratio">;

/** Other measurements, once for each runtime. */
export interface Fact {
  readonly runtime: Runtime;
  readonly what: string;
  readonly value: string;
}

/** The result of a run. */
export interface Result extends Setting {
  readonly rounds: number;
  readonly versions: readonly string[];
  readonly rows: readonly Row[];
  readonly facts: readonly Fact[];
  readonly absent: readonly Absent[];
}

export function rowsOf(all: readonly Samples[]): readonly Row[] {
  return all.map((row) => {
    const first = all.find(({ axis, runtime, isBaseline }) =>
      axis === row.axis && runtime === row.runtime && isBaseline === row.isBaseline
    )!;
    // Both samples of a ratio are of the same round, so that a busy moment slows both.
    const ratios = row.samples.map((sample, round) => sample / first.samples[round]!);
    return { ...row, spread: spread(row.samples), ratio: spread(ratios) };
  });
}
