/** Keeps our descriptors from programs that we start. */

import { openedSystem, type System } from "../adapters/select.ts";
import { UcredError } from "../core/errors.ts";
import { CLOSE_RANGE_CLOEXEC, SYS_CLOSE_RANGE } from "../ffi/close_range.ts";
import { syscallError } from "./syscall_error.ts";

/** The first descriptor after stdin, stdout and stderr. */
const FIRST_FD = 3;

/** The kernel ends the range at the last open descriptor. */
const LAST_FD = 0x7fffffff;

/**
 * Sets FD_CLOEXEC on all descriptors of this process but stdin, stdout and stderr.
 *
 * The runtimes set it on descriptors that they open. They do not set it on those that the process
 * inherited.
 *
 * @throws {UcredError} `ERR_UCRED_UNSUPPORTED` on other systems than Linux 5.9 or later; `ERR_UCRED_SYSCALL` if
 * the call fails.
 */
export function closeAllOnExec(system: System = openedSystem()): void {
  const { linux } = system.libc;
  if (linux === undefined) {
    throw new UcredError("ERR_UCRED_UNSUPPORTED", "Cannot set FD_CLOEXEC: this is not Linux", {
      hint: "Run the helper on Linux",
    });
  }
  const result = linux.syscall(SYS_CLOSE_RANGE, FIRST_FD, LAST_FD, CLOSE_RANGE_CLOEXEC);
  if (result !== 0) throw syscallError(system, "set FD_CLOEXEC", "close_range", -result);
}
