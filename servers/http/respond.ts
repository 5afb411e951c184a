/** Writes error responses of a `node:http` server, and ends its connections. */

import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { clearTimeout, setTimeout } from "node:timers";
import { headersOf, type Problem } from "./problem.ts";

const ignore = () => {};

/** Ends a connection after this response; node:http would wait for more requests. */
export function endAfter(socket: Duplex, response: ServerResponse | undefined): void {
  if (response === undefined || response.writableFinished) return;
  response.shouldKeepAlive = false;
  response.once("finish", () => socket.end(() => socket.destroy()));
}

/**
 * How long a request's body is discarded before its connection is closed. Closing at once would reset a
 * client that is still sending: Docker's client then reports a broken pipe instead of the response.
 */
const DISCARD_TIMEOUT_MS = 1000;

/** Answers a request with an error response. */
export function answer(request: IncomingMessage, response: ServerResponse, problem: Problem): void {
  const { "content-length": length, "transfer-encoding": coding, expect } = request.headers;
  // An unread body would be parsed as the next request.
  const hasBody = coding !== undefined || expect !== undefined || Number(length ?? 0) !== 0;
  response.writeHead(problem.status, {
    ...headersOf(problem),
    ...((hasBody || problem.isLast) && { connection: "close" }),
  });
  if (!hasBody || problem.isLast || expect !== undefined || request.complete) {
    return void response.end(problem.body);
  }
  response.write(problem.body);
  const end = (): void => {
    clearTimeout(timer);
    response.end();
  };
  const timer = setTimeout(end, DISCARD_TIMEOUT_MS);
  request.once("end", end).once("error", end).once("close", end).resume();
}

/** Answers an upgrade with an error response. */
export function answerRaw(socket: Duplex, problem: Problem): void {
  const lines = Object.entries({ ...headersOf(problem), connection: "close" });
  const head = lines.map(([name, value]) => `${name}: ${value}\r\n`).join("");
  endAndClose(
    socket,
    `HTTP/1.1 ${problem.status} ${problem.title}\r\n${head}\r\n${problem.body}`,
  );
}

/** How long a peer may take to read the last bytes of a connection. */
const CLOSE_TIMEOUT_MS = 2000;

/**
 * Sends the last bytes of a connection and destroys it when the peer has closed it, or after 2 s.
 *
 * `end()` alone keeps the connection open until the peer's end is read. Without a reader that never
 * happens: Node and Deno stop reading at the high-water mark.
 */
function endAndClose(socket: Duplex, bytes: string | Uint8Array): void {
  const timer = setTimeout(() => socket.destroy(), CLOSE_TIMEOUT_MS);
  socket.once("close", () => clearTimeout(timer));
  socket.on("error", ignore).resume(); // destroyed once both sides have ended
  socket.end(bytes);
}
