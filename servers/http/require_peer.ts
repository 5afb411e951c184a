/** The check that `requirePeer()` makes for each framework. */

import type { IncomingMessage } from "node:http";
import type { Peer } from "../../core/peer.ts";
import type { Decision } from "../../core/policy/decide/decision.ts";
import type { Policy } from "../../core/policy/policy.ts";
import { mayTest } from "../../core/policy/tested_attributes.ts";
import { decisionOf, peerOf, type RequestLike } from "../admission/attach.ts";
import { BAD_TARGET, forbidden, type Problem } from "./problem.ts";
import { attributesOf, type HeaderValues, valuesIn } from "./request_attributes.ts";
import { targetOf } from "./request_target.ts";

/** The peer of an allowed request, and the decision. */
export interface AllowedRequest {
  readonly peer: Peer;
  readonly decision: Decision;
}

/** The part of a request that a policy decides about. */
export interface RequestParts {
  readonly method: string;
  /** The request target, or the URL of a `Request`. */
  readonly url: string;
  readonly valuesOf: HeaderValues;
}

/**
 * Returns the policy in the arguments of `requirePeer()`. An argument that is `undefined` is an error: a
 * misspelled variable must not leave the decision to the server's policy, which may allow more.
 *
 * @throws {TypeError} If there is an argument, and it is not a policy.
 */
export function policyIn(args: readonly (Policy | undefined)[]): Policy | undefined {
  const [policy] = args;
  if (args.length === 0 || typeof policy?.decide === "function") return policy;
  throw new TypeError('requirePeer() requires a Policy from definePolicy() or "ucred/policy"');
}

/**
 * Decides a request by the policy of the application. Without one, the decision is that of the server.
 *
 * @returns The peer and the decision, or the error response of a denied request.
 * @throws {UcredError} `ERR_UCRED_NO_PEER` if the request does not belong to a server of `ucred/http`.
 */
export function checkPeer(
  request: RequestLike,
  policy: Policy | undefined,
  { method, url, valuesOf }: RequestParts,
): AllowedRequest | Problem {
  const peer = peerOf(request);
  let decision: Decision;
  if (policy === undefined) decision = decisionOf(request);
  else {
    const target = targetOf(method, url);
    if (target === undefined) return BAD_TARGET;
    const attributes = mayTest(policy, "http") ? attributesOf(target.url, valuesOf) : undefined;
    decision = policy.decide(peer, { action: target.action, attributes });
  }
  return decision.allowed ? { peer, decision } : forbidden(decision);
}

/**
 * {@link checkPeer} for a request of `node:http`.
 *
 * @param url The request target as the server passed it on. Routers remove the path at which they are
 * mounted from `request.url`.
 */
export function checkIncoming(
  request: IncomingMessage,
  policy: Policy | undefined,
  url: string,
): AllowedRequest | Problem {
  const { method = "", rawHeaders } = request;
  return checkPeer(request, policy, {
    method,
    url,
    valuesOf: (name) => valuesIn(rawHeaders, name),
  });
}
