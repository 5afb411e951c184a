/**
 * Descriptors that we own, with a check before each use that the number still refers to the same
 * file.
 *
 * Other code of the process may close a descriptor that it does not own. Deno closes each
 * descriptor of a node:net Unix socket twice, and with threads the second close can hit any
 * descriptor that was opened in between. See docs/upstream-reports.md.
 */

import type { LinuxCalls, Memory } from "../adapters/libc.ts";
import type { System } from "../adapters/select.ts";
import { UcredError } from "../core/errors.ts";
import { LINUX_ERRNO } from "../ffi/errno.ts";
import { STAT, SYS_FSTAT } from "../ffi/stat.ts";
import { syscallError } from "./syscall_error.ts";

/** Device and inode of an open file as four 32-bit words, in the kernel's order. */
export type FileId = readonly [number, number, number, number];

interface StatMemory {
  readonly memory: Memory;
  /** Address of the memory. User-space addresses are below 2⁴⁷, so a number holds it. */
  readonly address: number;
}

const memories = new WeakMap<System, StatMemory>();

function memoryOf(system: System, calls: LinuxCalls): StatMemory {
  let found = memories.get(system);
  if (found === undefined) {
    const memory = system.libc.memory(STAT.size);
    memories.set(system, found = { memory, address: Number(calls.address(memory)) });
  }
  return found;
}

/**
 * Calls fstat(2). @returns The first words of the answer, until the next call overwrites them; or
 * −errno.
 */
function stat(system: System, calls: LinuxCalls, fd: number): Uint32Array | number {
  const { memory, address } = memoryOf(system, calls);
  const number = SYS_FSTAT[system.abi.cpu];
  if (number === undefined) return -LINUX_ERRNO.ENOSYS;
  const result = calls.syscall(number, fd, address, 0);
  return result < 0 ? result : memory.words;
}

/** Returns device and inode of an open descriptor, or −errno. */
export function fileIdOf(system: System, calls: LinuxCalls, fd: number): FileId | number {
  const words = stat(system, calls, fd);
  return typeof words === "number" ? words : [words[0]!, words[1]!, words[2]!, words[3]!];
}

/** Reports whether a descriptor refers to this file; `false` if that cannot be determined. */
export function isFile(system: System, calls: LinuxCalls, fd: number, id: FileId): boolean {
  const words = stat(system, calls, fd);
  return typeof words !== "number" && words[0] === id[0] && words[1] === id[1] &&
    words[2] === id[2] && words[3] === id[3];
}

/**
 * A descriptor that we opened and own. Descriptors without an inode of their own, such as those of epoll,
 * cannot be distinguished: all share one anonymous inode.
 */
export class OwnedDescriptor {
  readonly #system: System;
  readonly #calls: LinuxCalls;
  readonly #id: FileId | undefined;
  #fd: number;

  /** @throws {UcredError} If fstat(2) fails. The descriptor is then closed. */
  constructor(system: System, calls: LinuxCalls, fd: number, what: string) {
    const id = fileIdOf(system, calls, fd);
    // If an emulator or a seccomp filter does not support the call, ownership is assumed.
    if (typeof id === "number" && id !== -LINUX_ERRNO.ENOSYS) {
      calls.close(fd);
      throw syscallError(system, what, "fstat", -id);
    }
    this.#system = system;
    this.#calls = calls;
    this.#id = typeof id === "number" ? undefined : id;
    this.#fd = fd;
  }

  get isClosed(): boolean {
    return this.#fd < 0;
  }

  /**
   * Returns the descriptor for one call that must follow immediately.
   *
   * @param what Completes "Cannot …" in errors.
   * @throws {UcredError} `ERR_UCRED_NO_FD` if other code has closed it.
   */
  use(what: string): number {
    if (!this.isOurs()) throw stolen(what);
    return this.#fd;
  }

  /** Reports whether the number still refers to the file that we opened. */
  isOurs(): boolean {
    return this.#fd >= 0 &&
      (this.#id === undefined || isFile(this.#system, this.#calls, this.#fd, this.#id));
  }

  /** Closes the descriptor if it still is ours. May be called again. */
  close(): void {
    if (this.isOurs()) this.#calls.close(this.#fd);
    this.#fd = -1;
  }
}

/** Builds the error for a descriptor of ours that other code of the process has closed. */
export function stolen(what: string): UcredError {
  const message = `Cannot ${what}: other code of this process has closed the descriptor`;
  const hint = "On Deno use serve() or withPeers(), since its node:net closes descriptors twice";
  return new UcredError("ERR_UCRED_NO_FD", message, { hint });
}
