/** What peer credentials are: three numbers, and which numbers are never an identity. */

/** The kernel's record of who connected. Frozen. */
export interface Credentials {
  /**
   * Process id as our pid namespace numbers it; `undefined` where it has no number for the peer, or
   * where the system cannot tell it for certain. For display only: pids are reused.
   */
  readonly pid: number | undefined;
  /** Effective user id, unsigned 32-bit. */
  readonly uid: number;
  /** Effective group id, unsigned 32-bit. */
  readonly gid: number;
}

/** (uid_t) −1, 2³²−1: what kernels answer when there is nobody. Never an identity. */
export const NO_ID = 0xffffffff;

/** Freezes one set of ids, or refuses what no process can have: the ids −1 and a negative pid. */
export function credentials(pid: number, uid: number, gid: number): Credentials | undefined {
  if (uid === NO_ID || gid === NO_ID || pid < 0) return undefined;
  return Object.freeze({ pid: pid === 0 ? undefined : pid, uid, gid });
}

/** Whether it is an id of somebody. */
export function isId(value: unknown): value is number {
  return typeof value === "number" && value >>> 0 === value && value !== NO_ID;
}
