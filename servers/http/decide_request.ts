/** Request → the peer that it came from, and what was decided: for whoever handles it downstream. */

import { UcredError } from "../../core/errors.ts";
import type { Peer } from "../../core/peer.ts";
import type { Decision } from "../../core/policy/decide/decision.ts";
import type { Admission, Admitted } from "../admission/admission.ts";
import { BAD_TARGET, DRIFTED, forbidden, LONG_TARGET, type Problem, UNDECIDED } from "./problem.ts";
import { targetOf } from "./request_target.ts";

/** A connection over which requests come. */
export interface Connection {
  readonly admitted: Admitted;
  /** Whether it has asked for something. */
  hasAsked: boolean;
}

/** What became of a request. */
export type Outcome = Problem | { readonly decision: Decision; readonly url: string };

/** Whether a request is to be answered with a problem. */
export function isProblem(outcome: Outcome): outcome is Problem {
  return "status" in outcome;
}

/**
 * Decides a request by its method and target, as the client sent them.
 *
 * @param malformed What is wrong with its headers, if anything is.
 * @param revalidate Whether the peer has to be who it was.
 */
export function decideRequest(
  admission: Admission,
  connection: Connection,
  method: string,
  url: string,
  malformed: Problem | undefined,
  revalidate: boolean,
): Outcome {
  const { admitted } = connection;
  connection.hasAsked = true;
  if (revalidate && hasDrifted(admitted.peer)) {
    admitted.why ??= "drift";
    admission.deny(admitted, `${method} ${url}`, "The process is not as it was when it connected");
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
    admission.deny(admitted, `${method} ${url}`, "The path can be read in more than one way");
    return BAD_TARGET;
  }
  let decision: Decision;
  try {
    decision = admission.decide(admitted, target.action);
  } catch (error) { // of an account lookup, or of a policy of another make
    admission.failed(admitted, error);
    admission.deny(admitted, target.action, "The policy failed");
    return UNDECIDED;
  }
  return decision.allowed ? { decision, url: target.url } : forbidden(decision);
}

/**
 * In bytes, with the query: RFC 9112, 3, recommends support for 8000. A decision compares the path with
 * each glob of the policy.
 */
const MAX_TARGET_LENGTH = 8192;

/** Whether a peer is not as it was when it connected, or that cannot be told. */
function hasDrifted(peer: Peer): boolean {
  try {
    return peer.drift().length > 0;
  } catch (error) {
    if (error instanceof UcredError) return true;
    throw error;
  }
}

/** Runs when the peer's process ends; at once if that cannot be watched. */
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

/** What a handler gave. @throws {TypeError} If it is no response, or its body is used up. */
export function requireUnread(answer: Response): Response {
  // Not "instanceof": frameworks replace the global, and fetch() goes on giving the runtime's own.
  const isUsed: unknown = answer?.bodyUsed; // read once: it takes Deno as long as the decision
  if (typeof isUsed !== "boolean") throw new TypeError("fetch() gave no Response");
  if (isUsed) throw new TypeError("fetch() gave a Response whose body is used up");
  if (answer.status === 0) throw new TypeError("fetch() gave Response.error()");
  return answer;
}
