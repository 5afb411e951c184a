/** A fact about a peer is known, known to be none, or unknown; and it knows where it comes from. */

import type { UcredError } from "./errors.ts";

/**
 * Where a fact comes from, and from when it is.
 *
 * - `kernel@connect`: recorded by the kernel when the peer connected.
 * - `kernel@send`: given by the kernel with a datagram.
 * - `kernel@now`: asked of the kernel when the fact was read.
 * - `procfs@now`: read from /proc when the fact was read.
 * - `accounts@now`: looked up in the account database (NSS) when the fact was read.
 */
export type FactSource =
  | "kernel@connect"
  | "kernel@send"
  | "kernel@now"
  | "procfs@now"
  | "accounts@now";

/**
 * One fact in its three states. `none` is an answer ("there is no such account"), `unknown` is not
 * ("the directory server did not reply"), and must never be taken for one.
 */
export type Fact<T> =
  | { readonly state: "known"; readonly value: T; readonly source: FactSource }
  | { readonly state: "none"; readonly source: FactSource }
  | { readonly state: "unknown"; readonly reason: UcredError };

/** A fact with a value. */
export function known<T>(value: T, source: FactSource): Fact<T> {
  return Object.freeze({ state: "known", value, source });
}

/** A fact that is known not to exist. */
export function none(source: FactSource): Fact<never> {
  return Object.freeze({ state: "none", source });
}

/** A fact that could not be read. */
export function unknown(reason: UcredError): Fact<never> {
  return Object.freeze({ state: "unknown", reason });
}

/** The value where there is one: `undefined` for none and unknown alike. */
export function valueOf<T>(fact: Fact<T>): T | undefined {
  return fact.state === "known" ? fact.value : undefined;
}
