/** What a peer is: the credentials, and everything else that is known of who connected. */

import type { Credentials } from "./credentials.ts";
import type { Fact } from "./facts.ts";

/** The ids of a {@link Peer} that may stand for "no number in our user namespace". */
export type AmbiguousId = "uid" | "gid" | "groups";

/** The facts of a {@link Peer}, each in its three states and with its provenance. */
export interface PeerFacts {
  /** `none`: our pid namespace has no number for the peer. */
  readonly pid: Fact<number>;
  /** `unknown` where the id is {@link Peer.ambiguous}. */
  readonly uid: Fact<number>;
  /** `unknown` where the id is {@link Peer.ambiguous}. */
  readonly gid: Fact<number>;
  /** Supplementary groups and the gid. */
  readonly groups: Fact<readonly number[]>;
  /** `none`: no security module labels this socket. */
  readonly label: Fact<string>;
  /** `none`: no account has this uid. */
  readonly user: Fact<string>;
  /** `unknown` as soon as one of the lookups fails. */
  readonly groupNames: Fact<readonly (string | null)[]>;
}

/** A {@link Peer} as plain data. What is unknown is missing, and named in `unknown`. */
export interface PeerJSON {
  /** Missing where there is no number for it. */
  readonly pid?: number;
  /** Effective user id, unsigned 32-bit. */
  readonly uid: number;
  /** Effective group id, unsigned 32-bit. */
  readonly gid: number;
  /** Missing where unknown. */
  readonly groups?: readonly number[];
  /** Missing where there is none. */
  readonly label?: string;
  /** Missing where there is no such account. */
  readonly user?: string;
  /** In the order of `groups`, `null` for one without a name. Missing where unknown. */
  readonly groupNames?: readonly (string | null)[];
  /** Missing where every id is certain. */
  readonly ambiguous?: readonly AmbiguousId[];
  /** The facts that could not be read, and why; missing where all could. */
  readonly unknown?: { readonly [fact: string]: string };
}

/**
 * Who is at the other end of a connection. Everything from the kernel was read at once, when the
 * peer was identified; account names are looked up when first asked for, and remembered.
 *
 * A property that is `undefined` may mean "none" or "unknown"; {@link Peer.facts} tells which.
 */
export interface Peer extends Credentials {
  /** Supplementary groups and the gid, ascending, each once; `undefined` where unknown. */
  readonly groups: readonly number[] | undefined;
  /** Security label of the peer's socket (SELinux, Smack, AppArmor), where there is one. */
  readonly label: string | undefined;
  /** Name of the account with this uid. The lookup may block while a directory server answers. */
  readonly user: string | undefined;
  /**
   * The names of `groups`, in the same order; `null` where a group has no name, or an ambiguous
   * number. `undefined` where unknown.
   */
  readonly groupNames: readonly (string | null)[] | undefined;
  /**
   * Ids that read 65534 (the overflow id) while our user namespace does not map every id: they may
   * stand for any user or group outside it, and prove nothing. Empty in the usual case.
   */
  readonly ambiguous: readonly AmbiguousId[];
  /** Every fact with its state and provenance. */
  readonly facts: PeerFacts;
  /** Plain data, for logs. Resolves the account names. */
  toJSON(): PeerJSON;
}
