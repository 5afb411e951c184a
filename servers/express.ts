/**
 * `ucred/express`: middleware for Express, and for other routers with middleware of the same form
 * (Connect, Polka).
 *
 * @example Restrict a route
 * ```ts
 * import { definePolicy } from "ucred";
 * import { requirePeer } from "ucred/express";
 * import { createServer, peerOf } from "ucred/http";
 *
 * const admins = definePolicy({
 *   version: 1,
 *   rules: [{ name: "root", when: { uid: 0 }, allow: true }],
 * });
 * const check = requirePeer(admins); // with Express: app.use("/admin", requirePeer(admins))
 *
 * const server = createServer({}, (request, response) => {
 *   check(request, response, () => response.end(`welcome, uid ${peerOf(request).uid}\n`));
 * });
 * server.listen("app.sock");
 * ```
 *
 * @module
 */

import type { IncomingMessage, ServerResponse } from "node:http";
import type { Policy } from "../core/policy/policy.ts";
import { isProblem } from "./http/decide_request.ts";
import { checkIncoming, policyIn } from "./http/require_peer.ts";
import { answer } from "./http/respond.ts";

/** Middleware of Express. */
export type Middleware = (
  request: IncomingMessage,
  response: ServerResponse,
  next: (error?: unknown) => void,
) => void;

/** {@link requirePeer} without a policy of its own. */
export function requirePeer(): Middleware;
/**
 * Rejects requests that have no peer. A policy given here decides in addition to the server's: requests that
 * it denies receive 403. `peerOf()` of `ucred/http` returns the peer of a request.
 *
 * @param policy Decides the action `METHOD /path`, as the server's policy does. The path is the whole path
 * of the request, also where the middleware is mounted at a path. If the policy tests facts of the process,
 * the server must pin peers: `pin: true`.
 * @returns Middleware that throws a `UcredError` (`ERR_UCRED_NO_PEER`) if the application is not served by
 * `ucred/http`: Express then responds with 500.
 * @throws {TypeError} If `policy` is not a policy.
 */
export function requirePeer(policy: Policy): Middleware;
export function requirePeer(...args: readonly Policy[]): Middleware {
  const policy = policyIn(args);
  return (request, response, next) => {
    const { originalUrl = request.url ?? "" } = request as { readonly originalUrl?: string };
    const outcome = checkIncoming(request, policy, originalUrl);
    if (isProblem(outcome)) answer(request, response, outcome);
    else next();
  };
}
