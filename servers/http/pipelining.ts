/** The limit on pipelined requests of one connection of a `node:http` server. */

import type { ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { type NodeConnection, nodeConnectionOf } from "./node_connection.ts";

/**
 * Maximum requests of one connection that may wait for their responses. Beyond it the connection is closed:
 * the runtimes parse pipelined requests while handlers are pending, and `socket.pause()` takes effect only
 * after the current chunk. With 100,000 such requests Node 26.10 was busy for 24 s after the client had
 * hung up.
 */
const MAX_UNANSWERED = 64;

/**
 * Returns whether a request is dropped without a decision, because its connection is closed or has too many
 * pipelined requests. Otherwise counts its response as unanswered.
 */
export function isDropped(socket: Socket, response: ServerResponse): boolean {
  const connection = nodeConnectionOf(socket);
  if (connection === undefined) return false; // a refused connection: the response is 403
  if (socket.destroyed) return true; // the connection was closed by an earlier request of the same chunk
  const { unanswered } = connection;
  while (unanswered[0]?.writableFinished) unanswered.shift(); // responses finish in request order
  if (unanswered.length >= MAX_UNANSWERED) {
    cutPipeline(socket, connection);
    return true;
  }
  unanswered.push(response);
  connection.idleSince = undefined;
  return false;
}

/**
 * Returns whether an upgrade is dropped without a decision, because its connection is closed or has earlier
 * responses to send: its response, which is written to the socket, would overtake them.
 */
export function isDroppedUpgrade(socket: Socket): boolean {
  const connection = nodeConnectionOf(socket);
  if (connection === undefined) return false; // a refused connection: the response is 403
  if (socket.destroyed) return true;
  if (connection.dropped === 0 && connection.unanswered.every(isWritten)) return false;
  cutPipeline(socket, connection);
  return true;
}

/** Returns whether the socket has received all bytes of a response. They may not have been sent yet. */
function isWritten(response: ServerResponse): boolean {
  // A response that waits for an earlier one has no socket yet.
  return response.writableFinished || (response.writableEnded && response.socket !== null);
}

/** Counts a request beyond `maxRequestsPerSocket`, and closes the connection if there are too many. */
export function countDropped(socket: Socket): void {
  const connection = nodeConnectionOf(socket);
  if (connection === undefined || ++connection.dropped <= MAX_UNANSWERED) return;
  cutPipeline(socket, connection);
}

/** Closes a connection without serving its pipelined requests, and stops its parser. */
function cutPipeline(socket: Socket, { admitted }: NodeConnection): void {
  admitted.why ??= "pipelining";
  socket.destroy();
  // Node and Deno would parse the rest of the chunk, up to 64 KiB: 119 ms and 11 MB on Deno 2.9.6. They
  // interpret a return value of 2 as an upgrade, which stops the parser. This is undocumented; where it has
  // no effect, the remaining requests are dropped one by one.
  const { parser } = socket as { parser?: { onIncoming?: unknown } | null };
  if (typeof parser?.onIncoming === "function") parser.onIncoming = () => 2;
}
