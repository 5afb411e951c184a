/**
 * Connections whose descriptor the runtime hides → the descriptor, found among all of the process by
 * what the kernel tells of each: Deno.listen, and the http server of Bun.
 */

import { host } from "../adapters/host.ts";
import type { LinuxCalls } from "../adapters/libc.ts";
import { openedSystem, type System } from "../adapters/select.ts";
import { NO_ID } from "../core/credentials.ts";
import { UcredError } from "../core/errors.ts";
import type { LinuxAbi } from "../ffi/abi.ts";
import { FCNTL, SHUT_RDWR } from "../ffi/linux.ts";
import { encodeAddress, SOCKADDR_UN } from "../ffi/message.ts";
import { parseStatus } from "../ffi/proc.ts";
import { syscallError } from "./syscall_error.ts";
import { readText } from "./proc_files.ts";

/** A connection that was found: while the cookie under the number is the same, it is this one. */
export class FoundSocket {
  readonly fd: number;
  readonly #cookie: number;
  readonly #acceptor: DescriptorFinder;
  #isClosed = false;
  #onClose: (() => void)[] | undefined;

  constructor(acceptor: DescriptorFinder, fd: number, cookie: number) {
    this.#acceptor = acceptor;
    this.fd = fd;
    this.#cookie = cookie;
  }

  /** Whether the connection is open, and still under this number. */
  isOpen(): boolean {
    return !this.#isClosed && this.#acceptor.cookieOf(this.fd) === this.#cookie;
  }

  /** Ends the connection, whoever owns it: to both sides it is as if the other had closed it. */
  cut(): void {
    if (this.isOpen()) this.#acceptor.shutdown(this.fd);
  }

  /** Runs when the connection is closed, as `net.Socket` has it. */
  once(_event: "close", run: () => void): void {
    (this.#onClose ??= []).push(run);
  }

  /** Whoever owns the connection says that it is closed. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#acceptor.freed(this.fd);
    const all = this.#onClose;
    this.#onClose = undefined;
    if (all !== undefined) { for (const run of all) run(); }
  }
}

// Not a WeakMap: a property costs a tenth of one, and this is written for each connection.
const CLAIM = Symbol("ucred.claim");

/** What was found for a connection. */
export function foundSocketOf(connection: object): FoundSocket | undefined {
  return (connection as { [CLAIM]?: FoundSocket })[CLAIM];
}

/**
 * The cookies of all connections and listeners that were seen, for all Acceptors of a thread. By cookie and
 * not by number: a connection whose descriptor the program duplicates has several numbers, and would be
 * found again under the next one. Those of sockets that are closed everywhere are dropped from time to time.
 */
const seen = new Set<number>();

/** As many cookies are kept before it is first looked which of them are still in use. */
const LEAST_SEEN = 1024;

/** Look again when there are more. */
let mostSeen = LEAST_SEEN;

/** Every Acceptor, for its address. */
const acceptors = new Set<WeakRef<DescriptorFinder>>();

/** Closed since a connection was accepted: as many numbers that are free are passed by, looking upwards. */
const MAX_FREE_NUMBERS = 8192;

/** The sockets of this process that are bound to one address, under whatever number. */
class BoundSockets {
  readonly #system: System;
  readonly #abi: LinuxAbi;
  readonly #calls: LinuxCalls;
  readonly #address: Uint8Array;

  /** @throws {UcredError} `ERR_UCRED_UNSUPPORTED` on other systems than Linux. */
  constructor(path: string, system: System) {
    const { abi, libc: { linux } } = system;
    if (abi.os !== "linux" || linux === undefined) {
      const message = `Cannot find accepted connections: ${abi.os} has no SO_COOKIE`;
      const hint = "Use ucred/net or ucred/http, whose sockets show their descriptor";
      throw new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint });
    }
    const address = encodeAddress(path);
    if (address === undefined) throw new RangeError(`Too long for a socket's path: ${path}`);
    this.#system = system;
    this.#abi = abi;
    this.#calls = linux;
    this.#address = address;
  }

  /** The number of each, upwards and then downwards from where the next descriptor will be. */
  *all(): Generator<number> {
    const end = this.lowestFree();
    const size = this.tableSize();
    // Without /proc, numbers above so many free ones are not looked at.
    for (let fd = end, holes = 0; size === undefined ? holes < MAX_FREE_NUMBERS : fd < size; fd++) {
      const has = this.has(fd);
      if (has) yield fd;
      else if (has === undefined) holes++;
    }
    for (let fd = end - 1; fd >= 0; fd--) if (this.has(fd)) yield fd;
  }

  /** Whether one is under this number; `undefined` if there is no socket at all. */
  has(fd: number): boolean | undefined {
    const { libc, value, size } = this.#system;
    const { length } = this.#address;
    size.words[0] = SOCKADDR_UN.size;
    if (libc.getsockname(fd, value, size) !== 0) return undefined;
    if (size.words[0] !== length) return false;
    const { bytes } = value;
    for (let at = 0; at < length; at++) if (bytes[at] !== this.#address[at]) return false;
    return true;
  }

  listens(fd: number): boolean {
    const { libc, value, size } = this.#system;
    const { SOL_SOCKET, SO_ACCEPTCONN } = this.#abi.options;
    value.words[0] = NO_ID;
    size.words[0] = 4;
    return libc.getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, value, size) !== 0 ||
      value.words[0] !== 0;
  }

  /** What the kernel calls the socket under this number; `undefined` where there is none. */
  cookieOf(fd: number): number | undefined {
    return readCookie(this.#system, this.#abi, fd);
  }

  /** Ends what is under this number. It has ended already if that fails. */
  shutdown(fd: number): void {
    this.#calls.shutdown(fd, SHUT_RDWR);
  }

  /** All numbers of descriptors are below; `undefined` where /proc does not tell. proc_pid_status(5) */
  tableSize(): number | undefined {
    const status = readText(this.#system, this.#calls, "/proc/self/status");
    const size = typeof status === "number" ? undefined : parseStatus(status).get("FDSize");
    return size !== undefined && /^[1-9]\d{0,9}$/.test(size) ? Number(size) : undefined;
  }

  /** The number that the next descriptor gets. */
  lowestFree(): number {
    const fd = this.#calls.fcntl(0, FCNTL.DUPFD_CLOEXEC, 0);
    if (fd < 0) throw syscallError(this.#system, "find accepted connections", "fcntl", -fd);
    this.#calls.close(fd);
    return fd;
  }
}

/** What the kernel calls the socket under a number, and no other one; `undefined` where there is none. */
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

/** Numbers of connections that were closed, where the next ones are likely; hints, no more. */
class FreeDescriptorHints {
  #isFreed = new Uint8Array(1024);
  /** None is below. */
  #least = Infinity;

  add(fd: number): void {
    if (fd >= this.#isFreed.length) {
      const longer = new Uint8Array(2 ** Math.ceil(Math.log2(fd + 1)));
      longer.set(this.#isFreed);
      this.#isFreed = longer;
    }
    this.#isFreed[fd] = 1;
    this.#least = Math.min(this.#least, fd);
  }

  /** The lowest, which the kernel gives first, and which then is none any more. */
  take(): number | undefined {
    for (let fd = this.#least; fd < this.#isFreed.length; fd++) {
      if (this.#isFreed[fd] === 0) continue;
      this.#isFreed[fd] = 0;
      this.#least = fd + 1;
      return fd;
    }
    this.#least = Infinity;
    return undefined;
  }
}

/**
 * Returns whether an API of this runtime hides the descriptors of its connections (Deno.listen, Bun's
 * node:http), so that they are searched for.
 */
export function hidesDescriptors(): boolean {
  return host().runtime !== "node";
}

/**
 * Whether a socket of this process, a connection or a listener in any thread, is bound to a path,
 * wherever its file was moved to since: its connections could not be told from those of another one.
 */
export function isBoundHere(path: string, system: System = openedSystem()): boolean {
  if (system.abi.os !== "linux") return false; // nothing is searched for there
  return new BoundSockets(path, system).all().next().done !== true;
}

/**
 * Finds the descriptor of each connection that one listener accepts.
 *
 * A connection is new if its own address is the listener's, it does not listen, and its SO_COOKIE
 * (which the kernel gives once) was not seen before. So that the one that is found is the one that was
 * accepted, nothing else may accept on this address in this process, and each connection must be
 * looked for before the next one is accepted.
 */
export class DescriptorFinder {
  readonly #bound: BoundSockets;
  readonly #freed = new FreeDescriptorHints();
  #last = -1;
  /** The cookie of what was found last. */
  #cookie = -1;

  /**
   * @param path What the listener was bound to, "\0" first if abstract. What is there already counts
   * as seen.
   * @throws {UcredError} `ERR_UCRED_UNSUPPORTED` on other systems than Linux, `ERR_UCRED_LISTEN` if
   * two sockets of this process listen at this address.
   */
  constructor(path: string, system: System = openedSystem()) {
    this.#bound = new BoundSockets(path, system);
    const listening = new Set<number | undefined>(); // by cookie: one may have several numbers
    for (const fd of this.#bound.all()) {
      this.#see(fd);
      if (this.#bound.listens(fd)) listening.add(this.cookieOf(fd));
    }
    if (listening.size <= 1) {
      acceptors.add(new WeakRef(this));
      return;
    }
    const name = JSON.stringify(path);
    const message =
      `Cannot find accepted connections: two sockets of this process listen at ${name}`;
    const hint =
      "Close the other listener, or use another path; to have moved its file is not enough";
    throw new UcredError("ERR_UCRED_LISTEN", message, { hint });
  }

  /**
   * The connection that was accepted last; to be called before another one can be.
   *
   * @param connection What the runtime calls it. It is closed by {@link FoundSocket.close}.
   * @throws {UcredError} `ERR_UCRED_NO_FD` if none is found: then refuse the connection.
   */
  find(connection: object): FoundSocket {
    const fd = this.#find();
    if (fd === undefined) {
      const message = "Cannot find the accepted connection among this process's descriptors";
      const hint = "Let nothing else accept on this socket: no other listener, no other library";
      throw new UcredError("ERR_UCRED_NO_FD", message, { hint });
    }
    this.#last = fd;
    const claim = new FoundSocket(this, fd, this.#cookie);
    (connection as { [CLAIM]?: FoundSocket })[CLAIM] = claim;
    return claim;
  }

  /** A hint: this number may be given to the next connection. */
  freed(fd: number): void {
    this.#freed.add(fd);
  }

  /** Ends what is under this number. It has ended already if that fails. */
  shutdown(fd: number): void {
    this.#bound.shutdown(fd);
  }

  /** What the kernel calls the socket under this number; `undefined` where there is none. */
  cookieOf(fd: number): number | undefined {
    return this.#bound.cookieOf(fd);
  }

  /** Where a new connection is likely, most likely first; then everywhere. */
  #find(): number | undefined {
    for (let fd = this.#freed.take(); fd !== undefined; fd = this.#freed.take()) {
      if (this.#isNew(fd)) return fd;
    }
    if (this.#isNew(this.#last + 1)) return this.#last + 1;
    const end = this.#bound.lowestFree();
    for (let fd = end - 1; fd >= 0; fd--) if (this.#isNew(fd)) return fd;
    for (let fd = end, holes = 0; holes < MAX_FREE_NUMBERS; fd++) {
      const isNew = this.#isNew(fd);
      if (isNew) return fd;
      if (isNew === undefined) holes++;
    }
    return undefined;
  }

  /**
   * Whether there is a connection of the listener's under this number that was not seen before;
   * `undefined` if there is no socket.
   */
  #isNew(fd: number): boolean | undefined {
    const has = this.#bound.has(fd);
    if (!has) return has;
    return this.#see(fd) && !this.#bound.listens(fd);
  }

  /** Notes the socket under this number. Whether it was not seen before, under this or another one. */
  #see(fd: number): boolean {
    const cookie = this.#bound.cookieOf(fd);
    if (cookie === undefined || seen.has(cookie)) return false;
    if (seen.size >= mostSeen) forgetClosed();
    seen.add(cookie);
    this.#cookie = cookie;
    return true;
  }

  /** The cookies of all that is bound to the address, and has been seen. */
  *inUse(): Generator<number> {
    for (const fd of this.#bound.all()) {
      const cookie = this.cookieOf(fd);
      if (cookie !== undefined && seen.has(cookie)) yield cookie;
    }
  }

  /** An upper bound of the numbers that have to be looked at to find what is in use. */
  tableSize(): number {
    return this.#bound.tableSize() ?? MAX_FREE_NUMBERS;
  }
}

/** How many connections are remembered now, for tests of its bounds. */
export function countSeen(): number {
  return seen.size;
}

/**
 * Forgets what is closed under all of its numbers: no cookie is given twice. It looks at every descriptor,
 * and therefore only once at least as many connections have come.
 */
function forgetClosed(): void {
  const kept = new Set<number>();
  let tableSize = 0;
  try {
    for (const reference of acceptors) {
      const acceptor = reference.deref();
      if (acceptor === undefined) {
        acceptors.delete(reference);
        continue;
      }
      for (const cookie of acceptor.inUse()) kept.add(cookie);
      tableSize += acceptor.tableSize();
    }
  } catch { // descriptors have run out: all are kept until the next time
    mostSeen = seen.size * 2;
    return;
  }
  seen.clear();
  for (const cookie of kept) seen.add(cookie);
  mostSeen = Math.max(LEAST_SEEN, kept.size * 2, kept.size + tableSize);
}
