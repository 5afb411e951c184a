/** What a process is: facts that are true of it now, each with its provenance. */

import type { Fact } from "./facts.ts";

/** The name of a capability, as capabilities(7) spells it; newer ones by number, "CAP_41". */
export type Capability = `CAP_${string}`;

/** The five sets of capabilities(7). Frozen. */
export interface Capabilities {
  /** What counts in permission checks. */
  readonly effective: readonly Capability[];
  /** What it can make effective. */
  readonly permitted: readonly Capability[];
  /** What execve(2) may keep. */
  readonly inheritable: readonly Capability[];
  /** What execve(2) can give at most. */
  readonly bounding: readonly Capability[];
  /** What execve(2) keeps for unprivileged programs. */
  readonly ambient: readonly Capability[];
}

/** Whether seccomp(2) restricts the process's system calls. */
export type SeccompMode = "off" | "strict" | "filter";

/** The kinds of namespaces(7). */
export type NamespaceKind = "cgroup" | "ipc" | "mnt" | "net" | "pid" | "time" | "user" | "uts";

/** All of them. */
export const NAMESPACE_KINDS: readonly NamespaceKind[] = Object.freeze([
  "cgroup",
  "ipc",
  "mnt",
  "net",
  "pid",
  "time",
  "user",
  "uts",
]);

/** One namespace of a process. */
export interface Namespace {
  /** Its inode number. */
  readonly id: number;
  /** Whether we are in it too. */
  readonly ours: boolean;
}

/** A process's namespaces. Frozen. */
export type Namespaces = { readonly [kind in NamespaceKind]: Namespace };

/** The values that a {@link ProcessSnapshot} has. */
export interface ProcessValues {
  /**
   * Path of the executable, in the process's own mount namespace. Advice, not a boundary: whoever
   * runs as the same user can make the process run other code (ptrace, LD_PRELOAD, an interpreter).
   * Bytes of a path that are no UTF-8 read as U+FFFD.
   */
  readonly exe: string;
  /** Whether the executable's name is gone, as after an upgrade, or itself ends in " (deleted)". */
  readonly exeDeleted: boolean;
  /**
   * SHA-256 of the executable, hexadecimal; of the very file that runs, even if it is deleted. Reads
   * the whole file, of up to 512 MiB, on this thread: ask it only of peers whose uid you let in. If
   * the file is in a FUSE file system that the peer's user mounted, the read may take for ever.
   */
  readonly exeSha256: string;
  /** The name, at most 15 bytes. The process chooses it. */
  readonly comm: string;
  /**
   * The arguments. The process can overwrite them; and it can place them in a file of a FUSE file
   * system, whose user can then make the read take for ever: ask it only of peers whose uid you let in.
   */
  readonly cmdline: readonly string[];
  /** From boot to the process's start, in milliseconds, in steps of 10. */
  readonly startTime: number;
  /** Path of the control group, as our cgroup namespace sees it. */
  readonly cgroup: string;
  /** systemd: the innermost slice above the unit. */
  readonly slice: string;
  /** systemd: the system manager's unit. */
  readonly unit: string;
  /** systemd: the unit of the user's own manager; that user alone vouches for it. */
  readonly userUnit: string;
  /**
   * The container's id, 64 hexadecimal digits, where root's services made it. `none` only where every
   * control group is a unit itself; a container without a control group of its own reads so, too.
   */
  readonly container: string;
  /** The id of a container below a user's manager; that user alone vouches for it. */
  readonly userContainer: string;
  /** logind: the login session's id. */
  readonly session: string;
  /** The uid that logged in, which stays through su(1) and sudo(8); `none` for a service. */
  readonly auditUid: number;
  /** The audit system's number of that login. */
  readonly auditSession: number;
  /** Capabilities. */
  readonly capabilities: Capabilities;
  /** Whether it can gain no privileges by execve(2). */
  readonly noNewPrivs: boolean;
  /** Whether its system calls are restricted. */
  readonly seccomp: SeccompMode;
  /** Namespaces, and which are ours. */
  readonly namespaces: Namespaces;
}

/** Each fact of a process in its three states. */
export type ProcessFacts = {
  readonly [name in keyof ProcessValues]: Fact<ProcessValues[name]>;
};

/** A process as plain data: what is known. The rest is missing, and named in `unknown` if unknown. */
export type ProcessJSON = Partial<ProcessValues> & {
  /** The facts that could not be read, and why; missing where all could. */
  readonly unknown?: { readonly [fact: string]: string };
};

/**
 * A process at one time. A fact is read when it is first asked for, and then stays: ask the peer
 * for another snapshot to read it again. Each one was checked, after it was read, to be of the
 * pinned process and not of another one with its pid.
 *
 * A property that is `undefined` may mean "none" or "unknown"; `facts` tells which.
 */
export type ProcessSnapshot =
  & { readonly [name in keyof ProcessValues]: ProcessValues[name] | undefined }
  & {
    /** Every fact with its state and provenance. */
    readonly facts: ProcessFacts;
    /**
     * Plain data, for logs. Reads every fact but `exeSha256` (a whole file) and `cmdline` (it may hold
     * secrets), which are there if they were asked for.
     */
    toJSON(): ProcessJSON;
  };
