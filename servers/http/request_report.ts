/** How an HTTP request, a D-Bus call or an MCP message of a guard ended, for metrics and traces. */

import type { Peer } from "../../core/peer.ts";
import type { Decision } from "../../core/policy/decide/decision.ts";

/**
 * How a request ended. Each request has one outcome.
 *
 * - `allowed`: the upstream has responded, or switched protocols; in D-Bus mode also a call without a reply.
 * - `denied`: the policy denied it: 403, in Docker mode also 404.
 * - `malformed`: 400. `tooLarge`: 413, 414 or 431. `timeout`: 408. `unsupported`: 417 or 501.
 * - `pipelining`: the client sent too many requests, so its connection was closed.
 * - `upstreamError`: the upstream could not be reached, or its response was malformed or incomplete: 502.
 * - `failed`: the policy, or the guard itself, failed: 500.
 * - `aborted`: the connection closed before the response was complete: the client hung up, or the guard was
 * closed.
 */
export type RequestOutcome =
  | "allowed"
  | "denied"
  | "malformed"
  | "tooLarge"
  | "timeout"
  | "unsupported"
  | "pipelining"
  | "upstreamError"
  | "failed"
  | "aborted";

/** All outcomes. */
export const REQUEST_OUTCOMES: readonly RequestOutcome[] = [
  ...["allowed", "denied", "malformed", "tooLarge", "timeout"] as const,
  ...["unsupported", "pipelining", "upstreamError", "failed", "aborted"] as const,
];

/** A request that has ended. */
export interface RequestReport {
  /** The path of the guard's socket. */
  readonly server: string;
  /** The peer that sent it. */
  readonly peer: Peer;
  /**
   * The method of HTTP or MCP, or that of D-Bus with its interface; `undefined` if the head or message is malformed
   * or incomplete. The client chose this text.
   */
  readonly method: string | undefined;
  /**
   * The request target, as sent, or the object path; `undefined` in MCP mode. It may contain secrets. The client
   * chose this text.
   */
  readonly target: string | undefined;
  /** The policy's decision; `undefined` if there is none. */
  readonly decision: Decision | undefined;
  /** How it ended. */
  readonly outcome: RequestOutcome;
  /** The status of the HTTP response; `undefined` if none was sent. */
  readonly status: number | undefined;
  /** When the guard began to handle it, in milliseconds since 1970. */
  readonly startedAt: number;
  /** Milliseconds until its end: the last byte of the response, or the switch of protocols. */
  readonly milliseconds: number;
  /** The `traceparent` header of the request, which the upstream also receives. The client chose this text. */
  readonly traceparent: string | undefined;
}

/** Number of values up to each bound, as in Prometheus. */
export interface Histogram {
  /** Upper bounds in seconds, ascending. */
  readonly bounds: readonly number[];
  /** The number of values up to each bound: cumulative. */
  readonly counts: readonly number[];
  /** The number of all values. */
  readonly count: number;
  /** The sum of all values, in seconds. */
  readonly sum: number;
}

/** Counters of the requests of a guard. */
export interface RequestStats {
  /** How many requests ended with each outcome. */
  readonly outcomes: { readonly [outcome in RequestOutcome]: number };
  /**
   * Seconds from the beginning of the decision to the head of the upstream's response. The rest of a response
   * does not count, because streams such as Docker's logs last for hours.
   */
  readonly latency: Histogram;
}
