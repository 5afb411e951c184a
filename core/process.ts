/** The current facts of a process, each with its source. */

import type { Fact } from "./facts.ts";

/** The name of a capability, as capabilities(7) spells it; newer ones by number, "CAP_41". */
export type Capability = `CAP_${string}`;

/** The five sets of capabilities(7). Frozen. */
export interface Capabilities {
  /** Used by the kernel's permission checks. */
  readonly effective: readonly Capability[];
  /** The process can make these effective. */
  readonly permitted: readonly Capability[];
  /** execve(2) grants these if the executed file has them in its inheritable set, too. */
  readonly inheritable: readonly Capability[];
  /** The upper limit of the set that execve(2) grants. */
  readonly bounding: readonly Capability[];
  /** Kept by execve(2) of an unprivileged program. */
  readonly ambient: readonly Capability[];
}

/** Whether seccomp(2) restricts the process's system calls. */
export type SeccompMode = "off" | "strict" | "filter";

/** The kinds of namespaces(7). */
export type NamespaceKind = "cgroup" | "ipc" | "mnt" | "net" | "pid" | "time" | "user" | "uts";

/** All kinds of namespaces. */
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
  /** Whether it is our own namespace, too. */
  readonly ours: boolean;
}

/** A process's namespaces. Frozen. */
export type Namespaces = { readonly [kind in NamespaceKind]: Namespace };

/** The values that a {@link ProcessSnapshot} has. */
export interface ProcessValues {
  /**
   * Path of the executable, in the process's own mount namespace. It is advice and not a boundary: the
   * same user can make the process run other code (ptrace, LD_PRELOAD, an interpreter). Bytes that are
   * not UTF-8 read as U+FFFD.
   */
  readonly exe: string;
  /** Whether the executable was unlinked, as by an upgrade, or has a name that ends in " (deleted)". */
  readonly exeDeleted: boolean;
  /**
   * SHA-256 of the running executable in hexadecimal, even if its file was deleted. Reads the whole
   * file, of up to 512 MiB, on this thread. A peer can place the file in its own FUSE file system, and
   * then the read may never return: use this only for uids that you already trust.
   */
  readonly exeSha256: string;
  /** The name of the process, at most 15 bytes. The process can change it. */
  readonly comm: string;
  /**
   * The arguments, which the process can overwrite. It can place them in a file of its own FUSE file
   * system, and then the read may never return: use this only for uids that you already trust.
   */
  readonly cmdline: readonly string[];
  /** Milliseconds from boot to the start of the process, in steps of 10. */
  readonly startTime: number;
  /** Path of the control group, relative to our cgroup namespace. */
  readonly cgroup: string;
  /** systemd: the innermost slice above the unit. */
  readonly slice: string;
  /** systemd: the unit of the system manager. */
  readonly unit: string;
  /** systemd: the unit of the user's own manager, which that user can forge. */
  readonly userUnit: string;
  /**
   * The id of a container that a service of root created: 64 hexadecimal digits. `none` if the process is
   * below a user's manager, or if in every hierarchy it is in no group, or directly in a unit that does not
   * run containers. A container without its own control group reads as `none`, too.
   */
  readonly container: string;
  /** The id of a container below a user's manager, which that user can forge. */
  readonly userContainer: string;
  /** logind: the login session's id. */
  readonly session: string;
  /** The uid that logged in, which su(1) and sudo(8) keep; `none` for a service. */
  readonly auditUid: number;
  /** The number of that login in the audit system. */
  readonly auditSession: number;
  /** Capabilities. */
  readonly capabilities: Capabilities;
  /** Whether the process cannot gain privileges by execve(2). */
  readonly noNewPrivs: boolean;
  /** How seccomp(2) restricts its system calls. */
  readonly seccomp: SeccompMode;
  /** Its namespaces, and whether each is also ours. */
  readonly namespaces: Namespaces;
}

/** The facts of a process, each with its state and source. */
export type ProcessFacts = {
  readonly [name in keyof ProcessValues]: Fact<ProcessValues[name]>;
};

/** The known facts of a process as plain data. Unknown facts are missing, and listed in `unknown`. */
export type ProcessJSON = Partial<ProcessValues> & {
  /** The facts that could not be read, with the reasons; missing if there are none. */
  readonly unknown?: { readonly [fact: string]: string };
};

/**
 * Facts of a process. Each fact is read on first use and then stays the same: `peer.process` returns a new
 * snapshot that reads it again. After each read, the pinned process is checked to be still running, so a
 * fact never describes another process with the same pid.
 *
 * A property that is `undefined` may mean "none" or "unknown"; `facts` distinguishes the two.
 */
export type ProcessSnapshot =
  & { readonly [name in keyof ProcessValues]: ProcessValues[name] | undefined }
  & {
    /** Every fact with its state and source. */
    readonly facts: ProcessFacts;
    /**
     * Returns plain data, for logs. Reads every fact except `exeSha256` (which reads a whole file) and
     * `cmdline` (which may contain secrets): these two are included only if they were read before.
     */
    toJSON(): ProcessJSON;
  };
