/**
 * Clients that make sure of the server before they send a byte: `ucred/client`.
 *
 * @example Speak to root's server or to one of our own, to no other
 * ```ts
 * import { connect } from "ucred/client";
 * import { createServer } from "ucred/net";
 *
 * const server = createServer({}, (socket) => socket.end()).listen("app.sock", async () => {
 *   const socket = await connect({ path: "app.sock", expect: { uid: [0, process.getuid!()] } });
 *   console.log("connected");
 *   socket.end("a secret\n");
 *   server.close();
 * });
 * ```
 *
 * @module
 */

import { Agent, type ClientRequest, type IncomingMessage, request as requestOf } from "node:http";
import { connect as connectTo, type Socket } from "node:net";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { type OptionNames, requireOptions } from "../core/options.ts";
import { type ServerExpectation, verifyServer } from "../identity/verify.ts";

export type { ServerExpectation } from "../identity/verify.ts";

/** Where the server is, and who it has to be. */
export interface ConnectOptions {
  /** A path, or an abstract name with "\0" first. */
  readonly path: string;
  /**
   * Who has called listen(2) last. With socket activation expect both: the service manager until the
   * server has started, and the server from then on, as all three runtimes call it again.
   */
  readonly expect: ServerExpectation;
}

const CONNECT_OPTIONS: OptionNames<ConnectOptions> = { path: true, expect: true };

/**
 * Connects to a server, if it is the one that is expected. Nothing is sent before that is known.
 *
 * @returns The connected socket, which is yours.
 * @throws {UcredError} `ERR_UCRED_REFUSED` if it is another one; the connection is then closed.
 * @throws {Error} What `net.connect()` reports.
 */
export function connect(options: ConnectOptions): Promise<Socket> {
  return new Promise((resolve, reject) => {
    requireOptions("connect()", options, CONNECT_OPTIONS);
    const { path, expect } = options;
    const socket = connectTo(path);
    socket.once("error", reject);
    socket.once("connect", () => {
      socket.off("error", reject);
      try {
        verifyServer(socket, expect);
        resolve(socket);
      } catch (error) {
        socket.on("error", () => {}); // it is being closed
        reject(error);
      }
    });
  });
}

/** An HTTP client whose every connection is to the server that is expected. */
export interface VerifyingClient {
  /** For `http.request({ agent })` and what is built on it. Keeps connections alive. */
  readonly agent: Agent;
  /**
   * As the global `fetch` does it, over the socket: the host of the URL is sent as the `Host` header
   * and means nothing else. Follows no redirects.
   */
  fetch(input: string | URL | Request, init?: RequestInit): Promise<Response>;
  /** Ends connections that are kept alive. */
  close(): void;
}

/**
 * Makes an HTTP client for one server. Each connection is verified before the first request is sent
 * over it.
 *
 * @example
 * ```ts
 * import { createClient } from "ucred/client";
 * import { serve } from "ucred/http";
 *
 * const server = await serve({ path: "app.sock", fetch: () => new Response("welcome") });
 * const client = createClient({ path: "app.sock", expect: { uid: process.getuid!() } });
 * const response = await client.fetch("http://localhost/");
 * console.log(await response.text()); // welcome
 * client.close();
 * await server.close();
 * ```
 */
export function createClient(options: ConnectOptions): VerifyingClient {
  requireOptions("createClient()", options, CONNECT_OPTIONS);
  const agent = new VerifyingAgent(options);
  return {
    agent,
    fetch: (input, init) => fetchBy(agent, new Request(input, init)),
    close: () => agent.destroy(),
  };
}

class VerifyingAgent extends Agent {
  readonly #options: ConnectOptions;

  constructor(options: ConnectOptions) {
    super({ keepAlive: true });
    this.#options = options;
  }

  override createConnection(
    _options: unknown,
    done?: (error: Error | null, socket: Socket) => void,
  ): undefined {
    connect(this.#options).then(
      (socket) => done?.(null, socket),
      (error) => done?.(error, undefined as never),
    );
  }
}

/** Statuses whose responses have no body: Fetch, 2.2.3. */
const NO_BODY: ReadonlySet<number> = new Set([101, 103, 204, 205, 304]);

function fetchBy(agent: Agent, request: Request): Promise<Response> {
  const { promise, resolve, reject } = Promise.withResolvers<Response>();
  const { method, signal } = request;
  const { hostname, port, pathname, search } = new URL(request.url);
  const outgoing: ClientRequest = requestOf({
    agent,
    method,
    signal,
    host: hostname,
    ...(port !== "" && { port }),
    path: pathname + search,
    headers: Object.fromEntries(request.headers),
  });
  outgoing.on("error", reject);
  outgoing.on("response", (incoming) => resolve(responseOf(incoming)));
  if (request.body === null) outgoing.end();
  else pipeline(Readable.fromWeb(request.body as never), outgoing).catch(reject);
  return promise;
}

function responseOf(incoming: IncomingMessage): Response {
  const { statusCode: status = 0, statusMessage: statusText = "", rawHeaders } = incoming;
  const headers = new Headers();
  for (let at = 0; at < rawHeaders.length; at += 2) {
    headers.append(rawHeaders[at]!, rawHeaders[at + 1]!);
  }
  if (NO_BODY.has(status)) incoming.resume();
  const body = NO_BODY.has(status) ? null : Readable.toWeb(incoming) as never;
  return new Response(body, { status, statusText, headers });
}
