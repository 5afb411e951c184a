/** Fetch-style HTTP servers, on the fastest engine that tells who connected. */

import type * as srvx from "srvx/node";
import { type OptionNames, requireOptions } from "../../core/options.ts";
import { admittedOf, attachAdmission, attachDecision, decisionOf } from "../admission/attach.ts";
import {
  checkingInterval,
  type CloseOptions,
  closeTimer,
  LISTEN_OPTIONS,
} from "../listen/lifecycle.ts";
import { requireUnread } from "./decide_request.ts";
import { nativeHttp, serveNatively } from "./deno.ts";
import { createServer, REQUEST_OPTIONS } from "./node.ts";
import type { EngineServer, FetchServer, ServeOptions } from "./options.ts";
import { BAD_TARGET, responseOf } from "./problem.ts";

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
export function serve(options: ServeOptions): Promise<FetchServer> {
  requireOptions("serve()", options, SERVE_OPTIONS);
  const isNative = options.systemd === undefined && nativeHttp() !== undefined;
  const { engine = isNative ? "deno" : "node:http" } = options;
  if (typeof options.fetch !== "function") throw new TypeError("fetch is a function");
  requireTimeouts(options);
  if (engine === "node:http") return serveByNode(options).then(fetchServerOf);
  if (engine === "deno" && isNative) return serveNatively(options).then(fetchServerOf);
  throw new TypeError(`Engine ${JSON.stringify(engine)} is not to be had here`);
}

function fetchServerOf({ path, engine, stats, close, cut }: EngineServer): FetchServer {
  let closed: Promise<void> | undefined;
  const closeBy = async (options: CloseOptions = {}): Promise<void> => {
    const startTimer = closeTimer(options);
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

function serveByNode(options: ServeOptions): Promise<EngineServer> {
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
      attachAdmission(request, admitted);
      attachDecision(request, decision);
      const answer = await fetch(request, { peer: admitted.peer, decision });
      await adapter.sendNodeResponse(response, requireUnread(answer));
      if (response.errored) throw response.errored; // of the answer's stream
    },
  );
  // Loaded here because it reads the environment when it loads, which Deno permits or denies.
  const loaded = import("srvx/node").then((module) => adapter = module);
  const listens = (): Promise<EngineServer> =>
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
