/**
 * `ucred/hono`: middleware that puts the peer into Hono's context.
 *
 * @example Restrict a route
 * ```ts
 * import { Hono } from "hono";
 * import { definePolicy } from "ucred";
 * import { type PeerEnv, requirePeer } from "ucred/hono";
 * import { serve } from "ucred/http";
 *
 * const admins = definePolicy({
 *   version: 1,
 *   rules: [{ name: "root", when: { uid: 0 }, allow: true }],
 * });
 * const app = new Hono<PeerEnv>();
 * app.use(requirePeer());
 * app.get("/", (context) => context.text(`welcome, uid ${context.get("peer").uid}\n`));
 * app.use("/admin/*", requirePeer(admins));
 * app.get("/admin/users", (context) => context.text("…\n"));
 *
 * const server = await serve({ path: "app.sock", fetch: (request) => app.fetch(request) });
 * console.log(`at ${server.path}`);
 * await server.close();
 * ```
 *
 * @module
 */

import type { MiddlewareHandler } from "hono";
import type { Peer } from "../core/peer.ts";
import type { Decision } from "../core/policy/decide/decision.ts";
import type { Policy } from "../core/policy/policy.ts";
import { requestOf, wholeUrlOf } from "./admission/attach.ts";
import { isProblem } from "./http/decide_request.ts";
import { responseOf } from "./http/problem.ts";
import { type AttributeHeader, valueIn } from "./http/request_attributes.ts";
import { checkPeer, policyIn } from "./http/require_peer.ts";

/** The variables that the middleware adds to the context. */
export interface PeerEnv {
  /** Variables of the context. */
  Variables: {
    /** The peer that sent the request. */
    peer: Peer;
    /** The decision of `requirePeer()`'s own policy if it has one, otherwise of the server's policy. */
    decision: Decision;
  };
}

/** {@link requirePeer} without a policy of its own. */
export function requirePeer(): MiddlewareHandler<PeerEnv>;
/**
 * Puts the peer into the context. A policy given here decides in addition to the server's: requests that it
 * denies receive 403.
 *
 * @param policy Decides the action `METHOD /path`, as the server's policy does. The path is the whole path
 * of the request, also below `mount()`.
 * @returns Middleware that throws a `UcredError` (`ERR_UCRED_NO_PEER`) if the application is not served by
 * `ucred/http`: the client then receives 500.
 * @throws {TypeError} If `policy` is not a policy.
 */
export function requirePeer(policy: Policy): MiddlewareHandler<PeerEnv>;
export function requirePeer(...args: readonly Policy[]): MiddlewareHandler<PeerEnv> {
  const policy = policyIn(args);
  return async (context, next) => {
    const { raw } = context.req;
    const request = requestOf(context);
    const outcome = checkPeer(request, policy, {
      method: raw.method,
      url: wholeUrlOf(raw, request),
      valuesOf: (name: AttributeHeader) => valueIn(raw.headers, name),
    });
    if (isProblem(outcome)) return responseOf(outcome);
    context.set("peer", outcome.peer);
    context.set("decision", outcome.decision);
    await next();
    return undefined;
  };
}
