/** The guard's HTTP mode: decides each request and forwards it with the peer's identity as headers. */

import { createProxyServer } from "httpxy";
import type { ClientRequest, IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { createServer, peerOf } from "../servers/http.ts";
import { introduce, removeHops, wantsToEnd, withoutHttp } from "./headers.ts";
import type { GuardOptions, GuardServer } from "./options.ts";
import { passUpgrade } from "./upgrade.ts";
import { Upstream } from "./upstream.ts";
import { UpstreamAgent } from "./upstream_agent.ts";

/** Makes a guard in HTTP mode. It does not listen yet. */
export function guardHttp(options: GuardOptions): GuardServer {
  const { policy, limits, audit, upstream: path, h2c = false } = options;
  const keepHeaders = new Set(options.keepHeaders?.map((name) => name.toLowerCase()));
  const upstream = new Upstream(options);
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
    upstream.reportFailure(error);
    badGateway(response);
  });
  proxy.on("proxyReq", (outgoing: ClientRequest, _request, response) => {
    outgoing.once("upgrade", (_answer, server: Socket) => { // nobody has asked for it
      server.destroy();
      upstream.reportFailure(new Error("it answers 101 to a request that asks for no upgrade"));
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
