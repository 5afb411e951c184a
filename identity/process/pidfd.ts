/** Holds the process of a peer by a pidfd, which detects that the pid was reused. */

import type { LinuxCalls, Memory } from "../../adapters/libc.ts";
import type { System } from "../../adapters/select.ts";
import { type Credentials, NO_ID } from "../../core/credentials.ts";
import { UcredError } from "../../core/errors.ts";
import type { PinKind, ProcessIds } from "../../core/peer.ts";
import { type LinuxAbi, LITTLE_ENDIAN } from "../../ffi/abi.ts";
import { LINUX_ERRNO } from "../../ffi/errno.ts";
import {
  decodePidfdIds,
  decodePidfdPid,
  PIDFD_GET_INFO,
  PIDFD_INFO,
  pidfdRequest,
  PIDFS_MAGIC,
  POLLFD,
  POLLIN,
  POLLNVAL,
  STATFS,
  SYS_PIDFD_OPEN,
} from "../../ffi/pidfd.ts";
import { isEnding, parseIds, parsePidNumbers, parseStatus } from "../../ffi/proc.ts";
import { type FileId, fileIdOf, isFile, stolen } from "../../system/owned_descriptor.ts";
import { pollNow } from "../../system/poll.ts";
import { readLink, readText } from "../../system/proc_files.ts";
import { syscallError, unexpectedAnswer } from "../../system/syscall_error.ts";
import { procVisibility, SHOW_PROCESSES } from "../../system/hidepid.ts";

/** Properties that identify a pidfd, taken when it was opened. */
interface Proof {
  /** Its device and inode. On pidfs (Linux 6.9) every process has a different inode number. */
  readonly file: FileId;
  /** Before Linux 6.9, where all pidfds share one inode: `Pid:` in /proc/self/fdinfo. */
  readonly pid: string | undefined;
}

/**
 * A pidfd that we own, and the checks of its process. Internal: users hold a peer, and the pin is
 * released when that peer is closed or collected.
 *
 * Each answer is used only after a check that the descriptor is still this pidfd. The check follows
 * the call: once the number refers to something else, it never refers to the same process again.
 */
export class Pin {
  readonly kind: PinKind;
  /** The process's pid in our pid namespace; `undefined` if it has none. */
  readonly pid: number | undefined;
  readonly system: System;
  readonly calls: LinuxCalls;
  /** Aborts when the process ends; created on first use. */
  signal: AbortSignal | undefined;
  #fd: number;
  readonly #proof: Proof;
  /** Whether other code of the process has closed the pidfd. */
  #isStolen = false;
  /** Number of peers that share it: all that were identified over one connection. */
  #peers = 0;
  /**
   * Peers garbage-collected while the exit signal was still watched; the watch holds the pidfd for
   * them.
   */
  #forgotten = 0;
  /** Ends the watch for `signal`, while there is one. */
  #endWatch: (() => void) | undefined;

  /**
   * @param fd A pidfd that was just opened. The pin owns it from now on.
   * @throws {UcredError} If it has no property that identifies it later; it is then closed.
   */
  constructor(
    system: System,
    calls: LinuxCalls,
    fd: number,
    kind: PinKind,
    pid: number | undefined,
  ) {
    this.kind = kind;
    this.pid = pid;
    this.system = system;
    this.calls = calls;
    try {
      this.#proof = proofOf(system, calls, fd);
    } catch (error) {
      calls.close(fd); // nothing else has used it yet
      throw error;
    }
    this.#fd = fd;
    const { pins } = memoryOf(system);
    const former = pins.get(fd);
    // The kernel never reuses a number that is open: other code has closed that pidfd.
    if (former !== undefined) former.#lose();
    pins.set(fd, this);
  }

  /** The pidfd, borrowed. @throws {UcredError} After it was released. */
  get fd(): number {
    if (this.#fd < 0) throw this.whyClosed();
    return this.#fd;
  }

  /** Builds the error for a pidfd that is closed. */
  whyClosed(): UcredError {
    return this.#isStolen ? stolen("read the peer's process") : closedPinError();
  }

  /** Whether other code of the process has closed the pidfd. */
  get isStolen(): boolean {
    return this.#isStolen;
  }

  /** Checks that the number still refers to this pidfd. @throws {UcredError} If it does not. */
  prove(): void {
    if (isProven(this.system, this.calls, this.fd, this.#proof)) return;
    this.#lose();
    throw this.whyClosed();
  }

  /** Drops a number that is no longer ours, without closing it. */
  #lose(): void {
    const fd = this.#fd;
    if (fd < 0) return;
    this.#isStolen = true;
    this.#fd = -1;
    const { pins } = memoryOf(this.system);
    if (pins.get(fd) === this) pins.delete(fd);
    const end = this.#endWatch;
    this.#endWatch = undefined;
    end?.();
  }

  get closed(): boolean {
    return this.#fd < 0;
  }

  /** Adds a peer. */
  retain(): this {
    this.#peers++;
    return this;
  }

  /**
   * Removes a peer; the last one closes the pidfd.
   *
   * @param forgotten Whether the peer was garbage-collected instead of closed: its signal still
   * aborts.
   */
  release(forgotten = false): void {
    if (forgotten && this.#endWatch !== undefined) {
      this.#forgotten++; // the watch holds its share from now on
      return;
    }
    this.#peers--;
    if (this.#peers === 0) this.close();
  }

  /** Registers the watch for `signal`. */
  watched(end: () => void): void {
    this.#endWatch = end;
  }

  /** Removes the watch for `signal`. */
  unwatched(): void {
    this.#endWatch = undefined;
    this.#peers -= this.#forgotten;
    this.#forgotten = 0;
    if (this.#peers === 0) this.close();
  }

  /** Closes the pidfd for all peers. May be called again. */
  close(): void {
    if (this.#fd < 0) return;
    const end = this.#endWatch;
    this.#endWatch = undefined;
    end?.();
    const fd = this.#fd;
    if (fd < 0) return; // an abort handler may have closed it
    this.#fd = -1;
    const { pins } = memoryOf(this.system);
    if (pins.get(fd) === this) pins.delete(fd);
    if (mayClose(this.system, this.calls, fd, this.#proof)) this.calls.close(fd);
    else this.#isStolen = true;
  }

  /** Reports whether the process is running; a zombie is not. */
  isAlive(): boolean {
    const isAlive = this.#isRunning();
    this.prove();
    return isAlive;
  }

  /** Implements {@link Pin.isAlive} without the proof. */
  #isRunning(): boolean {
    const revents = pollNow(this.calls, memoryOf(this.system).poll, this.fd, POLLIN);
    if (revents < 0) {
      throw syscallError(this.system, "check whether the peer is alive", "poll", -revents);
    }
    if (revents === 0) return true;
    if ((revents & POLLNVAL) !== 0) {
      this.#lose();
      throw this.whyClosed();
    }
    return false;
  }

  /**
   * Reads the current ids of the process. @throws {UcredError} `ERR_UCRED_PEER_GONE` if it has
   * ended.
   */
  readIds(): { readonly ids: ProcessIds; readonly source: "kernel@now" | "procfs@now" } {
    const what = "read the peer's current ids";
    const { info } = memoryOf(this.system);
    info.words.fill(NO_ID);
    info.words.set(pidfdRequest(), PIDFD_INFO.mask / 4);
    const result = this.calls.ioctl(this.fd, PIDFD_GET_INFO, info);
    if (result === 0) {
      const ids = decodePidfdIds(info.words);
      if (ids !== undefined && isPlausible(ids) && this.isAlive()) {
        // Another thread might have closed the pidfd before its properties were read.
        const pid = decodePidfdPid(info.words);
        if (pid !== undefined && this.pid !== undefined && pid !== this.pid) {
          throw unexpectedAnswer(what, "ioctl", `pid ${pid} where ${this.pid} was expected`);
        }
        return { ids, source: "kernel@now" };
      }
    }
    if (!this.isAlive()) throw gone(what);
    // Linux before 6.13, or a process without a pid in our namespace.
    const ids = parseIds(parseStatus(this.read("status", what)));
    if (ids === undefined) throw unexpectedAnswer(what, "read", "a malformed list of ids");
    return { ids, source: "procfs@now" };
  }

  /**
   * Reads a file of the process's folder in /proc, then checks that it belonged to this process.
   *
   * @param what Completes "Cannot …" in errors.
   */
  read(name: string, what: string): string {
    return this.verified(
      what,
      "read",
      (folder) => readText(this.system, this.calls, folder + name),
    );
  }

  /** Like {@link Pin.read}, for files that read as empty or different once the main thread ends. */
  readRunning(name: string, what: string): string {
    const text = this.read(name, what);
    if (!isEnding(this.read("stat", what))) return text;
    const message = `Cannot ${what}: its main thread has ended`;
    const hint = "Decide by its credentials as of connect, or reject the peer";
    throw new UcredError("ERR_UCRED_PEER_GONE", message, { hint });
  }

  /** Like {@link Pin.read}, for a symbolic link. */
  readLink(name: string, what: string): string {
    return this.verified(
      what,
      "readlink",
      (folder) => readLink(this.system, this.calls, folder + name),
    );
  }

  /**
   * Reads a file in /proc/PID, and then checks that the pinned process is still running: it had its
   * pid during the whole read.
   *
   * @param look Reads in the folder, and returns its answer or −errno.
   */
  verified<T>(what: string, syscall: string, look: (folder: string) => T | number): T {
    if (this.pid === undefined) {
      const message = `Cannot ${what}: the process has no pid in our pid namespace`;
      const hint = "Run the server in the host's pid namespace";
      throw new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint });
    }
    if (!procIsOurs(this.system, this.calls)) {
      const message = `Cannot ${what}: /proc is not mounted, or shows another pid namespace`;
      const hint = "Mount proc in the server's own pid namespace";
      throw new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint });
    }
    if (!this.#isRunning() && !this.isAlive()) throw gone(what);
    const found = look(`/proc/${this.pid}/`);
    if (!this.isAlive()) throw gone(what);
    if (typeof found === "number") throw this.#unreadable(what, syscall, -found);
    return found;
  }

  /** Builds the error for a failed read in /proc/PID, which hidepid= may have caused. */
  #unreadable(what: string, syscall: string, errno: number): UcredError {
    const { system, calls } = this;
    const { ENOENT, EPERM, EACCES } = LINUX_ERRNO;
    const hides = errno === ENOENT // the process runs, so /proc hides the file or the folder
      ? readText(system, calls, `/proc/${this.pid}/stat`) === -errno
      : (errno === EPERM || errno === EACCES) && procVisibility(system)?.isHiddenFromUs === true;
    if (!hides) return syscallError(system, what, syscall, errno);
    const message = `Cannot ${what}: /proc hides the process, by hidepid= or ProtectProc=`;
    return new UcredError("ERR_UCRED_PERMISSION", message, {
      errno,
      syscall,
      hint: SHOW_PROCESSES,
    });
  }

  /** Returns the pidfd's inode number, if the kernel assigns one to each process. */
  inode(): string | undefined {
    this.prove();
    const { file, pid } = this.#proof;
    if (pid !== undefined) return undefined;
    const [low, high] = LITTLE_ENDIAN ? [file[2], file[3]] : [file[3], file[2]];
    return String(BigInt(high) << 32n | BigInt(low));
  }
}

/** Reads the properties that identify a new pidfd. */
function proofOf(system: System, calls: LinuxCalls, fd: number): Proof {
  const file = fileIdOf(system, calls, fd);
  if (typeof file === "number") throw syscallError(system, WHAT, "fstat", -file);
  if (isPidfs(system, calls, fd, file)) return { file, pid: undefined };
  const pid = fdinfoPid(system, calls, fd);
  if (typeof pid === "string") return { file, pid };
  if (pid !== undefined && pid !== -LINUX_ERRNO.ENOENT) {
    throw syscallError(system, WHAT, "open", -pid);
  }
  const message = `Cannot ${WHAT}: /proc/self/fdinfo does not show its pid`;
  const hint = "Mount /proc, or use Linux 6.9 or later, where each pidfd has an inode";
  throw new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint });
}

/** Reports whether a new pidfd has its own inode. All such pidfds are on one device. */
function isPidfs(system: System, calls: LinuxCalls, fd: number, [low, high]: FileId): boolean {
  const memory = memoryOf(system);
  const { statfs, pidfs } = memory;
  if (pidfs !== undefined && pidfs[0] === low && pidfs[1] === high) return true;
  const result = calls.fstatfs(fd, statfs);
  if (result < 0) throw syscallError(system, WHAT, "fstatfs", -result);
  if (statfs.words[STATFS.type / 4] !== PIDFS_MAGIC) return false;
  memory.pidfs = [low, high];
  return true;
}

/** Reports whether a number still refers to the pidfd of the proof. */
function isProven(system: System, calls: LinuxCalls, fd: number, { file, pid }: Proof): boolean {
  if (!isFile(system, calls, fd, file)) return false;
  if (pid === undefined) return true;
  const now = fdinfoPid(system, calls, fd);
  // `Pid:` is −1 for every reaped process. All of them have ended, so they need not be distinguished.
  if (typeof now !== "number") return now === pid || now === "-1";
  if (now === -LINUX_ERRNO.ENOENT) return false;
  throw syscallError(system, "recognise the peer's pidfd", "open", -now);
}

/**
 * Like {@link isProven}, but compares only the inode if no descriptor is free for /proc: closing frees one.
 */
function mayClose(system: System, calls: LinuxCalls, fd: number, proof: Proof): boolean {
  try {
    return isProven(system, calls, fd, proof);
  } catch {
    return isFile(system, calls, fd, proof.file);
  }
}

/**
 * Returns `Pid:` of a descriptor, `undefined` if it is not a pidfd, or −errno: proc_pid_fdinfo(5).
 */
function fdinfoPid(system: System, calls: LinuxCalls, fd: number): string | number | undefined {
  const text = readText(system, calls, `/proc/self/fdinfo/${fd}`);
  return typeof text === "number" ? text : parseStatus(text).get("Pid");
}

/** Reports whether every id is one that a process can have. */
function isPlausible(ids: ProcessIds): boolean {
  return Object.values(ids).every((id) => id !== NO_ID);
}

/**
 * Pins the process that connected.
 *
 * Since Linux 6.5 the kernel keeps a reference to it with the socket and returns a pidfd for it
 * (SO_PEERPIDFD). Before, only a pidfd for the pid is available: the process might have ended since
 * it connected, and another might have its pid. Such a pin is rejected if the process's ids differ
 * from those of the connection. It is marked as the weaker kind.
 *
 * @throws {UcredError} `ERR_UCRED_PEER_GONE` if the process was reaped, `ERR_UCRED_UNSUPPORTED`,
 * `ERR_UCRED_PERMISSION`, or `ERR_UCRED_SYSCALL`, for example without a free descriptor.
 */
export function pinPeer(system: System, fd: number, of: Credentials): Pin {
  const { abi, libc: { linux } } = system;
  if (abi.os !== "linux" || linux === undefined) {
    const message = `Cannot ${WHAT}: ${abi.os} has no pidfds`;
    throw new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint: "Decide by uid and gid" });
  }
  return fromSocket(system, abi, linux, fd, of) ?? fromNumber(system, linux, of);
}

const WHAT = "pin the peer's process";

/** Returns `undefined` if the kernel lacks the option. */
function fromSocket(
  system: System,
  { options }: LinuxAbi,
  calls: LinuxCalls,
  fd: number,
  { pid }: Credentials,
): Pin | undefined {
  const { libc, value, size } = system;
  value.words[0] = NO_ID;
  size.words[0] = 4; // with less, the kernel would open a pidfd and not return its number
  const errno = libc.getsockopt(fd, options.SOL_SOCKET, options.SO_PEERPIDFD, value, size);
  if (errno !== 0) {
    if (errno === LINUX_ERRNO.ENOPROTOOPT) return undefined;
    // Older kernels report a reaped process this way; newer ones return a pidfd for it.
    if (errno === LINUX_ERRNO.EINVAL) throw gone(WHAT);
    throw syscallError(system, WHAT, "getsockopt", errno);
  }
  const pidfd = value.words[0]! | 0;
  if (size.words[0] !== 4 || pidfd < 0) {
    if (pidfd >= 0) calls.close(pidfd);
    throw unexpectedAnswer(WHAT, "getsockopt", "no valid descriptor");
  }
  return new Pin(system, calls, pidfd, "connect", pid);
}

function fromNumber(system: System, calls: LinuxCalls, of: Credentials): Pin {
  if (of.pid === undefined) {
    const message = `Cannot ${WHAT}: it has no pid in our pid namespace`;
    const hint = "Use Linux 6.5 or later, or run the server in the host's pid namespace";
    throw new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint });
  }
  const pin = openPidfd(system, calls, of.pid);
  try {
    const { ids } = pin.readIds();
    if (ids.euid === of.uid && ids.egid === of.gid) return pin;
    const message = `Cannot ${WHAT}: pid ${of.pid} now has other ids than the one that connected`;
    const hint = "Use Linux 6.5 or later, which identifies the process that connected";
    throw new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint });
  } catch (error) {
    pin.close();
    throw error;
  }
}

function openPidfd(system: System, calls: LinuxCalls, pid: number): Pin {
  const pidfd = calls.syscall(SYS_PIDFD_OPEN, pid, 0, 0);
  if (pidfd >= 0) return new Pin(system, calls, pidfd, "accept", pid);
  // The pid now belongs to a thread that is not a process: EINVAL, or ENOENT since Linux 6.16.
  if (pidfd === -LINUX_ERRNO.EINVAL || pidfd === -LINUX_ERRNO.ENOENT) throw gone(WHAT);
  throw syscallError(system, WHAT, "pidfd_open", -pidfd);
}

/**
 * Pins the process that has this pid now.
 *
 * @throws {UcredError} `ERR_UCRED_PEER_GONE` if there is none.
 */
export function pinPid(system: System, pid: number): Pin {
  const { linux } = system.libc;
  if (linux !== undefined) return openPidfd(system, linux, pid);
  const message = `Cannot ${WHAT}: ${system.abi.os} has no pidfds`;
  throw new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint: "Decide by uid and gid" });
}

/**
 * Pins the process of a pidfd that another process has passed. Its pid is read from the pidfd, since the
 * sender may be in another pid namespace.
 *
 * @param fd A descriptor, which the pin owns from now on. Another descriptor than a pidfd is closed.
 * @throws {UcredError} If it is no pidfd.
 */
export function pinPidfd(system: System, calls: LinuxCalls, fd: number): Pin {
  const pid = fdinfoPid(system, calls, fd);
  if (typeof pid === "string") {
    return new Pin(system, calls, fd, "connect", /^[1-9]/.test(pid) ? Number(pid) : undefined);
  }
  calls.close(fd);
  const message = `Cannot ${WHAT}: the descriptor is no pidfd, or /proc is not mounted`;
  throw new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint: "Decide by uid and groups" });
}

/** Builds the error for a pin that was released. */
export function closedPinError(): UcredError {
  const message = "Cannot read the peer's process: the peer was closed";
  const hint = "Read facts of the process before close(), and before the connection closes";
  return new UcredError("ERR_UCRED_NO_FD", message, { hint });
}

/** Builds the error for a process that has ended. */
export function gone(what: string): UcredError {
  return new UcredError("ERR_UCRED_PEER_GONE", `Cannot ${what}: the process has ended`, {
    hint: "Decide by its credentials as of connect, or reject the peer",
  });
}

/** Reports whether /proc shows our own pid namespace. The result `true` is cached. */
function procIsOurs(system: System, calls: LinuxCalls): boolean {
  const memory = memoryOf(system);
  if (memory.procIsOurs) return true;
  const text = readText(system, calls, "/proc/self/status");
  // A single pid means that this /proc shows the innermost pid namespace that we are in.
  const numbers = typeof text === "string" ? parsePidNumbers(parseStatus(text)) : undefined;
  return memory.procIsOurs = numbers?.length === 1;
}

interface PinMemory {
  readonly poll: Memory;
  readonly info: Memory;
  readonly statfs: Memory;
  procIsOurs: boolean;
  /** The device of pidfs, once a pidfd was found on it. */
  pidfs: readonly [number, number] | undefined;
  /** Every open pin, by its descriptor. */
  readonly pins: Map<number, Pin>;
}

const memories = new WeakMap<System, PinMemory>();

function memoryOf(system: System): PinMemory {
  let found = memories.get(system);
  if (found === undefined) {
    const { libc } = system;
    const [poll, info, statfs] = [POLLFD, PIDFD_INFO, STATFS].map(({ size }) => libc.memory(size));
    found = {
      poll: poll!,
      info: info!,
      statfs: statfs!,
      procIsOurs: false,
      pidfs: undefined,
      pins: new Map(),
    };
    memories.set(system, found);
  }
  return found;
}
