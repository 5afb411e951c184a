/** A guard that decides each HTTP request, and passes it on with the peer's identity in its headers. */

import { createProxyServer } from "httpxy";
import { Agent, type ClientRequest, type IncomingMessage, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { createServer, peerOf } from "../servers/http.ts";
import { introduce, removeHops, wantsToEnd, withoutHttp } from "./headers.ts";
import type { GuardOptions, GuardServer } from "./options.ts";
import { passUpgrade } from "./upgrade.ts";
import { type Client, Upstream } from "./upstream.ts";

/** Makes the guard; it does not listen yet. */
export function guardHttp(
  { policy, limits, audit, upstream: path, expect, h2c, keepHeaders }: GuardOptions,
): GuardServer {
  const upstream = new Upstream(path, expect);
  const target = { socketPath: path } as never;
  const theServer = { target: { socketPath: path, pathname: "*" } as never, ignorePath: true };
  const proxy = createProxyServer({ xfwd: false });
  const agents = new WeakMap<Socket, UpstreamAgent>();
  /** The client's own: no other client's request ever goes over a connection of it. */
  const agentOf = (request: IncomingMessage): UpstreamAgent => {
    const { socket } = request;
    let agent = agents.get(socket);
    if (agent === undefined) {
      const { uid } = peerOf(request);
      agents.set(socket, agent = new UpstreamAgent(upstream, { socket, uid }, true));
      const made = agent;
      socket.once("close", () => made.destroy());
    }
    return agent;
  };
  const pass = (request: IncomingMessage, response: ServerResponse) => {
    const how = request.url === "*" ? theServer : { target };
    return proxy.web(request, response, { ...how, agent: agentOf(request) })
      .catch(() => void response.destroy()); // the client has left
  };
  const again = new WeakSet<IncomingMessage>();
  proxy.on("error", (error, request, given) => {
    const response = given as ServerResponse;
    if (request?.destroyed && !request.complete) return; // the client has left
    if (
      isLate(error) && mayBeAskedAgain(request!) && !response.headersSent && !again.has(request!)
    ) {
      again.add(request!);
      return void pass(request!, response);
    }
    upstream.tellFailure(error);
    badGateway(response);
  });
  proxy.on("proxyReq", (outgoing: ClientRequest, _request, response) => {
    outgoing.once("upgrade", (_answer, server: Socket) => { // nobody has asked for it
      server.destroy();
      upstream.tellFailure(new Error("it answers 101 to a request that asks for no upgrade"));
      badGateway(response);
    });
  });
  const isLast = new WeakSet<IncomingMessage>();
  proxy.on("proxyRes", (answer: IncomingMessage, request, response) => {
    const { headers } = answer;
    agentOf(request).watch(answer, request.method === "HEAD");
    removeHops(headers);
    headers.connection = isLast.has(request) ? "close" : "keep-alive";
    answer.once("end", () => {
      if (Object.keys(answer.trailers).length > 0) response.addTrailers(answer.trailers as never);
    });
    // Whoever waits for the headers alone (of events that are to come) gets them without a body.
    setImmediate(() => response.headersSent || response.destroyed || response.flushHeaders());
  });
  const server = createServer({ policy, limits, audit, requestTimeout: 0 }, (request, response) => {
    if (wantsToEnd(request)) isLast.add(request);
    removeHops(request.headers);
    introduce(request, keepHeaders);
    inTurn(request, response, () => void pass(request, response));
  });
  server.on("checkContinue", (request, response) => { // only once it is allowed
    response.writeContinue();
    if (wantsToEnd(request)) isLast.add(request);
    removeHops(request.headers);
    introduce(request, keepHeaders);
    inTurn(request, response, () => void pass(request, response));
  });
  server.on("upgrade", (request: IncomingMessage, client: Duplex, head: Uint8Array) => {
    const { headers } = request;
    const to = h2c ? headers.upgrade : withoutHttp(headers.upgrade);
    removeHops(headers);
    if (to !== undefined) Object.assign(headers, { connection: "Upgrade", upgrade: to });
    introduce(request, keepHeaders);
    passUpgrade(upstream, request, client, head);
  });
  return server;
}

/** What waits until requests before it are answered, of connections on which one is being answered. */
const waiting = new WeakMap<Socket, (() => void)[]>();

/**
 * Passes the requests of a connection on one after the other, however fast they come: in the order in
 * which the client means them, and without a connection to the server behind for each.
 */
function inTurn({ socket }: IncomingMessage, response: ServerResponse, run: () => void): void {
  const start = () => {
    if (socket.destroyed) return void waiting.delete(socket); // the client has left
    let isOver = false;
    const next = () => {
      if (isOver) return;
      isOver = true;
      const following = waiting.get(socket)?.shift();
      if (following === undefined) waiting.delete(socket);
      else following();
    };
    response.once("finish", next).once("close", next);
    run();
  };
  const queue = waiting.get(socket);
  if (queue !== undefined) return void queue.push(start);
  waiting.set(socket, []);
  start();
}

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

/** Whether a connection has ended that may have been about to when the request was sent. */
function isLate(error: unknown): boolean {
  return ["ECONNRESET", "EPIPE"].includes((error as NodeJS.ErrnoException).code ?? "");
}

/** Whether asking twice is as good as asking once: RFC 9110, 9.2.1. And there is no body to send twice. */
function mayBeAskedAgain({ method, headers }: IncomingMessage): boolean {
  const hasBody = Number(headers["content-length"] ?? 0) > 0 || "transfer-encoding" in headers;
  return ["GET", "HEAD", "OPTIONS"].includes(method ?? "") && !hasBody;
}

const BAD_GATEWAY = "The server behind the guard cannot be reached\n";

/** The server behind cannot be used, or has ended in the middle of its answer. */
function badGateway(response: ServerResponse): void {
  if (response.writableEnded) return; // it was told already
  if (response.headersSent) return void response.destroy();
  for (const name of response.getHeaderNames()) response.removeHeader(name); // of its answer
  response.writeHead(502, "Bad Gateway", {
    "content-type": "text/plain",
    "content-length": BAD_GATEWAY.length,
    connection: "close",
  });
  response.end(BAD_GATEWAY);
}

/** How often to check whether the client of an upgrade has left before the answer, in ms. */
export const CLIENT_CHECK_MS = 1000;
