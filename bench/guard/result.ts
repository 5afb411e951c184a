/** The loads, and the result of a run. */

import type { Setting } from "../benchmark.ts";
import { type Spread, spread } from "../result.ts";

/** One kind of load. */
export interface Load {
  readonly name: string;
  readonly mode: "stream" | "http" | "docker";
  /** The mode of the server in `ends.c`; `serve` of `docker.c`. */
  readonly serves: "lines" | "http" | "bytes" | "serve";
  /** The mode of the client: `move` of `ends.c`, or a mode of `load.c` or `docker.c`. */
  readonly client:
    | ("move" | "echo" | "hello" | "http" | "connect")
    | ("list" | "create" | "stop" | "copy");
  readonly connections: number;
  /** The unit that is counted. */
  readonly unit: string;
}

const LINES = { mode: "stream", serves: "lines" } as const;
const REQUESTS = { mode: "http", serves: "http" } as const;
const DOCKER = { mode: "docker", serves: "serve", connections: 1, unit: "requests" } as const;

export const LOADS: readonly Load[] = [
  {
    ...{
      name: "Stream: bulk data, there and back on one connection",
      mode: "stream",
      serves: "bytes",
    },
    ...{ client: "move", connections: 1, unit: "MiB" },
  },
  {
    ...{ name: "Stream: lines and answers, 32 connections", ...LINES },
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
  { name: "Docker: GET /containers/json", ...DOCKER, client: "list" },
  { name: "Docker: the creation of a container", ...DOCKER, client: "create" },
  { name: "Docker: POST /containers/web/stop", ...DOCKER, client: "stop" },
  { name: "Docker: an archive to a container", ...DOCKER, client: "copy", unit: "MiB" },
] as readonly Load[];

/** One round. */
export interface Sample {
  readonly perSecond: number;
  /** Percentiles of the latency in µs; 0 for bulk data. */
  readonly p50: number;
  readonly p99: number;
  /** CPU time of the proxy per unit, in µs. */
  readonly cpu: number;
  /** The most memory of the proxy in the round, over its memory before, in MiB. Only for archives. */
  readonly memory?: number | undefined;
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
  readonly memory?: Spread | undefined;
  /** Ratio of the rate to that without a proxy, in the same round. */
  readonly ratio: Spread;
}

/** Whether the errors of a client report a closed connection, and not wrong bytes. */
export function isConnectionError(errors: string): boolean {
  return /closed a connection|Connection reset|Broken pipe|Connection refused/.test(errors);
}

export interface Result extends Setting {
  /** One reason for each round without a result. */
  readonly skipped: readonly string[];
  readonly versions: { readonly [name: string]: string };
  readonly absent: readonly { readonly contender: string; readonly why: string }[];
  readonly rounds: number;
  readonly seconds: number;
  readonly rows: readonly Row[];
}

/** The samples of one contender under one load. */
export interface Samples {
  readonly contender: string;
  readonly isOurs: boolean;
  readonly samples: readonly Sample[];
}

/** Compares each contender with the first one, the connection without a proxy. */
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
    ...(samples.every(({ memory }) => memory !== undefined) && {
      memory: spread(samples.map(({ memory }) => memory!)),
    }),
    ratio: spread(
      samples.map(({ perSecond }, round) => perSecond / all[0]!.samples[round]!.perSecond),
    ),
  }));
}
