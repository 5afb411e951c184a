/** Options of `serve()`, and the running server. */

import type { ServerStats } from "../admission/admission.ts";
import type { CloseOptions, ListenOptions } from "../listen/lifecycle.ts";
import type { FetchContext } from "./fetch_context.ts";
import type { HttpAdmissionOptions } from "./node.ts";

/**
 * The HTTP engine: the runtime's `node:http`, or in Deno the engine of `Deno.serve`.
 *
 * @experimental "deno" calls an undocumented function of Deno. Without it, `serve()` uses "node:http".
 */
export type Engine = "node:http" | "deno";

/** Options of `serve()`. */
export type ServeOptions = ListenOptions & HttpAdmissionOptions & {
  /** Handles allowed requests. If it throws, or its promise rejects, the client receives 500. */
  readonly fetch: (request: Request, context: FetchContext) => Response | Promise<Response>;
  /**
   * The HTTP engine. By default "deno" in Deno if it is available and `path` is given, otherwise
   * "node:http". Bun has only "node:http", since `Bun.serve` hides the descriptor of its connections
   * (oven-sh/bun 29597).
   *
   * The engine "deno" differs in four ways. A half-closed connection counts as closed by the client. A client that hangs up
   * while an unread body arrives is noticed when the handler ends. `Deno.upgradeWebSocket()` throws: use
   * `createServer()` for WebSockets. HTTP/2 with prior knowledge (h2c) is accepted, and the policy decides
   * each stream.
   */
  readonly engine?: Engine | undefined;
  /**
   * Milliseconds until the headers of the first request must have arrived, counted from accept(2). By
   * default 10,000; 0 disables the timeout.
   */
  readonly headersTimeout?: number | undefined;
  /**
   * Milliseconds that a connection may stay idle between two requests. By default 5000; 0 disables the
   * timeout.
   */
  readonly keepAliveTimeout?: number | undefined;
};

/** A running server. */
export interface FetchServer {
  /** The path or abstract name. */
  readonly path: string;
  /** The engine in use. */
  readonly engine: Engine;
  /** Returns the server's counters. */
  stats(): ServerStats;
  /**
   * Stops listening, waits for pending requests, and cuts them off after `timeout`. Another call waits for
   * the same end, and can only shorten the timeout.
   */
  close(options?: CloseOptions): Promise<void>;
  /** {@link FetchServer.close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** A server of either engine. */
export interface EngineServer extends Pick<FetchServer, "path" | "engine" | "stats"> {
  /** Stops listening, and waits for connections. Called once. */
  close(): Promise<void>;
  /** Closes all connections. */
  cut(): void;
}
