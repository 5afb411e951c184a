/** The peer: its credentials, and all other facts about the process that connected. */

import type { Credentials } from "./credentials.ts";
import type { Fact, FactSource } from "./facts.ts";
import type { ProcessJSON, ProcessSnapshot } from "./process.ts";

/** The ids of a {@link Peer} that may stand for an id outside our user namespace. */
export type AmbiguousId = "uid" | "gid" | "groups";

/**
 * How a peer's process is pinned.
 *
 * - `connect`: by the pidfd of the process that connected, or sent the datagram (Linux 6.5). It cannot
 *   be another process.
 * - `accept`: by its pid and ids at the time of identification (Linux before 6.5). If the process that
 *   connected has already ended, another process with the same pid, user and group is pinned instead. Start
 *   times cannot exclude this, since the kernel does not report the time of connect(2).
 */
export type PinKind = "connect" | "accept";

/** The current ids of a process, all unsigned 32-bit; see credentials(7). */
export interface LiveCredentials {
  /** Whether the process still runs. */
  readonly alive: true;
  /** Effective uid, like {@link Credentials.uid}; equal to `euid`. */
  readonly uid: number;
  /** Effective gid; equal to `egid`. */
  readonly gid: number;
  /** Real uid. */
  readonly ruid: number;
  /** Effective uid. */
  readonly euid: number;
  /** Saved uid, to which the process can set its effective uid again. */
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
  /** The ids that may stand for an id outside our user namespace, as in {@link Peer.ambiguous}. */
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
  /** Where the ids were read. */
  readonly source: FactSource;
}

/** The ids of one process, without derived properties. */
export type ProcessIds = Omit<LiveCredentials, "alive" | "uid" | "gid" | "ambiguous" | "source">;

/** A process that has ended, and therefore has no ids. */
export interface EndedProcess {
  /** Whether the process still runs. */
  readonly alive: false;
}

/** One fact that has changed since connect. */
export type CredentialDrift =
  | { readonly fact: "alive"; readonly then: true; readonly now: false }
  | { readonly fact: "uid" | "gid"; readonly then: number; readonly now: number }
  | {
    readonly fact: "groups";
    readonly then: readonly number[];
    readonly now: readonly number[];
  };

/** The facts of a {@link Peer}, each with its state and source. */
export interface PeerFacts {
  /** `none`: the peer has no pid in our pid namespace. */
  readonly pid: Fact<number>;
  /** `unknown` if the id is {@link Peer.ambiguous}. */
  readonly uid: Fact<number>;
  /** `unknown` if the id is {@link Peer.ambiguous}. */
  readonly gid: Fact<number>;
  /** Supplementary groups and the gid. */
  readonly groups: Fact<readonly number[]>;
  /** `none`: no security module labels this socket. */
  readonly label: Fact<string>;
  /** `none`: no account has this uid. */
  readonly user: Fact<string>;
  /** `unknown` if one of the lookups fails. */
  readonly groupNames: Fact<readonly (string | null)[]>;
  /** `none`: no pin was requested. `unknown`: the process could not be pinned. */
  readonly pinned: Fact<PinKind>;
  /** `unknown` without a pin. */
  readonly key: Fact<string>;
}

/** A {@link Peer} as plain data. Unknown facts are missing, and listed in `unknown`. */
export interface PeerJSON {
  /** Missing if the peer has none in our pid namespace. */
  readonly pid?: number;
  /** Effective user id, unsigned 32-bit. */
  readonly uid: number;
  /** Effective group id, unsigned 32-bit. */
  readonly gid: number;
  /** Missing if unknown. */
  readonly groups?: readonly number[];
  /** Missing if there is none. */
  readonly label?: string;
  /** Missing if no account has this uid. */
  readonly user?: string;
  /** In the order of `groups`, `null` for a group without a name. Missing if unknown. */
  readonly groupNames?: readonly (string | null)[];
  /** Missing if every id is certain. */
  readonly ambiguous?: readonly AmbiguousId[];
  /** Missing if the process is not pinned. */
  readonly pinned?: PinKind;
  /** Missing if unknown: the process is not pinned, or the peer is closed. */
  readonly alive?: boolean;
  /** Missing if the process is not pinned, or the key is unknown. */
  readonly key?: string;
  /** Missing if the process is not pinned, or has ended. */
  readonly process?: ProcessJSON;
  /** The facts that could not be read, with the reasons; missing if there are none. */
  readonly unknown?: { readonly [fact: string]: string };
  /** `"test"` for a peer of `ucred/testing`; otherwise missing. */
  readonly source?: "test";
}

/**
 * The process at the other end of a connection. Credentials, groups and label were read when the peer was
 * identified, with one exception: a server's unpinned peer reads `groups` and `label` on first use, and they
 * are unknown if the connection is closed by then. Account names are looked up on first use. All these are
 * cached. `process`, `live()` and `drift()` read the current state of a pinned process.
 *
 * A property that is `undefined` may mean "none" or "unknown"; {@link Peer.facts} distinguishes the two.
 */
export interface Peer extends Credentials {
  /** Supplementary groups and the gid, ascending, without duplicates; `undefined` if unknown. */
  readonly groups: readonly number[] | undefined;
  /** Security label of the peer's socket (SELinux, Smack, AppArmor); `undefined` if none or unknown. */
  readonly label: string | undefined;
  /** Name of the account with this uid. The lookup may block while a directory server answers. */
  readonly user: string | undefined;
  /**
   * The names of `groups`, in the same order; `null` for a group without a name, or with an ambiguous
   * gid. `undefined` if unknown.
   */
  readonly groupNames: readonly (string | null)[] | undefined;
  /**
   * Ids that read as the kernel's overflow id (65534 unless `kernel.overflowuid` or `kernel.overflowgid`
   * is set) while our user namespace does not map every id. They may stand for any user or group outside
   * it, and prove nothing. If `groups` is listed, policies trust no group of the peer. A message bus does
   * not report the gid of its clients, which then reads as 2³²−1 and is listed, too. Usually empty.
   */
  readonly ambiguous: readonly AmbiguousId[];
  /** Every fact with its state and source. */
  readonly facts: PeerFacts;

  /** How the process is pinned; `undefined` if it is not. */
  readonly pinned: PinKind | undefined;
  /**
   * The current facts of the process. Each access returns a new snapshot: keep a snapshot to use its facts
   * more than once. Without a pin every fact is unknown.
   */
  readonly process: ProcessSnapshot;
  /**
   * Whether the process still runs (a zombie does not); `undefined` if the process is not pinned, or the
   * peer is closed.
   */
  readonly alive: boolean | undefined;
  /**
   * Aborts within about 50 ms after the process has ended; `undefined` if the process is not pinned, or
   * the peer was closed before the first access.
   *
   * After the first access, close the peer: it is not garbage-collected before its process ends. The
   * watch does not keep the program running. All watched peers together cost at most 17 system calls per
   * 50 ms.
   *
   * @throws {UcredError} `ERR_UCRED_SYSCALL` if no descriptor or watch is left.
   */
  readonly signal: AbortSignal | undefined;
  /**
   * A key for rate limits and sessions: two peers have the same key only if they are the same process.
   * Other processes have other keys, also after a reboot and on other machines. (Two exceptions: copies of
   * one running virtual machine, and before Linux 6.9 processes with the same pid that started within
   * 10 ms.) `undefined` if unknown.
   */
  readonly key: string | undefined;
  /**
   * Reads the current ids of the process.
   *
   * @throws {UcredError} If they cannot be read: the process is not pinned, the peer is closed, or a
   * permission is missing.
   */
  live(): LiveCredentials | EndedProcess;
  /**
   * Returns the facts that have changed since connect: effective uid and gid, groups, and whether the
   * process has ended. Empty if no fact has changed. Two kinds of changes are not detected: those that
   * were undone in between, and those of another process that received the socket.
   *
   * @throws {UcredError} If a fact cannot be read: the list is empty only if no fact has changed.
   */
  drift(): readonly CredentialDrift[];
  /**
   * Closes the pidfd, and ends the watch of `signal`. Facts that were already read remain available. May be
   * called again.
   *
   * The pinned peer of a `net.Socket` is closed when its socket closes. If `signal` was used, the peer is
   * closed a second later, since an ending process closes its connections before the signal aborts.
   */
  close(): void;
  /** {@link Peer.close}, for `using`. */
  [Symbol.dispose](): void;

  /** Returns plain data, for logs. Looks up account names, and reads the process if it is pinned. */
  toJSON(): PeerJSON;
}
