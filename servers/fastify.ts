/**
 * `ucred/fastify`: a plugin that adds the peer to Fastify's requests.
 *
 * @example Greet the peer
 * ```js
 * import fastify from "fastify";
 * import { requirePeer } from "ucred/fastify";
 * import { createServer } from "ucred/http";
 *
 * const app = fastify({ serverFactory: (handler) => createServer({}, handler) });
 * app.register(requirePeer);
 * app.get("/", (request) => `welcome, uid ${request.peer.uid}\n`);
 * await app.listen({ path: "app.sock" });
 * ```
 *
 * @module
 */

import type { IncomingMessage } from "node:http";
import { type OptionNames, requireOptions } from "../core/options.ts";
import type { Peer } from "../core/peer.ts";
import type { Decision } from "../core/policy/decide/decision.ts";
import type { Policy } from "../core/policy/policy.ts";
import { attachDecision, decisionOf, peerOf, type RequestLike } from "./admission/attach.ts";
import { isProblem } from "./http/decide_request.ts";
import { headersOf } from "./http/problem.ts";
import { checkIncoming, policyIn } from "./http/require_peer.ts";

/** The properties that the plugin adds to Fastify's requests. */
export interface PeerRequest {
  /** The peer that sent the request. */
  readonly peer: Peer;
  /** The decision of the plugin's own policy if it has one, otherwise of the server's policy. */
  readonly decision: Decision;
}

/** Options of {@link requirePeer}. */
export interface PeerOptions {
  /**
   * Decides the action `METHOD /path` in addition to the server's policy. Requests that it denies receive 403.
   * If it tests facts of the process, the server must pin peers: `pin: true`.
   */
  readonly policy?: Policy;
}

const OPTIONS: OptionNames<PeerOptions> = {
  policy: true,
  // Options of Fastify's own register(), which passes them on.
  ...{ prefix: true, logLevel: true, logSerializers: true },
};

/** The part of Fastify's request that the plugin uses. */
export interface FastifyRequestLike {
  /** The request of `node:http`. */
  readonly raw: IncomingMessage;
  /** The request target, before `rewriteUrl`. */
  readonly originalUrl: string;
}

/** The part of Fastify's reply that the plugin uses. */
export interface FastifyReplyLike {
  /** Sets the status. */
  code(status: number): unknown;
  /** Sets headers. */
  headers(headers: { [name: string]: string }): unknown;
  /** Sends the response. */
  send(body: Uint8Array): unknown;
}

/** The part of Fastify's instance that the plugin uses. */
export interface FastifyLike {
  /** Returns whether requests have a property of this name. */
  hasRequestDecorator(name: string): boolean;
  /** Adds a property to requests. */
  decorateRequest(name: string, property: { getter(): unknown }): unknown;
  /** Adds a function that runs before the handlers. */
  addHook(
    name: "onRequest",
    hook: (request: FastifyRequestLike, reply: FastifyReplyLike) => Promise<unknown>,
  ): unknown;
}

/**
 * Plugin that adds `request.peer` and `request.decision`, and rejects requests that have no peer. It applies
 * to all routes, the 404 handler and the nested plugins of the instance that registers it, including those
 * that were registered earlier.
 * Register it first, so that it runs before the hooks of other plugins.
 *
 * If the application is not served by `ucred/http`, or the request is one of `inject()`, the response is 500,
 * with the code `ERR_UCRED_NO_PEER`.
 */
export const requirePeer: {
  (app: FastifyLike, options: PeerOptions): Promise<void>;
} = Object.assign(
  // Async, like the hook, so that an exception becomes a rejection, which Fastify handles.
  // deno-lint-ignore require-await
  async (app: FastifyLike, options: PeerOptions) => {
    requireOptions("requirePeer()", options, OPTIONS);
    const policy = policyIn("policy" in options ? [options.policy] : []);
    if (!app.hasRequestDecorator("peer")) {
      app.decorateRequest("peer", {
        getter(this: FastifyRequestLike) {
          return peerOf(this.raw);
        },
      });
      app.decorateRequest("decision", {
        getter(this: FastifyRequestLike) {
          return decisionOf(this as RequestLike);
        },
      });
    }
    // deno-lint-ignore require-await
    app.addHook("onRequest", async (request, reply) => {
      const outcome = checkIncoming(request.raw, policy, request.originalUrl);
      if (!isProblem(outcome)) return attachDecision(request, outcome.decision);
      reply.code(outcome.status);
      reply.headers({ ...headersOf(outcome) });
      reply.send(new TextEncoder().encode(outcome.body)); // to a string, Fastify would add a charset
      return reply;
    });
  },
  {
    // As fastify-plugin does: the properties and the hook belong to the instance that registers the plugin.
    [Symbol.for("skip-override")]: true,
    [Symbol.for("fastify.display-name")]: "ucred",
    [Symbol.for("plugin-meta")]: { name: "ucred", fastify: "5.x" },
  },
);
