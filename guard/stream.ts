/** A guard that decides at connect, and then passes bytes both ways. */

import type { Socket } from "node:net";
import { createServer } from "../servers/net.ts";
import type { GuardOptions, GuardServer } from "./options.ts";
import { join } from "./pipe.ts";
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
