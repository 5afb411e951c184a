/** Servers of node:http: identified in their "connection" event, decided before anybody hears of a request. */

import {
  type IncomingMessage,
  type RequestListener,
  Server,
  type ServerOptions,
  type ServerResponse,
} from "node:http";
import { createServer as createNetServer, type Server as NetServer, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { clearInterval, clearTimeout, setInterval, setTimeout } from "node:timers";
import { type OptionNames, requireOptions } from "../../core/options.ts";
import { hidesFd, httpHidesFd } from "../../identity/fd.ts";
import { isHungUp, tellsHangUp } from "../../identity/hangup.ts";
import { DescriptorFinder, type FoundSocket } from "../../system/accepted_sockets.ts";
import {
  Admission,
  ADMISSION_OPTIONS,
  type AdmissionOptions,
  type Admitted,
  isAdmitted,
  type RefusedConnection,
  type ServerStats,
} from "../admission/admission.ts";
import { admittedOf, attachAdmission, attachDecision } from "../admission/attach.ts";
import { attempt, requireHandler } from "../admission/handler.ts";
import {
  type CloseOptions,
  type ListenArguments,
  Listening,
  parseListen,
  type SafeServer,
} from "../listen/lifecycle.ts";
import { type Connection, decideRequest, isProblem, onProcessExit } from "./decide_request.ts";
import { BAD_CODING, BAD_HOST, DRIFTED, forbidden, headersOf, type Problem } from "./problem.ts";
import { refusalOf, refuseRequests, refuseSocket } from "./refusal.ts";
import { isHost } from "./request_target.ts";

/** Who may ask for what. */
export interface HttpAdmissionOptions extends AdmissionOptions {
  /**
   * Whether a connection ends as soon as its peer is not what it was when it connected: each request
   * asks `drift()`, and the end of the peer's process ends the connection at once, which aborts what
   * still handles its requests. Peers are then pinned. By default `false`.
   */
  readonly revalidate?: boolean | undefined;
}

/** The options of {@link HttpAdmissionOptions}. */
export const REQUEST_OPTIONS: OptionNames<HttpAdmissionOptions> = {
  ...ADMISSION_OPTIONS,
  revalidate: true,
};

/** Who may ask for what, and the options of `http.createServer()`. */
export interface HttpServerOptions
  extends HttpAdmissionOptions, Omit<ServerOptions, "shouldUpgradeCallback"> {}

const HTTP_OPTIONS: OptionNames<HttpServerOptions> = {
  ...REQUEST_OPTIONS,
  IncomingMessage: true,
  ServerResponse: true,
  requestTimeout: true,
  joinDuplicateHeaders: true,
  keepAliveTimeout: true,
  keepAliveTimeoutBuffer: true,
  connectionsCheckingInterval: true,
  headersTimeout: true,
  highWaterMark: true,
  httpValidation: true,
  insecureHTTPParser: true,
  maxHeaderSize: true,
  noDelay: true,
  requireHostHeader: true,
  keepAlive: true,
  keepAliveInitialDelay: true,
  uniqueHeaders: true,
  rejectNonStandardBodyWrites: true,
  optimizeEmptyRequests: true,
};

/** An `http.Server` that answers whom its policy lets in. */
export type HttpServer = Server & SafeServer;

/** {@link createServer} without options. */
export function createServer(app?: RequestListener): HttpServer;
/**
 * Makes an HTTP server that identifies each connection, and decides each request and each upgrade by
 * `METHOD /path` before anybody hears of it. What is denied is answered with 403.
 *
 * The path that is decided about is decoded and without `//`, `.` and `..`, and it is the one that
 * the application gets as `request.url`. What can be read in two ways (an encoded slash, say) is
 * answered with 400. The query takes no part.
 *
 * It is an `http.Server`, for whatever takes one: Express, Fastify (`serverFactory`), Koa, `ws`.
 * Without options of yours, headers have to come within 10 s and a request within 5 minutes.
 *
 * @param app Handles what was allowed. If it throws, or its promise rejects, the answer is 500.
 * @throws {TypeError} If an option is wrong.
 *
 * @example Who asked
 * ```ts
 * import { createServer, decisionOf, peerOf } from "ucred/http";
 *
 * const server = createServer({}, (request, response) => {
 *   const { rule } = decisionOf(request);
 *   response.end(`welcome, uid ${peerOf(request).uid}, by rule ${rule}\n`);
 * });
 * server.listen("app.sock");
 * ```
 */
export function createServer(options: HttpServerOptions, app?: RequestListener): HttpServer;
export function createServer(
  first: HttpServerOptions | RequestListener = {},
  second?: RequestListener,
): HttpServer {
  const [options, app] = typeof first === "function" ? [{}, first] : [first, second];
  if (typeof options === "object" && options !== null && "shouldUpgradeCallback" in options) {
    // It would hear of requests that are not decided yet.
    throw new TypeError('There is no shouldUpgradeCallback: decide in "upgrade"');
  }
  requireOptions("createServer()", options, HTTP_OPTIONS);
  return new AdmittingHttpServer(options, requireHandler(app)) as unknown as HttpServer;
}

/** Limits that a peer may be held to which is on the same machine. */
const DEFAULTS: ServerOptions = { headersTimeout: 10_000, connectionsCheckingInterval: 2000 };

interface NodeConnection extends Connection {
  readonly server: AdmittingHttpServer;
  /** The last answer of the connection, which requests behind it get, too: the parser goes on reading. */
  end: Problem | undefined;
  /** Responses in the order of their requests, without those that were finished when the last request came. */
  readonly unanswered: ServerResponse[];
  /** Requests beyond `maxRequestsPerSocket`. */
  dropped: number;
  /** Whether a protocol other than HTTP is spoken. */
  isUpgraded: boolean;
  /** When the server first saw that no request is under way, as of `performance.now()`. */
  idleSince: number | undefined;
}

/** The response to the last request; `undefined` if there is none. */
function lastResponse({ isUpgraded, unanswered }: NodeConnection): ServerResponse | undefined {
  return isUpgraded ? undefined : unanswered.at(-1);
}

/**
 * Requests of one connection that may wait for their answers. Beyond it the connection is closed: the
 * runtimes go on to parse what the client sends while handlers are pending, and `socket.pause()` does not
 * stop them within a chunk. With 100,000 such requests Node 26.10 was busy for 24 s after the client had left.
 */
const MAX_UNANSWERED = 64;

/** Where each socket has its connection. */
const CONNECTION = Symbol("ucred.connection");

function nodeConnectionOf(socket: object): NodeConnection | undefined {
  return (socket as { [CONNECTION]?: NodeConnection })[CONNECTION];
}

const ignore = () => {};

/** How often is looked whether those who send no more have left altogether, in ms. */
const SWEEP = 1000;

class AdmittingHttpServer extends Server {
  readonly #admission: Admission;
  readonly #listening: Listening;
  readonly #revalidate: boolean;
  /** How many sockets were let in, and have not said that they are closed. */
  #open = 0;
  readonly #onEmpty: (() => void)[] = [];
  #isClosing = false;
  /** Half-closed connections: one side sends no more, and the other may. */
  readonly #halfClosed = new Set<Socket>();
  #sweeper: ReturnType<typeof setInterval> | undefined;
  /** Connections that were refused, and are being answered. */
  readonly #refused = new Set<Socket>();
  /** Finds the descriptors that Bun's sockets hide. */
  #acceptor: DescriptorFinder | undefined;
  /** What it finds connections of. */
  #boundTo: string | undefined;
  /** Listens on a descriptor where `http.Server` cannot. */
  #inner: NetServer | undefined;

  constructor(
    { policy, pin, limits, audit, revalidate = false, ...options }: HttpServerOptions,
    app?: RequestListener,
  ) {
    super({ ...DEFAULTS, ...options });
    // All headers, up to maxHeaderSize: where Deno drops what is beyond a number, it drops the length of
    // a body, too, and that body would be the next request.
    this.maxHeadersCount = 0;
    // Who sends no more gets its answer; undocumented, and known to all three runtimes.
    (this as { httpAllowHalfOpen?: boolean }).httpAllowHalfOpen = tellsHangUp();
    this.#admission = new Admission({
      policy,
      pin: pin ?? (revalidate || undefined),
      limits,
      audit,
    }, true);
    this.#revalidate = revalidate;
    this.#listening = new Listening({
      listen: (where, backlog) => this.#listen(where, backlog),
      close: (done) => this.#close(done),
      address: () => (this.#inner ?? { address: () => super.address() }).address(),
      closeIdle: () => this.#closeIdle(),
      cut: () => this.closeAllConnections(),
      emit: (event: string, error?: unknown) => void super.emit(event, error),
    }, (path, boundTo) => {
      this.#admission.server = path;
      if (!httpHidesFd() || boundTo === this.#boundTo) return;
      this.#acceptor = new DescriptorFinder(boundTo);
      this.#boundTo = boundTo;
    });
    if (app !== undefined) {
      this.on("request", (request: IncomingMessage, response: ServerResponse) => {
        this.#serve(app, request, response);
      });
    }
  }

  /** Whoever listens to these events hears only of what was allowed. */
  override emit(event: string | symbol, ...args: unknown[]): boolean {
    switch (event) {
      case "request":
      case "checkContinue":
      case "checkExpectation": {
        const request = args[0] as IncomingMessage;
        const response = args[1] as ServerResponse;
        if (isDropped(request.socket, response)) return true;
        const problem = this.#decide(request, response);
        const drained = this.#admission.drained(admittedOf(request));
        if (drained !== undefined) { // back-pressure: a flood of requests would crowd out others in the log
          void drained.then(() => {
            if (request.socket.destroyed) return;
            if (problem === undefined) super.emit(event, request, response);
            else answer(request, response, problem);
          });
          return true;
        }
        if (problem === undefined) return super.emit(event, request, response);
        answer(request, response, problem);
        return true;
      }
      case "upgrade":
      case "connect": {
        const [request, socket] = args as [IncomingMessage, Duplex];
        const problem = this.#decide(request, undefined);
        if (problem === undefined) {
          socket.once("finish", () => this.#watch(socket as Socket));
          return super.emit(event, ...args);
        }
        answerRaw(socket, problem);
        return true;
      }
      case "dropRequest": { // beyond maxRequestsPerSocket: the runtime answers, without a decision
        const socket = args[1] as Socket;
        const connection = nodeConnectionOf(socket);
        if (connection !== undefined && ++connection.dropped > MAX_UNANSWERED) {
          cutPipeline(socket, connection);
        }
        return true;
      }
      case "connection":
        return this.#admit(args[0] as Socket);
    }
    return this.#listening.intercept(event, args[0]) || super.emit(event as string, ...args);
  }

  override listen(...args: unknown[]): this {
    const { options, onListening } = parseListen(args as unknown as ListenArguments);
    if (onListening !== undefined) this.once("listening", onListening);
    this.#listening.start(options);
    return this;
  }

  override close(how?: CloseOptions | ((error?: Error) => void)): this {
    if (typeof how !== "object") {
      this.#listening.close({}, how ?? (() => {}));
      return this;
    }
    return new Promise<void>((resolve, reject) => {
      this.#listening.close(how, (error) => error === undefined ? resolve() : reject(error));
    }) as unknown as this;
  }

  /** Also those that were upgraded, which `http.Server` leaves open. */
  override closeAllConnections(): void {
    this.#admission.cut();
  }

  override address(): string | null {
    return this.#listening.path ?? null;
  }

  stats(): ServerStats {
    return this.#admission.stats();
  }

  #listen(where: { readonly path: string } | { readonly fd: number }, backlog: number): void {
    // Bun's http.Server takes a descriptor for "any TCP port" (oven-sh/bun 22559).
    if (!("fd" in where && httpHidesFd())) return void super.listen({ ...where, backlog });
    this.#inner = createNetServer((socket) => this.emit("connection", socket));
    for (const event of ["listening", "error"]) {
      this.#inner.on(event, (error) => this.#listening.intercept(event, error));
    }
    this.#inner.listen({ ...where, backlog });
  }

  #close(whenClosed: (error?: Error) => void): void {
    const end = (error?: Error) => {
      this.#isClosing = false;
      whenClosed(error);
    };
    // The runtime's own count is down before the last socket says that it is closed.
    const done = (error?: Error) => {
      if (this.#open === 0) end(error);
      else this.#onEmpty.push(() => end(error));
    };
    const inner = this.#inner;
    this.#inner = undefined;
    if (inner === undefined) super.close(done);
    else inner.close(done);
  }

  #closeIdle(): void {
    this.#isClosing = true;
    for (const socket of this.#refused) socket.destroy();
    super.closeIdleConnections();
    for (const admitted of this.#admission.open()) {
      const socket = admitted.socket as Socket;
      const connection = nodeConnectionOf(socket)!;
      if (!connection.hasAsked) socket.destroy(); // Deno leaves them open
      else endAfter(socket, lastResponse(connection));
    }
  }

  #admit(socket: Socket): boolean {
    socket.on("error", ignore); // a peer that leaves ends its own connection only
    const answer = this.#identify(socket);
    if (!isAdmitted(answer)) {
      this.#refuse(socket, answer);
      return true;
    }
    const connection: NodeConnection = {
      server: this,
      admitted: answer,
      hasAsked: false,
      end: undefined,
      unanswered: [],
      dropped: 0,
      isUpgraded: false,
      idleSince: undefined,
    };
    (socket as { [CONNECTION]?: NodeConnection })[CONNECTION] = connection;
    attachAdmission(socket, answer);
    this.#open++;
    this.#sweeper ??= setInterval(() => this.#sweep(), SWEEP).unref();
    socket.once("close", () => {
      this.#open--;
      connection.unanswered.length = 0; // the runtime holds the socket for longer
      if (this.#halfClosed.size > 0) this.#halfClosed.delete(socket);
      this.#admission.ended(answer);
      if (this.#open === 0) { for (const run of this.#onEmpty.splice(0)) run(); }
    });
    if (this.#revalidate) {
      onProcessExit(answer.peer, () => {
        answer.why ??= "ended";
        socket.destroy();
      });
    }
    const isHeard = super.emit("connection", socket);
    socket.once("end", () => this.#sendsNoMore(socket, connection));
    return isHeard;
  }

  /** The end of what a peer sends is all that the runtime tells of one that has left. */
  #sendsNoMore(socket: Socket, connection: NodeConnection): void {
    // Deno goes on waiting for the rest of a request.
    if (lastResponse(connection)?.req.complete === false || isHungUp(socket)) {
      return void socket.destroySoon(); // after destroy() Deno 2.9.5 keeps 2.8 KB of each
    }
    this.#watch(socket);
  }

  /** Destroys a socket that is half-closed, in either direction, once its peer has hung up. */
  #watch(socket: Socket): void {
    if (socket.destroyed) return;
    this.#halfClosed.add(socket);
  }

  /**
   * Closes connections without a request for as long as one may take to begin and its headers to come.
   * The runtimes begin to count anew with each byte, of empty lines between requests, too.
   */
  #sweepIdle(now: number): void {
    const { keepAliveTimeout, headersTimeout } = this;
    const limit = keepAliveTimeout + headersTimeout;
    if (!(keepAliveTimeout > 0 && headersTimeout > 0)) return;
    for (const admitted of this.#admission.open()) {
      const socket = admitted.socket as Socket;
      const connection = nodeConnectionOf(socket)!;
      if (!isIdle(connection)) connection.idleSince = undefined;
      else if (now - (connection.idleSince ??= now) > limit) socket.destroySoon();
    }
  }

  #sweep(): void {
    this.#sweepIdle(performance.now());
    for (const socket of this.#halfClosed) {
      // A handler that has ended an upgraded connection, and does not read it, never learns of its end.
      const isRead = socket.readableEnded || socket.readableFlowing === null;
      if (isRead && isHungUp(socket)) socket.destroy();
    }
    if (this.#open > 0) return;
    clearInterval(this.#sweeper);
    this.#sweeper = undefined;
  }

  /** Answers the first request of a peer that no rule admits with 403, within limits. */
  #refuse(socket: Socket, refused: RefusedConnection): void {
    const giveBack = this.#admission.roomToAnswer(refused);
    if (giveBack === undefined) return void socket.destroy();
    this.#refused.add(socket);
    socket.once("close", () => {
      this.#refused.delete(socket);
      giveBack();
    });
    const problem = { ...forbidden(refused.decision!), isLast: true };
    if (hidesFd(socket)) refuseRequests(socket, problem);
    else refuseSocket(socket, problem);
  }

  #identify(socket: Socket): Admitted | RefusedConnection {
    if (this.#acceptor === undefined || !hidesFd(socket)) return this.#admission.admit(socket);
    let claim: FoundSocket;
    try {
      claim = this.#acceptor.find(socket);
    } catch (error) {
      return this.#admission.unidentified(error);
    }
    socket.on("close", () => claim.close());
    return this.#admission.admit(socket, true, claim.fd);
  }

  /** What keeps a request from being handled; `undefined` if nothing does. */
  #decide(request: IncomingMessage, response: ServerResponse | undefined): Problem | undefined {
    const connection = nodeConnectionOf(request.socket);
    if (connection?.server !== this) return refusalOf(request.socket) ?? DRIFTED; // none let in here
    connection.isUpgraded = response === undefined;
    if (this.#isClosing) endAfter(request.socket, response);
    if (connection.end !== undefined) return connection.end;
    const { method = "", url = "" } = request;
    const outcome = decideRequest(
      this.#admission,
      connection,
      method,
      url,
      malformedIn(request),
      this.#revalidate,
    );
    if (isProblem(outcome)) {
      if (outcome.isLast) connection.end = outcome;
      return outcome;
    }
    if (url !== outcome.url) request.url = outcome.url;
    attachDecision(request, outcome.decision);
    return undefined;
  }

  #serve(app: RequestListener, request: IncomingMessage, response: ServerResponse): void {
    attempt(() => app(request, response), (error) => {
      this.#admission.failed(admittedOf(request)!, error);
      if (response.headersSent) response.destroy();
      else response.writeHead(500, { connection: "close" }).end();
    });
  }
}

/**
 * Whether a request is dropped, without a decision: its connection is closed, or has too many that wait.
 * Otherwise its response counts as unanswered.
 */
function isDropped(socket: Socket, response: ServerResponse): boolean {
  const connection = nodeConnectionOf(socket);
  if (connection === undefined) return false; // it is answered with 403
  if (socket.destroyed) return true; // the rest of a chunk whose connection was closed
  const { unanswered } = connection;
  while (unanswered[0]?.writableFinished) unanswered.shift(); // responses finish in order
  if (unanswered.length >= MAX_UNANSWERED) {
    cutPipeline(socket, connection);
    return true;
  }
  unanswered.push(response);
  connection.idleSince = undefined;
  return false;
}

/** Whether a connection has been used, and no request is under way. */
function isIdle(connection: NodeConnection): boolean {
  const last = lastResponse(connection);
  return last !== undefined && last.writableFinished && last.req.complete;
}

function cutPipeline(socket: Socket, { admitted }: NodeConnection): void {
  admitted.why ??= "pipelining";
  socket.destroy();
  // Node and Deno would parse the rest of the chunk, of up to 64 KiB: 119 ms and 11 MB on Deno 2.9.6. They
  // take a 2 for an upgrade, after which the parser stops. Undocumented; without it the rest is dropped.
  const { parser } = socket as { parser?: { onIncoming?: unknown } | null };
  if (typeof parser?.onIncoming === "function") parser.onIncoming = () => 2;
}

/** Ends a connection with this answer: node:http would wait for more requests. */
function endAfter(socket: Duplex, response: ServerResponse | undefined): void {
  if (response === undefined || response.writableFinished) return;
  response.shouldKeepAlive = false;
  response.once("finish", () => socket.end(() => socket.destroy()));
}

/** Requires at most one Host header, which is a host, and no transfer coding but one "chunked". */
function malformedIn({ rawHeaders, httpVersionMinor }: IncomingMessage): Problem | undefined {
  let hosts = 0, codings = 0;
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at]!;
    if (name.length === 4 && (name === "Host" || name.toLowerCase() === "host")) {
      if (++hosts > 1 || !isHost(rawHeaders[at + 1]!)) return BAD_HOST;
    } else if (name.length === 17 && name.toLowerCase() === "transfer-encoding") {
      const isChunked = rawHeaders[at + 1]!.toLowerCase() === "chunked";
      if (++codings > 1 || !isChunked || httpVersionMinor === 0) return BAD_CODING;
    }
  }
  return undefined;
}

/**
 * How long a connection that is to be closed still discards a request's body. Closing at once resets a
 * client that is still sending: Docker's then reports a broken pipe instead of the answer.
 */
const DISCARD_TIMEOUT_MS = 1000;

function answer(request: IncomingMessage, response: ServerResponse, problem: Problem): void {
  const { "content-length": length, "transfer-encoding": coding, expect } = request.headers;
  // A body that nobody reads would be taken for the next request.
  const hasBody = coding !== undefined || expect !== undefined || Number(length ?? 0) !== 0;
  response.writeHead(problem.status, {
    ...headersOf(problem),
    ...((hasBody || problem.isLast) && { connection: "close" }),
  });
  if (!hasBody || problem.isLast || expect !== undefined || request.complete) {
    return void response.end(problem.body);
  }
  response.write(problem.body);
  const end = (): void => {
    clearTimeout(timer);
    response.end();
  };
  const timer = setTimeout(end, DISCARD_TIMEOUT_MS);
  request.once("end", end).once("error", end).once("close", end).resume();
}

function answerRaw(socket: Duplex, problem: Problem): void {
  const lines = Object.entries({ ...headersOf(problem), connection: "close" });
  const head = lines.map(([name, value]) => `${name}: ${value}\r\n`).join("");
  endAndClose(
    socket,
    `HTTP/1.1 ${problem.status} ${problem.title}\r\n${head}\r\n${problem.body}`,
  );
}

/** How long a peer may read the last bytes of a connection, in ms. */
const CLOSE_TIMEOUT_MS = 2000;

/**
 * Sends the last bytes of a connection, which is destroyed when the peer has closed it, or after 2 s.
 *
 * `end()` alone leaves it open until the peer's end is read, which nobody does: Node and Deno stop
 * reading beyond the high-water mark.
 */
export function endAndClose(socket: Duplex, bytes: string | Uint8Array): void {
  const timer = setTimeout(() => socket.destroy(), CLOSE_TIMEOUT_MS);
  socket.once("close", () => clearTimeout(timer));
  socket.on("error", ignore).resume(); // once both sides have ended, it is destroyed
  socket.end(bytes);
}
