/** Refusals that no audit log and no listener records → process warnings, at most one a second. */

import process from "node:process";
import { setTimeout } from "node:timers";
import type { Peer } from "../../core/peer.ts";
import { visible } from "../../core/text.ts";
import { cut } from "./audit.ts";

/** Milliseconds from one warning to the next. */
const INTERVAL_MS = 1000;

/** Warns of the refusals of one server. */
export class RefusalWarnings {
  /** Refusals since the last warning, and the last of them. */
  #count = 0;
  #last = "";
  #isWaiting = false;

  /**
   * Notes a refused connection. The first is reported at once; those of the next second by one warning.
   *
   * @param server Where the server listens.
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
    const message = visible(cut(`Refused ${more}${this.#last}`)); // one line, whatever the reason has
    this.#count = 0;
    process.emitWarning(message, { type: "UcredWarning" });
    this.#isWaiting = true;
    setTimeout(() => {
      this.#isWaiting = false;
      if (this.#count > 0) this.#warn();
    }, INTERVAL_MS).unref();
  }
}
