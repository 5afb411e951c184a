/** A guard that decides at connect, and then passes bytes both ways. */

import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { createServer } from "../servers/net.ts";
import type { GuardOptions, GuardServer } from "./run.ts";
import { Upstream } from "./upstream.ts";

/** Makes the guard; it does not listen yet. */
export function guardStream(
  { policy, limits, audit, upstream: path, expect }: GuardOptions,
): GuardServer {
  const upstream = new Upstream(path, expect);
  // Paused until there is somebody to send to; each direction ends by itself.
  const sockets = { allowHalfOpen: true, pauseOnConnect: true };
  return createServer({ policy, limits, audit, ...sockets }, async (client: Socket, { uid }) => {
    let server: Socket;
    try {
      server = await upstream.connect({ socket: client, uid }, true);
    } catch (error) {
      if (client.destroyed) return;
      upstream.tellFailure(error);
      client.destroy();
      return;
    }
    join(client, server);
  });
}

/** How long the peer of a connection that ends may take to read what was sent to it, in ms. */
const FAREWELL = 5000;

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
  const timer = setTimeout(() => side.destroy(), FAREWELL);
  side.once("close", () => clearTimeout(timer));
  side.unpipe();
  side.resume();
  if (text !== "" && !side.writableEnded) side.write(text); // end(text) fails on a side that has ended
  side.end(() => side.destroy());
}
