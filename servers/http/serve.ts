/** `serve()`: fetch-style HTTP servers, on the fastest engine that exposes the connection's descriptor. */

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
import { denoHttpHook, serveNatively } from "./deno.ts";
import { createServer, HTTP_ADMISSION_OPTIONS } from "./node.ts";
import type { EngineServer, FetchServer, ServeOptions } from "./options.ts";
import { BAD_TARGET, responseOf } from "./problem.ts";

function requireTimeouts(options: ServeOptions): void {
  for (const name of ["headersTimeout", "keepAliveTimeout"] as const) {
    const { [name]: timeout = 0 } = options;
    if (typeof timeout === "number" && timeout >= 0 && timeout < 2 ** 31) continue;
    throw new RangeError(
      `${name} must be a number of milliseconds from 0 to 2147483647, not ${timeout}`,
    );
  }
}

/** The option names of {@link ServeOptions}. */
export const SERVE_OPTIONS: OptionNames<ServeOptions> = {
  ...LISTEN_OPTIONS,
  ...HTTP_ADMISSION_OPTIONS,
  headersTimeout: true,
  keepAliveTimeout: true,
  fetch: true,
  engine: true,
};

/**
 * Serves HTTP on a Unix socket with a fetch-style handler, such as that of Hono. The policy decides each
 * request as in `createServer()` of this module.
 *
 * @returns The server, once it listens.
 * @throws {UcredError} `ERR_UCRED_LISTEN` if listening fails.
 * @throws {TypeError} If an option is unknown or has the wrong type, or the engine is not available.
 *
 * @example Serve a Hono application
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
  const isNative = options.systemd === undefined && denoHttpHook() !== undefined;
  const { engine = isNative ? "deno" : "node:http" } = options;
  if (typeof options.fetch !== "function") throw new TypeError("fetch must be a function");
  requireTimeouts(options);
  if (engine === "node:http") return serveByNode(options).then(fetchServerOf);
  if (engine === "deno" && isNative) return serveNatively(options).then(fetchServerOf);
  throw new TypeError(`Engine ${JSON.stringify(engine)} is not available here`);
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
      if (incoming.url === "*") { // a Request cannot have the target "*"
        return await adapter.sendNodeResponse(response, responseOf(BAD_TARGET));
      }
      // By default Elysia assumes a host of at least four characters, and would misread the path after a
      // shorter one.
      const { host } = incoming.headers;
      if (host !== undefined && host.length < 4) incoming.headers.host = "localhost";
      const request = new adapter.NodeRequest({ req: incoming, res: response });
      const admitted = admittedOf(incoming)!;
      const decision = decisionOf(incoming);
      attachAdmission(request, admitted);
      attachDecision(request, decision);
      const answer = await fetch(request, { peer: admitted.peer, decision });
      await adapter.sendNodeResponse(response, requireUnread(answer));
      if (response.errored) throw response.errored; // an error of the response's stream
    },
  );
  // Loaded here and not at import: srvx reads the environment when it loads, which takes a permission in
  // Deno.
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
