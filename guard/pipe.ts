/** Passes bytes between two sockets, each direction to its own end. */

import type { Duplex } from "node:stream";

/** How long the peer of a connection that ends may take to read what was sent to it, in ms. */
const CLOSE_TIMEOUT_MS = 5000;

/** Passes bytes both ways, each at the pace of its reader, until both directions have ended. */
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
 * Closes a connection after what was sent to it. What its peer still sends is discarded, and neither a
 * peer that does not read nor one that does not close keeps the connection open.
 *
 * @param text Sent last.
 */
export function finish(side: Duplex, text = ""): void {
  if (side.destroyed) return;
  const timer = setTimeout(() => side.destroy(), CLOSE_TIMEOUT_MS);
  side.once("close", () => clearTimeout(timer));
  side.unpipe();
  side.resume();
  if (text !== "" && !side.writableEnded) side.write(text); // end(text) fails on a side that has ended
  side.end(() => side.destroy());
}
