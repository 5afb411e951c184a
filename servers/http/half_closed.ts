/** Half-closed connections of a `node:http` server. */

import type { Socket } from "node:net";
import { isHungUp } from "../../identity/hangup.ts";

/** Connections of which one side has shut down sending. They are destroyed once their peer hangs up. */
export class HalfClosedConnections {
  readonly #sockets = new Set<Socket>();

  /** Adds a half-closed socket. */
  add(socket: Socket): void {
    if (!socket.destroyed) this.#sockets.add(socket);
  }

  /** Removes a socket that is closed. */
  delete(socket: Socket): void {
    if (this.#sockets.size > 0) this.#sockets.delete(socket);
  }

  /** Destroys the sockets of peers that have hung up. The server calls it periodically. */
  sweep(): void {
    for (const socket of this.#sockets) {
      // A handler that has ended an upgraded connection without reading it never receives its "end".
      const isRead = socket.readableEnded || socket.readableFlowing === null;
      if (isRead && isHungUp(socket)) socket.destroy();
    }
  }
}
