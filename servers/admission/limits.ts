/**
 * Connection limits for each user, so that no user can lock out the others. They are modelled on those of
 * dbus-daemon.
 */

import { type OptionNames, requireOptions } from "../../core/options.ts";

/** Limits on the number and rate of connections. */
export interface Limits {
  /**
   * Open connections of all users. By default 2048. One sixteenth is reserved for root and the server's own
   * user.
   */
  readonly connections?: number | undefined;
  /** Open connections of one uid. By default 256. */
  readonly connectionsPerUser?: number | undefined;
  /** Average number of connections that one uid may open per second. By default unlimited. */
  readonly acceptsPerSecond?: number | undefined;
  /** Burst size of the token bucket. Defaults to `acceptsPerSecond`, which it requires. */
  readonly acceptBurst?: number | undefined;
}

/** Default of `Limits.connections`. */
export const DEFAULT_CONNECTIONS = 2048;

/** Default of `Limits.connectionsPerUser`. */
export const DEFAULT_CONNECTIONS_PER_USER = 256;

/** The limit that a connection would exceed. */
export type LimitName = "connections" | "connectionsPerUser" | "acceptsPerSecond";

/** Minimum milliseconds between two searches for closed connections while a limit is reached. */
const RECOUNT_MS = 10;

/** The share of `connections` that is reserved for root and the server's own user. */
const RESERVE = 1 / 16;

interface User {
  open: number;
  /** The earliest time of the next search for closed connections of this user. */
  recountAt: number;
  /** Tokens in the bucket at time `at`. */
  tokens: number;
  at: number;
}

/** From this number of users on, users without connections and with a full bucket are removed from the map. */
const MAX_IDLE_USERS = 4096;

const LIMITS: OptionNames<Limits> = {
  connections: true,
  connectionsPerUser: true,
  acceptsPerSecond: true,
  acceptBurst: true,
};

/** Counts open connections by uid. */
export class UserLimits {
  /** The limit for root and the server's own user, and the limit for all others. */
  readonly #connections: readonly [number, number];
  readonly #perUser: number;
  readonly #rate: number;
  readonly #burst: number;
  readonly #users = new Map<number, User>();
  #open = 0;

  readonly #closeDead: (uid: number | undefined) => void;
  readonly #ownUid: () => number;
  #recountAt = 0;

  /**
   * @param ownUid Returns the uid that shares the reserve with root. Called only when `connections` is
   * nearly reached.
   * @param closeDead Closes connections of `uid` (or of all users) that have hung up, before their "close"
   * event arrives: under load Bun delivers it only after accepting.
   * @throws {RangeError} If a limit is not a number above 0.
   * @throws {TypeError} If a limit's name is unknown, or `acceptBurst` is given without `acceptsPerSecond`.
   */
  constructor(
    limits: Limits = {},
    ownUid: () => number = () => 0,
    closeDead: (uid: number | undefined) => void = () => {},
  ) {
    this.#closeDead = closeDead;
    this.#ownUid = ownUid;
    requireOptions("limits", limits, LIMITS);
    for (const [name, limit] of Object.entries(limits)) {
      if (limit === undefined || (typeof limit === "number" && limit > 0)) continue;
      throw new RangeError(`limits.${name} must be a number above 0, not ${limit}`);
    }
    const {
      connections = DEFAULT_CONNECTIONS,
      connectionsPerUser = DEFAULT_CONNECTIONS_PER_USER,
      acceptsPerSecond = Infinity,
    } = limits;
    if (limits.acceptBurst !== undefined && acceptsPerSecond === Infinity) {
      throw new TypeError("limits.acceptBurst requires limits.acceptsPerSecond");
    }
    const reserve = connections === Infinity ? 0 : Math.floor(connections * RESERVE);
    this.#connections = [connections, connections - reserve];
    this.#perUser = connectionsPerUser;
    this.#rate = acceptsPerSecond;
    this.#burst = limits.acceptBurst ?? Math.max(1, acceptsPerSecond);
  }

  /** The number of open connections. */
  get open(): number {
    return this.#open;
  }

  /** Counts a connection, or returns the limit that it would exceed. */
  acquire(uid: number, now: number = performance.now()): LimitName | undefined {
    let user = this.#users.get(uid);
    if (user === undefined) {
      if (this.#users.size >= MAX_IDLE_USERS) this.#forget(now);
      this.#users.set(uid, user = { open: 0, recountAt: 0, tokens: this.#burst, at: now });
    }
    // Refused connections also spend tokens: connecting more often does not help a client.
    if (this.#rate !== Infinity && !this.#spend(user, now)) return "acceptsPerSecond";
    if (user.open >= this.#perUser && now >= user.recountAt) {
      this.#closeDead(uid);
      user.recountAt = now + RECOUNT_MS; // the search visits each connection, so it does not run for each refused one
    }
    if (user.open >= this.#perUser) return "connectionsPerUser";
    if (this.#isFull(uid) && now >= this.#recountAt) {
      this.#closeDead(undefined);
      this.#recountAt = now + RECOUNT_MS;
    }
    if (this.#isFull(uid)) return "connections";
    user.open++;
    this.#open++;
    return undefined;
  }

  /** Subtracts a connection that `acquire()` has counted. */
  release(uid: number): void {
    const user = this.#users.get(uid);
    if (user === undefined || user.open === 0) return;
    user.open--;
    this.#open--;
  }

  #isFull(uid: number): boolean {
    const [all, others] = this.#connections;
    if (this.#open < others) return false;
    return this.#open >= all || (uid !== 0 && uid !== this.#ownUid());
  }

  #spend(user: User, now: number): boolean {
    user.tokens = Math.min(this.#burst, user.tokens + (now - user.at) / 1000 * this.#rate);
    user.at = now;
    if (user.tokens < 1) return false;
    user.tokens--;
    return true;
  }

  /** Removes users that have no connections and a full bucket. */
  #forget(now: number): void {
    for (const [uid, { open, tokens, at }] of this.#users) {
      const isFull = this.#rate === Infinity ||
        tokens + (now - at) / 1000 * this.#rate >= this.#burst;
      if (open === 0 && isFull) this.#users.delete(uid);
    }
  }
}
