/**
 * HTTP by Deno's own engine, one connection at a time, so that each is identified before it is served.
 *
 * The one hook that takes a connection is not documented: `Deno[Deno.internal].serveHttpOnConnection`,
 * checked on Deno 2.9.5. Where it is missing, `serve()` takes node:http.
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
import { isHost } from "./request_target.ts";

/** Serves the requests of one connection, which it then owns. */
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

/** The hook, where there is one. */
export function nativeHttp(): ServeOnConnection | undefined {
  const { Deno } = globalThis as unknown as { readonly Deno?: DenoGlobal };
  return Deno?.internal && Deno[Deno.internal]?.serveHttpOnConnection;
}

/** As `http.Server` has it by default: until the first request, and between two of them, in ms. */
const HEADERS_TIMEOUT_MS = 10_000;
const KEEP_ALIVE_TIMEOUT_MS = 5000;

/** How often is looked for connections that take longer. */
const SWEEP = 1000;

/** {@link serve}, by Deno's engine. */
export async function serveNatively(options: ServeOptions): Promise<EngineServer> {
  checkSupport();
  const { policy, pin, limits, audit, revalidate = false } = options;
  const admission = new Admission(
    { policy, pin: pin ?? (revalidate || undefined), limits, audit },
    true,
  );
  const { Deno } = globalThis as unknown as { readonly Deno: DenoGlobal };
  if (options.path === undefined) throw new TypeError("Deno's engine listens at a path only");
  /** Ends refused connections that are being answered. */
  const refusals = new Set<() => void>();
  let peers: Peers<DenoConnection> | undefined;
  let place: BoundPath | undefined;
  try {
    const own = place = await bindSocketPath(options, (path) => {
      const acceptor = new DescriptorFinder(path);
      const listener = Deno.listen({ transport: "unix", path });
      peers = new Peers(listener, acceptor, admission, (conn, refused, close) => {
        const giveBack = admission.roomToAnswer(refused);
        if (giveBack === undefined) return false;
        const end = () => {
          if (refusals.delete(end)) giveBack();
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
        own.remove(); // while the socket is open: until then its inode is nobody else's
        notification?.stopping();
        return server.close();
      },
      cut: () => server.cut(),
    };
  } catch (error) {
    place?.remove();
    peers?.close();
    throw error;
  }
}

/** A connection that is being served. */
interface Served extends Connection {
  /** The descriptor: it is closed when the connection is over, whatever still handles its requests. */
  readonly claim: FoundSocket;
  /** Aborts its requests when the peer's process ends; `undefined` if nobody asked for that. */
  readonly end: AbortController | undefined;
  shutdown(): Promise<void>;
  /** Requests that are being answered. */
  pending: number;
  /** One of them is answered. */
  readonly answered: () => void;
  /** Since when there are none, as far as that was noted. */
  idleSince: number | undefined;
  /** Scheme and host of the last request's URL, and its Host header. */
  origin: string;
  host: string | null;
  /** What the URLs begin with that handlers get. */
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
  readonly #serveOn = nativeHttp()!;
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
    const interval = checkingInterval(SWEEP, headersTimeout, keepAliveTimeout);
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

  /** Ends all connections. Deno waits for handlers that do not mind; we do not. */
  cut(): void {
    for (const { claim } of this.#served) {
      claim.cut();
      claim.close();
    }
  }

  async #accept(): Promise<void> {
    for (;;) {
      const accepted = await this.#peers.accept();
      if (accepted === undefined) return;
      const { conn, admitted } = accepted;
      if (!this.#isClosing) this.#serve(conn, admitted);
      else { // since it was let in
        foundSocketOf(conn)!.close();
        conn.close();
      }
    }
  }

  #serve(conn: DenoConnection, admitted: Admitted): void {
    const claim = foundSocketOf(conn)!;
    const served: Served = {
      admitted,
      claim,
      hasAsked: false,
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
      // Of its own, since Deno adds a listener, and never removes it. It stays silent, since Deno throws
      // where nobody can catch it if the connection has just ended: see cut().
      new AbortController().signal,
      (request, { completed }) => this.#handle(served, request, completed),
      (error) => this.#failed(served, error),
      ignore,
    );
    this.#served.add(served);
    claim.once("close", () => {
      this.#served.delete(served);
      if (this.#served.size === 0) this.#onEmpty?.();
    });
    const close = () => {
      claim.close();
      shutdown().catch(ignore); // of a peer that leaves early, Deno 2.9.5 keeps 4.4 KB otherwise
    };
    finished.then(close, close); // it rejects when the peer leaves early
    if (this.#revalidate) {
      onProcessExit(admitted.peer, () => {
        admitted.why ??= "ended";
        served.end?.abort();
        claim.cut();
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
    const path = slash === -1 ? url.length : slash; // "http+unix://x:80" where CONNECT asks for that
    const target = url.slice(path);
    const origin = url.slice(0, path);
    // The URL is made of both, and no longer tells where the header ended: "x/other?" is to be found. In
    // HTTP/2, and where the request line has a host, it says nothing of the header at all.
    const header = request.headers.get("host");
    let hasHost = origin === served.origin && header === served.host;
    if (!hasHost && isAddressed(origin, header)) {
      hasHost = true;
      served.origin = origin;
      served.host = header;
      // As serve() on node:http has it, where Elysia takes four characters of host for granted.
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
    );
    if (isProblem(outcome)) return this.#refuse(served, outcome);
    if (target === "/*" && method === "OPTIONS") return this.#refuse(served, BAD_TARGET); // or "*"
    const address = served.start + outcome.url;
    const decidedAbout = outcome.url === target ? request : rewritten(request, address);
    if (decidedAbout === undefined) return this.#refuse(served, BAD_TARGET);
    // Deno's begins with "http+unix:". A new Request would cost more than all the rest.
    if (decidedAbout === request) Object.defineProperty(request, "url", { value: address });
    const { admitted, end } = served;
    if (end !== undefined) {
      // Deno does not look for the end of a connection while a body comes that nobody reads.
      const signal = AbortSignal.any([decidedAbout.signal, end.signal]);
      Object.defineProperty(decidedAbout, "signal", { value: signal });
    }
    attachAdmission(decidedAbout, admitted);
    attachDecision(decidedAbout, outcome.decision);
    const answer = this.#fetch(decidedAbout, { peer: admitted.peer, decision: outcome.decision });
    return answer instanceof Response ? native(answer) : Promise.resolve(answer).then(native);
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
      served.idleSince ??= now; // here, since asking for the time takes as long as the decision
      const limit = served.hasAsked ? this.#keepAliveTimeout : this.#headersTimeout;
      if (now - served.idleSince > limit) served.claim.cut();
    }
  }
}

/** Whether Host header and request line name a host at most. Without any, Deno takes the socket's path. */
function isAddressed(origin: string, header: string | null): boolean {
  if (header === null && origin.startsWith("http+unix://%2F")) return true;
  return isHost(origin.slice(origin.indexOf("://") + 3)) && (header === null || isHost(header));
}

/** `undefined` where `Request` cannot be made: of a TRACE, and of a GET that has a body. */
function rewritten(request: Request, url: string): Request | undefined {
  try {
    return new Request(url, request);
  } catch {
    return undefined;
  }
}

/** What is none of Deno's own responses would end the program: Deno throws where nobody catches. */
function native(answer: Response): Response {
  if (isOwnUnused(answer)) return answer;
  // The npm package of oak brings undici's along, others inherit from Deno's.
  const { status, statusText, headers, body } = requireUnread(answer);
  return new Response(body, { status, statusText, headers: [...headers] });
}

/** Whether it is one of Deno's own that can be sent. Each question takes as long as the decision. */
function isOwnUnused(answer: Response): boolean {
  try {
    return bodyUsedOf?.call(answer) === false && answer.status !== 0;
  } catch {
    return false;
  }
}

/** Deno's own: frameworks replace the global. `undefined` where somebody did so before. */
const bodyUsedOf = Object.getOwnPropertyDescriptor(Response.prototype, "bodyUsed")?.get;
