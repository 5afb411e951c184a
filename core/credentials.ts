/** Peer credentials (pid, uid and gid), and a check for values that no process can have. */

/** The kernel's record of the process that connected. Frozen. */
export interface Credentials {
  /**
   * Process id in our pid namespace; `undefined` if the process has none there, or if the system does
   * not report it reliably. For display only: pids are reused.
   */
  readonly pid: number | undefined;
  /** Effective user id, unsigned 32-bit. */
  readonly uid: number;
  /** Effective group id, unsigned 32-bit. */
  readonly gid: number;
}

/** (uid_t) −1, 2³²−1. Kernels return this id if a socket has no peer. No process can have it. */
export const NO_ID = 0xffffffff;

/**
 * Builds frozen credentials. Returns `undefined` if no process can have these ids: an id of −1, or a
 * negative pid.
 */
export function credentials(pid: number, uid: number, gid: number): Credentials | undefined {
  if (uid === NO_ID || gid === NO_ID || pid < 0) return undefined;
  return Object.freeze({ pid: pid === 0 ? undefined : pid, uid, gid });
}

/** Returns whether a value is a valid uid or gid. */
export function isId(value: unknown): value is number {
  return typeof value === "number" && value >>> 0 === value && value !== NO_ID;
}
