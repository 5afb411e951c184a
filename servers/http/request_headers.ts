/** Checks the headers of a `node:http` request that determine its host and the end of its body. */

import type { IncomingMessage } from "node:http";
import { BAD_CODING, BAD_HOST, type Problem } from "./problem.ts";
import { isHost } from "./request_target.ts";

/** Requires at most one Host header with a valid host, and no transfer coding except a single "chunked". */
export function malformedIn(
  { rawHeaders, httpVersionMinor }: IncomingMessage,
): Problem | undefined {
  let hosts = 0, codings = 0;
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at]!;
    if (name.length === 4 && (name === "Host" || name.toLowerCase() === "host")) {
      if (++hosts > 1 || !isHost(rawHeaders[at + 1]!)) return BAD_HOST;
    } else if (name.length === 17 && name.toLowerCase() === "transfer-encoding") {
      const isChunked = rawHeaders[at + 1]!.toLowerCase() === "chunked";
      if (++codings > 1 || !isChunked || httpVersionMinor === 0) return BAD_CODING;
    }
  }
  return undefined;
}
