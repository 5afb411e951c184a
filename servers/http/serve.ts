/** Fetch-style HTTP servers, on the fastest engine that tells who connected. */

import { type OptionNames, requireOptions } from "../../core/options.ts";
import type { Peer } from "../../core/peer.ts";
import type { Decision } from "../../core/policy/policy.ts";
import type * as srvx from "srvx/node";
import { nativeHttp, serveNatively } from "./deno.ts";
import type { ServerStats } from "../admission/admission.ts";
import {
  checkingInterval,
  type CloseOptions,
  LISTEN_OPTIONS,
  type ListenOptions,
  timerOf,
} from "../listen/lifecycle.ts";
import { createServer, REQUEST_OPTIONS, type RequestOptions } from "./node.ts";
import {
  admittedOf,
  BAD_TARGET,
  belongsTo,
  decided,
  decisionOf,
  responseOf,
  unused,
} from "./decide_request.ts";

/** Who asks, and what was decided. */
export interface FetchContext {
  /** Who asks. */
  readonly peer: Peer;
  /** What the policy said of the request. */
  readonly decision: Decision;
}

/** What answers requests: the runtime's own `node:http`, or in Deno the engine of `Deno.serve`. */
export type Engine = "node:http" | "deno";

/** Where to listen, who may ask for what, and what answers. */
export type ServeOptions = ListenOptions & RequestOptions & {
  /** Answers what was allowed. If it throws, or its promise rejects, the answer is 500. */
  readonly fetch: (request: Request, context: FetchContext) => Response | Promise<Response>;
  /**
   * By default "deno" in Deno, where it is there and a path is given, and "node:http" otherwise.
   * `Bun.serve` hides who connects (oven-sh/bun 29597): Bun has "node:http" only.
   *
   * With "deno" a client that closes its sending side counts as gone,
   * and one that leaves while a body comes that nobody reads is noticed when the handler is done.
   * `Deno.upgradeWebSocket()` throws there: for WebSockets take `createServer()`. The engine "deno"
   * speaks HTTP/2 to clients that begin with it (without TLS), and each of its requests is decided
   * alike; "node:http" does not.
   */
  readonly engine?: Engine | undefined;
  /**
   * Milliseconds in which the headers of a first request have to come, on a connection that never sends
   * anything, too. By default 10,000; 0 for any time.
   */
  readonly headersTimeout?: number | undefined;
  /** Milliseconds between two requests of a connection. By default 5000; 0 for any time. */
  readonly keepAliveTimeout?: number | undefined;
};

function requireTimeouts(options: ServeOptions): void {
  for (const name of ["headersTimeout", "keepAliveTimeout"] as const) {
    const { [name]: timeout = 0 } = options;
    if (typeof timeout === "number" && timeout >= 0 && timeout < 2 ** 31) continue;
    throw new RangeError(
      `${name} is a number of milliseconds from 0 to 2147483647, not ${timeout}`,
    );
  }
}

const SERVE_OPTIONS: OptionNames<ServeOptions> = {
  ...LISTEN_OPTIONS,
  ...REQUEST_OPTIONS,
  headersTimeout: true,
  keepAliveTimeout: true,
  fetch: true,
  engine: true,
};

/** A server that listens. */
export interface HttpListening {
  /** The path or abstract name. */
  readonly path: string;
  /** What answers requests. */
  readonly engine: Engine;
  /** What it has seen. */
  stats(): ServerStats;
  /**
   * Stops to listen, lets requests finish, and cuts them once `timeout` is over. Whoever calls it again
   * waits for the same end, and can only make it come earlier.
   */
  close(options?: CloseOptions): Promise<void>;
  /** {@link HttpListening.close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Serves HTTP on a Unix socket: for Hono and all that has a `fetch`, and for plain handlers. Each
 * request is decided as `createServer()` of this module does it.
 *
 * @returns Once the server listens.
 * @throws {UcredError} `ERR_UCRED_LISTEN` if it cannot listen there.
 * @throws {TypeError} If an option is wrong, or the engine is not to be had.
 *
 * @example A Hono application, or anything with a fetch
 * ```ts
 * import { Hono } from "hono";
 * import { peerOf, serve } from "ucred/http";
 *
 * const app = new Hono();
 * app.get("/", (context) => context.text(`welcome, uid ${peerOf(context.req.raw).uid}\n`));
 * const server = await serve({ path: "app.sock", fetch: (request) => app.fetch(request) });
 * console.log(`at ${server.path}`);
 * await server.close();
 * ```
 */
export function serve(options: ServeOptions): Promise<HttpListening> {
  requireOptions("serve()", options, SERVE_OPTIONS);
  const isNative = options.systemd === undefined && nativeHttp() !== undefined;
  const { engine = isNative ? "deno" : "node:http" } = options;
  if (typeof options.fetch !== "function") throw new TypeError("fetch is a function");
  requireTimeouts(options);
  if (engine === "node:http") return serveByNode(options).then(listening);
  if (engine === "deno" && isNative) return serveNatively(options).then(listening);
  throw new TypeError(`Engine ${JSON.stringify(engine)} is not to be had here`);
}

/** A server of either engine. */
export interface Running extends Pick<HttpListening, "path" | "engine" | "stats"> {
  /** Stops to listen, and waits for connections; called once. */
  close(): Promise<void>;
  /** Ends all connections. */
  cut(): void;
}

function listening({ path, engine, stats, close, cut }: Running): HttpListening {
  let closed: Promise<void> | undefined;
  const closeBy = async (options: CloseOptions = {}): Promise<void> => {
    const startTimer = timerOf(options);
    closed ??= close();
    const stopTimer = startTimer(cut);
    try {
      await closed;
    } finally {
      stopTimer();
    }
  };
  return { path, engine, stats, close: closeBy, [Symbol.asyncDispose]: () => closeBy() };
}

function serveByNode(options: ServeOptions): Promise<Running> {
  const { headersTimeout = 10_000, keepAliveTimeout = 5000, ...others } = options;
  const { fetch, policy, pin, limits, audit, revalidate, engine: _, ...where } = others;
  const timeouts = {
    headersTimeout,
    keepAliveTimeout,
    connectionsCheckingInterval: checkingInterval(2000, headersTimeout),
  };
  let adapter: typeof srvx;
  const server = createServer(
    { policy, pin, limits, audit, revalidate, ...timeouts },
    async (incoming, response) => {
      if (incoming.url === "*") { // a Request has a path
        return await adapter.sendNodeResponse(response, responseOf(BAD_TARGET));
      }
      // Elysia looks for the path behind four characters of host, if not told otherwise: with a shorter
      // one it would take less than the path that was decided about.
      const { host } = incoming.headers;
      if (host !== undefined && host.length < 4) incoming.headers.host = "localhost";
      const request = new adapter.NodeRequest({ req: incoming, res: response });
      const admitted = admittedOf(incoming)!;
      const decision = decisionOf(incoming);
      belongsTo(request, admitted);
      decided(request, decision);
      const answer = await fetch(request, { peer: admitted.peer, decision });
      await adapter.sendNodeResponse(response, unused(answer));
      if (response.errored) throw response.errored; // of the answer's stream
    },
  );
  // Loaded here because it reads the environment when it loads, which Deno permits or denies.
  const loaded = import("srvx/node").then((module) => adapter = module);
  const listens = (): Promise<Running> =>
    new Promise((resolve, reject) => {
      server.once("error", reject);
      server.listen(where, () => {
        server.off("error", reject);
        resolve({
          path: server.address() as string,
          engine: "node:http",
          stats: () => server.stats(),
          close: () => server.close({}),
          cut: () => server.closeAllConnections(),
        });
      });
    });
  return loaded.then(listens);
}
