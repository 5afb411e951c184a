/** Decides one HTTP request, for all engines. */

import { UcredError } from "../../core/errors.ts";
import type { Peer } from "../../core/peer.ts";
import type { Decision } from "../../core/policy/decide/decision.ts";
import type { Admission, Admitted } from "../admission/admission.ts";
import { BAD_TARGET, DRIFTED, forbidden, LONG_TARGET, type Problem, UNDECIDED } from "./problem.ts";
import { attributesOf, type HeaderValues } from "./request_attributes.ts";
import { targetOf } from "./request_target.ts";

/** An accepted connection of an HTTP server. */
export interface Connection {
  readonly admitted: Admitted;
  /** Whether it has sent a request. */
  hasRequested: boolean;
}

/** The result of a decision: an error response, or the decision and the normalised URL. */
export type Outcome = Problem | { readonly decision: Decision; readonly url: string };

/** Returns whether a request is answered with an error response. */
export function isProblem(outcome: object): outcome is Problem {
  return "status" in outcome;
}

/**
 * Decides a request by its method and target, as sent by the client.
 *
 * @param malformed The error response if the headers are malformed.
 * @param revalidate Whether to check that the peer is unchanged.
 * @param valuesOf Returns the values of a header, for policies that test attributes.
 */
export function decideRequest(
  admission: Admission,
  connection: Connection,
  method: string,
  url: string,
  malformed: Problem | undefined,
  revalidate: boolean,
  valuesOf: HeaderValues,
): Outcome {
  const { admitted } = connection;
  connection.hasRequested = true;
  if (revalidate && hasDrifted(admitted.peer)) {
    admitted.why ??= "drift";
    admission.deny(admitted, `${method} ${url}`, "The peer has changed since it connected");
    return DRIFTED;
  }
  if (url.length > MAX_TARGET_LENGTH) {
    const start = `${method} ${url.slice(0, 200)}…`;
    admission.deny(admitted, start, `The request target is longer than ${MAX_TARGET_LENGTH} bytes`);
    return LONG_TARGET;
  }
  if (malformed !== undefined) {
    admission.deny(admitted, `${method} ${url}`, malformed.detail);
    return malformed;
  }
  const target = targetOf(method, url);
  if (target === undefined) {
    admission.deny(admitted, `${method} ${url}`, "The path is ambiguous");
    return BAD_TARGET;
  }
  let decision: Decision;
  try {
    const attributes = admission.mayTest("http") ? attributesOf(target.url, valuesOf) : undefined;
    decision = admission.decide(admitted, target.action, attributes);
  } catch (error) { // an error of an account lookup or a custom policy
    admission.failed(admitted, error);
    admission.deny(admitted, target.action, "The policy failed");
    return UNDECIDED;
  }
  return decision.allowed ? { decision, url: target.url } : forbidden(decision);
}

/**
 * Maximum bytes of a request target, including the query. RFC 9112, 3, recommends support for 8000. A
 * decision matches the path with each glob of the policy, so the length of the path must be bounded.
 */
const MAX_TARGET_LENGTH = 8192;

/** Returns whether a peer has changed since it connected, or whether that is unknown. */
function hasDrifted(peer: Peer): boolean {
  try {
    return peer.drift().length > 0;
  } catch (error) {
    if (error instanceof UcredError) return true;
    throw error;
  }
}

/** Calls `run` when the peer's process ends; at once if the process cannot be watched. */
export function onProcessExit(peer: Peer, run: () => void): void {
  let signal: AbortSignal | undefined;
  try {
    signal = peer.signal;
  } catch (error) {
    if (!(error instanceof UcredError)) throw error;
  }
  if (signal === undefined || signal.aborted) run();
  else signal.addEventListener("abort", run);
}

/**
 * Returns the handler's response, after checking that its body has not been read. @throws {TypeError} If it
 * is not a Response, or its body has been read.
 */
export function requireUnread(answer: Response): Response {
  // `instanceof` fails here: frameworks replace the global Response, while fetch() still returns the
  // runtime's own.
  const isUsed: unknown = answer?.bodyUsed; // read once: in Deno the getter costs as much as the decision
  if (typeof isUsed !== "boolean") throw new TypeError("fetch() did not return a Response");
  if (isUsed) throw new TypeError("fetch() returned a Response that has been read");
  if (answer.status === 0) throw new TypeError("fetch() returned Response.error()");
  return answer;
}
