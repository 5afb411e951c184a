/** A guard that decides each HTTP request, and passes it on with the peer's identity in its headers. */

import {
  Agent,
  type ClientRequest,
  type IncomingMessage,
  request as requestOf,
  type ServerResponse,
} from "node:http";
import type { Socket } from "node:net";
import { type Duplex, Transform } from "node:stream";
import { clearInterval, setInterval } from "node:timers";
import { createProxyServer } from "httpxy";
import { host } from "../adapters/host.ts";
import type { Peer } from "../core/peer.ts";
import type { Decision } from "../core/policy/policy.ts";
import { isHungUp } from "../identity/hangup.ts";
import { createServer, decisionOf, peerOf } from "../servers/http.ts";
import type { GuardOptions, GuardServer } from "./run.ts";
import { isForgeable, isIdentityHeader } from "./headers.ts";
import { finish, join } from "./stream.ts";
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
class UpstreamAgent extends Agent {
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

/** Whether the client wants its connection to end with the answer. */
function wantsToEnd({ headers: { connection = "" } }: IncomingMessage): boolean {
  return /(^|,)\s*close\s*(,|$)/i.test(connection);
}

/** About a connection, not about what goes over it: RFC 9110, 7.6.1. Expectations are met here. */
const HOPS = ["connection", "proxy-connection", "keep-alive", "te", "trailer", "upgrade", "expect"];

/** What tells where a message ends, and for whom it is, is not up to a `Connection` header. */
const NO_HOPS = ["content-length", "transfer-encoding", "host"];

/** Removes what is about the connection, and what it says is. */
function removeHops(headers: IncomingMessage["headers"]): void {
  const { connection } = headers;
  for (const name of HOPS) delete headers[name];
  if (connection === undefined || /^(keep-alive|close|upgrade)$/i.test(connection)) return;
  for (const each of connection.split(",")) {
    const name = each.trim().toLowerCase();
    if (!NO_HOPS.includes(name)) delete headers[name];
  }
}

/** Protocols in which there would be requests again, which nobody decides about. */
const HTTP = /^\s*(h2c?|https?|tls)(\/|\s*$)/i;

/** What is left of an `Upgrade` header; `undefined` if nothing is. */
function withoutHttp(protocols: string = ""): string | undefined {
  return protocols.split(",").filter((each) => !HTTP.test(each)).join(",").trim() || undefined;
}

/** Replaces whatever the client sent under the name of an identity header by the peer's identity. */
function introduce(request: IncomingMessage, kept: ReadonlySet<string>): void {
  const { headers } = request;
  for (const name of Object.keys(headers)) {
    if (isIdentityHeader(name) || (isForgeable(name) && !kept.has(name))) delete headers[name];
  }
  Object.assign(headers, identityHeaders(peerOf(request), decisionOf(request)));
}

/** In ASCII: what has other characters is percent-encoded. */
function identityHeaders(peer: Peer, decision: Decision): { readonly [name: string]: string } {
  const { pid, uid, gid, groups, user, ambiguous } = peer;
  const { rule, grants } = decision;
  return {
    "x-ucred-uid": String(uid),
    "x-ucred-gid": String(gid),
    ...(groups && { "x-ucred-groups": groups.join(",") }),
    ...(pid !== undefined && { "x-ucred-pid": String(pid) }),
    ...(user !== undefined && { "x-ucred-user": encodeURI(user) }),
    ...(ambiguous.length > 0 && { "x-ucred-ambiguous": ambiguous.join(",") }),
    ...(rule !== undefined && { "x-ucred-rule": encodeURI(rule) }),
    ...(grants.length > 0 && { "x-ucred-grants": grants.map(encodeItem).join(",") }),
  };
}

/** As part of a list, whose commas are ours. */
function encodeItem(text: string): string {
  return encodeURI(text).replaceAll(",", "%2C");
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
const CLIENT_CHECK_MS = 1000;

/**
 * Passes an upgrade on. If the server behind agrees (101), the connection is from then on bytes in both
 * directions, whatever they mean: WebSocket, or Docker's hijacked streams. Until then nothing but the
 * request and its body reaches it: what the client sends too early might be read as another request.
 * If it does not agree, its answer is passed on and the connection ends; at once where the answer is cut
 * short, so that nobody takes it for whole.
 */
function passUpgrade(
  upstream: Upstream,
  request: IncomingMessage,
  client: Duplex,
  head: Uint8Array,
): void {
  client.on("error", () => {});
  const { method, url, headers } = request;
  const agent = new UpstreamAgent(upstream, { socket: client, uid: peerOf(request).uid }, false);
  const outgoing = requestOf({ agent, method, path: url, headers });
  let isAnswered = false;
  const watch = setInterval(() => {
    if (isHungUp(client as Socket)) client.destroy(); // nothing else reports it before data is read
  }, CLIENT_CHECK_MS).unref();
  client.once("close", () => {
    clearInterval(watch);
    outgoing.destroy();
  });
  outgoing.on("error", (error) => {
    if (client.destroyed || client.writableEnded) return;
    upstream.tellFailure(error);
    if (isAnswered) client.destroy(); // another head would be read as part of the body
    else refuse(client, "502 Bad Gateway");
  });
  outgoing.on("upgrade", (response, server: Socket, first: Uint8Array) => {
    server.on("error", () => {});
    if (headers.upgrade === undefined) { // it was not asked for
      server.destroy();
      return refuse(client, "502 Bad Gateway");
    }
    isAnswered = true;
    client.write(headOf(response, response.rawHeaders), "latin1");
    if (first.length > 0) server.unshift(first);
    clearInterval(watch); // the end of either direction is now passed on
    join(client, server);
  });
  outgoing.on("response", (response) => {
    isAnswered = true;
    client.resume(); // what the client sends is not passed on
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
  // At once: node:net ends a socket that has nothing to read when its peer half-closes, and takes
  // nothing back then.
  if (head.length > 0) client.unshift(head);
  if (!sendBody(request, client, outgoing)) {
    outgoing.destroy();
    refuse(client, "411 Length Required");
  }
}

/**
 * Sends the body of an upgrade's request. What of it has not come yet Deno 2.9.5 leaves on the
 * connection, and the request without an end: there it is taken from the connection, if its length is
 * known.
 *
 * @returns Whether it can be sent.
 */
function sendBody(request: IncomingMessage, client: Duplex, outgoing: ClientRequest): boolean {
  if (request.complete || host().runtime !== "deno") {
    request.pipe(outgoing);
    return true;
  }
  if ("transfer-encoding" in request.headers) return false;
  let missing = Number(request.headers["content-length"] ?? 0) - request.readableLength;
  const here = request.read();
  if (here !== null) outgoing.write(here);
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

/** Puts its coding back around a body, from which the parser took it. */
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
