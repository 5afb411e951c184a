/** Upgrade requests: forwarded as bytes, and refused with a complete response. */

import { type ClientRequest, type IncomingMessage, request as requestOf } from "node:http";
import type { Socket } from "node:net";
import { type Duplex, Transform } from "node:stream";
import { clearInterval, setInterval } from "node:timers";
import { host } from "../adapters/host.ts";
import { isHungUp } from "../identity/hangup.ts";
import { peerOf } from "../servers/http.ts";
import { finish, join } from "./pipe.ts";
import { checkStatusLine, discard } from "./status_line.ts";
import type { Upstream } from "./upstream.ts";
import { UpstreamAgent } from "./upstream_agent.ts";

/**
 * Forwards an upgrade request.
 *
 * - If the upstream answers 101, bytes are forwarded in both directions from then on: WebSocket, or
 *   Docker's hijacked streams. Until then only the request and its body reach the upstream, because it
 *   could read early data as another request.
 * - Any other response is forwarded, and the connection closes. A truncated response closes it at once,
 *   so that the client notices.
 */
export function passUpgrade(
  upstream: Upstream,
  request: IncomingMessage,
  client: Duplex,
  head: Uint8Array,
): void {
  client.on("error", () => {});
  const { method, url, headers } = request;
  const agent = new UpstreamAgent(upstream, { socket: client, peer: peerOf(request) }, false);
  const outgoing = requestOf({ agent, method, path: url, headers });
  let isAnswered = false;
  const watch = setInterval(() => {
    if (isHungUp(client as Socket)) client.destroy(); // the runtime reports it only when data is read
  }, CLIENT_CHECK_MS).unref();
  client.once("close", () => {
    clearInterval(watch);
    outgoing.destroy();
  });
  outgoing.on("error", (error) => {
    if (client.destroyed || client.writableEnded) return;
    upstream.reportFailure(error);
    if (isAnswered) client.destroy(); // another response would be read as part of the body
    else refuse(client, "502 Bad Gateway");
  });
  outgoing.on("upgrade", (response, server: Socket, first: Uint8Array) => {
    server.on("error", () => {});
    if (headers.upgrade === undefined) { // no upgrade was requested
      server.destroy();
      return refuse(client, "502 Bad Gateway");
    }
    isAnswered = true;
    checkStatusLine(response); // the status is 101
    client.write(headOf(response, response.rawHeaders), "latin1");
    if (first.length > 0) server.unshift(first);
    clearInterval(watch); // from now on, the end of either direction is forwarded
    join(client, server);
  });
  outgoing.on("response", (response) => {
    const invalid = checkStatusLine(response);
    if (invalid !== undefined) {
      discard(response);
      upstream.reportFailure(invalid);
      return refuse(client, "502 Bad Gateway");
    }
    isAnswered = true;
    client.resume(); // discards what the client sends
    const kept = response.rawHeaders.filter((_, at, all) => !HOP_BY_HOP.test(all[at - at % 2]!));
    const { "transfer-encoding": coding = "" } = response.headers;
    const isChunked = /\bchunked$/i.test(coding) && request.httpVersion === "1.1" &&
      method !== "HEAD" && ![204, 304].includes(response.statusCode ?? 0);
    const framing = isChunked ? ["Transfer-Encoding", coding] : [];
    client.write(headOf(response, [...kept, ...framing, "Connection", "close"]), "latin1");
    const body = isChunked ? response.pipe(inChunks()) : response;
    response.on("error", () => client.destroy()).once("close", () => {
      if (!response.complete) client.destroy();
    });
    body.once("end", () => finish(client)).pipe(client, { end: false });
  });
  // Synchronously: when the peer half-closes, node:net ends a socket that has nothing to read, and
  // unshift() then fails.
  if (head.length > 0) client.unshift(head);
  if (!sendBody(request, client, outgoing)) {
    outgoing.destroy();
    refuse(client, "411 Length Required");
  }
}

/**
 * Sends the body of an upgrade request. Deno 2.9.5 leaves the part that has not arrived yet on the
 * connection, and never ends the request; there the body is read from the connection, by its length.
 *
 * @returns `false` if the length is unknown.
 */
function sendBody(request: IncomingMessage, client: Duplex, outgoing: ClientRequest): boolean {
  if (request.complete || host().runtime !== "deno") {
    request.pipe(outgoing);
    return true;
  }
  if ("transfer-encoding" in request.headers) return false;
  let missing = Number(request.headers["content-length"] ?? 0) - request.readableLength;
  const received = request.read();
  if (received !== null) outgoing.write(received);
  if (missing === 0) {
    outgoing.end();
    return true;
  }
  const take = (bytes: Uint8Array) => {
    const own = bytes.subarray(0, missing);
    missing -= own.length;
    if (!outgoing.write(own)) {
      client.pause();
      outgoing.once("drain", () => missing > 0 && client.resume());
    }
    if (missing > 0) return;
    client.off("data", take).pause();
    if (bytes.length > own.length) client.unshift(bytes.subarray(own.length));
    outgoing.end();
  };
  client.on("data", take).once("end", () => missing > 0 && client.destroy());
  return true;
}

/** Applies the chunked coding, which the parser removed. */
function inChunks(): Transform {
  return new Transform({
    transform(bytes: Uint8Array, _encoding, done) {
      this.push(`${bytes.length.toString(16)}\r\n`);
      this.push(bytes);
      done(null, "\r\n");
    },
    flush: (done) => done(null, "0\r\n\r\n"),
  });
}

const HOP_BY_HOP = /^(connection|keep-alive|transfer-encoding|trailer|upgrade)$/i;

function headOf(
  { statusCode = 0, statusMessage = "" }: IncomingMessage,
  headers: readonly string[],
): string {
  const lines = headers.map((text, at) => at % 2 === 0 ? `${text}: ` : `${text}\r\n`);
  return `HTTP/1.1 ${statusCode} ${statusMessage}\r\n${lines.join("")}\r\n`;
}

function refuse(client: Duplex, status: string): void {
  finish(client, `HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
}

/** How often to check whether the client of an upgrade has hung up before the response. */
export const CLIENT_CHECK_MS = 1000;
