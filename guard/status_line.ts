/** The status line of the upstream's responses: `node:http` reads some that it refuses to write. */

import type { IncomingMessage } from "node:http";

/** Characters that a reason phrase may have: RFC 9112, 4. */
const REASON = /^[\t\x20-\x7e\x80-\xff]*$/;

/**
 * Removes a reason phrase that must not be forwarded, and checks the status.
 *
 * @returns Why the response must not be forwarded: its status is not one of a final response (RFC 9110, 15).
 */
export function checkStatusLine(response: IncomingMessage): Error | undefined {
  const { statusCode: status = 0, statusMessage = "" } = response;
  if (!REASON.test(statusMessage)) response.statusMessage = "";
  return status >= 200 && status <= 599
    ? undefined
    : new Error(`it answers with the invalid status ${status}`);
}

/** Closes the connection of a response that is not forwarded. */
export function discard(response: IncomingMessage): void {
  const { socket } = response;
  response.on("error", () => {}).destroy();
  socket.destroy();
}
