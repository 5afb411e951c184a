/** Connections to the upstream with the ids of the client, so that the upstream sees the client. */

import type { Socket } from "node:net";
import { adoptConnection } from "../adapters/builtins.ts";
import { openedSystem, type System } from "../adapters/select.ts";
import { UcredError } from "../core/errors.ts";
import type { Fact } from "../core/facts.ts";
import type { Peer } from "../core/peer.ts";
import { displayName } from "../core/socket_name.ts";
import { AF_UNIX } from "../ffi/abi.ts";
import { SOCK } from "../ffi/linux.ts";
import { encodeAddress } from "../ffi/message.ts";
import { supplementaryGroups } from "../identity/groups.ts";
import { syscallError } from "../system/syscall_error.ts";
import { type EffectiveIds, ThreadIds } from "../system/thread_ids.ts";

/** A stream socket that does not block: while the backlog is full, connect(2) fails with EAGAIN at once. */
const STREAM_SOCKET = SOCK.STREAM | SOCK.CLOEXEC | SOCK.NONBLOCK;

/** Connects to one upstream as its clients. */
export class PeerConnector {
  readonly #path: string;
  readonly #system: System;
  readonly #ids: ThreadIds;
  readonly #address: Uint8Array;

  /**
   * @param path A path, or an abstract name with "\0" first.
   * @throws {UcredError} If the process cannot change its ids: see {@link ThreadIds}.
   * @throws {RangeError} If the path is longer than 107 bytes, or has a NUL elsewhere than at its start.
   */
  constructor(path: string) {
    const address = encodeAddress(path);
    if (address === undefined || path.indexOf("\0", 1) !== -1) {
      throw new RangeError(`A path must have 1 to 107 bytes and no NUL: ${JSON.stringify(path)}`);
    }
    this.#path = path;
    this.#system = openedSystem();
    this.#ids = new ThreadIds(this.#system);
    this.#address = address;
  }

  /**
   * Connects with the effective uid, gid and supplementary groups of a peer.
   *
   * @throws {UcredError} If its ids are not known exactly, or cannot be taken on.
   * @throws {Error} If connect(2) fails; its `code` is the name of the errno.
   */
  connect(peer: Peer): Socket {
    const ids = idsOf(peer);
    const { libc } = this.#system;
    const calls = libc.linux!; // ThreadIds requires Linux
    const address = libc.memory(this.#address.length);
    address.bytes.set(this.#address);
    const fd = calls.socket(AF_UNIX, STREAM_SOCKET, 0);
    if (fd < 0) throw syscallError(this.#system, "connect as the peer", "socket", -fd);
    try {
      const connect = () => calls.connect(fd, address, this.#address.length);
      const result = this.#ids.call(ids, connect);
      if (result < 0) throw this.#failure(-result);
      return adoptConnection(fd, true);
    } catch (error) {
      calls.close(fd);
      throw error;
    }
  }

  #failure(errno: number): Error {
    const code = this.#system.abi.errnoNames[errno] ?? `errno ${errno}`;
    const message = `connect ${code} ${displayName(this.#path)}`;
    return Object.assign(new Error(message), { code, errno: -errno, syscall: "connect" });
  }
}

/**
 * Returns the ids of a peer.
 *
 * @throws {UcredError} If one is unknown or ambiguous.
 */
function idsOf({ facts }: Peer): EffectiveIds {
  const [uid, gid] = [exactly(facts.uid), exactly(facts.gid)];
  const groups = supplementaryGroups(exactly(facts.groups));
  if (groups !== undefined) return { uid, gid, groups };
  const message = "Cannot connect as the peer: its supplementary groups are not exactly known";
  throw new UcredError("ERR_UCRED_UNSUPPORTED", message, {
    hint: "Use a kernel with SO_PEERGROUPS",
  });
}

function exactly<T>(fact: Fact<T>): T {
  if (fact.state === "known") return fact.value;
  if (fact.state === "unknown") throw fact.reason;
  throw new TypeError("a peer has ids"); // "none" is not among the states of ids
}
