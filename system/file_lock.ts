/** File locks that the kernel releases when their process ends: flock(2). */

import { openedSystem, type System } from "../adapters/select.ts";
import { FLOCK } from "../ffi/abi.ts";
import { syscallError } from "./syscall_error.ts";

/**
 * Tries to lock an open file exclusively, without waiting. Closing the descriptor releases the
 * lock.
 *
 * @returns Whether the lock was acquired; `false` if another descriptor has it.
 * @throws {UcredError} If the file cannot be locked at all.
 */
export function tryLock(fd: number, system: System = openedSystem()): boolean {
  const errno = system.libc.flock(fd, FLOCK.EX | FLOCK.NB);
  if (errno === 0) return true;
  if (errno === system.abi.errno.EAGAIN) return false; // EWOULDBLOCK is the same number
  throw syscallError(system, "lock a file", "flock", errno);
}
