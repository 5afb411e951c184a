/** Requests to HTTP servers that OPA must allow. */

import { requireOptions } from "../../core/options.ts";
import type { Peer } from "../../core/peer.ts";
import type { Attributes } from "../../core/policy/decide/decision.ts";
import { wholeUrlOf } from "../../servers/admission/attach.ts";
import { BAD_TARGET, forbiddenBecause, responseOf } from "../../servers/http/problem.ts";
import { targetOf } from "../../servers/http/request_target.ts";
import { endOf, findRequest, type RequestWithPeer } from "../request_with_peer.ts";
import type { OpaClient, OpaDecision } from "./client.ts";

/** Options of {@link requireOpa}. */
export interface RequireOpaOptions {
  /** Returns the attributes of a request. Default: none. */
  readonly attributes?:
    | ((request: RequestWithPeer) => Attributes | Promise<Attributes>)
    | undefined;
  /** Runs for each request that OPA did not allow, for logs. */
  readonly onDenied?: ((denied: DeniedByOpa) => void) | undefined;
}

/** A request that OPA did not allow. */
export interface DeniedByOpa {
  /** The client. */
  readonly peer: Peer;
  /** `METHOD /path`. */
  readonly action: string;
  /** The decision; `undefined` if there was none. */
  readonly decision: OpaDecision | undefined;
  /** Why there was none. */
  readonly error: unknown;
}

/**
 * Makes OPA decide each request to `ucred/http`, directly or with Hono, by `METHOD /path`. A request that OPA
 * does not allow, or that could not be decided, receives 403 and does not reach the handler.
 *
 * The path is the whole path of the request, also where a router is mounted at a path.
 *
 * A request that does not belong to a server of `ucred/http` rejects with `ERR_UCRED_NO_PEER`, and an
 * exception of `onDenied` is passed on: both end without a call of the handler.
 *
 * @returns A handler `(request, next)`: a middleware of Hono, and for `ucred/http` the way to run the rest of
 * a handler.
 * @throws {TypeError} If an option is unknown, or no function.
 *
 * @example
 * ```js
 * import { serve } from "ucred/http";
 * import { createOpaClient, requireOpa } from "ucred/opa";
 *
 * const opa = createOpaClient({
 *   path: "/run/opa/opa.sock",
 *   expect: { user: "opa" },
 *   rule: "ucred/allow",
 * });
 * const allowedByOpa = requireOpa(opa);
 * await serve({
 *   path: "/run/example.sock",
 *   mode: 0o666,
 *   policy: "anyone",
 *   fetch: (request) => allowedByOpa(request, () => new Response("welcome\n")),
 * });
 * ```
 */
export function requireOpa(
  client: OpaClient,
  options: RequireOpaOptions = {},
): <Result>(
  request: RequestWithPeer,
  next: () => Result | Promise<Result>,
) => Promise<Result | Response> {
  requireOptions("requireOpa()", options, { attributes: true, onDenied: true });
  if (typeof client?.decide !== "function") {
    throw new TypeError("requireOpa() takes a client of createOpaClient()");
  }
  for (const [name, value] of Object.entries(options)) {
    if (value !== undefined && typeof value !== "function") {
      throw new TypeError(`${name} must be a function`);
    }
  }
  const { attributes: attributesOf = () => ({}), onDenied } = options;
  return async (request, next) => {
    const { raw, received, peer } = findRequest(request);
    const { method = "" } = raw as { readonly method?: string };
    const target = targetOf(method, wholeUrlOf(raw, received));
    if (target === undefined) return responseOf(BAD_TARGET);
    const { action } = target;
    let decision: OpaDecision | undefined;
    let error: unknown;
    try {
      const attributes = await attributesOf(request);
      decision = await client.decide(peer, { action, attributes, signal: endOf(raw) });
    } catch (thrown) {
      error = thrown;
    }
    if (decision?.allowed === true) return await next();
    onDenied?.({ peer, action, decision, error });
    return responseOf(forbiddenBecause("The policy does not allow it"));
  };
}
