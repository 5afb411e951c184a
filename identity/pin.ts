/** Descriptor → pidfd of the process that connected: what keeps its pid from meaning another one. */

import type { LinuxCalls, Memory } from "../adapters/libc.ts";
import type { System } from "../adapters/select.ts";
import { type Credentials, NO_ID } from "../core/credentials.ts";
import { UcredError } from "../core/errors.ts";
import type { PinKind, ProcessIds } from "../core/peer.ts";
import type { LinuxAbi } from "../ffi/abi.ts";
import {
  decodePidfdIds,
  PIDFD_GET_INFO,
  PIDFD_INFO,
  pidfdRequest,
  PIDFS_MAGIC,
  POLLFD,
  POLLIN,
  POLLNVAL,
  STATFS,
  SYS_PIDFD_OPEN,
} from "../ffi/pidfd.ts";
import { isEnding, parseIds, parseInode, parsePidNumbers, parseStatus } from "../ffi/proc.ts";
import { readLink, readText } from "./files.ts";
import { failure, senseless } from "./failure.ts";

/**
 * A pidfd that we own, and the checks that it allows. Not shown to users: they hold a peer, and the
 * pin is given back when that is closed or collected.
 */
export class Pin {
  readonly kind: PinKind;
  /** Our pid namespace's number for the process; `undefined` where there is none. */
  readonly pid: number | undefined;
  readonly on: System;
  readonly calls: LinuxCalls;
  /** Aborts when the process ends, once somebody has asked for it. */
  signal: AbortSignal | undefined;
  #fd: number;
  /** How many peers have it: all that were identified over one connection share one. */
  #peers = 0;
  /** How many of these were collected while somebody may wait for the signal. */
  #forgotten = 0;
  /** Ends the watch for `signal`, while there is one. */
  #endWatch: (() => void) | undefined;

  constructor(on: System, calls: LinuxCalls, fd: number, kind: PinKind, pid: number | undefined) {
    this.kind = kind;
    this.pid = pid;
    this.on = on;
    this.calls = calls;
    this.#fd = fd;
  }

  /** The pidfd, borrowed. @throws {UcredError} Once it was given back. */
  get fd(): number {
    if (this.#fd < 0) throw closed();
    return this.#fd;
  }

  get closed(): boolean {
    return this.#fd < 0;
  }

  /** One more peer has it. */
  retain(): this {
    this.#peers++;
    return this;
  }

  /**
   * One peer less has it.
   *
   * @param forgotten The peer was not closed, but collected: who waits for the signal still does.
   */
  release(forgotten = false): void {
    if (forgotten && this.#endWatch !== undefined) {
      this.#forgotten++; // the watch has its share from now on
      return;
    }
    this.#peers--;
    if (this.#peers === 0) this.close();
  }

  /** The signal is watched for. */
  watched(end: () => void): void {
    this.#endWatch = end;
  }

  /** The signal is not watched for any more. */
  unwatched(): void {
    this.#endWatch = undefined;
    this.#peers -= this.#forgotten;
    this.#forgotten = 0;
    if (this.#peers === 0) this.close();
  }

  /** Gives the pidfd back, whoever has it. May be called again. */
  close(): void {
    if (this.#fd < 0) return;
    const end = this.#endWatch;
    this.#endWatch = undefined;
    end?.();
    if (this.#fd >= 0) this.calls.close(this.#fd); // whom the end woke may have closed it
    this.#fd = -1;
  }

  /** Whether the process runs: a zombie does not. */
  isAlive(): boolean {
    const { poll } = memoryOf(this.on);
    poll.words[POLLFD.fd / 4] = this.fd;
    const view = new Int16Array(poll.bytes.buffer);
    view[POLLFD.events / 2] = POLLIN;
    view[POLLFD.revents / 2] = -1;
    const ready = this.calls.poll(poll);
    if (ready < 0) throw failure(this.on, "tell whether the peer lives", "poll", -ready);
    if (ready === 0) return true;
    if ((view[POLLFD.revents / 2]! & POLLNVAL) !== 0) {
      throw senseless("tell whether the peer lives", "poll", "that its pidfd is not open");
    }
    return false;
  }

  /** The ids that the process has now. @throws {UcredError} `ERR_UCRED_PEER_GONE` if it has ended. */
  readIds(): { readonly ids: ProcessIds; readonly source: "kernel@now" | "procfs@now" } {
    const what = "read the peer's ids of now";
    const { info } = memoryOf(this.on);
    info.words.fill(NO_ID);
    info.words.set(pidfdRequest(), PIDFD_INFO.mask / 4);
    const result = this.calls.ioctl(this.fd, PIDFD_GET_INFO, info);
    if (result === 0) {
      const ids = decodePidfdIds(info.words);
      if (ids !== undefined && isPlausible(ids) && this.isAlive()) {
        return { ids, source: "kernel@now" };
      }
    }
    if (!this.isAlive()) throw gone(what);
    // Linux before 6.13, or a process for which our pid namespace has no number.
    const ids = parseIds(parseStatus(this.read("status", what)));
    if (ids === undefined) throw senseless(what, "read", "what is no list of ids");
    return { ids, source: "procfs@now" };
  }

  /**
   * Reads a file of the process's folder in /proc, and then makes sure that it was this process's.
   *
   * @param what Completes "Cannot …" in errors.
   */
  read(name: string, what: string): string {
    return this.verified(what, "read", (folder) => readText(this.on, this.calls, folder + name));
  }

  /** {@link Pin.read} for files that read as empty, or as another, once the main thread ends. */
  readRunning(name: string, what: string): string {
    const text = this.read(name, what);
    if (!isEnding(this.read("stat", what))) return text;
    const message = `Cannot ${what}: its main thread has ended`;
    const hint = "Decide by its credentials as of connect, which stay true, or refuse it";
    throw new UcredError("ERR_UCRED_PEER_GONE", message, { hint });
  }

  /** Reads a symbolic link in the process's folder, likewise. */
  readLink(name: string, what: string): string {
    return this.verified(
      what,
      "readlink",
      (folder) => readLink(this.on, this.calls, folder + name),
    );
  }

  /**
   * Looks at /proc/PID, then checks that the pid was the pinned process's all the while: a process
   * that still runs has had its number since before we looked.
   *
   * @param look Gives its answer, or −errno.
   */
  verified<T>(what: string, syscall: string, look: (folder: string) => T | number): T {
    if (this.pid === undefined) {
      const message = `Cannot ${what}: our pid namespace has no number for the process`;
      const hint = "Run the server in the host's pid namespace";
      throw new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint });
    }
    if (!procIsOurs(this.on, this.calls)) {
      const message = `Cannot ${what}: /proc is not mounted, or shows another pid namespace`;
      const hint = "Mount proc in the server's own pid namespace";
      throw new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint });
    }
    if (!this.isAlive()) throw gone(what);
    const found = look(`/proc/${this.pid}/`);
    if (!this.isAlive()) throw gone(what);
    if (typeof found === "number") throw failure(this.on, what, syscall, -found);
    return found;
  }

  /** The pidfd's inode number, where the kernel gives each process its own. */
  inode(): string | undefined {
    const what = "tell the peer's process from all others";
    const { statfs } = memoryOf(this.on);
    const result = this.calls.fstatfs(this.fd, statfs);
    if (result < 0) throw failure(this.on, what, "fstatfs", -result);
    if (statfs.words[STATFS.type / 4] !== PIDFS_MAGIC) return undefined;
    const text = readText(this.on, this.calls, `/proc/self/fdinfo/${this.fd}`);
    if (typeof text === "number") throw failure(this.on, what, "read", -text);
    const inode = parseInode(text);
    // No other kind of key instead: one process would have two.
    if (inode === undefined) throw senseless(what, "read", "no inode number");
    return inode;
  }
}

/** Every id has a value that a process can have. */
function isPlausible(ids: ProcessIds): boolean {
  return Object.values(ids).every((id) => id !== NO_ID);
}

/**
 * Pins the process that connected.
 *
 * The kernel keeps a reference to it with the socket and gives a pidfd for that (SO_PEERPIDFD, Linux
 * 6.5). Before, all that can be had is a pidfd for the number: the process might have ended since
 * it connected, and another might have its number. That is refused where its ids are not those of
 * the connection, and is marked as the weaker kind in any case.
 *
 * @throws {UcredError} `ERR_UCRED_PEER_GONE` if the process was reaped, `ERR_UCRED_UNSUPPORTED`,
 * `ERR_UCRED_PERMISSION`, or `ERR_UCRED_SYSCALL`, for one where descriptors have run out.
 */
export function pinPeer(on: System, fd: number, of: Credentials): Pin {
  const { abi, libc: { linux } } = on;
  if (abi.os !== "linux" || linux === undefined) {
    const message = `Cannot ${WHAT}: ${abi.os} has no pidfds`;
    throw new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint: "Decide by uid and gid" });
  }
  return fromSocket(on, abi, linux, fd, of) ?? fromNumber(on, linux, of);
}

const WHAT = "pin the peer's process";

/** EINVAL: what SO_PEERPIDFD gave for a reaped process before it gave a pidfd; <errno.h> */
const EINVAL = 22;

/** `undefined` where the kernel does not have the option. */
function fromSocket(
  on: System,
  { options, errnoNames }: LinuxAbi,
  calls: LinuxCalls,
  fd: number,
  { pid }: Credentials,
): Pin | undefined {
  const { libc, value, size } = on;
  value.words[0] = NO_ID;
  size.words[0] = 4; // with less, the kernel would open a pidfd and tell nobody its number
  const errno = libc.getsockopt(fd, options.SOL_SOCKET, options.SO_PEERPIDFD, value, size);
  if (errno !== 0) {
    if (errnoNames[errno] === "ENOPROTOOPT") return undefined;
    if (errno === EINVAL) throw gone(WHAT);
    throw failure(on, WHAT, "getsockopt", errno);
  }
  const pidfd = value.words[0]! | 0;
  if (size.words[0] !== 4 || pidfd < 0) {
    if (pidfd >= 0) calls.close(pidfd);
    throw senseless(WHAT, "getsockopt", "what is no descriptor");
  }
  return new Pin(on, calls, pidfd, "connect", pid);
}

function fromNumber(on: System, calls: LinuxCalls, of: Credentials): Pin {
  if (of.pid === undefined) {
    const message = `Cannot ${WHAT}: our pid namespace has no number for it`;
    const hint = "Use Linux 6.5 or later, or run the server in the host's pid namespace";
    throw new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint });
  }
  const pin = open(on, calls, of.pid);
  try {
    const { ids } = pin.readIds();
    if (ids.euid === of.uid && ids.egid === of.gid) return pin;
    const message = `Cannot ${WHAT}: pid ${of.pid} now has other ids than the one that connected`;
    const hint = "Use Linux 6.5 or later, which can tell whether it is the same process";
    throw new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint });
  } catch (error) {
    pin.close();
    throw error;
  }
}

function open(on: System, calls: LinuxCalls, pid: number): Pin {
  const pidfd = calls.syscall(SYS_PIDFD_OPEN, pid, 0);
  if (pidfd >= 0) return new Pin(on, calls, pidfd, "accept", pid);
  const name = on.abi.errnoNames[-pidfd];
  // The number is by now only a thread's: EINVAL, or ENOENT since Linux 6.16.
  if (name === "EINVAL" || name === "ENOENT") throw gone(WHAT);
  throw failure(on, WHAT, "pidfd_open", -pidfd);
}

/**
 * Pins whichever process has this number now.
 *
 * @throws {UcredError} `ERR_UCRED_PEER_GONE` if there is none.
 */
export function pinPid(on: System, pid: number): Pin {
  const { linux } = on.libc;
  if (linux !== undefined) return open(on, linux, pid);
  const message = `Cannot ${WHAT}: ${on.abi.os} has no pidfds`;
  throw new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint: "Decide by uid and gid" });
}

/** The error for a pin that was given back. */
export function closed(): UcredError {
  const message = "Cannot look at the peer's process: the peer was closed";
  const hint = "Read facts of the process before close(), and before the connection closes";
  return new UcredError("ERR_UCRED_NO_FD", message, { hint });
}

/** The error for a process that has ended. */
export function gone(what: string): UcredError {
  return new UcredError("ERR_UCRED_PEER_GONE", `Cannot ${what}: the process has ended`, {
    hint: "Decide by its credentials as of connect, which stay true, or refuse it",
  });
}

/** Whether /proc numbers processes as our own pid namespace does; once true it stays so. */
function procIsOurs(on: System, calls: LinuxCalls): boolean {
  const memory = memoryOf(on);
  if (memory.procIsOurs) return true;
  const text = readText(on, calls, "/proc/self/status");
  // One number: the namespace that this /proc shows is the innermost one that we are in.
  const numbers = typeof text === "string" ? parsePidNumbers(parseStatus(text)) : undefined;
  return memory.procIsOurs = numbers?.length === 1;
}

interface PinMemory {
  readonly poll: Memory;
  readonly info: Memory;
  readonly statfs: Memory;
  procIsOurs: boolean;
}

const memories = new WeakMap<System, PinMemory>();

function memoryOf(on: System): PinMemory {
  let found = memories.get(on);
  if (found === undefined) {
    const { libc } = on;
    const [poll, info, statfs] = [POLLFD, PIDFD_INFO, STATFS].map(({ size }) => libc.memory(size));
    memories.set(on, found = { poll: poll!, info: info!, statfs: statfs!, procIsOurs: false });
  }
  return found;
}
