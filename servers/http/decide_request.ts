/** Request → the peer that it came from, and what was decided: for whoever handles it downstream. */

import { UcredError } from "../../core/errors.ts";
import type { Peer } from "../../core/peer.ts";
import type { Decision } from "../../core/policy/policy.ts";
import { targetOf } from "./request_target.ts";
import type { Admission, Admitted } from "../admission/admission.ts";

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
export function belongsTo(carrier: object, admitted: Admitted): void {
  (carrier as Marked)[ADMITTED] = admitted;
}

/** Notes what was decided about a request. */
export function decided(request: RequestLike, decision: Decision): void {
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

/** An answer that denies, in the words of RFC 9457. */
export interface Problem {
  readonly status: 400 | 403 | 414 | 500 | 501;
  readonly title: string;
  readonly detail: string;
  readonly body: string;
  /** Whether the connection ends with it. */
  readonly isLast: boolean;
}

/** The request target can be read in two ways, or in none. */
export const BAD_TARGET: Problem = problem(400, "Bad Request", "The path is ambiguous");

/** The request target is too long. */
const LONG_TARGET: Problem = problem(414, "URI Too Long", "The request target is too long");

/** The Host header is no host, or there are several. */
export const BAD_HOST: Problem = problem(400, "Bad Request", "The Host header is no host");

/**
 * The body may end elsewhere for the next one to read it: parsers accept "gzip, chunked" and do not undo
 * gzip. RFC 9112, 6.1.
 */
export const BAD_CODING: Problem = {
  ...problem(501, "Not Implemented", 'The transfer coding is not "chunked" alone'),
  isLast: true,
};

/** The policy threw. */
const UNDECIDED: Problem = problem(500, "Internal Server Error", "The policy failed");

/** The peer is not who it was when it connected. */
export const DRIFTED: Problem = {
  ...problem(403, "Forbidden", "The process is not as it was when it connected"),
  isLast: true,
};

/** The policy says no. The peer is told what a rule's author has for it, and no more. */
export function forbidden({ message }: Decision): Problem {
  return problem(403, "Forbidden", message ?? "The policy does not allow it");
}

function problem(status: Problem["status"], title: string, detail: string): Problem {
  const body = JSON.stringify({ type: "about:blank", title, status, detail });
  return { status, title, detail, body, isLast: false };
}

/** The headers of such an answer. */
export function headersOf({ body }: Problem): { readonly [name: string]: string } {
  const length = String(new TextEncoder().encode(body).length);
  const type = "application/problem+json";
  return { "content-type": type, "content-length": length, "cache-control": "no-store" };
}

/** {@link headersOf} and body, for servers in the style of fetch. */
export function responseOf(problem: Problem): Response {
  return new Response(problem.body, { status: problem.status, headers: headersOf(problem) });
}

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
export function onEnd(peer: Peer, run: () => void): void {
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
export function unused(answer: Response): Response {
  // Not "instanceof": frameworks replace the global, and fetch() goes on giving the runtime's own.
  const isUsed: unknown = answer?.bodyUsed; // read once: it takes Deno as long as the decision
  if (typeof isUsed !== "boolean") throw new TypeError("fetch() gave no Response");
  if (isUsed) throw new TypeError("fetch() gave a Response whose body is used up");
  if (answer.status === 0) throw new TypeError("fetch() gave Response.error()");
  return answer;
}
