/** Locks of files, which end with the process that has them, however it ends: flock(2). */

import { openedSystem, type System } from "../adapters/select.ts";
import { FLOCK } from "../ffi/abi.ts";
import { syscallError } from "./syscall_error.ts";

/**
 * Locks an open file for this descriptor alone, if nobody else has it. Closing gives the lock back.
 *
 * @returns Whether it is locked now.
 * @throws {UcredError} Where the file cannot be locked at all.
 */
export function tryLock(fd: number, system: System = openedSystem()): boolean {
  const errno = system.libc.flock(fd, FLOCK.EX | FLOCK.NB);
  if (errno === 0) return true;
  if (system.abi.errnoNames[errno] === "EAGAIN") return false; // EWOULDBLOCK is the same number
  throw syscallError(system, "lock a file", "flock", errno);
}
