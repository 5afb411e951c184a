/** The guard's stream mode: decides each connection, then forwards bytes in both directions. */

import type { Socket } from "node:net";
import { createServer } from "../servers/net.ts";
import type { GuardOptions, GuardServer } from "./options.ts";
import { join } from "./pipe.ts";
import { guardServerOf } from "./guard_server.ts";
import { Upstream } from "./upstream.ts";

/** Makes a guard in stream mode. It does not listen yet. */
export function guardStream(options: GuardOptions): GuardServer {
  const { policy, limits, audit } = options;
  const upstream = new Upstream(options);
  // Paused until the upstream is connected. Each direction is half-closed on its own.
  const sockets = { allowHalfOpen: true, pauseOnConnect: true };
  const server = createServer(
    { policy, limits, audit, ...sockets },
    async (client: Socket, peer) => {
      let connection: Socket;
      try {
        connection = await upstream.connect({ socket: client, peer });
      } catch (error) {
        if (client.destroyed) return;
        upstream.reportFailure(error);
        client.destroy();
        return;
      }
      join(client, connection);
    },
  );
  return guardServerOf(server, upstream, limits);
}
