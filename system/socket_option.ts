/** Reads socket options, and the family of a socket. */

import type { Memory } from "../adapters/libc.ts";
import { openedSystem, type System } from "../adapters/select.ts";
import { NO_ID } from "../core/credentials.ts";
import { AF_UNIX, type LinuxAbi } from "../ffi/abi.ts";
import { syscallError, unexpectedAnswer } from "./syscall_error.ts";

/**
 * Reads an option of variable length at level SOL_SOCKET, with growing memory.
 *
 * @param most The maximum length of the answer, in bytes.
 * @param what Completes "Cannot …" in errors.
 * @param decode Decodes the first `length` bytes of memory that the next call overwrites.
 * @returns The decoded answer, or the errno. An exception for a missing label would triple the cost
 * of identify().
 */
export function readOption<T>(
  system: System,
  fd: number,
  option: number,
  most: number,
  what: string,
  decode: (answer: Memory, length: number) => T,
): T | number {
  const { libc, size, abi: { options, errno: { ERANGE } } } = system;
  for (let value = system.value;;) {
    const capacity = value.bytes.length;
    value.words.fill(NO_ID);
    size.words[0] = capacity;
    const errno = libc.getsockopt(fd, options.SOL_SOCKET, option, value, size);
    const length = size.words[0]!;
    if (errno === 0 && length <= capacity) return decode(value, length);
    if (errno === 0) {
      const why = `${length} bytes for a buffer of ${capacity}`;
      throw unexpectedAnswer(what, "getsockopt", why);
    }
    if (errno !== ERANGE || capacity >= most) return errno;
    // The kernel reports the size that it needs; an emulator may not.
    const wanted = length > capacity && length <= most ? length : Math.min(capacity * 2, most);
    value = libc.memory(wanted);
  }
}

/**
 * Reads a non-negative int option at level SOL_SOCKET.
 *
 * @param what Completes "Cannot …" in errors.
 * @throws {UcredError} If the call fails, or its answer is not an int.
 */
export function readIntOption(system: System, fd: number, option: number, what: string): number {
  const { libc, value, size, abi: { options } } = system;
  value.words[0] = NO_ID;
  size.words[0] = 4;
  const errno = libc.getsockopt(fd, options.SOL_SOCKET, option, value, size);
  if (errno !== 0) throw syscallError(system, what, "getsockopt", errno);
  const length = size.words[0]!;
  if (length !== 4) {
    throw unexpectedAnswer(what, "getsockopt", `${length} bytes where 4 were expected`);
  }
  return value.words[0]!;
}

/** Reports whether a socket listens. @throws {UcredError} As {@link readIntOption} does. */
export function isListening(system: System, fd: number, what: string): boolean {
  return readIntOption(system, fd, system.abi.options.SO_ACCEPTCONN, what) !== 0;
}

/**
 * Reports whether a socket is of the family AF_UNIX.
 *
 * Leaves its address in `system.value`, and the address's length in `system.size`.
 *
 * @throws {UcredError} If getsockname(2) fails.
 */
export function isUnixSocket(system: System, fd: number, what: string): boolean {
  const { libc, value, size, abi } = system;
  value.words[0] = NO_ID;
  size.words[0] = value.bytes.length;
  const errno = libc.getsockname(fd, value, size);
  if (errno !== 0) throw syscallError(system, what, "getsockname", errno);
  return abi.family(value.bytes) === AF_UNIX;
}

/**
 * Reads SO_COOKIE, which identifies a socket uniquely until the next boot.
 *
 * @returns `undefined` if the descriptor is not a socket.
 */
export function readCookie(
  { libc, value, size }: System,
  { options }: LinuxAbi,
  fd: number,
): number | undefined {
  value.words[0] = value.words[1] = NO_ID;
  size.words[0] = 8;
  const errno = libc.getsockopt(fd, options.SOL_SOCKET, options.SO_COOKIE, value, size);
  if (errno !== 0 || size.words[0] !== 8) return undefined;
  const cookie = value.words[0]! + value.words[1]! * 2 ** 32; // counted from 1: never near 2⁵³
  return Number.isSafeInteger(cookie) ? cookie : undefined;
}

/**
 * Makes the kernel reject descriptors that clients attach to messages (SCM_RIGHTS): their sendmsg(2) then
 * fails with EPERM. Connections inherit this from their listener.
 *
 * @returns Whether the kernel has SO_PASSRIGHTS, since Linux 6.16. On other kernels the runtimes drop the
 * descriptors when they read the message.
 */
export function refuseDescriptors(fd: number, system: System = openedSystem()): boolean {
  const { abi, libc: { linux }, value } = system;
  if (abi.os !== "linux" || linux === undefined) return false;
  value.words[0] = 0;
  return linux.setsockopt(fd, abi.options.SOL_SOCKET, abi.options.SO_PASSRIGHTS, value) === 0;
}
