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
import { mayTest } from "../core/policy/tested_attributes.ts";
import { decisionOf, peerOf, requestOf } from "./admission/attach.ts";
import { BAD_TARGET, forbidden, responseOf } from "./http/problem.ts";
import { attributesOf, valueIn } from "./http/request_attributes.ts";
import { targetOf } from "./http/request_target.ts";

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

/**
 * Puts the peer into the context. A policy given here decides in addition to the server's: requests that it
 * denies receive 403.
 *
 * @param policy Decides the action `METHOD /path`, as the server's policy does.
 * @returns Middleware that throws a `UcredError` (`ERR_UCRED_NO_PEER`) if the application is not served by
 * `ucred/http`: the client then receives 500.
 * @throws {TypeError} If `policy` is not a policy.
 */
export function requirePeer(policy?: Policy): MiddlewareHandler<PeerEnv> {
  if (policy !== undefined && typeof policy?.decide !== "function") {
    throw new TypeError('requirePeer() requires a Policy from definePolicy() or "ucred/policy"');
  }
  return async (context, next) => {
    const request = requestOf(context);
    const peer = peerOf(request);
    const { method, url } = context.req.raw;
    let decision: Decision;
    if (policy === undefined) decision = decisionOf(request);
    else {
      const target = targetOf(method, url);
      if (target === undefined) return responseOf(BAD_TARGET);
      const attributes = mayTest(policy, "http")
        ? attributesOf(target.url, (name) => valueIn(context.req.raw.headers, name))
        : undefined;
      decision = policy.decide(peer, { action: target.action, attributes });
    }
    if (!decision.allowed) return responseOf(forbidden(decision));
    context.set("peer", peer);
    context.set("decision", decision);
    await next();
    return undefined;
  };
}
