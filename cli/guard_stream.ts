/** A guard that decides at connect, and then passes bytes both ways. */

import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { createServer } from "../servers/net.ts";
import type { GuardOptions, GuardServer } from "./guard.ts";
import { Upstream } from "./upstream.ts";

/** Makes the guard; it does not listen yet. */
export function guardStream(
  { policy, limits, audit, upstream: path, expect }: GuardOptions,
): GuardServer {
  const upstream = new Upstream(path, expect);
  // Paused until there is somebody to send to; each direction ends by itself.
  const sockets = { allowHalfOpen: true, pauseOnConnect: true };
  return createServer({ policy, limits, audit, ...sockets }, async (client: Socket) => {
    let server: Socket;
    try {
      server = await upstream.connect(true);
    } catch (error) {
      upstream.tellFailure(error);
      client.destroy();
      return;
    }
    join(client, server);
  });
}

/** Passes bytes both ways, each at the pace of who reads them, until both directions have ended. */
export function join(client: Duplex, server: Duplex): void {
  client.once("close", () => server.destroy());
  server.once("close", () => client.end());
  if (client.destroyed) return void server.destroy();
  client.pipe(server);
  server.pipe(client);
}
