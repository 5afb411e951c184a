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
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { clearInterval, setInterval } from "node:timers";
import { type OptionNames, requireOptions } from "../../core/options.ts";
import { hidesFd, listenerFdOf } from "../../identity/fd.ts";
import { detectsHangUp, isHungUp } from "../../identity/hangup.ts";
import {
  Admission,
  ADMISSION_OPTIONS,
  type AdmissionOptions,
  isAdmitted,
  type RefusedConnection,
  type ServerStats,
} from "../admission/admission.ts";
import { admittedOf, attachAdmission, attachDecision } from "../admission/attach.ts";
import { attempt, requireHandler } from "../admission/handler.ts";
import { type CloseOptions, Lifecycle, type SafeServer } from "../listen/lifecycle.ts";
import { BunListener } from "./bun_listener.ts";
import { decideRequest, isProblem, onProcessExit } from "./decide_request.ts";
import { HalfClosedConnections } from "./half_closed.ts";
import {
  attachConnection,
  isIdle,
  lastResponse,
  type NodeConnection,
  nodeConnectionOf,
} from "./node_connection.ts";
import { countDropped, isDropped, isDroppedUpgrade } from "./pipelining.ts";
import { DRIFTED, forbidden, type Problem } from "./problem.ts";
import { refusalOf, refuseRequests, refuseSocket } from "./refusal.ts";
import { valuesIn } from "./request_attributes.ts";
import { malformedIn } from "./request_headers.ts";
import { answer, answerRaw, endAfter } from "./respond.ts";

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
  connectionsCheckingInterval: true,
  headersTimeout: true,
  highWaterMark: true,
  insecureHTTPParser: true,
  maxHeaderSize: true,
  noDelay: true,
  requireHostHeader: true,
  keepAlive: true,
  keepAliveInitialDelay: true,
  uniqueHeaders: true,
  rejectNonStandardBodyWrites: true,
  // Deno's types of node:http do not have these three. A spread may have more properties than the type.
  ...{ httpValidation: true, keepAliveTimeoutBuffer: true, optimizeEmptyRequests: true },
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
 * 400. The query affects the decision only of policies with `about: http`.
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

const ignore = () => {};

/** How often half-closed and idle connections are checked. */
const SWEEP_MS = 1000;

class AdmittingHttpServer extends Server {
  readonly #admission: Admission;
  readonly #lifecycle: Lifecycle;
  readonly #revalidate: boolean;
  readonly #halfClosed = new HalfClosedConnections();
  #sweeper: ReturnType<typeof setInterval> | undefined;
  /** Refused connections to which a response is being sent. */
  readonly #refused = new Set<Socket>();
  readonly #bun = new BunListener();

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
    (this as { httpAllowHalfOpen?: boolean }).httpAllowHalfOpen = detectsHangUp();
    this.#admission = new Admission({
      policy,
      pin: pin ?? (revalidate || undefined),
      limits,
      audit,
    }, "action");
    this.#revalidate = revalidate;
    this.#lifecycle = new Lifecycle({
      listen: (where, backlog) => this.#listen(where, backlog),
      close: (done) => this.#close(done),
      descriptor: () => listenerFdOf(this),
      address: () => this.#bun.inner === undefined ? super.address() : this.#bun.inner.address(),
      closeIdle: () => this.#closeIdle(),
      cut: () => this.closeAllConnections(),
      emit: (event: string, error?: unknown) => void super.emit(event, error),
    }, (path, boundTo) => {
      this.#admission.server = path;
      this.#bun.searchFor(boundTo);
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
        if (drained !== undefined) {
          // Back-pressure: a flood of requests would displace other records in the audit log.
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
        if (isDroppedUpgrade(request.socket)) {
          socket.destroy();
          return true;
        }
        const problem = this.#decide(request, undefined);
        if (problem === undefined) {
          socket.once("finish", () => this.#halfClosed.add(socket as Socket));
          return super.emit(event, ...args);
        }
        answerRaw(socket, problem);
        return true;
      }
      case "dropRequest": // beyond maxRequestsPerSocket: the runtime responds with 503
        countDropped(args[1] as Socket);
        return true;
      case "connection":
        return this.#admit(args[0] as Socket);
    }
    return this.#lifecycle.consumeStartEvent(event, args[0]) ||
      super.emit(event as string, ...args);
  }

  override listen(...args: unknown[]): this {
    this.#lifecycle.listen(args, (run) => this.once("listening", run));
    return this;
  }

  override close(how?: CloseOptions | ((error?: Error) => void)): this {
    return (this.#lifecycle.close(how) ?? this) as unknown as this;
  }

  /** Closes all connections, including upgraded ones, which `http.Server` leaves open. */
  override closeAllConnections(): void {
    this.#admission.closeAll();
  }

  override address(): string | null {
    return this.#lifecycle.path ?? null;
  }

  stats(): ServerStats {
    return this.#admission.stats();
  }

  #listen(where: { readonly path: string } | { readonly fd: number }, backlog: number): void {
    const isInner = this.#bun.listen(
      where,
      backlog,
      (socket) => this.emit("connection", socket),
      (event, error) => this.#lifecycle.consumeStartEvent(event, error),
    );
    if (!isInner) super.listen({ ...where, backlog });
  }

  #close(done: (error?: Error) => void): void {
    if (!this.#bun.close(done)) super.close(done);
  }

  #closeIdle(): void {
    for (const socket of this.#refused) socket.destroy();
    super.closeIdleConnections();
    for (const admitted of this.#admission.open()) {
      const socket = admitted.socket as Socket;
      const connection = nodeConnectionOf(socket)!;
      if (!connection.hasRequested) socket.destroy(); // Deno leaves connections without a request open
      else endAfter(socket, lastResponse(connection));
    }
  }

  #admit(socket: Socket): boolean {
    socket.on("error", ignore); // an error ends only this connection
    const answer = this.#bun.admit(socket, this.#admission);
    if (!isAdmitted(answer)) {
      this.#refuse(socket, answer);
      return true;
    }
    const connection: NodeConnection = {
      server: this,
      admitted: answer,
      hasRequested: false,
      end: undefined,
      unanswered: [],
      dropped: 0,
      isUpgraded: false,
      idleSince: undefined,
    };
    attachConnection(socket, connection);
    attachAdmission(socket, answer);
    this.#lifecycle.opened();
    this.#sweeper ??= setInterval(() => this.#sweep(), SWEEP_MS).unref();
    socket.once("close", () => {
      connection.unanswered.length = 0; // the runtime keeps a reference to the socket
      this.#halfClosed.delete(socket);
      this.#admission.ended(answer);
      this.#lifecycle.closed();
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

  /** Handles "end", which is the only event that the runtime emits for a client that has hung up. */
  #onHalfClose(socket: Socket, connection: NodeConnection): void {
    // Deno would keep waiting for the rest of an incomplete request.
    if (lastResponse(connection)?.req.complete === false || isHungUp(socket)) {
      return void socket.destroySoon(); // destroy() leaks 2.8 KB for each in Deno 2.9.5
    }
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
    this.#halfClosed.sweep();
    if (this.#lifecycle.open > 0) return;
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

  /** Decides a request. Returns the error response; `undefined` if the request is allowed. */
  #decide(request: IncomingMessage, response: ServerResponse | undefined): Problem | undefined {
    const connection = nodeConnectionOf(request.socket);
    // The connection was refused, or accepted by another server.
    if (connection?.server !== this) return refusalOf(request.socket) ?? DRIFTED;
    connection.isUpgraded = response === undefined;
    if (this.#lifecycle.isClosing) endAfter(request.socket, response);
    if (connection.end !== undefined) return connection.end;
    const { method = "", url = "" } = request;
    const outcome = decideRequest(
      this.#admission,
      connection,
      method,
      url,
      malformedIn(request),
      this.#revalidate,
      (name) => valuesIn(request.rawHeaders, name),
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
