/** Requests of `ucred/http`, for handlers that another program must authorize. */

import type { Peer } from "../core/peer.ts";
import {
  type HonoContext,
  peerOf,
  type RequestLike,
  requestOf,
} from "../servers/admission/attach.ts";

/** A request to a server of `ucred/http`, or the context of Hono. */
export type RequestWithPeer = RequestLike | HonoContext;

/** The request of a server, and the peer that sent it. */
export interface FoundRequest {
  /** The `Request` of a fetch handler if there is one, otherwise the `IncomingMessage`. */
  readonly raw: RequestLike;
  /** The request as the server passed it on: the `IncomingMessage` if there is one. */
  readonly received: RequestLike;
  /** The peer. */
  readonly peer: Peer;
}

/**
 * Finds the request and its peer.
 *
 * @throws {UcredError} `ERR_UCRED_NO_PEER` if the request does not belong to a server of `ucred/http`.
 */
export function findRequest(request: RequestWithPeer): FoundRequest {
  const isContext = "req" in request;
  const received = isContext ? requestOf(request) : request;
  return { raw: isContext ? request.req.raw : request, received, peer: peerOf(received) };
}

/** Returns a signal that aborts when the client hangs up, or when another signal aborts. */
export function endOf(raw: RequestLike, other?: AbortSignal): AbortSignal | undefined {
  const own = (raw as { readonly signal?: unknown }).signal;
  if (!(own instanceof AbortSignal)) return other;
  return other === undefined ? own : AbortSignal.any([own, other]);
}
