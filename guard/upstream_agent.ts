/** Connections to the upstream server for one client of a guard in HTTP mode. */

import type { ClientRequest, IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import { ConnectingAgent } from "../client/agent.ts";
import type { Client, Upstream } from "./upstream.ts";

/** Connects to the upstream for one client connection. No other client's requests use its connections. */
export class UpstreamAgent extends ConnectingAgent {
  /** Connections that must not be reused. */
  readonly #spoiled = new WeakSet<Socket>();

  /** @param keepAlive Whether the connection is reused for the client's next request; `false` for upgrades. */
  constructor(upstream: Upstream, client: Client, keepAlive: boolean) {
    // Kept-alive connections are not half-open: nothing would notice that the upstream closed one.
    const allowHalfOpen = !keepAlive;
    super(
      { keepAlive, maxSockets: Infinity, maxFreeSockets: 1 },
      () => upstream.connect(client, allowHalfOpen),
    );
  }

  /**
   * Prevents the reuse of a connection after a response with ambiguous framing, or with bytes after its
   * end: they would be read as the next response (response splitting).
   */
  watch(response: IncomingMessage, isHead: boolean): void {
    const { socket } = response;
    if (isAmbiguous(response, isHead)) this.#spoiled.add(socket);
    const check = () => response.complete && this.#spoiled.add(socket);
    socket.prependListener("data", check); // before the parser, which may complete the response
    response.once("close", () => socket.off("data", check));
  }

  override keepSocketAlive(socket: Socket): boolean {
    if (this.#spoiled.has(socket) || socket.readableLength > 0) return false;
    super.keepSocketAlive(socket);
    socket.on("data", destroyThis).resume();
    return true;
  }

  override reuseSocket(socket: Socket, request: ClientRequest): void {
    socket.off("data", destroyThis);
    super.reuseSocket(socket, request);
  }
}

/** Closes an idle connection on which the upstream sends data without a request. */
function destroyThis(this: Socket): void {
  this.destroy();
}

/** Whether parsers could disagree about the end of a response: RFC 9112, 6.3. */
function isAmbiguous(
  { statusCode = 0, headers, rawHeaders, httpVersion }: IncomingMessage,
  isHead: boolean,
): boolean {
  const { "transfer-encoding": coding, "content-length": length } = headers;
  // Some servers send a body with a response that must have none.
  if (isHead || [204, 205, 304].includes(statusCode)) {
    return coding !== undefined || (length ?? "0") !== "0";
  }
  const framings = rawHeaders.filter((name, at) =>
    at % 2 === 0 && /^(content.length|transfer.encoding)$/i.test(name)
  );
  if (framings.length !== 1) return true;
  if (coding === undefined) return !/^[0-9]+$/.test(length ?? "");
  return !/^chunked$/i.test(coding) || httpVersion !== "1.1";
}
