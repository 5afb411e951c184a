/** Limits for the streams of HTTP/2 clients. */

/** Maximum streams of one uid that are open, on all its connections. Each buffers up to 128 KiB. */
const MAX_STREAMS_PER_USER = 1024;

/** Counts open streams by uid. */
export class UserStreams {
  readonly #open = new Map<number, number>();

  /** Counts a stream. Returns `false` if the user has too many. */
  acquire(uid: number): boolean {
    const open = this.#open.get(uid) ?? 0;
    if (open >= MAX_STREAMS_PER_USER) return false;
    this.#open.set(uid, open + 1);
    return true;
  }

  /** Subtracts a stream that `acquire()` has counted. */
  release(uid: number): void {
    const open = this.#open.get(uid)! - 1;
    if (open > 0) this.#open.set(uid, open);
    else this.#open.delete(uid);
  }
}

/** Size of the token bucket for reset streams, and tokens that it regains in a second. */
const MAX_RESETS = 256, RESETS_PER_SECOND = 64;

/**
 * Counts the streams of one connection that end before their responses. Such a stream does not count as
 * open, so a client could start any number of requests: CVE-2023-44487 (the client resets the streams) and
 * CVE-2025-8671 (the client provokes the resets).
 */
export class ResetBudget {
  #tokens = MAX_RESETS;
  #at = 0;

  /** Counts a stream. Returns `false` if the connection must be closed. */
  spend(now: number): boolean {
    const regained = (now - this.#at) / 1000 * RESETS_PER_SECOND;
    this.#tokens = Math.min(MAX_RESETS, this.#tokens + regained) - 1;
    this.#at = now;
    return this.#tokens >= 0;
  }
}
