/** Responses of the guard itself, for both versions of HTTP. */

import type { RequestOutcome } from "../../servers/http/request_report.ts";
import type { Answer } from "./mediator.ts";

/** An answer with its text, from which gRPC and a mediator make an answer of their own. */
export interface DetailedAnswer extends Answer {
  readonly detail: string;
}

const problem = (status: number, title: string, detail: string): DetailedAnswer => ({
  ...{ status, title, detail },
  body: JSON.stringify({ type: "about:blank", title, status, detail }),
});

export const MALFORMED = problem(400, "Bad Request", "The request is malformed");
export const TOO_SLOW = problem(408, "Request Timeout", "The headers did not arrive in time");
export const STALLED = problem(408, "Request Timeout", "The body did not arrive in time");
export const TOO_LARGE = problem(413, "Content Too Large", "The body is longer than 1 MiB");
export const UNEXPECTED = problem(
  417,
  "Expectation Failed",
  'The only expectation is "100-continue"',
);
export const TOO_MANY = problem(
  431,
  "Request Header Fields Too Large",
  "There are too many headers",
);
export const TOO_LONG = problem(
  431,
  "Request Header Fields Too Large",
  "The headers are too long",
);
export const NO_TUNNEL = problem(501, "Not Implemented", "CONNECT is not supported");
export const BAD_GATEWAY: DetailedAnswer = {
  status: 502,
  title: "Bad Gateway",
  detail: "The upstream server cannot be reached",
  body: "The upstream server cannot be reached\n",
  type: "text/plain",
};

/** The outcome of a request that the guard itself answers. */
export function outcomeOf(status: number): RequestOutcome {
  if (status < 400) return "allowed"; // an answer of a mediator
  switch (status) {
    case 403:
    case 404: // the answer of a mediator about an object that the client may not see
      return "denied";
    case 408:
      return "timeout";
    case 413:
    case 414:
    case 431:
      return "tooLarge";
    case 417:
    case 501:
      return "unsupported";
    case 502:
      return "upstreamError";
  }
  return status < 500 ? "malformed" : "failed";
}
