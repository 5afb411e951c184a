/** Connections by user: no user may lock out the others. dbus-daemon's limits are the model. */

/** How many connections there may be, and how fast they may come. */
export interface Limits {
  /** Open at once, of all users. By default 2048. */
  readonly connections?: number | undefined;
  /** Open at once, of one uid. By default 256. */
  readonly connectionsPerUser?: number | undefined;
  /** Connections that one uid may make in a second, on the average. By default any number. */
  readonly acceptsPerSecond?: number | undefined;
  /** So many at once are within that average. By default as many as `acceptsPerSecond`. */
  readonly acceptBurst?: number | undefined;
}

/** Which limit a connection would exceed. */
export type Limit = "connections" | "connectionsPerUser" | "acceptsPerSecond";

/** How often connections are counted again while a limit is reached, in ms. */
const REAP = 10;

interface User {
  open: number;
  /** Accepts that are left, as of `at`. */
  tokens: number;
  at: number;
}

/** Users without connections are forgotten when there are more than so many. */
const MOST_IDLE = 4096;

const NAMES: ReadonlySet<string> = new Set(
  [
    "connections",
    "connectionsPerUser",
    "acceptsPerSecond",
    "acceptBurst",
  ] satisfies (keyof Limits)[],
);

/** Counts what is open. */
export class UserLimits {
  readonly #connections: number;
  readonly #perUser: number;
  readonly #rate: number;
  readonly #burst: number;
  readonly #users = new Map<number, User>();
  #open = 0;

  readonly #reap: () => void;
  #reapAt = 0;

  /**
   * @param reap Gives back those that have ended without our having been told yet: Bun accepts as long
   * as somebody connects, and tells of no end before that.
   * @throws {RangeError} If a limit is no number above 0.
   * @throws {TypeError} If there is no limit of a name.
   */
  constructor(limits: Limits = {}, reap: () => void = () => {}) {
    this.#reap = reap;
    for (const [name, limit] of Object.entries(limits)) {
      if (!NAMES.has(name)) throw new TypeError(`There is no limits.${name}`);
      if (limit === undefined || (typeof limit === "number" && limit > 0)) continue;
      throw new RangeError(`limits.${name} is a number above 0, not ${limit}`);
    }
    const { connections = 2048, connectionsPerUser = 256, acceptsPerSecond = Infinity } = limits;
    this.#connections = connections;
    this.#perUser = connectionsPerUser;
    this.#rate = acceptsPerSecond;
    this.#burst = limits.acceptBurst ?? Math.max(1, acceptsPerSecond);
  }

  /** How many are open. */
  get open(): number {
    return this.#open;
  }

  /** Counts a connection, unless that would exceed a limit. */
  take(uid: number, now: number = performance.now()): Limit | undefined {
    let user = this.#users.get(uid);
    if (user === undefined) {
      if (this.#users.size >= MOST_IDLE) this.#forget(now);
      this.#users.set(uid, user = { open: 0, tokens: this.#burst, at: now });
    }
    // Refused ones take their share of the rate, too: who hammers is let in no sooner.
    if (this.#rate !== Infinity && !this.#spend(user, now)) return "acceptsPerSecond";
    if (user.open >= this.#perUser || this.#open >= this.#connections) this.#recount(now);
    if (user.open >= this.#perUser) return "connectionsPerUser";
    if (this.#open >= this.#connections) return "connections";
    user.open++;
    this.#open++;
    return undefined;
  }

  /** A connection that was counted has ended. */
  give(uid: number): void {
    const user = this.#users.get(uid);
    if (user === undefined || user.open === 0) return;
    user.open--;
    this.#open--;
  }

  #recount(now: number): void {
    if (now < this.#reapAt) return;
    this.#reap();
    this.#reapAt = now + REAP; // it looks at each connection, so not for each that is refused
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
