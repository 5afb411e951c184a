/** Checks at program start that peers can be identified. */

import { openedSystem } from "../adapters/select.ts";

/**
 * Checks that this program can read peer credentials: that runtime, system and CPU are supported,
 * and that the runtime's permissions allow native calls.
 *
 * Call it before a server of `node:net` or `node:http` listens. Otherwise the first connection
 * fails, and Deno 2.9.5 discards errors that a connection handler of `node:net` throws: the client
 * waits, and nothing is printed. Servers of `ucred/http`, `ucred/net`, `ucred/deno` and `ucred/bun`
 * call it when they start.
 *
 * @throws {UcredError} `ERR_UCRED_PERMISSION`, with the missing flag as its hint, or
 * `ERR_UCRED_UNSUPPORTED`.
 *
 * @example Fail at the start
 * ```ts
 * import { checkSupport } from "ucred";
 *
 * checkSupport();
 * console.log("peers can be identified"); // peers can be identified
 * ```
 */
export function checkSupport(): void {
  openedSystem(); // libc stays open for the first connection
}
