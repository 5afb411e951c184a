/**
 * Hono: who asks, as a variable of the context. `ucred/hono`.
 *
 * @example A route for some
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
import { decisionOf, peerOf } from "./admission/attach.ts";
import { BAD_TARGET, forbidden, responseOf } from "./http/problem.ts";
import { targetOf } from "./http/request_target.ts";

/** What the middleware adds to the context. */
export interface PeerEnv {
  /** Variables of the context. */
  Variables: {
    /** Who asks. */
    peer: Peer;
    /** What was decided: by `requirePeer()`'s own policy if it has one, or by the server's. */
    decision: Decision;
  };
}

/**
 * Puts the peer into the context. With a policy, also decides by it, beside the server's own: what it
 * denies is answered with 403.
 *
 * @param policy Asked about `METHOD /path`, as the server's policy is.
 * @returns Middleware that throws a `UcredError` (`ERR_UCRED_NO_PEER`) if the application is not
 * served by `ucred/http`: the answer is then 500.
 * @throws {TypeError} If the policy is none.
 */
export function requirePeer(policy?: Policy): MiddlewareHandler<PeerEnv> {
  if (policy !== undefined && typeof policy?.decide !== "function") {
    throw new TypeError('requirePeer() takes a policy of definePolicy() or "ucred/policy"');
  }
  return async (context, next) => {
    // Under other bridges from node:http to fetch the incoming message is in the environment.
    const { incoming } = (context.env ?? {}) as { readonly incoming?: object };
    const request = incoming ?? context.req.raw;
    const peer = peerOf(request);
    const { method, url } = context.req.raw;
    let decision: Decision;
    if (policy === undefined) decision = decisionOf(request);
    else {
      const target = targetOf(method, url);
      if (target === undefined) return responseOf(BAD_TARGET);
      decision = policy.decide(peer, { action: target.action });
    }
    if (!decision.allowed) return responseOf(forbidden(decision));
    context.set("peer", peer);
    context.set("decision", decision);
    await next();
    return undefined;
  };
}
