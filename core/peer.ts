/** What a peer is: the credentials, and everything else that is known of who connected. */

import type { Credentials } from "./credentials.ts";
import type { Fact, FactSource } from "./facts.ts";
import type { ProcessJSON, ProcessSnapshot } from "./process.ts";

/** The ids of a {@link Peer} that may stand for "no number in our user namespace". */
export type AmbiguousId = "uid" | "gid" | "groups";

/**
 * How a peer's process is pinned.
 *
 * - `connect`: the kernel told which process connected, or sent the datagram (Linux 6.5). It cannot
 *   be another one.
 * - `accept`: by its pid and ids when it was identified. A process that took the place of the one
 *   that connected, between then and accept, with the same user and group, would not be noticed:
 *   such kernels do not tell when a connection was made, so no start time can be compared with that.
 */
export type PinKind = "connect" | "accept";

/** The ids that a process has now, all unsigned 32-bit; see credentials(7). */
export interface LiveCredentials {
  /** Whether the process still runs. */
  readonly alive: true;
  /** Effective uid, as {@link Credentials.uid} is; the same as `euid`. */
  readonly uid: number;
  /** Effective gid; the same as `egid`. */
  readonly gid: number;
  /** Real uid. */
  readonly ruid: number;
  /** Effective uid. */
  readonly euid: number;
  /** Saved uid: it can become the effective one again. */
  readonly suid: number;
  /** Uid for access to files. */
  readonly fsuid: number;
  /** Real gid. */
  readonly rgid: number;
  /** Effective gid. */
  readonly egid: number;
  /** Saved gid. */
  readonly sgid: number;
  /** Gid for access to files. */
  readonly fsgid: number;
  /** The ids that may stand for "no number in our user namespace", as in {@link Peer.ambiguous}. */
  readonly ambiguous: readonly (
    | "uid"
    | "gid"
    | "ruid"
    | "euid"
    | "suid"
    | "fsuid"
    | "rgid"
    | "egid"
    | "sgid"
    | "fsgid"
  )[];
  /** Where they were read. */
  readonly source: FactSource;
}

/** The ids of one process, without what is derived from them. */
export type ProcessIds = Omit<LiveCredentials, "alive" | "uid" | "gid" | "ambiguous" | "source">;

/** The name of an id in {@link LiveCredentials}. */
export type LiveId = LiveCredentials["ambiguous"][number];

/** A process that has ended, and has no ids any more. */
export interface EndedProcess {
  /** Whether the process still runs. */
  readonly alive: false;
}

/** One thing that is not as it was at connect. */
export type CredentialDrift =
  | { readonly fact: "alive"; readonly then: true; readonly now: false }
  | { readonly fact: "uid" | "gid"; readonly then: number; readonly now: number }
  | {
    readonly fact: "groups";
    readonly then: readonly number[];
    readonly now: readonly number[];
  };

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
  /** `none`: it was not asked for. `unknown`: why the process could not be pinned. */
  readonly pinned: Fact<PinKind>;
  /** `unknown` without a pin. */
  readonly key: Fact<string>;
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
  /** Missing where the process is not pinned. */
  readonly pinned?: PinKind;
  /** Missing where the process is not pinned. */
  readonly alive?: boolean;
  /** Missing where the process is not pinned, or the key is unknown. */
  readonly key?: string;
  /** Missing where the process is not pinned, or has ended. */
  readonly process?: ProcessJSON;
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
   * Ids that read as the kernel's overflow id (65534 unless `kernel.overflowuid` or `kernel.overflowgid`
   * is set) while our user namespace does not map every id: they may stand for any user or group outside
   * it, and prove nothing. Where `groups` is among them, policies trust no member of the list. Empty in the
   * usual case.
   */
  readonly ambiguous: readonly AmbiguousId[];
  /** Every fact with its state and provenance. */
  readonly facts: PeerFacts;

  /** How the process is pinned; `undefined` where it is not. */
  readonly pinned: PinKind | undefined;
  /**
   * Facts of the process as it is now: a new snapshot each time it is asked for, so keep it where
   * one answer is to be used twice. Without a pin every fact is unknown.
   */
  readonly process: ProcessSnapshot;
  /**
   * Whether the process still runs (a zombie does not); `undefined` where it is not pinned, or closed.
   */
  readonly alive: boolean | undefined;
  /**
   * Aborts when the process ends, within about 50 ms; `undefined` where it is not pinned, or was
   * closed before anybody asked for it.
   * From when it is first asked for, the peer is to be closed: it is not collected before its
   * process ends. It keeps no program running. All peers cost one system call each 50 ms together.
   *
   * @throws {UcredError} `ERR_UCRED_SYSCALL` where descriptors or watches have run out.
   */
  readonly signal: AbortSignal | undefined;
  /**
   * The same for two peers only if they are the same process, for rate limits and sessions: no other
   * process has it, before or after, until the machine restarts or in another. (Two copies of one
   * running virtual machine cannot be told apart; before Linux 6.9, nor two processes with one pid that
   * started within 10 ms.) `undefined` where unknown.
   */
  readonly key: string | undefined;
  /**
   * The ids that the process has now.
   *
   * @throws {UcredError} Where they cannot be known: the process is not pinned, or closed, or we may
   * not look.
   */
  live(): LiveCredentials | EndedProcess;
  /**
   * What is not as it was at connect: effective uid and gid, groups, or that the process has ended.
   * Empty where nothing is. A change that was undone meanwhile does not show, nor does one of a
   * process that the socket was handed to.
   *
   * @throws {UcredError} Where it cannot be known: never an empty list for that.
   */
  drift(): readonly CredentialDrift[];
  /**
   * Gives the pidfd back, and ends the watch of `signal`. What was read stays. May be called again.
   * The pinned peer of a `net.Socket` is closed when that closes; a second later if its `signal` was
   * asked for, since a process that ends closes its connections first.
   */
  close(): void;
  /** {@link Peer.close}, for `using`. */
  [Symbol.dispose](): void;

  /** Plain data, for logs. Resolves the account names and, of a pinned peer, the process's facts. */
  toJSON(): PeerJSON;
}
