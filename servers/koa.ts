/**
 * `ucred/koa`: middleware that puts the peer into the state of Koa's context.
 *
 * @example Greet the peer
 * ```js
 * import Koa from "koa";
 * import { createServer } from "ucred/http";
 * import { requirePeer } from "ucred/koa";
 *
 * const app = new Koa(); // in TypeScript: new Koa<PeerState>()
 * app.use(requirePeer());
 * app.use((context) => {
 *   context.body = `welcome, uid ${context.state.peer.uid}\n`;
 * });
 * createServer({}, app.callback()).listen("app.sock");
 * ```
 *
 * @module
 */

import type { IncomingMessage } from "node:http";
import type { Peer } from "../core/peer.ts";
import type { Decision } from "../core/policy/decide/decision.ts";
import type { Policy } from "../core/policy/policy.ts";
import { isProblem } from "./http/decide_request.ts";
import { headersOf } from "./http/problem.ts";
import { checkIncoming, policyIn } from "./http/require_peer.ts";

/** The properties that the middleware adds to `context.state`. */
export interface PeerState {
  /** The peer that sent the request. */
  peer: Peer;
  /** The decision of `requirePeer()`'s own policy if it has one, otherwise of the server's policy. */
  decision: Decision;
}

/** The part of Koa's context that the middleware uses. */
export interface KoaContext {
  /** The request of `node:http`. */
  readonly req: IncomingMessage;
  /** The request target, before routers change it. */
  readonly originalUrl: string;
  /** Values for later middleware. */
  readonly state: object;
  /** The status of the response. */
  status: number;
  /** The body of the response. */
  body: unknown;
  /** Sets headers of the response. */
  set(headers: { [name: string]: string }): void;
}

/** Middleware of Koa. */
export type Middleware = (context: KoaContext, next: () => Promise<unknown>) => Promise<void>;

/** {@link requirePeer} without a policy of its own. */
export function requirePeer(): Middleware;
/**
 * Puts the peer into `context.state`. A policy given here decides in addition to the server's: requests that
 * it denies receive 403.
 *
 * @param policy Decides the action `METHOD /path`, as the server's policy does. If it tests facts of the
 * process, the server must pin peers: `pin: true`.
 * @returns Middleware that throws a `UcredError` (`ERR_UCRED_NO_PEER`) if the application is not served by
 * `ucred/http`: Koa then responds with 500.
 * @throws {TypeError} If `policy` is not a policy.
 */
export function requirePeer(policy: Policy): Middleware;
export function requirePeer(...args: readonly Policy[]): Middleware {
  const policy = policyIn(args);
  return async (context, next) => {
    const outcome = checkIncoming(context.req, policy, context.originalUrl);
    if (isProblem(outcome)) {
      context.status = outcome.status;
      context.set({ ...headersOf(outcome) });
      context.body = outcome.body;
      return;
    }
    const { peer, decision } = outcome;
    Object.assign(context.state, { peer, decision } satisfies PeerState);
    await next();
  };
}
