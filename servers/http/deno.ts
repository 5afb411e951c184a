/**
 * Serves HTTP with Deno's own engine. Each connection is identified, and then passed to the engine.
 *
 * The function that serves a single connection is undocumented:
 * `Deno[Deno.internal].serveHttpOnConnection`, checked on Deno 2.9.5. Without it, `serve()` uses node:http.
 */

import { clearInterval, setInterval } from "node:timers";
import { checkSupport } from "../../identity/support.ts";
import {
  DescriptorFinder,
  type FoundSocket,
  foundSocketOf,
} from "../../system/accepted_sockets.ts";
import { Admission, type Admitted } from "../admission/admission.ts";
import { attachAdmission, attachDecision } from "../admission/attach.ts";
import { type DenoConnection, type DenoListener, Peers } from "../listen/deno_peers.ts";
import { checkingInterval } from "../listen/lifecycle.ts";
import { Notification } from "../listen/notification.ts";
import { bindSocketPath, type BoundPath } from "../listen/socket_path.ts";
import {
  type Connection,
  decideRequest,
  isProblem,
  onProcessExit,
  requireUnread,
} from "./decide_request.ts";
import type { EngineServer, ServeOptions } from "./options.ts";
import {
  BAD_CODING,
  BAD_HOST,
  BAD_TARGET,
  forbidden,
  type Problem,
  responseOf,
} from "./problem.ts";
import { type DenoStream, refuseStream } from "./refusal.ts";
import { valueIn } from "./request_attributes.ts";
import { isHost } from "./request_target.ts";

/** Serves the requests of one connection, and takes ownership of it. */
type ServeOnConnection = (
  connection: DenoConnection,
  signal: AbortSignal,
  handler: (request: Request, info: { readonly completed: Promise<void> }) => unknown,
  onError: (error: unknown) => Response,
  onListen: () => void,
) => { readonly finished: Promise<void>; shutdown(): Promise<void> };

interface DenoGlobal {
  listen(options: { transport: "unix"; path: string }): DenoListener<DenoConnection>;
  readonly internal?: symbol;
  readonly [internal: symbol]: { readonly serveHttpOnConnection?: ServeOnConnection } | undefined;
}

/** Returns the undocumented function; `undefined` if this runtime does not have it. */
export function denoHttpHook(): ServeOnConnection | undefined {
  const { Deno } = globalThis as unknown as { readonly Deno?: DenoGlobal };
  return Deno?.internal && Deno[Deno.internal]?.serveHttpOnConnection;
}

/** Defaults of `createServer()` of `ucred/http`: the time until the first request, and between two requests. */
const HEADERS_TIMEOUT_MS = 10_000;
const KEEP_ALIVE_TIMEOUT_MS = 5000;

/** How often timeouts are checked. */
const SWEEP_MS = 1000;

/** Implements {@link serve} on Deno's engine. */
export async function serveNatively(options: ServeOptions): Promise<EngineServer> {
  checkSupport();
  const { policy, pin, limits, audit, revalidate = false } = options;
  const admission = new Admission(
    { policy, pin: pin ?? (revalidate || undefined), limits, audit },
    "action",
  );
  const { Deno } = globalThis as unknown as { readonly Deno: DenoGlobal };
  if (options.path === undefined) throw new TypeError('The engine "deno" requires a path');
  /** Functions that end the refused connections to which a response is being sent. */
  const refusals = new Set<() => void>();
  let peers: Peers<DenoConnection> | undefined;
  let bound: BoundPath | undefined;
  try {
    const own = bound = await bindSocketPath(options, (path) => {
      const finder = new DescriptorFinder(path);
      const listener = Deno.listen({ transport: "unix", path });
      peers = new Peers(listener, finder, admission, (conn, refused, close) => {
        const release = admission.roomToAnswer(refused);
        if (release === undefined) return false;
        const end = () => {
          if (refusals.delete(end)) release();
          close();
        };
        refusals.add(end);
        void refuseStream(conn as unknown as DenoStream, forbidden(refused.decision!), end);
        return true;
      });
      return Promise.resolve();
    });
    admission.server = own.path;
    const server = new DenoHttp(peers!, admission, options, revalidate);
    const notification = options.notify === true ? new Notification() : undefined;
    notification?.ready();
    return {
      path: own.path,
      engine: "deno",
      stats: () => admission.stats(),
      close: () => {
        for (const end of refusals) end();
        own.remove(); // before the socket closes: until then its inode number is not reused
        notification?.stopping();
        return server.close();
      },
      cut: () => server.cut(),
    };
  } catch (error) {
    bound?.remove();
    peers?.close();
    throw error;
  }
}

/** An accepted connection. */
interface Served extends Connection {
  /**
   * The connection's descriptor. It is closed when the connection ends, even while handlers of its requests
   * still run.
   */
  readonly found: FoundSocket;
  /** Aborts the requests when the peer's process ends; `undefined` without `revalidate`. */
  readonly end: AbortController | undefined;
  shutdown(): Promise<void>;
  /** Requests in progress. */
  pending: number;
  /** Decrements `pending`. */
  readonly answered: () => void;
  /** When a check first found no request in progress. */
  idleSince: number | undefined;
  /**
   * Scheme and host of the last request's URL, and its Host header. A repeated pair is not validated again.
   */
  origin: string;
  host: string | null;
  /** The prefix of the URLs that handlers receive. */
  start: string;
}

const ignore = () => {};

class DenoHttp {
  readonly #peers: Peers<DenoConnection>;
  readonly #admission: Admission;
  readonly #fetch: ServeOptions["fetch"];
  readonly #revalidate: boolean;
  readonly #headersTimeout: number;
  readonly #keepAliveTimeout: number;
  readonly #serveOn = denoHttpHook()!;
  readonly #served = new Set<Served>();
  readonly #sweeper: ReturnType<typeof setInterval>;
  readonly #accepting: Promise<void>;
  #isClosing = false;
  #onEmpty: (() => void) | undefined;

  constructor(
    peers: Peers<DenoConnection>,
    admission: Admission,
    {
      fetch,
      headersTimeout = HEADERS_TIMEOUT_MS,
      keepAliveTimeout = KEEP_ALIVE_TIMEOUT_MS,
    }: ServeOptions,
    revalidate: boolean,
  ) {
    this.#peers = peers;
    this.#admission = admission;
    this.#fetch = fetch;
    this.#revalidate = revalidate;
    this.#headersTimeout = headersTimeout || Infinity;
    this.#keepAliveTimeout = keepAliveTimeout || Infinity;
    const interval = checkingInterval(SWEEP_MS, headersTimeout, keepAliveTimeout);
    this.#sweeper = setInterval(() => this.#sweep(), interval).unref();
    this.#accepting = this.#accept();
  }

  async close(): Promise<void> {
    this.#isClosing = true;
    this.#peers.close();
    const empty = new Promise<void>((resolve) => this.#onEmpty = resolve);
    for (const served of this.#served) void served.shutdown();
    await this.#accepting;
    if (this.#served.size === 0) this.#onEmpty!();
    await empty;
    clearInterval(this.#sweeper);
  }

  /** Closes all connections. Deno's own shutdown would wait for handlers that ignore the abort signal. */
  cut(): void {
    for (const { found } of this.#served) {
      found.shutdown();
      found.close();
    }
  }

  async #accept(): Promise<void> {
    for (;;) {
      const accepted = await this.#peers.accept();
      if (accepted === undefined) return;
      const { conn, admitted } = accepted;
      if (!this.#isClosing) this.#serve(conn, admitted);
      else { // the server was closed after accept(2)
        foundSocketOf(conn)!.close();
        conn.close();
      }
    }
  }

  #serve(conn: DenoConnection, admitted: Admitted): void {
    const found = foundSocketOf(conn)!;
    const served: Served = {
      admitted,
      found,
      hasRequested: false,
      end: this.#revalidate ? new AbortController() : undefined,
      shutdown: () => shutdown(),
      pending: 0,
      answered: () => void served.pending--,
      idleSince: admitted.since,
      origin: "",
      host: null,
      start: "http://localhost",
    };
    const { finished, shutdown } = this.#serveOn(
      conn,
      // Each connection has its own signal, since Deno adds an abort listener and never removes it. The
      // signal is never aborted: for a connection that has just ended, Deno would throw an error that
      // cannot be caught. See cut().
      new AbortController().signal,
      (request, { completed }) => this.#handle(served, request, completed),
      (error) => this.#failed(served, error),
      ignore,
    );
    this.#served.add(served);
    found.once("close", () => {
      this.#served.delete(served);
      if (this.#served.size === 0) this.#onEmpty?.();
    });
    const close = () => {
      found.close();
      shutdown().catch(ignore); // without it Deno 2.9.5 leaks 4.4 KB for a peer that hangs up early
    };
    finished.then(close, close); // it rejects when the peer hangs up early
    if (this.#revalidate) {
      onProcessExit(admitted.peer, () => {
        admitted.why ??= "ended";
        served.end?.abort();
        found.shutdown();
      });
    }
  }

  #handle(
    served: Served,
    request: Request,
    completed: Promise<void>,
  ): Response | Promise<Response> {
    served.pending++;
    served.idleSince = undefined;
    completed.then(served.answered, served.answered);
    const { method, url } = request;
    const host = url.indexOf("://") + 3;
    const slash = url.indexOf("/", host);
    const path = slash === -1 ? url.length : slash; // "http+unix://x:80" for CONNECT
    const target = url.slice(path);
    const origin = url.slice(0, path);
    // Deno joins the Host header and the target to the URL, so the end of the header is lost. A header such
    // as "x/other?" must be detected. In HTTP/2, and with an absolute target, the URL does not contain the
    // header.
    const header = request.headers.get("host");
    let hasHost = origin === served.origin && header === served.host;
    if (!hasHost && isAddressed(origin, header)) {
      hasHost = true;
      served.origin = origin;
      served.host = header;
      // Elysia assumes a host of at least four characters, so a shorter one is replaced, as in serve.ts.
      served.start = `http://${header === null || header.length < 4 ? "localhost" : header}`;
    }
    const coding = request.headers.get("transfer-encoding");
    const isCoded = coding !== null && coding.toLowerCase() !== "chunked";
    const outcome = decideRequest(
      this.#admission,
      served,
      method,
      target,
      hasHost ? isCoded ? BAD_CODING : undefined : BAD_HOST,
      this.#revalidate,
      // HTTP/2 has an authority in the URL instead of a header.
      (name) =>
        name === "host" && header === null && !isUnaddressed(origin)
          ? undefined
          : valueIn(request.headers, name),
    );
    if (isProblem(outcome)) return this.#refuse(served, outcome);
    if (target === "/*" && method === "OPTIONS") return this.#refuse(served, BAD_TARGET); // the target may have been "*"
    const address = served.start + outcome.url;
    const decidedAbout = outcome.url === target ? request : withUrl(request, address);
    if (decidedAbout === undefined) return this.#refuse(served, BAD_TARGET);
    // Deno's URL begins with "http+unix:". A new Request would cost more than everything else.
    if (decidedAbout === request) Object.defineProperty(request, "url", { value: address });
    const { admitted, end } = served;
    if (end !== undefined) {
      // Deno does not notice the end of a connection while an unread body arrives.
      const signal = AbortSignal.any([decidedAbout.signal, end.signal]);
      Object.defineProperty(decidedAbout, "signal", { value: signal });
    }
    attachAdmission(decidedAbout, admitted);
    attachDecision(decidedAbout, outcome.decision);
    const answer = this.#fetch(decidedAbout, { peer: admitted.peer, decision: outcome.decision });
    return answer instanceof Response ? toNative(answer) : Promise.resolve(answer).then(toNative);
  }

  #refuse(served: Served, problem: Problem): Response {
    if (problem.isLast) void served.shutdown();
    return responseOf(problem);
  }

  #failed(served: Served, error: unknown): Response {
    this.#admission.failed(served.admitted, error);
    return new Response(null, { status: 500 });
  }

  #sweep(): void {
    const now = performance.now();
    for (const served of this.#served) {
      if (served.pending > 0) continue;
      served.idleSince ??= now; // set here and not for each request: reading the clock costs as much as the decision
      const limit = served.hasRequested ? this.#keepAliveTimeout : this.#headersTimeout;
      if (now - served.idleSince > limit) served.found.shutdown();
    }
  }
}

/** Whether a request has no host. Deno then puts the socket's path into the URL. */
const isUnaddressed = (origin: string): boolean => origin.startsWith("http+unix://%2F");

/** Returns whether the Host header and the request line are valid hosts. */
function isAddressed(origin: string, header: string | null): boolean {
  if (header === null && isUnaddressed(origin)) return true;
  return isHost(origin.slice(origin.indexOf("://") + 3)) && (header === null || isHost(header));
}

/** Copies a request with another URL; `undefined` if `Request` rejects it: TRACE, and GET with a body. */
function withUrl(request: Request, url: string): Request | undefined {
  try {
    return new Request(url, request);
  } catch {
    return undefined;
  }
}

/** A Response of another implementation crashes the process (uncatchable throw in Deno), so it is copied. */
function toNative(answer: Response): Response {
  if (isNativeUnread(answer)) return answer;
  // oak's npm package bundles undici's Response; other frameworks extend Deno's.
  const { status, statusText, headers, body } = requireUnread(answer);
  return new Response(body, { status, statusText, headers: [...headers] });
}

/** Returns whether Deno can send a response as it is. Each getter costs as much as the decision. */
function isNativeUnread(answer: Response): boolean {
  try {
    return bodyUsedOf?.call(answer) === false && answer.status !== 0;
  } catch {
    return false;
  }
}

/** Deno's own getter, read before frameworks replace the global; `undefined` if one already has. */
const bodyUsedOf = Object.getOwnPropertyDescriptor(Response.prototype, "bodyUsed")?.get;
