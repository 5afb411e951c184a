/** Error responses: application/problem+json (RFC 9457). */

import type { Decision } from "../../core/policy/decide/decision.ts";

/** An error response as defined by RFC 9457. */
export interface Problem {
  readonly status: 400 | 403 | 414 | 500 | 501;
  readonly title: string;
  readonly detail: string;
  readonly body: string;
  /** The media type of the body. By default `application/problem+json`. */
  readonly type?: string | undefined;
  /** Whether the connection is closed after it. */
  readonly isLast: boolean;
  /** The decision that denied the request. */
  readonly decision?: Decision;
}

/** The request target is ambiguous or malformed. */
export const BAD_TARGET: Problem = problem(400, "Bad Request", "The path is ambiguous");

/** The request target is too long. */
export const LONG_TARGET: Problem = problem(414, "URI Too Long", "The request target is too long");

/** The Host header is not a host, or there are several. */
export const BAD_HOST: Problem = problem(400, "Bad Request", "The Host header is not a host");

/**
 * The length of the body is ambiguous: some parsers accept "gzip, chunked" but do not decode gzip. RFC
 * 9112, 6.1.
 */
export const BAD_CODING: Problem = {
  ...problem(501, "Not Implemented", 'The transfer coding is not "chunked" alone'),
  isLast: true,
};

/** The policy threw. */
export const UNDECIDED: Problem = problem(500, "Internal Server Error", "The policy failed");

/** The peer's credentials or process have changed since it connected. */
export const DRIFTED: Problem = {
  ...problem(403, "Forbidden", "The peer has changed since it connected"),
  isLast: true,
};

/** The 403 response. Its body has the rule's `deny` text, if any, and nothing else about the policy. */
export function forbidden(decision: Decision): Problem {
  const detail = decision.message ?? "The policy does not allow it";
  return { ...forbiddenBecause(detail), decision };
}

/** A 403 response with this detail. */
export function forbiddenBecause(detail: string): Problem {
  return problem(403, "Forbidden", detail);
}

function problem(status: Problem["status"], title: string, detail: string): Problem {
  const body = JSON.stringify({ type: "about:blank", title, status, detail });
  return { status, title, detail, body, isLast: false };
}

/** Returns the headers of an error response. */
export function headersOf(
  { body, type = "application/problem+json" }: Pick<Problem, "body" | "type">,
): { readonly [name: string]: string } {
  const length = String(new TextEncoder().encode(body).length);
  return { "content-type": type, "content-length": length, "cache-control": "no-store" };
}

/** Returns the complete response, for fetch-style servers. */
export function responseOf(problem: Problem): Response {
  return new Response(problem.body, { status: problem.status, headers: headersOf(problem) });
}
