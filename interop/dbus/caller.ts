/** The senders of messages on a bus, as peers: identified by the bus, cached until they leave it. */

import { UcredError } from "../../core/errors.ts";
import type { Peer } from "../../core/peer.ts";
import { show } from "../../core/policy/document/shape.ts";
import { closeDescriptors, peerOfBus } from "../../identity/peer_of_bus.ts";
import {
  type Bus,
  BUS_NAME,
  type BusConnection,
  busError,
  type BusMessage,
  callBus,
  isUniqueName,
  isWellKnownName,
  MESSAGE_TYPE,
  orGone,
  ownerOf,
  requireBus,
} from "./bus.ts";
import { credentialsIn } from "./credentials.ts";

/**
 * Identifies the sender of a message on a bus, by the bus's `GetConnectionCredentials`.
 *
 * The bus recorded the credentials when the sender connected to it. They are the same for all messages of a
 * unique name, and cached until the name leaves the bus. Call this function before the first `await` of a
 * handler: after a reconnect, the same unique name may belong to another client.
 *
 * What the bus does not report is unknown. It reports the primary gid only among `groups`, so that `gid`
 * conditions match no caller.
 *
 * @param sender The unique name in the message's `sender` field, or a well-known name, which stands for its
 * current owner.
 * @returns A peer with ids as the bus numbers them. It is closed when the sender leaves the bus.
 * @throws {UcredError} `ERR_UCRED_PEER_GONE` if the sender has left the bus; `ERR_UCRED_NO_PEER` if the bus
 * does not know its uid, or the connection is direct; `ERR_UCRED_BUS` if the bus does not answer.
 * @throws {TypeError} If `sender` is no bus name.
 * @see {@link https://dbus.freedesktop.org/doc/dbus-specification.html D-Bus specification},
 * org.freedesktop.DBus.GetConnectionCredentials
 *
 * @example Log who called
 * ```js
 * import dbus from "dbus-native";
 * import { peerOfSender } from "ucred/dbus";
 *
 * const bus = dbus.systemBus();
 * const now = async (message) => {
 *   const { uid, pid = "?" } = await peerOfSender(bus, message.sender);
 *   console.log(`uid ${uid}, pid ${pid}`);
 *   return new Date().toISOString();
 * };
 * bus.setMethodCallHandler("/", "org.example.Clock", "Now", [now, "s"]);
 * ```
 */
export async function peerOfSender(bus: Bus, sender: string): Promise<Peer> {
  const what = `identify ${show(sender)}`;
  requireBus(bus, what);
  if (isUniqueName(sender)) return await callersOf(bus).peer(sender);
  if (!isWellKnownName(sender)) throw new TypeError(`Cannot ${what}: it is no bus name`);
  return await callersOf(bus).peer(await ownerOf(bus, sender));
}

const callers = new WeakMap<BusConnection, Callers>();

/** Returns the cache of a bus. */
export function callersOf(bus: Bus): Callers {
  let found = callers.get(bus.connection);
  if (found === undefined) callers.set(bus.connection, found = new Callers(bus));
  return found;
}

/** The clients of one bus that have been identified. */
export class Callers {
  readonly #bus: Bus;
  /** Unique name → its peer. Failed lookups are removed. */
  readonly #peers = new Map<string, Promise<Peer>>();
  /** Resolves once the bus reports names that lose their owner; `undefined` before the first lookup. */
  #watch: Promise<unknown> | undefined;
  /** The number of times that the connection was closed: unique names are valid for one connection. */
  #epoch = 0;

  constructor(bus: Bus) {
    this.#bus = bus;
    const { connection } = bus;
    connection.on("message", (message) => this.#forget(message as BusMessage));
    connection.on("end", () => this.#reset());
    connection.on("close", () => this.#reset());
  }

  /** Changes when the connection closes. */
  get epoch(): number {
    return this.#epoch;
  }

  /** The number of cached clients. */
  get size(): number {
    return this.#peers.size;
  }

  /** Returns the peer with a unique name. Sends the query before it returns. */
  peer(name: string): Promise<Peer> {
    const cached = this.#peers.get(name);
    if (cached !== undefined) return cached;
    const found = this.#identify(name, this.#epoch);
    this.#peers.set(name, found);
    found.catch(() => {
      if (this.#peers.get(name) === found) this.#peers.delete(name);
    });
    return found;
  }

  async #identify(name: string, epoch: number): Promise<Peer> {
    // The bus handles calls in order: the watch of names begins before this reply is sent.
    this.#watch ??= this.#watchNames();
    const call = { member: "GetConnectionCredentials", signature: "s", body: [name] };
    const [reply, watch] = await Promise.allSettled([callBus(this.#bus, call), this.#watch]);
    if (reply.status === "rejected") throw orGone(reply.reason, name);
    const { fds = [] } = reply.value;
    const descriptors = new Set(fds);
    try {
      if (watch.status === "rejected") throw watch.reason;
      const what = `identify ${show(name)}`;
      if (epoch !== this.#epoch) throw busError(what, "the connection to the bus was lost", null);
      const { uid, processFd, ...others } = credentialsIn(reply.value);
      if (uid === undefined) throw noUid(what);
      const pidfd = processFd === undefined ? undefined : fds[processFd];
      if (pidfd !== undefined) descriptors.delete(pidfd);
      return peerOfBus({ uid, ...others }, pidfd);
    } finally {
      closeDescriptors(descriptors);
    }
  }

  async #watchNames(): Promise<void> {
    const rule = `type='signal',sender='${BUS_NAME}',interface='${BUS_NAME}',` +
      "member='NameOwnerChanged',arg2=''";
    try {
      await callBus(this.#bus, { member: "AddMatch", signature: "s", body: [rule] });
    } catch (error) {
      this.#watch = undefined;
      throw error;
    }
  }

  /** Forgets a client that has left the bus. Other clients can send signals of the same name. */
  #forget({ type, sender, interface: name, member, body = [] }: BusMessage): void {
    if (type !== MESSAGE_TYPE.signal || sender !== BUS_NAME || name !== BUS_NAME) return;
    if (member !== "NameOwnerChanged" || typeof body[0] !== "string" || body[2] !== "") return;
    this.#remove(body[0]);
  }

  #remove(name: string): void {
    const found = this.#peers.get(name);
    this.#peers.delete(name);
    found?.then((peer) => peer.close(), () => {});
  }

  #reset(): void {
    this.#epoch++;
    this.#watch = undefined;
    for (const name of [...this.#peers.keys()]) this.#remove(name);
  }
}

function noUid(what: string): UcredError {
  const message = `Cannot ${what}: the bus does not know its uid`;
  return new UcredError("ERR_UCRED_NO_PEER", message, { hint: "Reject the message" });
}
