/**
 * `node:http` servers: each connection is identified in its "connection" event, and each request is decided
 * before any listener receives it.
 */

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

/** Admission options of HTTP servers. */
export interface HttpAdmissionOptions extends AdmissionOptions {
  /**
   * Whether to check before each request, with `peer.drift()`, that the peer's credentials and process are
   * unchanged, and to close the connection when they are not or when the peer's process ends. Closing
   * aborts the handlers of pending requests. Peers are then pinned. By default `false`.
   */
  readonly revalidate?: boolean | undefined;
}

/** The option names of {@link HttpAdmissionOptions}. */
export const HTTP_ADMISSION_OPTIONS: OptionNames<HttpAdmissionOptions> = {
  ...ADMISSION_OPTIONS,
  revalidate: true,
};

/** Options of {@link createServer}: those of admission and those of `http.createServer()`. */
export interface HttpServerOptions
  extends HttpAdmissionOptions, Omit<ServerOptions, "shouldUpgradeCallback"> {}

const HTTP_OPTIONS: OptionNames<HttpServerOptions> = {
  ...HTTP_ADMISSION_OPTIONS,
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

/** An `http.Server` that serves only peers that its policy allows. */
export type HttpServer = Server & SafeServer;

/** {@link createServer} without options. */
export function createServer(app?: RequestListener): HttpServer;
/**
 * Creates an HTTP server that identifies each connection, and decides each request and each upgrade by the
 * action `METHOD /path` before any listener receives it. Denied requests receive 403.
 *
 * The path is normalised before the decision: percent-decoded, without `//`, `.` and `..`. The application
 * receives the same path as `request.url`. Ambiguous targets (with an encoded slash, for example) receive
 * 400. The query does not affect the decision.
 *
 * The result is an `http.Server` that works with Express, Fastify (`serverFactory`), Koa and `ws`. By
 * default headers must arrive within 10 s and a request within 5 minutes.
 *
 * @param app Handles allowed requests. If it throws, or its promise rejects, the client receives 500.
 * @throws {TypeError} If an option is unknown or has the wrong type.
 *
 * @example Read the peer and the decision of a request
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
    // The callback would receive requests before the decision.
    throw new TypeError(
      'createServer() has no option shouldUpgradeCallback: decide in the "upgrade" event',
    );
  }
  requireOptions("createServer()", options, HTTP_OPTIONS);
  return new AdmittingHttpServer(options, requireHandler(app)) as unknown as HttpServer;
}

/** Shorter timeouts than Node's defaults: a local client has no network latency. */
const DEFAULT_TIMEOUTS: ServerOptions = {
  headersTimeout: 10_000,
  connectionsCheckingInterval: 2000,
};

interface NodeConnection extends Connection {
  readonly server: AdmittingHttpServer;
  /**
   * The final response of the connection. Later requests that the parser has already read receive it, too.
   */
  end: Problem | undefined;
  /** Responses in request order, without those that had finished when the last request arrived. */
  readonly unanswered: ServerResponse[];
  /** Requests beyond `maxRequestsPerSocket`. */
  dropped: number;
  /** Whether the connection was upgraded to another protocol. */
  isUpgraded: boolean;
  /** When the server first observed that no request is in progress, by `performance.now()`. */
  idleSince: number | undefined;
}

/** Returns the response to the last request; `undefined` if there is none. */
function lastResponse({ isUpgraded, unanswered }: NodeConnection): ServerResponse | undefined {
  return isUpgraded ? undefined : unanswered.at(-1);
}

/**
 * Maximum requests of one connection that may wait for their responses. Beyond it the connection is closed:
 * the runtimes parse pipelined requests while handlers are pending, and `socket.pause()` takes effect only
 * after the current chunk. With 100,000 such requests Node 26.10 was busy for 24 s after the client had
 * hung up.
 */
const MAX_UNANSWERED = 64;

/** Key of each socket's connection record. */
const CONNECTION = Symbol("ucred.connection");

function nodeConnectionOf(socket: object): NodeConnection | undefined {
  return (socket as { [CONNECTION]?: NodeConnection })[CONNECTION];
}

const ignore = () => {};

/** How often half-closed and idle connections are checked. */
const SWEEP_MS = 1000;

class AdmittingHttpServer extends Server {
  readonly #admission: Admission;
  readonly #listening: Listening;
  readonly #revalidate: boolean;
  /** Accepted sockets that have not emitted "close". */
  #open = 0;
  readonly #onEmpty: (() => void)[] = [];
  #isClosing = false;
  /** Half-closed connections: one side has shut down its sending side but may still read. */
  readonly #halfClosed = new Set<Socket>();
  #sweeper: ReturnType<typeof setInterval> | undefined;
  /** Refused connections whose response is being sent. */
  readonly #refused = new Set<Socket>();
  /** Finds the descriptors of Bun's sockets, which hide them. */
  #finder: DescriptorFinder | undefined;
  /** The address that the listener was bound to; the descriptor search looks for it. */
  #boundTo: string | undefined;
  /** Listens on an inherited descriptor where `http.Server` cannot. */
  #inner: NetServer | undefined;

  constructor(
    { policy, pin, limits, audit, revalidate = false, ...options }: HttpServerOptions,
    app?: RequestListener,
  ) {
    super({ ...DEFAULT_TIMEOUTS, ...options });
    // No limit on the number of headers, only maxHeaderSize: Deno drops the headers beyond a limit,
    // including Content-Length, and would then parse the body as the next request.
    this.maxHeadersCount = 0;
    // A half-closed client still receives its response. The property is undocumented; all three runtimes
    // implement it.
    (this as { httpAllowHalfOpen?: boolean }).httpAllowHalfOpen = tellsHangUp();
    this.#admission = new Admission({
      policy,
      pin: pin ?? (revalidate || undefined),
      limits,
      audit,
    }, "action");
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
      this.#finder = new DescriptorFinder(boundTo);
      this.#boundTo = boundTo;
    });
    if (app !== undefined) {
      this.on("request", (request: IncomingMessage, response: ServerResponse) => {
        this.#serve(app, request, response);
      });
    }
  }

  /** Filters the request events: listeners receive only allowed requests. */
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
        if (drained !== undefined) { // back-pressure: a flood of requests would displace other records in the audit log
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
      case "dropRequest": { // beyond maxRequestsPerSocket the runtime responds with 503, without a decision
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

  /** Closes all connections, including upgraded ones, which `http.Server` leaves open. */
  override closeAllConnections(): void {
    this.#admission.closeAll();
  }

  override address(): string | null {
    return this.#listening.path ?? null;
  }

  stats(): ServerStats {
    return this.#admission.stats();
  }

  #listen(where: { readonly path: string } | { readonly fd: number }, backlog: number): void {
    // Bun's http.Server ignores a descriptor and opens a random TCP port (oven-sh/bun 22559).
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
    // The runtime's connection count reaches 0 before the last socket emits "close", so we keep our own.
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
      if (!connection.hasAsked) socket.destroy(); // Deno leaves connections without a request open
      else endAfter(socket, lastResponse(connection));
    }
  }

  #admit(socket: Socket): boolean {
    socket.on("error", ignore); // an error ends only this connection
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
    this.#sweeper ??= setInterval(() => this.#sweep(), SWEEP_MS).unref();
    socket.once("close", () => {
      this.#open--;
      connection.unanswered.length = 0; // the runtime keeps a reference to the socket
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
    const hasListeners = super.emit("connection", socket);
    socket.once("end", () => this.#onHalfClose(socket, connection));
    return hasListeners;
  }

  /** Handles "end". For a client that has hung up it is the only event that the runtime emits. */
  #onHalfClose(socket: Socket, connection: NodeConnection): void {
    // Deno would keep waiting for the rest of an incomplete request.
    if (lastResponse(connection)?.req.complete === false || isHungUp(socket)) {
      return void socket.destroySoon(); // destroy() leaks 2.8 KB for each in Deno 2.9.5
    }
    this.#watch(socket);
  }

  /** Destroys a half-closed socket once its peer has hung up. */
  #watch(socket: Socket): void {
    if (socket.destroyed) return;
    this.#halfClosed.add(socket);
  }

  /**
   * Closes connections that stay idle longer than `keepAliveTimeout` + `headersTimeout`. The runtimes
   * restart their timers with each byte, also of empty lines between requests.
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
      // A handler that has ended an upgraded connection without reading it never receives its "end".
      const isRead = socket.readableEnded || socket.readableFlowing === null;
      if (isRead && isHungUp(socket)) socket.destroy();
    }
    if (this.#open > 0) return;
    clearInterval(this.#sweeper);
    this.#sweeper = undefined;
  }

  /** Responds to the first request of a refused peer with 403, within limits. */
  #refuse(socket: Socket, refused: RefusedConnection): void {
    const release = this.#admission.roomToAnswer(refused);
    if (release === undefined) return void socket.destroy();
    this.#refused.add(socket);
    socket.once("close", () => {
      this.#refused.delete(socket);
      release();
    });
    const problem = { ...forbidden(refused.decision!), isLast: true };
    if (hidesFd(socket)) refuseRequests(socket, problem);
    else refuseSocket(socket, problem);
  }

  #identify(socket: Socket): Admitted | RefusedConnection {
    if (this.#finder === undefined || !hidesFd(socket)) return this.#admission.admit(socket);
    let found: FoundSocket;
    try {
      found = this.#finder.find(socket);
    } catch (error) {
      return this.#admission.unidentified(error);
    }
    socket.on("close", () => found.close());
    return this.#admission.admit(socket, true, found.fd);
  }

  /** Decides a request. Returns the error response; `undefined` if the request is allowed. */
  #decide(request: IncomingMessage, response: ServerResponse | undefined): Problem | undefined {
    const connection = nodeConnectionOf(request.socket);
    if (connection?.server !== this) return refusalOf(request.socket) ?? DRIFTED; // a connection that this server has not accepted
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
 * Returns whether a request is dropped without a decision, because its connection is closed or has too many
 * pipelined requests. Otherwise counts its response as unanswered.
 */
function isDropped(socket: Socket, response: ServerResponse): boolean {
  const connection = nodeConnectionOf(socket);
  if (connection === undefined) return false; // a refused connection: the response is 403
  if (socket.destroyed) return true; // the connection was closed by an earlier request of the same chunk
  const { unanswered } = connection;
  while (unanswered[0]?.writableFinished) unanswered.shift(); // responses finish in request order
  if (unanswered.length >= MAX_UNANSWERED) {
    cutPipeline(socket, connection);
    return true;
  }
  unanswered.push(response);
  connection.idleSince = undefined;
  return false;
}

/** Returns whether a connection has had a request and none is in progress. */
function isIdle(connection: NodeConnection): boolean {
  const last = lastResponse(connection);
  return last !== undefined && last.writableFinished && last.req.complete;
}

function cutPipeline(socket: Socket, { admitted }: NodeConnection): void {
  admitted.why ??= "pipelining";
  socket.destroy();
  // Node and Deno would parse the rest of the chunk, up to 64 KiB: 119 ms and 11 MB on Deno 2.9.6. They
  // interpret a return value of 2 as an upgrade, which stops the parser. This is undocumented; where it has
  // no effect, the remaining requests are dropped one by one.
  const { parser } = socket as { parser?: { onIncoming?: unknown } | null };
  if (typeof parser?.onIncoming === "function") parser.onIncoming = () => 2;
}

/** Ends a connection after this response; node:http would wait for more requests. */
function endAfter(socket: Duplex, response: ServerResponse | undefined): void {
  if (response === undefined || response.writableFinished) return;
  response.shouldKeepAlive = false;
  response.once("finish", () => socket.end(() => socket.destroy()));
}

/** Requires at most one Host header with a valid host, and no transfer coding except a single "chunked". */
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
 * How long a request's body is discarded before its connection is closed. Closing at once would reset a
 * client that is still sending: Docker's then reports a broken pipe instead of the response.
 */
const DISCARD_TIMEOUT_MS = 1000;

function answer(request: IncomingMessage, response: ServerResponse, problem: Problem): void {
  const { "content-length": length, "transfer-encoding": coding, expect } = request.headers;
  // An unread body would be parsed as the next request.
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

/** How long a peer may take to read the last bytes of a connection. */
const CLOSE_TIMEOUT_MS = 2000;

/**
 * Sends the last bytes of a connection and destroys it when the peer has closed it, or after 2 s.
 *
 * `end()` alone keeps the connection open until the peer's end is read. Without a reader that never
 * happens: Node and Deno stop reading at the high-water mark.
 */
export function endAndClose(socket: Duplex, bytes: string | Uint8Array): void {
  const timer = setTimeout(() => socket.destroy(), CLOSE_TIMEOUT_MS);
  socket.once("close", () => clearTimeout(timer));
  socket.on("error", ignore).resume(); // destroyed once both sides have ended
  socket.end(bytes);
}
