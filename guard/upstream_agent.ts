/** Connections to the upstream server for one client of the HTTP guard. */

import { Agent, type ClientRequest, type IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import type { Client, Upstream } from "./upstream.ts";

/** Connects to the upstream for one client connection, whose requests alone use the connection. */
export class UpstreamAgent extends Agent {
  readonly #upstream: Upstream;
  readonly #client: Client;
  /** Not where connections are kept alive: nothing would notice that the other side has closed one. */
  readonly #allowHalfOpen: boolean;
  /** Connections that are not used again. */
  readonly #spoiled = new WeakSet<Socket>();

  /** @param keepAlive For request after request; otherwise for one whose connection is to be kept. */
  constructor(upstream: Upstream, client: Client, keepAlive: boolean) {
    super({ keepAlive, maxSockets: Infinity, maxFreeSockets: 1 });
    this.#upstream = upstream;
    this.#client = client;
    this.#allowHalfOpen = !keepAlive;
  }

  override createConnection(
    _options: unknown,
    done?: (error: Error | null, socket: Socket) => void,
  ): undefined {
    this.#upstream.connect(this.#client, this.#allowHalfOpen).then(
      (socket) => done?.(null, socket),
      (error) => done?.(error, undefined as never),
    );
  }

  /**
   * Makes sure that a connection is not used again after an answer that some parser could frame in
   * another way, or once bytes have come beyond the answer: they would be read as the next answer.
   */
  watch(answer: IncomingMessage, isHead: boolean): void {
    const { socket } = answer;
    if (isAmbiguous(answer, isHead)) this.#spoiled.add(socket);
    const look = () => answer.complete && this.#spoiled.add(socket);
    socket.prependListener("data", look); // before the parser, for which this may be the last part
    answer.once("close", () => socket.off("data", look));
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
    // Otherwise Deno sends it again if the connection ends, even a POST: denoland/deno 36786.
    request.reusedSocket = false;
  }
}

/** Of a connection that waits for the next request: its server has nothing to send. */
function destroyThis(this: Socket): void {
  this.destroy();
}

/** Whether some parser could find another end of an answer: RFC 9112, 6.3. */
function isAmbiguous(
  { statusCode = 0, headers, rawHeaders, httpVersion }: IncomingMessage,
  isHead: boolean,
): boolean {
  const { "transfer-encoding": coding, "content-length": length } = headers;
  // Servers exist that send the body with an answer that has none.
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
