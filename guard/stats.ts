/** The counters of a guard. */

import type { ServerStats } from "../servers/admission/admission.ts";
import type { LimitName } from "../servers/admission/limits.ts";
import {
  type Histogram,
  REQUEST_OUTCOMES,
  type RequestOutcome,
  type RequestStats,
} from "../servers/http/request_report.ts";

/** Counters of a guard. */
export interface GuardStats extends ServerStats {
  /** Requests that have ended; `undefined` in `"stream"` mode. */
  readonly requests: RequestStats | undefined;
  /** The upstream. */
  readonly upstream: {
    /** How often it could not be used, or answered wrongly. */
    readonly failures: number;
    /** Clients that wait for another attempt to connect to it, mostly because its backlog is full. */
    readonly waiting: number;
  };
  /** The limits on connections in force; Infinity: none. */
  readonly limits: { readonly [name in LimitName]: number };
}

/** Upper bounds in seconds. A local upstream answers within milliseconds. */
const BOUNDS: readonly number[] = [
  ...[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
];

/** Counts the requests of one guard. */
export class RequestCounters {
  readonly #outcomes = Object.fromEntries(REQUEST_OUTCOMES.map((name) => [name, 0])) as {
    [outcome in RequestOutcome]: number;
  };
  /** The number of values in each bucket; the last one has no upper bound. */
  readonly #buckets: number[] = [...BOUNDS, Infinity].map(() => 0);
  #milliseconds = 0;

  /** Counts a request that has ended. */
  ended(outcome: RequestOutcome): void {
    this.#outcomes[outcome]++;
  }

  /** Records the time until the head of a response. */
  responded(milliseconds: number): void {
    let at = 0;
    while (at < BOUNDS.length && milliseconds > BOUNDS[at]! * 1000) at++;
    this.#buckets[at]! += 1;
    this.#milliseconds += milliseconds;
  }

  /** Returns the counters. */
  stats(): RequestStats {
    let count = 0;
    const counts = this.#buckets.map((each) => count += each);
    const latency: Histogram = {
      bounds: BOUNDS,
      counts: counts.slice(0, -1),
      count,
      sum: this.#milliseconds / 1000,
    };
    return { outcomes: { ...this.#outcomes }, latency };
  }
}
