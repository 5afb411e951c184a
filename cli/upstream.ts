/** The server behind a guard: connections to it, and what is told when there are none. */

import { connect as connectTo, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import type { ServerExpectation } from "../identity/verify.ts";
import { verifyServer } from "../identity/verify.ts";
import { printable, tell } from "./output.ts";

/** How long a connection to the server behind may take, in ms. */
const TIMEOUT = 10_000;

/** How long is tried again, in ms. */
const PATIENCE: { readonly [code: string]: number } = {
  EAGAIN: TIMEOUT,
  ECONNREFUSED: 1000, // it may be about to start; and Bun 1.4.5 calls EAGAIN so
  ECONNRESET: 300, // Bun's name for a connection that was taken and ended at once
};

/** Between two attempts, in ms. */
const LONGEST_PAUSE = 50;

/** How often is told that it cannot be reached, in ms. */
const QUIET = 1000;

/** The server behind. */
export class Upstream {
  readonly path: string;
  readonly #expect: ServerExpectation | undefined;
  #toldAt = -Infinity;
  #untold = 0;

  constructor(path: string, expect: ServerExpectation | undefined) {
    this.path = path;
    this.#expect = expect;
  }

  /**
   * Connects, and makes sure that it is who it has to be before anything is sent. Where too many wait to
   * be accepted it waits too, as a blocking connect(2) does.
   *
   * @param allowHalfOpen Whether each direction ends by itself.
   */
  async connect(allowHalfOpen: boolean): Promise<Socket> {
    const since = performance.now();
    for (let pause = 1;; pause = Math.min(2 * pause, LONGEST_PAUSE)) {
      try {
        return await this.#connect(allowHalfOpen);
      } catch (error) {
        const patience = PATIENCE[(error as NodeJS.ErrnoException).code ?? ""] ?? 0;
        if (performance.now() - since >= patience) throw error;
      }
      await sleep(pause);
    }
  }

  #connect(allowHalfOpen: boolean): Promise<Socket> {
    return new Promise((resolve, reject) => {
      const socket = connectTo({ path: this.path, allowHalfOpen });
      const timer = setTimeout(
        () => socket.destroy(new Error("it does not take the connection")),
        TIMEOUT,
      );
      socket.once("close", () => clearTimeout(timer));
      socket.once("error", reject);
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

  /** Tells that it cannot be reached; not for each of many in a row. */
  tellFailure(error: unknown): void {
    const now = performance.now();
    if (now - this.#toldAt < QUIET) {
      this.#untold++;
      return;
    }
    const more = this.#untold === 0 ? "" : ` (and ${this.#untold} times before)`;
    this.#toldAt = now;
    this.#untold = 0;
    const why = error instanceof Error ? error.message : String(error);
    tell(
      `the server behind, ${printable(this.path.replace("\0", "@"))}, cannot be used: ${
        printable(why)
      }${more}`,
    );
  }
}
