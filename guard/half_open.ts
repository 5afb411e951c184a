/** Reads what the other side sent before it closed a connection, although writes to it fail. */

import type { Socket } from "node:net";
import { isHungUp } from "../identity/hangup.ts";

type Callback = (error?: Error | null) => void;

/**
 * Discards writes after the other side has closed the connection, until all data that it has sent before is
 * read. Then the socket is destroyed. By default a failed write destroys it at once, and that data is lost.
 */
export function discardFailedWrites(socket: Socket): Socket {
  let isEnding = false;
  const discard = (callback: Callback): Callback => (error) => {
    if (!error || socket.readableEnded || !isClosedByPeer(socket, error)) return callback(error);
    if (!isEnding) socket.once("end", () => socket.destroy());
    isEnding = true;
    callback(null);
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
