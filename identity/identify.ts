/** Socket → peer: everything the kernel knows of it, captured at once. */

import { type System, system } from "../adapters/select.ts";
import type { Credentials } from "../core/credentials.ts";
import { UcredError } from "../core/errors.ts";
import type { Peer } from "../core/peer.ts";
import { readCredentials } from "./credentials.ts";
import { fdOf, onClose, type UnixSocket } from "./fd.ts";
import { readGroups } from "./groups.ts";
import { readLabel } from "./label.ts";
import { CapturedPeer } from "./peer.ts";
import { pinPeer } from "./pin.ts";
import type { Pinned } from "./process.ts";

/** What {@link identify} is to do beyond reading. */
export interface IdentifyOptions {
  /**
   * Whether to keep hold of the peer's process by a pidfd: for `process`, `live()`, `drift()`,
   * `alive`, `signal` and `key`. It takes one descriptor until the peer is closed. By default `false`.
   */
  readonly pin?: boolean | undefined;
}

/**
 * Tells who is at the other end of a Unix socket: credentials, supplementary groups and security
 * label, read from the kernel at once, and account names on demand.
 *
 * Call it in the accept handler. A fact that cannot be read does not fail the call: it is unknown,
 * and `peer.facts` says why.
 *
 * @param socket A connected AF_UNIX socket. Borrowed: it stays open and is not read from.
 * @returns Ids as of connect(2); see {@link Peer} for each fact's meaning. Frozen.
 * @throws {UcredError} As `peerCredentials()` does.
 * @throws {TypeError} If `socket` is nothing like a socket.
 * @throws {RangeError} If `socket` is a number and not an integer from 0 to 2³¹ − 1.
 * @see {@link https://man7.org/linux/man-pages/man7/unix.7.html unix(7)}, SO_PEERCRED, SO_PEERSEC
 *
 * @example Let a group in
 * ```ts
 * import { createServer } from "node:net";
 * import { identify } from "ucred";
 *
 * const OPERATORS = 0; // a gid
 * createServer((socket) => {
 *   const peer = identify(socket);
 *   console.log(peer);
 *   socket.end(peer.groups?.includes(OPERATORS) ? "welcome\n" : "no\n");
 * }).listen("app.sock");
 * ```
 */
export function identify(socket: UnixSocket, options: IdentifyOptions = {}): Peer {
  const peer = identifyFd(system(), fdOf(socket), options);
  if (peer.pinned !== undefined) onClose(socket, () => peer.afterConnection());
  return peer;
}

/** {@link identify} for a descriptor, on a given system. */
export function identifyFd(
  on: System,
  fd: number,
  { pin = false }: IdentifyOptions = {},
): CapturedPeer {
  const credentials = readCredentials(on, fd);
  const groups = readGroups(on, fd, credentials);
  const label = readLabel(on, fd);
  const pinned = pin ? tryToPin(on, fd, credentials) : undefined;
  return new CapturedPeer(on, { ...credentials, groups, label, pinned });
}

/** What cannot be pinned is identified all the same; facts that need the pin say why they are unknown. */
function tryToPin(on: System, fd: number, credentials: Credentials): Pinned {
  try {
    return pinPeer(on, fd, credentials);
  } catch (error) {
    if (error instanceof UcredError) return error;
    throw error;
  }
}
