/** The comparisons, and the result of a run. */

import type { Absent, Runtime, Setting } from "../benchmark.ts";
import type { Spread } from "../result.ts";

/** A server with identity and policy, and the same server without ucred. */
export interface Pair {
  readonly runtime: Runtime;
  readonly name: string;
  readonly plain: string;
  readonly ours: string;
  /**
   * A server that does only what every identification needs: one SO_PEERCRED per connection, and
   * reading method and URL of each request. It runs on the same engine as `ours`.
   */
  readonly least: string;
  /** The mode of `load.c`. */
  readonly load: "http" | "connect" | "echo" | "hello";
  /** Target for the ratio of the rate of `ours` to that of `plain`. */
  readonly atLeast: number;
  /** Target for the ratio of the rate of `ours` to that of `least`; lines have none. */
  readonly atLeastOfLeast?: number;
}

/** A comparison with the alternatives. */
export interface Rival {
  readonly runtime: Runtime;
  readonly name: string;
  readonly kinds: readonly string[];
  /** Whether requests share kept connections, or each has a new one. */
  readonly connection: "kept" | "new";
}

const RUNTIMES: readonly Runtime[] = ["Node", "Deno", "Bun"];
/** `onNode` and `onDeno`: the targets with `least` for `node:http` and for Deno's own engine. */
const REQUESTS = [
  { load: "http", what: "requests", onNode: 0.97, onDeno: 0.85 },
  { load: "connect", what: "connections", onNode: 0.8, onDeno: 0.75 },
] as const;
/** `onDeno` and `onOthers`: the targets with `least` for `Deno.listen` and for the other servers. */
const LINES: readonly {
  readonly load: "echo" | "hello";
  readonly what: string;
  readonly onDeno?: number;
  readonly onOthers?: number;
}[] = [
  { load: "echo", what: "lines" },
  { load: "hello", what: "connections", onDeno: 0.85, onOthers: 0.9 },
];

/** All pairs, with their targets. Where a runtime hides descriptors, they take longer to find. */
export const PAIRS: readonly Pair[] = [
  ...RUNTIMES.flatMap((runtime) => [
    ...REQUESTS.map(({ load, what, onNode }): Pair => ({
      ...{ runtime, name: `node:http, ${what}` },
      ...{ plain: "http", least: "http least", ours: "ucred/http" },
      ...{ load, atLeast: 0.97, atLeastOfLeast: onNode },
    })),
    ...LINES.map(({ load, what, onOthers }): Pair => ({
      ...{
        runtime,
        name: `node:net, ${what}`,
        plain: "net",
        least: "net least",
        ours: "ucred/net",
      },
      ...{ load, atLeast: 0.97, ...(onOthers && { atLeastOfLeast: onOthers }) },
    })),
  ]),
  ...REQUESTS.map(({ load, what, onDeno }): Pair => ({
    ...{ runtime: "Deno", name: `Deno.serve, ${what}` },
    ...{ plain: "Deno.serve", least: "Deno.serve least", ours: "ucred/http serve" },
    ...{ load, atLeast: 0.85, atLeastOfLeast: onDeno },
  })),
  ...LINES.map(({ load, what, onDeno }): Pair => ({
    ...{ runtime: "Deno", name: `Deno.listen, ${what}` },
    ...{ plain: "Deno.listen", least: "Deno.listen least", ours: "ucred/deno" },
    ...{ load, atLeast: 0.9, ...(onDeno && { atLeastOfLeast: onDeno }) },
  })),
  ...LINES.map(({ load, what, onOthers }): Pair => ({
    ...{ runtime: "Bun", name: `Bun.listen, ${what}` },
    ...{ plain: "Bun.listen", least: "Bun.listen least", ours: "ucred/bun" },
    ...{ load, atLeast: 0.97, ...(onOthers && { atLeastOfLeast: onOthers }) },
  })),
];

const KINDS = ["ucred/http", "JWT", "mTLS"];

export const RIVALS: readonly Rival[] = RUNTIMES.flatMap((runtime): Rival[] => [
  { runtime, name: "a request", kinds: KINDS, connection: "kept" },
  { runtime, name: "a new connection and its request", kinds: KINDS, connection: "new" },
]);

/** One round. */
export interface Sample {
  readonly perSecond: number;
  /** CPU time of the server per answer, in µs. */
  readonly cpu: number;
  /** Percentiles of the latency, in µs. */
  readonly p50: number;
  readonly p99: number;
}

export interface PairResult extends Pair {
  readonly plainSamples: readonly Sample[];
  readonly leastSamples: readonly Sample[];
  readonly oursSamples: readonly Sample[];
  /** Ratio of `ours` to `plain`, in the same round. */
  readonly ratio: Spread;
  /** Ratio of `least` to `plain`, in the same round. */
  readonly leastRatio: Spread;
  /** Ratio of `ours` to `least`, in the same round. */
  readonly ratioToLeast: Spread;
  /** Rounds without a result, because a server gave no answer. */
  readonly skipped: readonly string[];
}

export interface RivalResult extends Rival {
  readonly rows: readonly {
    readonly kind: string;
    /** µs per answer, round by round. */
    readonly samples: readonly number[];
    readonly cpu: Spread;
  }[];
  readonly isMet: boolean;
}

/** The result of a run. */
export interface Result extends Setting {
  readonly versions: readonly string[];
  /** The rows that were not measured. */
  readonly absent: readonly Absent[];
  /** Number of starts of each server. */
  readonly starts: number;
  /** Rounds per start. */
  readonly rounds: number;
  /** Duration of a round. */
  readonly seconds: number;
  /** Number of connections at once. */
  readonly connections: number;
  readonly pairs: readonly PairResult[];
  readonly rivals: readonly RivalResult[];
}
