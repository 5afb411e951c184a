/** Forwards bytes between two sockets, and half-closes each direction on its own. */

import type { Duplex } from "node:stream";

/** How long the peer of a closing connection may take to read the data that was sent to it. */
const CLOSE_TIMEOUT_MS = 5000;

/** Forwards bytes both ways, with backpressure, until both directions have ended. */
export function join(client: Duplex, server: Duplex): void {
  client.once("close", () => finish(server));
  server.once("close", () => finish(client));
  if (client.destroyed || server.destroyed) {
    client.destroy();
    server.destroy();
    return;
  }
  client.pipe(server);
  server.pipe(client);
}

/**
 * Closes a connection once the data that was written to it is sent, or after a timeout. Data that the
 * peer still sends is discarded.
 *
 * @param text Sent last.
 */
export function finish(side: Duplex, text = ""): void {
  if (side.destroyed) return;
  const timer = setTimeout(() => side.destroy(), CLOSE_TIMEOUT_MS);
  side.once("close", () => clearTimeout(timer));
  side.unpipe();
  side.resume();
  if (text !== "" && !side.writableEnded) side.write(text); // end(text) fails after the peer's half-close
  side.end(() => side.destroy());
}
