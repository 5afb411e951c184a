/** Attaches the admitted connection and the decision to a request, and finds them again. */

import { UcredError } from "../../core/errors.ts";
import type { Peer } from "../../core/peer.ts";
import type { Decision } from "../../core/policy/decide/decision.ts";
import type { Admitted } from "./admission.ts";

/** A request of node:http, or a `Request` that `serve()` gave to its handler, or a connection. */
export type RequestLike = object;

// Not WeakMaps: a property costs a tenth of one, and these are written for each request.
const ADMITTED = Symbol("ucred.admitted");

const DECISION = Symbol("ucred.decision");

interface Marked {
  [ADMITTED]?: Admitted;
  [DECISION]?: Decision;
  readonly socket?: Marked | null;
}

/** Notes whose connection or request it is. */
export function attachAdmission(carrier: object, admitted: Admitted): void {
  (carrier as Marked)[ADMITTED] = admitted;
}

/** Notes what was decided about a request. */
export function attachDecision(request: RequestLike, decision: Decision): void {
  (request as Marked)[DECISION] = decision;
}

/**
 * The peer that a request came from, anywhere downstream of a server of `ucred/http`.
 *
 * @param request An `http.IncomingMessage`, or the very `Request` that the handler was given (no copy
 * of it), or the connection.
 * @throws {UcredError} `ERR_UCRED_NO_PEER` if it did not come over such a server.
 */
export function peerOf(request: RequestLike): Peer {
  const found = admittedOf(request);
  if (found !== undefined) return found.peer;
  throw notOurs("tell the peer of a request");
}

/**
 * What the policy said of a request.
 *
 * @throws {UcredError} `ERR_UCRED_NO_PEER` if it did not come over a server of `ucred/http`.
 */
export function decisionOf(request: RequestLike): Decision {
  const decision = (request as Marked)[DECISION];
  if (decision !== undefined) return decision;
  throw notOurs("tell the decision about a request");
}

/** The connection that a request came over; `undefined` if it was not let in by us. */
export function admittedOf(request: RequestLike): Admitted | undefined {
  return (request as Marked)[ADMITTED] ?? (request as Marked).socket?.[ADMITTED];
}

function notOurs(what: string): UcredError {
  const message = `Cannot ${what}: it did not come over a server of ucred/http`;
  const hint = "Pass the request that the handler was given, not a copy of it";
  return new UcredError("ERR_UCRED_NO_PEER", message, { hint });
}
