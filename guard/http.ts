/** The guard's HTTP mode: decides each request and forwards it with the peer's identity as headers. */

import { createProxyServer } from "httpxy";
import type { ClientRequest, IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { createServer, peerOf } from "../servers/http.ts";
import { removeHopByHop, requestsClose, setIdentity, withoutHttp } from "./headers.ts";
import type { GuardOptions, GuardServer } from "./options.ts";
import { checkStatusLine, discard } from "./status_line.ts";
import { passUpgrade } from "./upgrade.ts";
import { Upstream } from "./upstream.ts";
import { UpstreamAgent } from "./upstream_agent.ts";

/** Makes a guard in HTTP mode. It does not listen yet. */
export function guardHttp(options: GuardOptions): GuardServer {
  const { policy, limits, audit, upstream: path, h2c = false } = options;
  const keepHeaders = new Set(options.keepHeaders?.map((name) => name.toLowerCase()));
  const upstream = new Upstream(options);
  const target = { socketPath: path } as never;
  const asterisk = { target: { socketPath: path, pathname: "*" } as never, ignorePath: true };
  const proxy = createProxyServer({ xfwd: false });
  const agents = new WeakMap<Socket, UpstreamAgent>();
  /** The agent of the client's connection: no two clients share a connection to the upstream. */
  const agentOf = (request: IncomingMessage): UpstreamAgent => {
    const { socket } = request;
    let agent = agents.get(socket);
    if (agent === undefined) {
      const client = { socket, peer: peerOf(request) };
      agents.set(socket, agent = new UpstreamAgent(upstream, client, true));
      const made = agent;
      socket.once("close", () => made.destroy());
    }
    return agent;
  };
  const pass = (request: IncomingMessage, response: ServerResponse) => {
    const destination = request.url === "*" ? asterisk : { target };
    return proxy.web(request, response, { ...destination, agent: agentOf(request) })
      .catch(() => void response.destroy()); // the client has hung up
  };
  const repeated = new WeakSet<IncomingMessage>();
  proxy.on("error", (error, request, given) => {
    const response = given as ServerResponse;
    if (request?.destroyed && !request.complete) return; // the client has hung up
    if (
      isReset(error) && isRepeatable(request!) && !response.headersSent && !repeated.has(request!)
    ) {
      repeated.add(request!);
      return void pass(request!, response);
    }
    upstream.reportFailure(error);
    badGateway(response);
  });
  proxy.on("proxyReq", (outgoing: ClientRequest, _request, response) => {
    outgoing.once("upgrade", (_response, server: Socket) => { // no upgrade was requested
      server.destroy();
      upstream.reportFailure(new Error("it answers 101 to a request without an upgrade"));
      badGateway(response);
    });
  });
  const isLast = new WeakSet<IncomingMessage>();
  proxy.on("proxyRes", (incoming: IncomingMessage, request, response) => {
    const { headers } = incoming;
    const invalid = checkStatusLine(incoming);
    if (invalid !== undefined) {
      discard(incoming);
      upstream.reportFailure(invalid);
      return badGateway(response); // httpxy forwards nothing to a response that has ended
    }
    agentOf(request).watch(incoming, request.method === "HEAD");
    removeHopByHop(headers);
    headers.connection = isLast.has(request) ? "close" : "keep-alive";
    incoming.once("end", () => {
      const { trailers } = incoming;
      if (Object.keys(trailers).length > 0) response.addTrailers(trailers as never);
    });
    // Forwards the headers before the first byte of the body, for event streams.
    setImmediate(() => response.headersSent || response.destroyed || response.flushHeaders());
  });
  const server = createServer({ policy, limits, audit, requestTimeout: 0 }, (request, response) => {
    if (requestsClose(request)) isLast.add(request);
    removeHopByHop(request.headers);
    setIdentity(request, keepHeaders);
    inTurn(request, response, () => void pass(request, response));
  });
  server.on("checkContinue", (request, response) => { // emitted after the policy allowed the request
    response.writeContinue();
    if (requestsClose(request)) isLast.add(request);
    removeHopByHop(request.headers);
    setIdentity(request, keepHeaders);
    inTurn(request, response, () => void pass(request, response));
  });
  server.on("upgrade", (request: IncomingMessage, client: Duplex, head: Uint8Array) => {
    const { headers } = request;
    const to = h2c ? headers.upgrade : withoutHttp(headers.upgrade);
    removeHopByHop(headers);
    if (to !== undefined) Object.assign(headers, { connection: "Upgrade", upgrade: to });
    setIdentity(request, keepHeaders);
    passUpgrade(upstream, request, client, head);
  });
  return server;
}

/** Connections with a request in flight, each with the requests that wait for its response. */
const waiting = new WeakMap<Socket, (() => void)[]>();

/**
 * Forwards the requests of a connection one after the other. Pipelined requests keep their order and
 * share one connection to the upstream.
 */
function inTurn({ socket }: IncomingMessage, response: ServerResponse, run: () => void): void {
  const start = () => {
    if (socket.destroyed) return void waiting.delete(socket); // the client has hung up
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

/** Whether the upstream closed the connection, perhaps before it received the request. */
function isReset(error: unknown): boolean {
  return ["ECONNRESET", "EPIPE"].includes((error as NodeJS.ErrnoException).code ?? "");
}

/** Whether a request may be repeated: its method is safe (RFC 9110, 9.2.1), and it has no body. */
function isRepeatable({ method, headers }: IncomingMessage): boolean {
  const hasBody = Number(headers["content-length"] ?? 0) > 0 || "transfer-encoding" in headers;
  return ["GET", "HEAD", "OPTIONS"].includes(method ?? "") && !hasBody;
}

const BAD_GATEWAY = "The upstream server cannot be reached\n";

/** Responds with 502, or closes the connection if the response has begun. */
function badGateway(response: ServerResponse): void {
  if (response.writableEnded) return; // the response is complete
  if (response.headersSent) return void response.destroy();
  for (const name of response.getHeaderNames()) response.removeHeader(name); // those of the upstream
  response.writeHead(502, "Bad Gateway", {
    "content-type": "text/plain",
    "content-length": BAD_GATEWAY.length,
    connection: "close",
  });
  response.end(BAD_GATEWAY);
}
