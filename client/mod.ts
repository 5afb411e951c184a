/**
 * `ucred/client`: clients that verify the server before they send the first byte.
 *
 * @example Connect only to a server of root or of our own user
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

import { Buffer } from "node:buffer";
import {
  type Agent,
  type ClientRequest,
  type IncomingMessage,
  request as requestOf,
} from "node:http";
import { Readable } from "node:stream";
import { requireOptions } from "../core/options.ts";
import { VerifyingAgent } from "./agent.ts";
import { CONNECT_OPTIONS, type ConnectOptions } from "./connect.ts";

export { UcredError, type UcredErrorCode } from "../core/errors.ts";
export { connect, type ConnectOptions } from "./connect.ts";
export type { ServerExpectation } from "../identity/verify_server.ts";

/** An HTTP client that verifies the server of each of its connections. */
export interface VerifyingClient {
  /** For `http.request({ agent })` and libraries that are built on it. Keeps connections alive. */
  readonly agent: Agent;
  /**
   * Works like the global `fetch`, over the socket. It follows no redirects and decodes no
   * `Content-Encoding`.
   *
   * The URL is `http:` or `https:`. Its host is sent as the `Host` header and has no other effect; TLS
   * is not used.
   *
   * Headers that belong to the connection are dropped from the request, so that a handler can forward
   * the headers of its own client: `Connection`, `Content-Length`, `Expect`, `Host`, `Keep-Alive`, `TE`,
   * `Trailer`, `Transfer-Encoding`, `Upgrade` and similar ones. Of these, the response has only
   * `Content-Length`.
   *
   * @throws {TypeError} If the URL has another scheme, the method cannot be sent, or the server answers
   * with a status that a `Response` cannot have: 101, or one outside 200 to 599.
   */
  fetch(input: string | URL | Request, init?: RequestInit): Promise<Response>;
  /** Closes all connections. Pending requests and unread response bodies fail. */
  close(): void;
}

/**
 * Creates an HTTP client for one server. Each connection is verified before the first request is sent
 * over it.
 *
 * @example Fetch from a server of our own user
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
    fetch: (input, init) => fetchBy(agent, input, init),
    close: () => agent.destroy(),
  };
}

/** Headers that concern only one connection or message: RFC 9110, 7.6.1, and RFC 9112. */
const CONNECTION_HEADERS: ReadonlySet<string> = new Set([
  "connection",
  "expect",
  "http2-settings",
  "keep-alive",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);

/** Headers of a request that the client sets itself. */
const isOurs = (name: string) =>
  CONNECTION_HEADERS.has(name) || name === "content-length" || name === "host";

/** Statuses of responses without a body: Fetch, 2.2.3. A `Response` has no status below 200. */
const NO_BODY: ReadonlySet<number> = new Set([204, 205, 304]);

async function fetchBy(
  agent: Agent,
  input: string | URL | Request,
  init: RequestInit = {},
): Promise<Response> {
  const request = new Request(input, init);
  const { method, signal } = request;
  const { protocol, host, pathname, search } = new URL(request.url);
  if (protocol !== "http:" && protocol !== "https:") {
    throw new TypeError(`Cannot fetch ${request.url}: the scheme is neither http: nor https:`);
  }
  requireMethod(request, init);
  const bytes = isInMemory(init.body) ? Buffer.from(await request.arrayBuffer()) : undefined;
  signal.throwIfAborted();
  // node:http cannot know the length of a stream, and sends a body of DELETE unframed without these headers.
  const framing = bytes !== undefined
    ? { "content-length": bytes.length }
    : request.body !== null
    ? { "transfer-encoding": "chunked" }
    : method === "POST" || method === "PUT"
    ? { "content-length": 0 }
    : {};
  const headers = [...request.headers].filter(([name]) => !isOurs(name));
  const outgoing = requestOf({
    agent,
    method,
    path: pathname + search,
    headers: {
      ...Object.fromEntries(headers),
      ...framing,
      host,
      // A body after the response to HEAD would be read as the next response.
      ...(method === "HEAD" && { connection: "close" }),
    },
  });
  const { response, fail } = responseTo(outgoing, signal);
  if (bytes !== undefined) outgoing.end(bytes);
  else if (request.body === null) outgoing.end();
  else sendBody(request.body, outgoing).catch(fail);
  return await response;
}

/** Bun 1.4.5 replaces unknown methods by GET, and accepts CONNECT, TRACE, and GET with a body. */
function requireMethod({ method, body }: Request, { method: wanted = method }: RequestInit): void {
  if (method.toUpperCase() !== wanted.toUpperCase() || /^(?:CONNECT|TRACE|TRACK)$/.test(method)) {
    throw new TypeError(`Cannot fetch with the method ${JSON.stringify(wanted)}`);
  }
  if ((method === "GET" || method === "HEAD") && body !== null) {
    throw new TypeError(`Cannot fetch with the method ${method} and a body`);
  }
}

/** Returns whether the length of a body is known before reading it. */
function isInMemory(body: unknown): boolean {
  return typeof body === "string" || body instanceof ArrayBuffer || ArrayBuffer.isView(body) ||
    body instanceof URLSearchParams;
}

/** Sends a stream as it is read. The stream is cancelled if the request closes. */
async function sendBody(
  body: ReadableStream<Uint8Array>,
  outgoing: ClientRequest,
): Promise<void> {
  const reader = body.getReader();
  let goOn = () => {};
  outgoing.on("drain", () => goOn()).on("close", () => {
    goOn();
    reader.cancel().catch(() => {});
  });
  for (let part; !(part = await reader.read()).done;) {
    if (!outgoing.write(part.value)) await new Promise<void>((resolve) => goOn = resolve);
  }
  outgoing.end();
}

/** Returns the response to a request, and a function that fails the request, or later the body. */
function responseTo(outgoing: ClientRequest, signal: AbortSignal) {
  let resolve!: (response: Response) => void;
  let reject!: (error: unknown) => void;
  const response = new Promise<Response>((...both) => [resolve, reject] = both);
  let incoming: IncomingMessage | undefined;
  const fail = (error: unknown) => {
    reject(error);
    outgoing.destroy(error as Error);
    incoming?.destroy(error as Error);
  };
  const abort = () => fail(signal.reason);
  signal.addEventListener("abort", abort);
  outgoing.on("error", fail);
  outgoing.on("close", () => {
    if (incoming !== undefined) return;
    signal.removeEventListener("abort", abort);
    fail(new Error("The server closed the connection without a response"));
  });
  outgoing.on("upgrade", (_, socket) => {
    socket.destroy();
    fail(new TypeError("Cannot use the response: its status is 101"));
  });
  outgoing.on("response", (message: IncomingMessage) => {
    // The body's stream reports its errors to its reader.
    incoming = message.on("error", () => {})
      .on("close", () => signal.removeEventListener("abort", abort));
    try {
      resolve(responseOf(incoming));
    } catch (error) {
      fail(error);
    }
  });
  return { response, fail };
}

function responseOf(incoming: IncomingMessage): Response {
  const { statusCode: status = 0, statusMessage: statusText = "", rawHeaders } = incoming;
  if (status < 200 || status > 599) {
    throw new TypeError(`Cannot use the response: its status is ${status}`);
  }
  const headers = new Headers();
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const [name, value] = [rawHeaders[at]!, rawHeaders[at + 1]!];
    if (!CONNECTION_HEADERS.has(name.toLowerCase())) headers.append(name, value);
  }
  if (NO_BODY.has(status)) incoming.resume();
  const body = NO_BODY.has(status) ? null : Readable.toWeb(incoming) as never;
  return new Response(body, { status, statusText, headers });
}
