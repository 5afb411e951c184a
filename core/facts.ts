/** Facts about a peer. Each is known or none, with its source, or unknown, with the reason. */

import type { UcredError } from "./errors.ts";

/**
 * The source of a fact, and the time that it describes.
 *
 * - `kernel@connect`: recorded by the kernel when the peer connected.
 * - `kernel@send`: attached by the kernel to a datagram.
 * - `bus@connect`: recorded by a D-Bus message bus when the peer connected to it, and reported by the bus.
 * - `kernel@now`: queried from the kernel when the fact was read.
 * - `procfs@now`: read from /proc when the fact was read.
 * - `accounts@now`: looked up in the account database (NSS) when the fact was read.
 * - `test`: set by a test that made the peer with `fakePeer()` of `ucred/testing`.
 */
export type FactSource =
  | "kernel@connect"
  | "kernel@send"
  | "bus@connect"
  | "kernel@now"
  | "procfs@now"
  | "accounts@now"
  | "test";

/**
 * One fact in its three states. `none` is an answer, for example "there is no such account". `unknown` is
 * the lack of one, for example "the directory server did not reply", and never counts as an answer.
 */
export type Fact<T> =
  | { readonly state: "known"; readonly value: T; readonly source: FactSource }
  | { readonly state: "none"; readonly source: FactSource }
  | { readonly state: "unknown"; readonly reason: UcredError };

/** Builds a fact with a value. */
export function known<T>(value: T, source: FactSource): Fact<T> {
  return Object.freeze({ state: "known", value, source });
}

/** Builds a fact that certainly has no value. */
export function none(source: FactSource): Fact<never> {
  return Object.freeze({ state: "none", source });
}

/** Builds a fact that could not be read. */
export function unknown(reason: UcredError): Fact<never> {
  return Object.freeze({ state: "unknown", reason });
}

/** Returns the value of a fact; `undefined` for both none and unknown. */
export function valueOf<T>(fact: Fact<T>): T | undefined {
  return fact.state === "known" ? fact.value : undefined;
}
