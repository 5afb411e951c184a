/** Socket → peer: reads everything that the kernel recorded about the peer, at once. */

import { openedSystem, type System } from "../adapters/select.ts";
import type { Credentials } from "../core/credentials.ts";
import { UcredError } from "../core/errors.ts";
import { type OptionNames, requireOptions } from "../core/options.ts";
import type { Peer } from "../core/peer.ts";
import { readCredentials } from "./credentials.ts";
import { afterwards } from "./process/exit_signal.ts";
import { type Closable, connectionOf, fdOf, type UnixSocket } from "./fd.ts";
import { readGroups } from "./groups.ts";
import { readLabel } from "./security_label.ts";
import { CapturedPeer } from "./peer.ts";
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
  return pin ? pinned(system, fd, socket) : identifyFd(system, fd);
}

/** Implements {@link identify} for a descriptor, on a given system. */
export function identifyFd(
  system: System,
  fd: number,
  { pin = false }: IdentifyOptions = {},
): Peer {
  return capture(system, fd, pin ? (credentials) => tryToPin(system, fd, credentials) : undefined);
}

/** The pin of each connection, shared by all requests of that connection. */
const pins = new WeakMap<object, { pin: Pin }>();

/** How long a watched pin stays open after its connection has closed. */
const LINGER_MS = 1000;

/**
 * Maximum number of such pins: a client that reconnects in a loop must not exhaust the descriptors.
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
  return capture(system, fd, (credentials) => {
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
  pinOf: ((credentials: Credentials) => Pinned) | undefined,
): Peer {
  const credentials = readCredentials(system, fd);
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
