/** Connections to the upstream server of a guard: retries, queues by user, and the log line on failure. */

import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { connectVerified } from "../client/connect.ts";
import type { Peer } from "../core/peer.ts";
import { displayName } from "../core/socket_name.ts";
import { textOf, visible } from "../core/text.ts";
import { isDrained } from "../identity/hangup.ts";
import { type ServerExpectation, verifyServer } from "../identity/verify_server.ts";
import { PeerConnector } from "./as_peer.ts";
import { discardFailedWrites } from "./half_open.ts";
import type { GuardOptions } from "./options.ts";

/** How long a connection to the upstream may take. */
const CONNECT_TIMEOUT_MS = 10_000;

/** How long the connection of `probe()` may take. */
const PROBE_TIMEOUT_MS = 2000;

/** Error code → how long a failed connect(2) is repeated. Other errors are final. */
const RETRY_MS: { readonly [code: string]: number } = {
  EAGAIN: CONNECT_TIMEOUT_MS, // the backlog is full
  ECONNREFUSED: 1000, // the upstream may be starting; Bun 1.4.5 also reports EAGAIN as this
  ECONNRESET: 300, // Bun reports a connection that was closed right after accept(2) as this
};

/** The longest pause between two rounds of retries. */
const MAX_PAUSE_MS = 50;

/** Retries in flight at a time, for all users together. */
const MAX_RETRIES = 8;

/** At most one failure is logged in this time. */
const LOG_INTERVAL_MS = 1000;

const NOT_ACCEPTED = "it does not accept the connection";

/** The client that a connection to the upstream is for. */
export interface Client {
  /** The client's connection. The attempt to connect ends when it closes. */
  readonly socket: Duplex;
  /** Its identity. Users take turns while the upstream's backlog is full. */
  readonly peer: Peer;
}

/** A client that waits for a connection to the upstream. */
interface Waiter extends Client {
  readonly uid: number;
  readonly since: number;
  /** The connection in progress. */
  attempt: Socket | undefined;
  isSettled: boolean;
  settle(outcome: Socket | Error): void;
}

/** The upstream server. */
export class Upstream {
  readonly path: string;
  /** How often it could not be used, or answered wrongly. */
  failures = 0;
  readonly #expect: ServerExpectation | undefined;
  readonly #connector: PeerConnector | undefined;
  readonly #report: (line: string) => void;
  #reportedAt = -Infinity;
  #unreported = 0;
  /** Clients whose connect(2) failed and is repeated, by user. The first user in the map is next. */
  readonly #waiting = new Map<number, Set<Waiter>>();
  #retries = 0;
  #pause = 1;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Why the last attempt failed. */
  #lastError: NodeJS.ErrnoException = new Error(NOT_ACCEPTED);

  /** @throws {UcredError} If `asPeer` is set and the process cannot change its ids. */
  constructor({ upstream, expect, asPeer = false, report = () => {} }: GuardOptions) {
    this.path = upstream;
    this.#expect = expect;
    this.#connector = asPeer ? new PeerConnector(upstream) : undefined;
    this.#report = report;
  }

  /**
   * Connects, and verifies the upstream's identity before anything is sent. While the upstream's backlog
   * is full, clients wait in one queue per user, and users take turns.
   *
   * @returns A socket of which each direction is closed on its own.
   * @throws If the upstream cannot be reached, or the client hangs up.
   */
  connect({ socket, peer }: Client): Promise<Socket> {
    return new Promise((resolve, reject) => {
      const leave = () => waiter.settle(new Error("the client has hung up"));
      const waiter: Waiter = {
        socket,
        peer,
        uid: peer.uid,
        since: performance.now(),
        attempt: undefined,
        isSettled: false,
        settle: (outcome) => {
          if (waiter.isSettled) return;
          waiter.isSettled = true;
          socket.off("close", leave);
          this.#forget(waiter);
          if (outcome instanceof Error) {
            waiter.attempt?.destroy();
            reject(outcome);
          } else resolve(outcome);
        },
      };
      if (socket.destroyed) return leave();
      socket.once("close", leave);
      if (this.#waiting.size > 0) this.#enqueue(waiter);
      else this.#try(waiter).catch(() => {});
    });
  }

  /** Makes one attempt, and queues the client again after a temporary failure. */
  async #try(waiter: Waiter): Promise<void> {
    try {
      waiter.settle(await this.#connect(waiter));
    } catch (error) {
      const { code = "" } = error as NodeJS.ErrnoException;
      if (waiter.isSettled) throw error;
      if (performance.now() - waiter.since >= (RETRY_MS[code] ?? 0)) {
        waiter.settle(error as Error);
      } else {
        this.#lastError = error as NodeJS.ErrnoException;
        this.#enqueue(waiter);
      }
      throw error;
    }
  }

  #enqueue(waiter: Waiter): void {
    const queue = this.#waiting.get(waiter.uid);
    if (queue === undefined) this.#waiting.set(waiter.uid, new Set([waiter]));
    else queue.add(waiter);
    this.#schedule();
  }

  #forget(waiter: Waiter): void {
    const queue = this.#waiting.get(waiter.uid);
    if (queue?.delete(waiter) && queue.size === 0) this.#waiting.delete(waiter.uid);
  }

  #schedule(): void {
    if (this.#waiting.size === 0 || this.#retries > 0) return;
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#expire();
      this.#pause = Math.min(2 * this.#pause, MAX_PAUSE_MS);
      while (this.#retries < MAX_RETRIES && this.#waiting.size > 0) this.#retry();
    }, this.#pause);
  }

  /** Retries for the user who has waited longest for a turn. */
  #retry(): void {
    const [uid, queue] = this.#waiting.entries().next().value!;
    const [waiter] = queue;
    this.#waiting.delete(uid);
    queue.delete(waiter!);
    if (queue.size > 0) this.#waiting.set(uid, queue);
    this.#retries++;
    this.#try(waiter!).then(() => {
      this.#retries--;
      this.#pause = 1;
      if (this.#waiting.size > 0) this.#retry();
    }, () => {
      this.#retries--;
      this.#schedule();
    });
  }

  /** Gives up for clients that have waited too long, or have hung up without unread data. */
  #expire(): void {
    const limit = RETRY_MS[this.#lastError.code ?? ""] ?? 0;
    const now = performance.now();
    for (const queue of [...this.#waiting.values()]) {
      for (const waiter of queue) {
        if (now - waiter.since >= limit) waiter.settle(this.#lastError);
        // The runtime does not report a hang-up while nothing is read.
        else if (isDrained(waiter.socket as Socket)) waiter.socket.destroy();
      }
    }
  }

  async #connect(waiter: Waiter): Promise<Socket> {
    const { peer } = waiter;
    const expect = this.#expect;
    if (this.#connector !== undefined) {
      const socket = discardFailedWrites(this.#connector.connect(peer).on("error", () => {}));
      waiter.attempt = socket;
      if (expect !== undefined) verifyServer(socket, expect);
      return socket;
    }
    return await this.#open(CONNECT_TIMEOUT_MS, (socket) => waiter.attempt = socket);
  }

  /** Connects with the guard's own ids, and verifies the upstream. */
  #open(timeoutMs: number, onSocket: (socket: Socket) => void = () => {}): Promise<Socket> {
    const target = { path: this.path, expect: this.#expect, allowHalfOpen: true };
    return connectVerified(target, (socket) => {
      onSocket(discardFailedWrites(socket));
      const timer = setTimeout(() => socket.destroy(new Error(NOT_ACCEPTED)), timeoutMs);
      const stop = () => clearTimeout(timer);
      socket.once("connect", stop).once("close", stop);
      socket.on("error", () => {}); // an error ends this connection only
    });
  }

  /** The number of clients that wait for another attempt to connect; see {@link RETRY_MS}. */
  get waiting(): number {
    let count = this.#retries;
    for (const queue of this.#waiting.values()) count += queue.size;
    return count;
  }

  /**
   * Connects once with the guard's own ids, verifies the upstream, and closes the connection.
   *
   * @throws If it cannot be reached, is not the expected server, or its backlog is full.
   */
  async probe(): Promise<void> {
    const socket = await this.#open(PROBE_TIMEOUT_MS);
    socket.destroy();
  }

  /** Connects with the guard's own ids, for the guard itself, and verifies the upstream. */
  connectAsGuard(): Promise<Socket> {
    return this.#open(CONNECT_TIMEOUT_MS);
  }

  /** Reports that the upstream cannot be used, at most once in {@link LOG_INTERVAL_MS}. */
  reportFailure(error: unknown): void {
    this.failures++;
    const now = performance.now();
    if (now - this.#reportedAt < LOG_INTERVAL_MS) {
      this.#unreported++;
      return;
    }
    const more = this.#unreported === 0 ? "" : ` (and ${this.#unreported} times before)`;
    this.#reportedAt = now;
    this.#unreported = 0;
    const path = visible(displayName(this.path));
    const why = visible(error instanceof Error ? error.message : textOf(error));
    this.#report(`the upstream ${path} cannot be used: ${why}${more}`);
  }
}
