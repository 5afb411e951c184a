/** Descriptor → pidfd of the process that connected: what keeps its pid from meaning another one. */

import type { LinuxCalls, Memory } from "../../adapters/libc.ts";
import type { System } from "../../adapters/select.ts";
import { type Credentials, NO_ID } from "../../core/credentials.ts";
import { UcredError } from "../../core/errors.ts";
import type { PinKind, ProcessIds } from "../../core/peer.ts";
import type { LinuxAbi } from "../../ffi/abi.ts";
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
import { LITTLE_ENDIAN } from "../../ffi/abi.ts";
import { type FileId, fileIdOf, isFile, stolen } from "../../system/owned_descriptor.ts";
import { readLink, readText } from "../../system/proc_files.ts";
import { syscallError, unexpectedAnswer } from "../../system/syscall_error.ts";
import { hidingProc, SHOW_PROCESSES } from "../../system/hidepid.ts";

/** What a pidfd showed when it was opened, by which it is recognised later. */
interface Proof {
  /** Its device and inode. On pidfs (Linux 6.9) every process has an inode number of its own. */
  readonly file: FileId;
  /** Before Linux 6.9, where all pidfds share one inode: `Pid:` in /proc/self/fdinfo. */
  readonly pid: string | undefined;
}

/**
 * A pidfd that we own, and the checks that it allows. Not shown to users: they hold a peer, and the
 * pin is given back when that is closed or collected.
 *
 * Each answer is used only after the descriptor was found to be this pidfd still. The check follows the
 * call that it guards: a number that was lost never means the same process again.
 */
export class Pin {
  readonly kind: PinKind;
  /** Our pid namespace's number for the process; `undefined` where there is none. */
  readonly pid: number | undefined;
  readonly system: System;
  readonly calls: LinuxCalls;
  /** Aborts when the process ends, once somebody has asked for it. */
  signal: AbortSignal | undefined;
  #fd: number;
  readonly #proof: Proof;
  /** Other code of the process has closed the pidfd. */
  #isStolen = false;
  /** How many peers have it: all that were identified over one connection share one. */
  #peers = 0;
  /** How many of these were collected while somebody may wait for the signal. */
  #forgotten = 0;
  /** Ends the watch for `signal`, while there is one. */
  #endWatch: (() => void) | undefined;

  /**
   * @param fd A pidfd that was opened just now. The pin owns it from now on.
   * @throws {UcredError} If it shows nothing by which it can be recognised later; it is closed then.
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
    this.#proof = proofOf(system, calls, fd);
    this.#fd = fd;
    const { pins } = memoryOf(system);
    const former = pins.get(fd);
    // The kernel gives no open number again: other code has closed that pidfd.
    if (former !== undefined) former.#lose();
    pins.set(fd, this);
  }

  /** The pidfd, borrowed. @throws {UcredError} Once it was given back. */
  get fd(): number {
    if (this.#fd < 0) throw this.whyClosed();
    return this.#fd;
  }

  /** Why there is no pidfd any more. */
  whyClosed(): UcredError {
    return this.#isStolen ? stolen("look at the peer's process") : closedPinError();
  }

  /** Whether other code of the process has closed the pidfd. */
  get isStolen(): boolean {
    return this.#isStolen;
  }

  /** Finds out whether the number still means this pidfd. @throws {UcredError} If it does not. */
  prove(): void {
    if (isProven(this.system, this.calls, this.fd, this.#proof)) return;
    this.#lose();
    throw this.whyClosed();
  }

  /** The number is not ours any more, and must not be closed. */
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
    const fd = this.#fd;
    if (fd < 0) return; // whom the end woke may have closed it
    this.#fd = -1;
    const { pins } = memoryOf(this.system);
    if (pins.get(fd) === this) pins.delete(fd);
    if (mayClose(this.system, this.calls, fd, this.#proof)) this.calls.close(fd);
    else this.#isStolen = true;
  }

  /** Whether the process runs: a zombie does not. */
  isAlive(): boolean {
    const isAlive = this.#isRunning();
    this.prove();
    return isAlive;
  }

  /** {@link Pin.isAlive}, without the proof. */
  #isRunning(): boolean {
    const { poll } = memoryOf(this.system);
    poll.words[POLLFD.fd / 4] = this.fd;
    const view = new Int16Array(poll.bytes.buffer);
    view[POLLFD.events / 2] = POLLIN;
    view[POLLFD.revents / 2] = -1;
    const ready = this.calls.poll(poll);
    if (ready < 0) throw syscallError(this.system, "tell whether the peer lives", "poll", -ready);
    if (ready === 0) return true;
    if ((view[POLLFD.revents / 2]! & POLLNVAL) !== 0) {
      this.#lose();
      throw this.whyClosed();
    }
    return false;
  }

  /** The ids that the process has now. @throws {UcredError} `ERR_UCRED_PEER_GONE` if it has ended. */
  readIds(): { readonly ids: ProcessIds; readonly source: "kernel@now" | "procfs@now" } {
    const what = "read the peer's ids of now";
    const { info } = memoryOf(this.system);
    info.words.fill(NO_ID);
    info.words.set(pidfdRequest(), PIDFD_INFO.mask / 4);
    const result = this.calls.ioctl(this.fd, PIDFD_GET_INFO, info);
    if (result === 0) {
      const ids = decodePidfdIds(info.words);
      if (ids !== undefined && isPlausible(ids) && this.isAlive()) {
        // Another thread might have closed the pidfd before it was first looked at.
        const pid = decodePidfdPid(info.words);
        if (pid !== undefined && this.pid !== undefined && pid !== this.pid) {
          throw unexpectedAnswer(what, "ioctl", `for pid ${pid} where ${this.pid} was expected`);
        }
        return { ids, source: "kernel@now" };
      }
    }
    if (!this.isAlive()) throw gone(what);
    // Linux before 6.13, or a process for which our pid namespace has no number.
    const ids = parseIds(parseStatus(this.read("status", what)));
    if (ids === undefined) throw unexpectedAnswer(what, "read", "what is no list of ids");
    return { ids, source: "procfs@now" };
  }

  /**
   * Reads a file of the process's folder in /proc, and then makes sure that it was this process's.
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
      (folder) => readLink(this.system, this.calls, folder + name),
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

  /** Why nothing can be read in the process's folder: perhaps since /proc hides the folder from us. */
  #unreadable(what: string, syscall: string, errno: number): UcredError {
    const { system, calls } = this;
    const name = system.abi.errnoNames[errno];
    const hides = name === "ENOENT" // of a process that runs, so that the file or the folder is not shown
      ? readText(system, calls, `/proc/${this.pid}/stat`) === -errno
      : (name === "EPERM" || name === "EACCES") && hidingProc(system) !== undefined;
    if (!hides) return syscallError(system, what, syscall, errno);
    const message = `Cannot ${what}: /proc hides the process, by hidepid= or ProtectProc=`;
    return new UcredError("ERR_UCRED_PERMISSION", message, {
      errno,
      syscall,
      hint: SHOW_PROCESSES,
    });
  }

  /** The pidfd's inode number, where the kernel gives each process its own. */
  inode(): string | undefined {
    this.prove();
    const { file, pid } = this.#proof;
    if (pid !== undefined) return undefined;
    const [low, high] = LITTLE_ENDIAN ? [file[2], file[3]] : [file[3], file[2]];
    return String(BigInt(high) << 32n | BigInt(low));
  }
}

/** Finds what a new pidfd can be recognised by. */
function proofOf(system: System, calls: LinuxCalls, fd: number): Proof {
  const file = fileIdOf(system, calls, fd);
  if (typeof file === "number") throw syscallError(system, WHAT, "fstat", -file);
  if (isPidfs(system, calls, fd, file)) return { file, pid: undefined };
  const pid = fdinfoPid(system, calls, fd);
  if (typeof pid === "string") return { file, pid };
  calls.close(fd); // it was opened just now
  if (pid !== undefined && pid !== -ENOENT) throw syscallError(system, WHAT, "open", -pid);
  const message = `Cannot ${WHAT}: /proc/self/fdinfo does not show whose pidfd it is`;
  const hint = "Mount /proc, or use Linux 6.9 or later, whose pidfds have an inode each";
  throw new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint });
}

/** Whether a new pidfd has an inode of its own. All that have are on the same device. */
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

/** Whether a number still means the pidfd that the proof is of. */
function isProven(system: System, calls: LinuxCalls, fd: number, { file, pid }: Proof): boolean {
  if (!isFile(system, calls, fd, file)) return false;
  if (pid === undefined) return true;
  const now = fdinfoPid(system, calls, fd);
  // −1 once the process was reaped: then it is said to have ended, whichever process it was.
  if (typeof now !== "number") return now === pid || now === "-1";
  if (now === -ENOENT) return false;
  throw syscallError(system, "recognise the peer's pidfd", "open", -now);
}

/** {@link isProven}, also with no descriptor left to look at /proc, which closing is to help. */
function mayClose(system: System, calls: LinuxCalls, fd: number, proof: Proof): boolean {
  try {
    return isProven(system, calls, fd, proof);
  } catch {
    return isFile(system, calls, fd, proof.file);
  }
}

/** `Pid:` of a descriptor, `undefined` if it is no pidfd, or −errno. proc_pid_fdinfo(5) */
function fdinfoPid(system: System, calls: LinuxCalls, fd: number): string | number | undefined {
  const text = readText(system, calls, `/proc/self/fdinfo/${fd}`);
  return typeof text === "number" ? text : parseStatus(text).get("Pid");
}

/** ENOENT, <asm-generic/errno-base.h> */
const ENOENT = 2;

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
export function pinPeer(system: System, fd: number, of: Credentials): Pin {
  const { abi, libc: { linux } } = system;
  if (abi.os !== "linux" || linux === undefined) {
    const message = `Cannot ${WHAT}: ${abi.os} has no pidfds`;
    throw new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint: "Decide by uid and gid" });
  }
  return fromSocket(system, abi, linux, fd, of) ?? fromNumber(system, linux, of);
}

const WHAT = "pin the peer's process";

/** EINVAL: what SO_PEERPIDFD gave for a reaped process before it gave a pidfd; <errno.h> */
const EINVAL = 22;

/** `undefined` where the kernel does not have the option. */
function fromSocket(
  system: System,
  { options, errnoNames }: LinuxAbi,
  calls: LinuxCalls,
  fd: number,
  { pid }: Credentials,
): Pin | undefined {
  const { libc, value, size } = system;
  value.words[0] = NO_ID;
  size.words[0] = 4; // with less, the kernel would open a pidfd and tell nobody its number
  const errno = libc.getsockopt(fd, options.SOL_SOCKET, options.SO_PEERPIDFD, value, size);
  if (errno !== 0) {
    if (errnoNames[errno] === "ENOPROTOOPT") return undefined;
    if (errno === EINVAL) throw gone(WHAT);
    throw syscallError(system, WHAT, "getsockopt", errno);
  }
  const pidfd = value.words[0]! | 0;
  if (size.words[0] !== 4 || pidfd < 0) {
    if (pidfd >= 0) calls.close(pidfd);
    throw unexpectedAnswer(WHAT, "getsockopt", "what is no descriptor");
  }
  return new Pin(system, calls, pidfd, "connect", pid);
}

function fromNumber(system: System, calls: LinuxCalls, of: Credentials): Pin {
  if (of.pid === undefined) {
    const message = `Cannot ${WHAT}: our pid namespace has no number for it`;
    const hint = "Use Linux 6.5 or later, or run the server in the host's pid namespace";
    throw new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint });
  }
  const pin = openPidfd(system, calls, of.pid);
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

function openPidfd(system: System, calls: LinuxCalls, pid: number): Pin {
  const pidfd = calls.syscall(SYS_PIDFD_OPEN, pid, 0);
  if (pidfd >= 0) return new Pin(system, calls, pidfd, "accept", pid);
  const name = system.abi.errnoNames[-pidfd];
  // The number is by now only a thread's: EINVAL, or ENOENT since Linux 6.16.
  if (name === "EINVAL" || name === "ENOENT") throw gone(WHAT);
  throw syscallError(system, WHAT, "pidfd_open", -pidfd);
}

/**
 * Pins whichever process has this number now.
 *
 * @throws {UcredError} `ERR_UCRED_PEER_GONE` if there is none.
 */
export function pinPid(system: System, pid: number): Pin {
  const { linux } = system.libc;
  if (linux !== undefined) return openPidfd(system, linux, pid);
  const message = `Cannot ${WHAT}: ${system.abi.os} has no pidfds`;
  throw new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint: "Decide by uid and gid" });
}

/** The error for a pin that was given back. */
export function closedPinError(): UcredError {
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
function procIsOurs(system: System, calls: LinuxCalls): boolean {
  const memory = memoryOf(system);
  if (memory.procIsOurs) return true;
  const text = readText(system, calls, "/proc/self/status");
  // One number: the namespace that this /proc shows is the innermost one that we are in.
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
  /** Every pin that is open, by its descriptor. */
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
