/**
 * Process warnings about refused connections that no audit log and no subscriber records; at most one a
 * second.
 */

import process from "node:process";
import { setTimeout } from "node:timers";
import type { Peer } from "../../core/peer.ts";
import { visible } from "../../core/text.ts";
import { truncate } from "./audit.ts";

/** Milliseconds between two warnings. */
const INTERVAL_MS = 1000;

/** Warns about the refused connections of one server. */
export class RefusalWarnings {
  /** Refused connections since the last warning, and a description of the last one. */
  #count = 0;
  #last = "";
  #isWaiting = false;

  /**
   * Adds a refused connection. The first is reported at once; those of the next second share one warning.
   *
   * @param server The path of the server's socket.
   * @param reason Why the connection was refused.
   */
  add(server: string, peer: Peer | undefined, reason: string): void {
    this.#count++;
    const of = peer === undefined ? "a connection" : `uid ${peer.uid}`;
    this.#last = `${of} at ${server}: ${reason}`;
    if (!this.#isWaiting) this.#warn();
  }

  #warn(): void {
    const more = this.#count === 1 ? "" : `${this.#count} connections, the last of them `;
    const message = visible(truncate(`Refused ${more}${this.#last}`)); // escaped, so that it stays one line
    this.#count = 0;
    process.emitWarning(message, { type: "UcredWarning" });
    this.#isWaiting = true;
    setTimeout(() => {
      this.#isWaiting = false;
      if (this.#count > 0) this.#warn();
    }, INTERVAL_MS).unref();
  }
}
