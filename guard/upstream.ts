/** The upstream of a guard: connections to it, and the log line when there are none. */

import { connect as connectTo, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { textOf, visible } from "../core/text.ts";
import { isSpent } from "../identity/hangup.ts";
import { type ServerExpectation, verifyServer } from "../identity/verify_server.ts";
import type { GuardOptions } from "./options.ts";

/** How long a connection to the upstream may take, in ms. */
const TIMEOUT = 10_000;

/** How long a failed connect is repeated, in ms. */
const PATIENCE: { readonly [code: string]: number } = {
  EAGAIN: TIMEOUT,
  ECONNREFUSED: 1000, // it may be about to start; and Bun 1.4.5 reports EAGAIN as this
  ECONNRESET: 300, // Bun reports a connection that was accepted and closed at once as this
};

/** The longest pause between two rounds of retries, in ms. */
const MAX_PAUSE_MS = 50;

/** Retries in flight at a time, of all users. */
const MAX_RETRIES = 8;

/** How often a failure is logged, in ms. */
const LOG_INTERVAL_MS = 1000;

/** Whom a connection to the upstream is for. */
export interface Client {
  /** The client's connection. When it closes, the attempt is given up. */
  readonly socket: Duplex;
  /** Users take turns where the upstream accepts too slowly. */
  readonly uid: number | undefined;
}

/** A client that waits for a connection. */
interface Waiter extends Client {
  readonly allowHalfOpen: boolean;
  readonly since: number;
  /** The attempt in flight. */
  attempt: Socket | undefined;
  isSettled: boolean;
  settle(outcome: Socket | Error): void;
}

/** The server behind the guard. */
export class Upstream {
  readonly path: string;
  readonly #expect: ServerExpectation | undefined;
  readonly #report: (line: string) => void;
  #reportedAt = -Infinity;
  #unreported = 0;
  /** Clients whose connect failed and is repeated, by user. The first user has the next turn. */
  readonly #waiting = new Map<number | undefined, Set<Waiter>>();
  #retries = 0;
  #pause = 1;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Why the last attempt failed. */
  #lastError: NodeJS.ErrnoException = new Error("it does not accept the connection");

  constructor({ upstream, expect, report = () => {} }: GuardOptions) {
    this.path = upstream;
    this.#expect = expect;
    this.#report = report;
  }

  /**
   * Connects, and verifies the upstream's identity before anything is sent. While the upstream's backlog
   * is full, clients wait in a queue for each user, and users take turns.
   *
   * @param allowHalfOpen Whether each direction ends by itself.
   * @throws If it cannot be reached, or the client has left.
   */
  connect({ socket, uid }: Client, allowHalfOpen: boolean): Promise<Socket> {
    return new Promise((resolve, reject) => {
      const leave = () => waiter.settle(new Error("the client has left"));
      const waiter: Waiter = {
        socket,
        uid,
        allowHalfOpen,
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

  /** @throws If the attempt failed. */
  async #try(waiter: Waiter): Promise<void> {
    try {
      waiter.settle(await this.#connect(waiter));
    } catch (error) {
      const { code = "" } = error as NodeJS.ErrnoException;
      if (waiter.isSettled) throw error;
      if (performance.now() - waiter.since >= (PATIENCE[code] ?? 0)) {
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

  /** The user who has waited longest for a turn gets it. */
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

  /** Gives up for clients that have waited for too long, or have left without having sent anything. */
  #expire(): void {
    const patience = PATIENCE[this.#lastError.code ?? ""] ?? 0;
    const now = performance.now();
    for (const queue of [...this.#waiting.values()]) {
      for (const waiter of queue) {
        if (now - waiter.since >= patience) waiter.settle(this.#lastError);
        // The runtime reports neither while nothing is read.
        else if (isSpent(waiter.socket as Socket)) waiter.socket.destroy();
      }
    }
  }

  #connect(waiter: Waiter): Promise<Socket> {
    return new Promise((resolve, reject) => {
      const socket = connectTo({ path: this.path, allowHalfOpen: waiter.allowHalfOpen });
      waiter.attempt = socket;
      const timer = setTimeout(
        () => socket.destroy(new Error("it does not accept the connection")),
        TIMEOUT,
      );
      socket.once("error", reject).once("close", () => {
        clearTimeout(timer);
        reject(new Error("the connection was closed")); // by ours: there is no "error" then
      });
      socket.once("connect", () => {
        clearTimeout(timer);
        socket.off("error", reject).on("error", () => {}); // ends this connection only
        try {
          if (this.#expect !== undefined) verifyServer(socket, this.#expect);
          resolve(socket);
        } catch (error) {
          socket.destroy();
          reject(error);
        }
      });
    });
  }

  /** Reports that the upstream cannot be used; at most once in LOG_INTERVAL_MS. */
  reportFailure(error: unknown): void {
    const now = performance.now();
    if (now - this.#reportedAt < LOG_INTERVAL_MS) {
      this.#unreported++;
      return;
    }
    const more = this.#unreported === 0 ? "" : ` (and ${this.#unreported} times before)`;
    this.#reportedAt = now;
    this.#unreported = 0;
    const path = visible(this.path.replace("\0", "@"));
    const why = visible(error instanceof Error ? error.message : textOf(error));
    this.#report(`the upstream ${path} cannot be used: ${why}${more}`);
  }
}
