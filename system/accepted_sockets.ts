/**
 * Finds the descriptors of accepted connections that the runtime hides (Deno.listen, and the http server
 * of Bun). It queries the kernel about the descriptors of the process.
 */

import { host } from "../adapters/host.ts";
import type { LinuxCalls } from "../adapters/libc.ts";
import { openedSystem, type System } from "../adapters/select.ts";
import { UcredError } from "../core/errors.ts";
import type { LinuxAbi } from "../ffi/abi.ts";
import { FCNTL, SHUT_RDWR } from "../ffi/linux.ts";
import { encodeAddress, SOCKADDR_UN } from "../ffi/message.ts";
import { parseStatus } from "../ffi/proc.ts";
import { readText } from "./proc_files.ts";
import { isListening, readCookie } from "./socket_option.ts";
import { syscallError } from "./syscall_error.ts";

const WHAT = "find accepted connections";

/** A connection that was found. Its descriptor is used only while its SO_COOKIE is unchanged. */
export class FoundSocket {
  readonly fd: number;
  readonly #cookie: number;
  readonly #sockets: BoundSockets;
  #isClosed = false;
  #onClose: (() => void)[] | undefined;

  constructor(sockets: BoundSockets, fd: number, cookie: number) {
    this.#sockets = sockets;
    this.fd = fd;
    this.#cookie = cookie;
  }

  /** Reports whether the connection is open and still has this descriptor. */
  isOpen(): boolean {
    return !this.#isClosed && this.#sockets.cookieOf(this.fd) === this.#cookie;
  }

  /** Shuts the connection down, without closing the descriptor: both sides then read end-of-file. */
  shutdown(): void {
    if (this.isOpen()) this.#sockets.shutdown(this.fd);
  }

  /** Registers a function for when the connection is closed, like `net.Socket`. */
  once(_event: "close", run: () => void): void {
    (this.#onClose ??= []).push(run);
  }

  /** Records that the owner of the connection has closed it. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#sockets.freed.add(this.fd);
    const all = this.#onClose;
    this.#onClose = undefined;
    if (all !== undefined) { for (const run of all) run(); }
  }
}

// A property, since setting it takes a tenth of the time of an entry in a WeakMap.
const FOUND = Symbol("ucred.found");

/** Returns the socket that was found for a connection. */
export function foundSocketOf(connection: object): FoundSocket | undefined {
  return (connection as { [FOUND]?: FoundSocket })[FOUND];
}

/**
 * The cookies of all connections and listeners that the finders of a thread have seen. Descriptor numbers
 * do not identify a connection: one with a duplicated descriptor has several numbers, and would be found
 * once for each. Cookies of closed sockets are dropped from time to time.
 */
const seen = new Set<number>();

/** Number of cookies before closed sockets are dropped for the first time. */
const MIN_SEEN = 1024;

/** Number of cookies at which closed sockets are dropped next. */
let maxSeen = MIN_SEEN;

/** The sockets of each finder's address. */
const addresses = new Set<WeakRef<BoundSockets>>();

/**
 * The upward search stops after this many free numbers; descriptors closed since accept(2) leave such
 * holes.
 */
const MAX_FREE_NUMBERS = 8192;

/** Descriptor numbers that were closed, as hints. */
class FreeDescriptorHints {
  #isFreed = new Uint8Array(1024);
  /** No hint is below this number. */
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

  /** Removes and returns the lowest number, which the kernel reuses first. */
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

/** The sockets of this process that are bound to one address, by descriptor number. */
class BoundSockets {
  /** Recently closed descriptor numbers. The kernel reuses the lowest free one, so these are tried first. */
  readonly freed = new FreeDescriptorHints();
  readonly #system: System;
  readonly #abi: LinuxAbi;
  readonly #calls: LinuxCalls;
  readonly #address: Uint8Array;

  /** @throws {UcredError} `ERR_UCRED_UNSUPPORTED` on other systems than Linux. */
  constructor(path: string, system: System) {
    const { abi, libc: { linux } } = system;
    if (abi.os !== "linux" || linux === undefined) {
      const message = `Cannot ${WHAT}: ${abi.os} has no SO_COOKIE`;
      const hint = "Use ucred/net or ucred/http, which need no search";
      throw new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint });
    }
    const address = encodeAddress(path);
    if (address === undefined) throw new RangeError(`Too long for a socket's path: ${path}`);
    this.#system = system;
    this.#abi = abi;
    this.#calls = linux;
    this.#address = address;
  }

  /** Yields the number of each socket, upwards and then downwards from the lowest free number. */
  *all(): Generator<number> {
    const end = this.lowestFree();
    const size = this.tableSize();
    // Without /proc the search stops after many free numbers.
    for (let fd = end, holes = 0; size === undefined ? holes < MAX_FREE_NUMBERS : fd < size; fd++) {
      const has = this.has(fd);
      if (has) yield fd;
      else if (has === undefined) holes++;
    }
    for (let fd = end - 1; fd >= 0; fd--) if (this.has(fd)) yield fd;
  }

  /** Yields the cookies of the sockets that were seen. */
  *seenCookies(): Generator<number> {
    for (const fd of this.all()) {
      const cookie = this.cookieOf(fd);
      if (cookie !== undefined && seen.has(cookie)) yield cookie;
    }
  }

  /** Reports whether a number is one of these sockets; `undefined` if it is not a socket at all. */
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

  /** Reports whether a socket may be a listener: `true` if that cannot be read. */
  mayListen(fd: number): boolean {
    try {
      return isListening(this.#system, fd, WHAT);
    } catch {
      return true; // another thread has closed it: it must not be found as a connection
    }
  }

  /** Returns the cookie of a socket; `undefined` if the number is not a socket. */
  cookieOf(fd: number): number | undefined {
    return readCookie(this.#system, this.#abi, fd);
  }

  /** Shuts a socket down. A failure means that it has already ended. */
  shutdown(fd: number): void {
    this.#calls.shutdown(fd, SHUT_RDWR);
  }

  /** Returns a number above all descriptors; `undefined` without /proc: proc_pid_status(5). */
  tableSize(): number | undefined {
    const status = readText(this.#system, this.#calls, "/proc/self/status");
    const size = typeof status === "number" ? undefined : parseStatus(status).get("FDSize");
    return size !== undefined && /^[1-9]\d{0,9}$/.test(size) ? Number(size) : undefined;
  }

  /** Returns the number that the next descriptor will have. */
  lowestFree(): number {
    const fd = this.#calls.fcntl(0, FCNTL.DUPFD_CLOEXEC, 0);
    if (fd < 0) throw syscallError(this.#system, WHAT, "fcntl", -fd);
    this.#calls.close(fd);
    return fd;
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
 * Reports whether a socket of this process, a connection or a listener of any thread, is bound to a path,
 * also after its file was moved. A new listener of that path would have the same address, and its
 * connections would look like those of the other one.
 */
export function isBoundHere(path: string, system: System = openedSystem()): boolean {
  if (system.abi.os !== "linux") return false; // descriptors are not searched there
  return new BoundSockets(path, system).all().next().done !== true;
}

/**
 * Finds the descriptor of each connection that one listener accepts.
 *
 * A connection is new if its own address is the listener's, it does not listen, and its SO_COOKIE
 * (which the kernel assigns only once) was not seen before. For this to be the accepted connection,
 * nothing else may accept on this address in this process, and each connection must be found before
 * the next one is accepted.
 */
export class DescriptorFinder {
  readonly #sockets: BoundSockets;
  #last = -1;
  /** The cookie of the socket that was seen last. */
  #cookie = -1;

  /**
   * @param path The path that the listener is bound to; an abstract name begins with "\0". Sockets
   * that are already bound there count as seen.
   * @throws {UcredError} `ERR_UCRED_UNSUPPORTED` on other systems than Linux, `ERR_UCRED_LISTEN` if
   * two sockets of this process listen at this address.
   */
  constructor(path: string, system: System = openedSystem()) {
    this.#sockets = new BoundSockets(path, system);
    const listening = new Set<number | undefined>(); // by cookie: one may have several numbers
    for (const fd of this.#sockets.all()) {
      this.#see(fd);
      if (this.#sockets.mayListen(fd)) listening.add(this.#sockets.cookieOf(fd));
    }
    if (listening.size <= 1) {
      addresses.add(new WeakRef(this.#sockets));
      return;
    }
    const name = JSON.stringify(path);
    const message = `Cannot ${WHAT}: two sockets of this process listen at ${name}`;
    const hint = "Close the other listener, or use another path; moving its file is not enough";
    throw new UcredError("ERR_UCRED_LISTEN", message, { hint });
  }

  /**
   * Finds the connection that was accepted last. Call it before another one can be accepted.
   *
   * @param connection The runtime's object. It is closed by {@link FoundSocket.close}.
   * @throws {UcredError} `ERR_UCRED_NO_FD` if none is found: then reject the connection.
   */
  find(connection: object): FoundSocket {
    const fd = this.#find();
    if (fd === undefined) {
      const message = "Cannot find the accepted connection among this process's descriptors";
      const hint = "Accept on this socket with one listener only, and with no other library";
      throw new UcredError("ERR_UCRED_NO_FD", message, { hint });
    }
    this.#last = fd;
    const found = new FoundSocket(this.#sockets, fd, this.#cookie);
    (connection as { [FOUND]?: FoundSocket })[FOUND] = found;
    return found;
  }

  /** Searches the most likely numbers first, then all. */
  #find(): number | undefined {
    const { freed } = this.#sockets;
    for (let fd = freed.take(); fd !== undefined; fd = freed.take()) {
      if (this.#isNew(fd)) return fd;
    }
    if (this.#isNew(this.#last + 1)) return this.#last + 1;
    const end = this.#sockets.lowestFree();
    for (let fd = end - 1; fd >= 0; fd--) if (this.#isNew(fd)) return fd;
    for (let fd = end, holes = 0; holes < MAX_FREE_NUMBERS; fd++) {
      const isNew = this.#isNew(fd);
      if (isNew) return fd;
      if (isNew === undefined) holes++;
    }
    return undefined;
  }

  /**
   * Reports whether a number is a connection of the listener that was not seen before; `undefined` if
   * it is not a socket.
   */
  #isNew(fd: number): boolean | undefined {
    const has = this.#sockets.has(fd);
    if (!has) return has;
    return this.#see(fd) && !this.#sockets.mayListen(fd);
  }

  /** Records a socket. @returns Whether it was not seen before, under this or another number. */
  #see(fd: number): boolean {
    const cookie = this.#sockets.cookieOf(fd);
    if (cookie === undefined || seen.has(cookie)) return false;
    if (seen.size >= maxSeen) forgetClosed();
    seen.add(cookie);
    this.#cookie = cookie;
    return true;
  }
}

/** Returns the number of cached cookies, for tests of its bounds. */
export function countSeen(): number {
  return seen.size;
}

/**
 * Drops the cookies of sockets that are closed under all their numbers: the kernel never reuses a cookie.
 * Checks every descriptor, and therefore runs only after at least as many new connections.
 */
function forgetClosed(): void {
  const kept = new Set<number>();
  let tableSize = 0;
  try {
    for (const reference of addresses) {
      const sockets = reference.deref();
      if (sockets === undefined) {
        addresses.delete(reference);
        continue;
      }
      for (const cookie of sockets.seenCookies()) kept.add(cookie);
      tableSize += sockets.tableSize() ?? MAX_FREE_NUMBERS;
    }
  } catch { // no free descriptor: all are kept until the next time
    maxSeen = seen.size * 2;
    return;
  }
  seen.clear();
  for (const cookie of kept) seen.add(cookie);
  maxSeen = Math.max(MIN_SEEN, kept.size * 2, kept.size + tableSize);
}
