/** Identifies the peer of a socket from the facts that the kernel recorded. */

import { openedSystem, type System } from "../adapters/select.ts";
import type { Credentials } from "../core/credentials.ts";
import { UcredError } from "../core/errors.ts";
import { type Fact, unknown } from "../core/facts.ts";
import { type OptionNames, requireOptions } from "../core/options.ts";
import type { Peer } from "../core/peer.ts";
import { readCredentials } from "./credentials.ts";
import { afterwards } from "./process/exit_signal.ts";
import { stolen } from "../system/owned_descriptor.ts";
import { type Closable, connectionOf, fdOf, handleOf, isAccepted, type UnixSocket } from "./fd.ts";
import { readGroups } from "./groups.ts";
import { readLabel } from "./security_label.ts";
import { AcceptedPeer, CapturedPeer, type CaptureOnDemand } from "./peer.ts";
import { Pin, pinPeer } from "./process/pidfd.ts";
import type { Pinned } from "./process/snapshot.ts";

/** Options of {@link identify}. */
export interface IdentifyOptions {
  /**
   * Whether to hold the peer's process by a pidfd, for `process`, `live()`, `drift()`, `alive`,
   * `signal` and `key`. Uses one descriptor until the peer is closed. Default: `false`.
   */
  readonly pin?: boolean | undefined;
}

const IDENTIFY_OPTIONS: OptionNames<IdentifyOptions> = { pin: true };

/**
 * Identifies the process at the other end of a Unix socket: credentials, supplementary groups and
 * security label, read from the kernel at once, and account names on demand.
 *
 * Call it in the accept handler. A fact that cannot be read does not fail the call: it is unknown,
 * and `peer.facts` has the reason.
 *
 * @param socket A connected AF_UNIX socket. Borrowed: it stays open and is not read from.
 * @returns Ids as of connect(2); see {@link Peer} for each fact's meaning. Frozen.
 * @throws {UcredError} As `peerCredentials()` does.
 * @throws {TypeError} If `socket` is not a socket, or an option is unknown.
 * @throws {RangeError} If `socket` is a number and not an integer from 0 to 2³¹ − 1.
 * @see {@link https://man7.org/linux/man-pages/man7/unix.7.html unix(7)}, SO_PEERCRED, SO_PEERSEC
 *
 * @example Accept a group
 * ```ts
 * import { createServer } from "node:net";
 * import { identify } from "ucred";
 *
 * const OPERATORS = 0; // a gid
 * createServer((socket) => {
 *   const peer = identify(socket.on("error", () => {}));
 *   console.log(peer);
 *   socket.end(peer.groups?.includes(OPERATORS) ? "welcome\n" : "no\n");
 * }).listen("app.sock");
 * ```
 */
export function identify(socket: UnixSocket, options?: IdentifyOptions): Peer {
  if (options === undefined) return identifyAt(fdOf(socket), socket, false);
  requireOptions("identify()", options, IDENTIFY_OPTIONS);
  return identifyAt(fdOf(socket), socket, options.pin ?? false);
}

/** Implements {@link identify} for a socket with a known descriptor. */
export function identifyAt(fd: number, socket: UnixSocket, pin: boolean): Peer {
  const system = openedSystem();
  return pin ? pinned(system, fd, socket) : capture(system, fd, isAccepted(socket));
}

/**
 * Identifies the peer of a connection that a server has just accepted. Its groups and label are read on first
 * use, if the connection is still open then. Otherwise they are unknown.
 */
export function identifyAccepted(
  fd: number,
  socket: UnixSocket,
  pin: boolean,
  system: System = openedSystem(),
): Peer {
  const handle = pin ? undefined : handleOf(socket);
  if (handle === undefined) return identifyAt(fd, socket, pin);
  return new AcceptedPeer(system, new OpenConnection(system, fd, socket, handle));
}

/** The facts of an open connection, read on demand. */
class OpenConnection implements CaptureOnDemand {
  readonly credentials: Credentials;
  readonly pinned = undefined;
  readonly source = "kernel@connect";
  readonly #system: System;
  readonly #fd: number;
  #socket: UnixSocket | undefined;
  #handle: object | undefined;
  #groups: Fact<readonly number[]> | undefined;
  #label: Fact<string> | undefined;

  constructor(system: System, fd: number, socket: UnixSocket, handle: object) {
    this.credentials = readCredentials(system, fd, isAccepted(socket));
    this.#system = system;
    this.#fd = fd;
    this.#socket = socket;
    this.#handle = handle;
  }

  get groups(): Fact<readonly number[]> {
    return this.#groups ??= this.#read("read the peer's groups", readGroups);
  }

  get label(): Fact<string> {
    return this.#label ??= this.#read("read the peer's security label", readLabel);
  }

  end(): void {
    this.#socket = this.#handle = undefined;
  }

  /**
   * Reads a fact if the descriptor certainly still belongs to the connection. After it was closed, its
   * number may belong to another connection.
   */
  #read<T>(
    what: string,
    read: (system: System, fd: number, of: Credentials) => Fact<T>,
  ): Fact<T> {
    const { credentials } = this;
    const socket = this.#socket;
    try {
      if (socket === undefined || handleOf(socket) !== this.#handle || fdOf(socket) !== this.#fd) {
        const hint = "Read groups and label before the connection closes";
        const message = `Cannot ${what}: the connection is closed`;
        return unknown(new UcredError("ERR_UCRED_NO_FD", message, { hint }));
      }
      // The runtime may not know that other code has closed the descriptor.
      const { pid, uid, gid } = readCredentials(this.#system, this.#fd);
      if (pid !== credentials.pid || uid !== credentials.uid || gid !== credentials.gid) {
        return unknown(stolen(what));
      }
    } catch (error) {
      if (error instanceof UcredError) return unknown(error);
      throw error;
    }
    return read(this.#system, this.#fd, credentials);
  }
}

/** Implements {@link identify} for a descriptor, on a given system. */
export function identifyFd(
  system: System,
  fd: number,
  { pin = false }: IdentifyOptions = {},
): Peer {
  const pinOf = (credentials: Credentials) => tryToPin(system, fd, credentials);
  return capture(system, fd, false, pin ? pinOf : undefined);
}

/** The pin of each connection, shared by all requests of that connection. */
const pins = new WeakMap<object, { pin: Pin }>();

/** How long a watched pin stays open after its connection has closed. */
const LINGER_MS = 1000;

/**
 * Maximum number of pins that stay open after their connection: a client that reconnects in a loop must not
 * exhaust the descriptors.
 */
const MAX_LINGERING = 64;
const lingering = new Set<Pin>();

function linger(pin: Pin): void {
  lingering.add(pin);
  for (const oldest of lingering) {
    if (lingering.size <= MAX_LINGERING) break;
    lingering.delete(oldest);
    oldest.close();
  }
  afterwards(() => {
    lingering.delete(pin);
    pin.close();
  }, LINGER_MS);
}

function pinned(system: System, fd: number, socket: UnixSocket): Peer {
  const connection = connectionOf(socket);
  return capture(system, fd, isAccepted(socket), (credentials) => {
    const held = connection && pins.get(connection);
    if (held !== undefined && !held.pin.closed && held.pin.pid === credentials.pid) return held.pin;
    const pin = tryToPin(system, fd, credentials);
    if (pin instanceof Pin) {
      if (held !== undefined) held.pin = pin;
      else if (connection !== undefined) closeWith(connection, pin);
    }
    return pin;
  });
}

function closeWith(connection: Closable, pin: Pin): void {
  const held = { pin };
  pins.set(connection, held);
  connection.once("close", () => {
    pins.delete(connection);
    const { pin } = held;
    // A process that ends closes its connections first; the pin stays open so that the signal still
    // aborts.
    if (pin.signal === undefined || pin.signal.aborted) pin.close();
    else linger(pin);
  });
}

function capture(
  system: System,
  fd: number,
  isConnection: boolean,
  pinOf?: (credentials: Credentials) => Pinned,
): Peer {
  const credentials = readCredentials(system, fd, isConnection);
  const groups = readGroups(system, fd, credentials);
  const label = readLabel(system, fd);
  const pinned = pinOf?.(credentials);
  return new CapturedPeer(system, { credentials, groups, label, pinned, source: "kernel@connect" });
}

/**
 * Pins a process if possible. Otherwise the error becomes the reason of facts that need the pin.
 */
function tryToPin(system: System, fd: number, credentials: Credentials): Pinned {
  try {
    return pinPeer(system, fd, credentials);
  } catch (error) {
    if (error instanceof UcredError) return error;
    throw error;
  }
}
