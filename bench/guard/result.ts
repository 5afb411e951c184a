/** What is compared with what, and what a run found. */

import type { Setting } from "../benchmark.ts";
import { type Spread, spread } from "../result.ts";

/** What goes through a guard. */
export interface Load {
  readonly name: string;
  readonly mode: "stream" | "http";
  /** What `ends.c` is to serve. */
  readonly serves: "lines" | "http" | "bytes";
  /** What the client is to do: `move` of `ends.c`, or one of `load.c`. */
  readonly client: "move" | "echo" | "hello" | "http" | "connect";
  readonly connections: number;
  /** What is counted. */
  readonly unit: string;
}

const LINES = { mode: "stream", serves: "lines" } as const;
const REQUESTS = { mode: "http", serves: "http" } as const;

export const LOADS: readonly Load[] = [
  {
    ...{ name: "Stream: much, there and back on one connection", mode: "stream", serves: "bytes" },
    ...{ client: "move", connections: 1, unit: "MiB" },
  },
  {
    ...{ name: "Stream: lines and their answers, 32 connections", ...LINES },
    ...{ client: "echo", connections: 32, unit: "lines" },
  },
  {
    ...{ name: "Stream: a line at a time, one connection", ...LINES },
    ...{ client: "echo", connections: 1, unit: "lines" },
  },
  {
    ...{ name: "Stream: new connections, 32 at once", ...LINES },
    ...{ client: "hello", connections: 32, unit: "connections" },
  },
  {
    ...{ name: "HTTP: requests, 32 connections", ...REQUESTS },
    ...{ client: "http", connections: 32, unit: "requests" },
  },
  {
    ...{ name: "HTTP: a request at a time, one connection", ...REQUESTS },
    ...{ client: "http", connections: 1, unit: "requests" },
  },
  {
    ...{ name: "HTTP: a new connection for each request, 32 at once", ...REQUESTS },
    ...{ client: "connect", connections: 32, unit: "requests" },
  },
] as readonly Load[];

/** One round. */
export interface Sample {
  readonly perSecond: number;
  /** µs until an answer: half of them came sooner, and 99 of 100; 0 where none is waited for. */
  readonly p50: number;
  readonly p99: number;
  /** µs that whoever stands in between computed for each. */
  readonly cpu: number;
}

/** One contender under one load. */
export interface Row {
  readonly load: string;
  readonly contender: string;
  readonly isOurs: boolean;
  readonly samples: readonly Sample[];
  readonly perSecond: Spread;
  readonly p50: number;
  readonly p99: number;
  readonly cpu: Spread;
  /** Of what gets through without a guard, in the same round. */
  readonly ratio: Spread;
}

/** Whether what a client of ours printed says that its connection was ended, and not that bytes are wrong. */
export function isConnectionError(errors: string): boolean {
  return /closed a connection|Connection reset|Broken pipe|Connection refused/.test(errors);
}

export interface Result extends Setting {
  /** Why rounds are not compared, one text for each. */
  readonly skipped: readonly string[];
  readonly versions: { readonly [name: string]: string };
  readonly absent: readonly { readonly contender: string; readonly why: string }[];
  readonly rounds: number;
  readonly seconds: number;
  readonly rows: readonly Row[];
}

/** What a contender's rounds under a load gave. */
export interface Samples {
  readonly contender: string;
  readonly isOurs: boolean;
  readonly samples: readonly Sample[];
}

/** Compares each with the first, which is no guard at all. */
export function rowsOf(load: Load, all: readonly Samples[]): readonly Row[] {
  const median = (samples: readonly Sample[], of: "p50" | "p99") =>
    spread(samples.map((sample) => sample[of])).median;
  return all.map(({ contender, isOurs, samples }) => ({
    load: load.name,
    contender,
    isOurs,
    samples,
    perSecond: spread(samples.map(({ perSecond }) => perSecond)),
    p50: median(samples, "p50"),
    p99: median(samples, "p99"),
    cpu: spread(samples.map(({ cpu }) => cpu)),
    ratio: spread(
      samples.map(({ perSecond }, round) => perSecond / all[0]!.samples[round]!.perSecond),
    ),
  }));
}
