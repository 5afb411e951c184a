/** Attaches the admitted connection and the decision to a request, and finds them again. */

import { UcredError } from "../../core/errors.ts";
import type { Peer } from "../../core/peer.ts";
import type { Decision } from "../../core/policy/decide/decision.ts";
import type { Admitted } from "./admission.ts";

/** An `http.IncomingMessage`, a `Request` that `serve()` passed to its handler, or a connection. */
export type RequestLike =
  | { readonly method?: string | undefined; readonly url?: string | undefined }
  | { readonly writable: boolean; destroy(): unknown }
  | { readonly remoteAddr: unknown; close(): void };

// Properties instead of WeakMaps, which cost ten times as much for each request.
const ADMITTED = Symbol("ucred.admitted");

const DECISION = Symbol("ucred.decision");

interface Carrier {
  [ADMITTED]?: Admitted;
  [DECISION]?: Decision;
  readonly socket?: Carrier | null;
}

/** Attaches the admitted connection, for `peerOf()`. */
export function attachAdmission(carrier: object, admitted: Admitted): void {
  (carrier as Carrier)[ADMITTED] = admitted;
}

/** Attaches the decision about a request, for `decisionOf()`. */
export function attachDecision(request: object, decision: Decision): void {
  (request as Carrier)[DECISION] = decision;
}

/**
 * Returns the peer that sent a request to a server of `ucred/http`.
 *
 * @param request An `http.IncomingMessage`, the `Request` that the handler received (not a copy), or a
 * connection.
 * @throws {UcredError} `ERR_UCRED_NO_PEER` if it does not belong to such a server.
 */
export function peerOf(request: RequestLike): Peer {
  const found = admittedOf(request);
  if (found !== undefined) return found.peer;
  throw unknownRequest("return the peer of a request");
}

/** The part of Hono's context that leads to the request. */
export interface HonoContext {
  /** The request. */
  readonly req: { readonly raw: Request };
  /** The environment, in which some adapters put the incoming message of node:http. */
  readonly env?: unknown;
}

/** Returns the request of a context: the incoming message of node:http if there is one. */
export function requestOf({ req, env }: HonoContext): RequestLike {
  const { incoming } = (env ?? {}) as { readonly incoming?: RequestLike };
  return incoming ?? req.raw;
}

/**
 * Returns the URL of a request with the whole path. Express removes the path at which a router is mounted from
 * `url`, and Hono's `mount()` makes a `Request` without it.
 *
 * @param raw The request that the handler receives.
 * @param received The request that the server passed on, which may be the same.
 */
export function wholeUrlOf(raw: RequestLike, received: RequestLike): string {
  const { url = "" } = raw as { readonly url?: string };
  const { url: own = "", originalUrl = own } = received as {
    readonly url?: string;
    readonly originalUrl?: string;
  };
  if (raw === received) return originalUrl;
  const path = new URL(url).pathname;
  const isMounted = path === "/" || originalUrl.split("?", 1)[0]!.endsWith(path);
  return isMounted ? originalUrl : url; // otherwise the application has made a request of its own
}

/**
 * Returns the policy's decision about a request.
 *
 * @throws {UcredError} `ERR_UCRED_NO_PEER` if it does not belong to a server of `ucred/http`.
 */
export function decisionOf(request: RequestLike): Decision {
  const decision = (request as Carrier)[DECISION];
  if (decision !== undefined) return decision;
  throw unknownRequest("return the decision about a request");
}

/**
 * Returns the accepted connection of a request; `undefined` if it does not belong to a server of this
 * library.
 */
export function admittedOf(request: object): Admitted | undefined {
  return (request as Carrier)[ADMITTED] ?? (request as Carrier).socket?.[ADMITTED];
}

function unknownRequest(what: string): UcredError {
  const message = `Cannot ${what}: it does not belong to a server of ucred/http`;
  const hint = "Pass the request that the handler received, not a copy";
  return new UcredError("ERR_UCRED_NO_PEER", message, { hint });
}
