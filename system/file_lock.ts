/** Locks of files, which end with the process that has them, however it ends: flock(2). */

import { type System, system } from "../adapters/select.ts";
import { FLOCK } from "../ffi/abi.ts";
import { failure } from "./syscall_error.ts";

/**
 * Locks an open file for this descriptor alone, if nobody else has it. Closing gives the lock back.
 *
 * @returns Whether it is locked now.
 * @throws {UcredError} Where the file cannot be locked at all.
 */
export function tryLock(fd: number, on: System = system()): boolean {
  const errno = on.libc.flock(fd, FLOCK.EX | FLOCK.NB);
  if (errno === 0) return true;
  if (on.abi.errnoNames[errno] === "EAGAIN") return false; // EWOULDBLOCK is the same number
  throw failure(on, "lock a file", "flock", errno);
}
