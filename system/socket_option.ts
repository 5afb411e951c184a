/** Reads a socket option of unknown length. */

import type { Memory } from "../adapters/libc.ts";
import type { System } from "../adapters/select.ts";
import { NO_ID } from "../core/credentials.ts";
import { unexpectedAnswer } from "./syscall_error.ts";

/** ERANGE, <asm-generic/errno-base.h>, <errno.h>: the answer is longer than the memory. */
export const ERANGE = 34;

/**
 * Reads one option at level SOL_SOCKET, with as much memory as it takes.
 *
 * @param most The longest answer that is accepted, in bytes.
 * @param what Completes "Cannot …" in errors.
 * @param decode Gets memory that is overwritten by the next call on this system, and how many bytes of
 * it are the answer; more are there.
 * @returns What `decode` does; or the errno, which is no error yet: to learn from an exception that
 * there is no label would triple the cost of identify().
 */
export function readOption<T>(
  system: System,
  fd: number,
  option: number,
  most: number,
  what: string,
  decode: (answer: Memory, length: number) => T,
): T | number {
  const { libc, size, abi: { options } } = system;
  for (let value = system.value;;) {
    const capacity = value.bytes.length;
    value.words.fill(NO_ID);
    size.words[0] = capacity;
    const errno = libc.getsockopt(fd, options.SOL_SOCKET, option, value, size);
    const length = size.words[0]!;
    if (errno === 0 && length <= capacity) return decode(value, length);
    if (errno === 0) {
      throw unexpectedAnswer(what, "getsockopt", `${length} bytes for a buffer of ${capacity}`);
    }
    if (errno !== ERANGE || capacity >= most) return errno;
    // The kernel says how much it wants; whatever else answers may not.
    const wanted = length > capacity && length <= most ? length : Math.min(capacity * 2, most);
    value = libc.memory(Math.ceil(wanted / 8) * 8);
  }
}
