/** Connections that the other side has closed: what it has sent before can still be read. */

import type { Socket } from "node:net";
import { isHungUp } from "../identity/hangup.ts";

type Callback = (error?: Error | null) => void;

/**
 * Discards writes after the other side has closed the connection. By default a failed write closes the socket
 * at once, and data that has arrived before is lost. Reading reports the end of the connection.
 */
export function discardFailedWrites(socket: Socket): Socket {
  const discard = (callback: Callback): Callback => (error) => {
    callback(error && isClosedByPeer(socket, error) ? null : error);
  };
  const { _write: write, _writev: writev } = socket;
  socket._write = (chunk, encoding, callback) =>
    write.call(socket, chunk, encoding, discard(callback));
  if (writev) {
    socket._writev = (chunks, callback) => writev.call(socket, chunks, discard(callback));
  }
  return socket;
}

/** Whether a write failed because the connection is closed; after shutdown(SHUT_RD) it is still open. */
function isClosedByPeer(socket: Socket, { code }: NodeJS.ErrnoException): boolean {
  return (code === "EPIPE" || code === "ECONNRESET") && !socket.destroyed && isHungUp(socket);
}
