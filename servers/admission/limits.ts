/** Connections by user: no user may lock out the others. dbus-daemon's limits are the model. */

import { type OptionNames, requireOptions } from "../../core/options.ts";

/** How many connections there may be, and how fast they may come. */
export interface Limits {
  /**
   * Open at once, of all users. By default 2048. The last sixteenth of them is for root and the server's
   * own user alone.
   */
  readonly connections?: number | undefined;
  /** Open at once, of one uid. By default 256. */
  readonly connectionsPerUser?: number | undefined;
  /** Connections that one uid may make in a second, on the average. By default any number. */
  readonly acceptsPerSecond?: number | undefined;
  /** So many at once are within that average, if there is one. By default as many as it says. */
  readonly acceptBurst?: number | undefined;
}

/** Which limit a connection would exceed. */
export type LimitName = "connections" | "connectionsPerUser" | "acceptsPerSecond";

/** How often connections are counted again while a limit is reached, in ms. */
const REAP = 10;

/** The part of all connections that is kept for root and the server's own user. */
const RESERVE = 1 / 16;

interface User {
  open: number;
  /** When his connections may be counted again. */
  reapAt: number;
  /** Accepts that are left, as of `at`. */
  tokens: number;
  at: number;
}

/** Users without connections are forgotten when there are more than so many. */
const MAX_IDLE_USERS = 4096;

const LIMITS: OptionNames<Limits> = {
  connections: true,
  connectionsPerUser: true,
  acceptsPerSecond: true,
  acceptBurst: true,
};

/** Counts what is open. */
export class UserLimits {
  /** For those who have a reserve, and for others. */
  readonly #connections: readonly [number, number];
  readonly #perUser: number;
  readonly #rate: number;
  readonly #burst: number;
  readonly #users = new Map<number, User>();
  #open = 0;

  readonly #closeDead: (uid: number | undefined) => void;
  readonly #ownUid: () => number;
  #reapAt = 0;

  /**
   * @param ownUid Whose reserve it is, beside root's; asked for when it matters.
   * @param reap Ends and gives back those of a uid, or all, of which nothing is to be expected, and of
   * which we have not been told yet: Bun accepts as long as somebody connects, and tells of no end
   * before that.
   * @throws {RangeError} If a limit is no number above 0.
   * @throws {TypeError} If there is no limit of a name, or one has no sense without another.
   */
  constructor(
    limits: Limits = {},
    ownUid: () => number = () => 0,
    reap: (uid: number | undefined) => void = () => {},
  ) {
    this.#closeDead = reap;
    this.#ownUid = ownUid;
    requireOptions("limits", limits, LIMITS);
    for (const [name, limit] of Object.entries(limits)) {
      if (limit === undefined || (typeof limit === "number" && limit > 0)) continue;
      throw new RangeError(`limits.${name} is a number above 0, not ${limit}`);
    }
    const { connections = 2048, connectionsPerUser = 256, acceptsPerSecond = Infinity } = limits;
    if (limits.acceptBurst !== undefined && acceptsPerSecond === Infinity) {
      throw new TypeError("limits.acceptBurst limits nothing without limits.acceptsPerSecond");
    }
    const reserve = connections === Infinity ? 0 : Math.floor(connections * RESERVE);
    this.#connections = [connections, connections - reserve];
    this.#perUser = connectionsPerUser;
    this.#rate = acceptsPerSecond;
    this.#burst = limits.acceptBurst ?? Math.max(1, acceptsPerSecond);
  }

  /** How many are open. */
  get open(): number {
    return this.#open;
  }

  /** Counts a connection, unless that would exceed a limit. */
  acquire(uid: number, now: number = performance.now()): LimitName | undefined {
    let user = this.#users.get(uid);
    if (user === undefined) {
      if (this.#users.size >= MAX_IDLE_USERS) this.#forget(now);
      this.#users.set(uid, user = { open: 0, reapAt: 0, tokens: this.#burst, at: now });
    }
    // Refused ones take their share of the rate, too: who hammers is let in no sooner.
    if (this.#rate !== Infinity && !this.#spend(user, now)) return "acceptsPerSecond";
    if (user.open >= this.#perUser && now >= user.reapAt) {
      this.#closeDead(uid);
      user.reapAt = now + REAP; // it looks at each connection, so not for each that is refused
    }
    if (user.open >= this.#perUser) return "connectionsPerUser";
    if (this.#isFull(uid) && now >= this.#reapAt) {
      this.#closeDead(undefined);
      this.#reapAt = now + REAP;
    }
    if (this.#isFull(uid)) return "connections";
    user.open++;
    this.#open++;
    return undefined;
  }

  /** A connection that was counted has ended. */
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

  /** Forgets users of whom nothing is to be remembered. */
  #forget(now: number): void {
    for (const [uid, { open, tokens, at }] of this.#users) {
      const isFull = this.#rate === Infinity ||
        tokens + (now - at) / 1000 * this.#rate >= this.#burst;
      if (open === 0 && isFull) this.#users.delete(uid);
    }
  }
}
