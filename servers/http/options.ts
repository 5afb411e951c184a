/** Options of `serve()`, and the running server. */

import type { Peer } from "../../core/peer.ts";
import type { Decision } from "../../core/policy/decide/decision.ts";
import type { ServerStats } from "../admission/admission.ts";
import type { CloseOptions, ListenOptions } from "../listen/lifecycle.ts";
import type { HttpAdmissionOptions } from "./node.ts";

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
export type ServeOptions = ListenOptions & HttpAdmissionOptions & {
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

/** A server that listens. */
export interface FetchServer {
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
  /** {@link FetchServer.close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** A server of either engine. */
export interface EngineServer extends Pick<FetchServer, "path" | "engine" | "stats"> {
  /** Stops to listen, and waits for connections; called once. */
  close(): Promise<void>;
  /** Ends all connections. */
  cut(): void;
}
