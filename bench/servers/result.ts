/** What is compared with what, and what a run found. */

import type { Runtime, Setting } from "../benchmark.ts";
import type { Spread } from "../result.ts";

/** A server with identity and policy, and the same without. */
export interface Pair {
  readonly runtime: Runtime;
  readonly name: string;
  readonly plain: string;
  readonly ours: string;
  /**
   * The server without, but for what identity takes at the very least: a single SO_PEERCRED for each
   * connection, and looking at method and URL of each request, on the engine that ours runs on.
   */
  readonly least: string;
  /** What `load.c` is to do. */
  readonly load: "http" | "connect" | "echo" | "hello";
  /** What ours is to do in a second, as a part of what the other does. */
  readonly atLeast: number;
}

/** What a user would pick instead, beside ours. */
export interface Rival {
  readonly runtime: Runtime;
  readonly name: string;
  readonly kinds: readonly string[];
  /** Whether each request is on a connection of its own. */
  readonly connection: "kept" | "new";
}

const RUNTIMES: readonly Runtime[] = ["Node", "Deno", "Bun"];
const REQUESTS = [
  { load: "http", what: "requests" },
  { load: "connect", what: "connections" },
] as const;
const LINES = [
  { load: "echo", what: "lines" },
  { load: "hello", what: "connections" },
] as const;

/** What we aim at; where a runtime hides who connects, it costs more to find. */
export const PAIRS: readonly Pair[] = [
  ...RUNTIMES.flatMap((runtime) => [
    ...REQUESTS.map(({ load, what }): Pair => ({
      ...{ runtime, name: `node:http, ${what}` },
      ...{ plain: "http", least: "http least", ours: "ucred/http" },
      ...{ load, atLeast: 0.97 },
    })),
    ...LINES.map(({ load, what }): Pair => ({
      ...{
        runtime,
        name: `node:net, ${what}`,
        plain: "net",
        least: "net least",
        ours: "ucred/net",
      },
      ...{ load, atLeast: 0.97 },
    })),
  ]),
  ...REQUESTS.map(({ load, what }): Pair => ({
    ...{ runtime: "Deno", name: `Deno.serve, ${what}` },
    ...{ plain: "Deno.serve", least: "Deno.serve least", ours: "ucred/http serve" },
    ...{ load, atLeast: 0.85 },
  })),
  ...LINES.map(({ load, what }): Pair => ({
    ...{ runtime: "Deno", name: `Deno.listen, ${what}` },
    ...{ plain: "Deno.listen", least: "Deno.listen least", ours: "ucred/deno" },
    ...{ load, atLeast: 0.9 },
  })),
  ...LINES.map(({ load, what }): Pair => ({
    ...{ runtime: "Bun", name: `Bun.listen, ${what}` },
    ...{ plain: "Bun.listen", least: "Bun.listen least", ours: "ucred/bun" },
    ...{ load, atLeast: 0.97 },
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
  /** µs that the server computed for each answer. */
  readonly cpu: number;
  /** µs until an answer: half of them came sooner, and 99 of 100. */
  readonly p50: number;
  readonly p99: number;
}

export interface PairResult extends Pair {
  readonly plainSamples: readonly Sample[];
  readonly leastSamples: readonly Sample[];
  readonly oursSamples: readonly Sample[];
  /** Ours to the one without, in the same round. */
  readonly ratio: Spread;
  /** The one that does the least to the one without, likewise. */
  readonly leastRatio: Spread;
  readonly isMet: boolean;
  /** Why rounds are not compared: in each of them a server gave no answer. */
  readonly skipped: readonly string[];
}

export interface RivalResult extends Rival {
  readonly rows: readonly {
    readonly kind: string;
    /** µs for each answer, round by round. */
    readonly samples: readonly number[];
    readonly cpu: Spread;
  }[];
  readonly isMet: boolean;
}

/** Everything that a run found. */
export interface Result extends Setting {
  readonly versions: readonly string[];
  /** How often each server was started. */
  readonly starts: number;
  /** Of each start. */
  readonly rounds: number;
  /** Of load in a round. */
  readonly seconds: number;
  /** At once. */
  readonly connections: number;
  readonly pairs: readonly PairResult[];
  readonly rivals: readonly RivalResult[];
}
