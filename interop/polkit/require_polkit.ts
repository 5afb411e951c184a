/** Requests to HTTP servers that require an authorization of polkit. */

import type { Peer } from "../../core/peer.ts";
import { forbiddenBecause, responseOf } from "../../servers/http/problem.ts";
import { requireOptions } from "../../core/options.ts";
import { endOf, findRequest, type RequestWithPeer } from "../request_with_peer.ts";
import {
  type Authorization,
  checkAuthorization,
  type CheckAuthorizationOptions,
  OPTIONS,
  requireActionId,
  requireValues,
} from "./check_authorization.ts";

/** Options of {@link requirePolkit}. */
export interface RequirePolkitOptions extends CheckAuthorizationOptions {
  /** Runs for each request that was denied or could not be checked, for logs. */
  readonly onDenied?: ((denied: DeniedRequest) => void) | undefined;
}

/** A request without an authorization. */
export interface DeniedRequest {
  /** The client. */
  readonly peer: Peer;
  /** The answer of polkitd; `undefined` if there was none. */
  readonly authorization: Authorization | undefined;
  /** Why there was none. */
  readonly error: unknown;
}

/**
 * Makes polkit authorize the client of each request to `ucred/http`, directly or with Hono. A request that
 * polkit does not authorize, or that could not be checked, receives 403 and does not reach the handler.
 *
 * A request that does not belong to a server of `ucred/http` rejects with `ERR_UCRED_NO_PEER`, and an
 * exception of `onDenied` is passed on: both end without a call of the handler.
 *
 * The server must pin its peers (`pin: true`). A dialog of polkit (`interactive`) delays the response until
 * the user answers; it closes if the client hangs up.
 *
 * @param actionId The id of the action.
 * @returns A handler `(request, next)`: a middleware of Hono, and for `ucred/http` the way to run the rest of
 * a handler.
 * @throws {TypeError} If `actionId` is no id, or an option is unknown.
 *
 * @example
 * ```js
 * import dbus from "dbus-native";
 * import { serve } from "ucred/http";
 * import { requirePolkit } from "ucred/polkit";
 *
 * const mayRestart = requirePolkit("org.example.restart", { bus: dbus.systemBus() });
 * await serve({
 *   path: "/run/example.sock",
 *   policy: "anyone",
 *   pin: true,
 *   fetch: (request) => mayRestart(request, () => new Response("restarting\n")),
 * });
 * ```
 */
export function requirePolkit(
  actionId: string,
  options: RequirePolkitOptions,
): <Result>(
  request: RequestWithPeer,
  next: () => Result | Promise<Result>,
) => Promise<Result | Response> {
  requireActionId("requirePolkit()", actionId);
  requireOptions("requirePolkit()", options, { ...OPTIONS, onDenied: true });
  requireValues("requirePolkit()", options);
  const { onDenied, ...others } = options;
  return async (request, next) => {
    const { raw, peer } = findRequest(request);
    let authorization: Authorization | undefined;
    let error: unknown;
    try {
      const signal = endOf(raw, others.signal); // a dialog closes if the client hangs up
      authorization = await checkAuthorization(peer, actionId, { ...others, signal });
    } catch (thrown) {
      error = thrown;
    }
    if (authorization?.authorized === true) return await next();
    onDenied?.({ peer, authorization, error });
    const isChallenge = authorization?.outcome === "challenge";
    const detail = isChallenge ? "Authentication is required" : "polkit does not allow it";
    return responseOf(forbiddenBecause(detail));
  };
}
