/** Error responses: application/problem+json (RFC 9457). */

import type { Decision } from "../../core/policy/decide/decision.ts";

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
export const LONG_TARGET: Problem = problem(414, "URI Too Long", "The request target is too long");

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
export const UNDECIDED: Problem = problem(500, "Internal Server Error", "The policy failed");

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
