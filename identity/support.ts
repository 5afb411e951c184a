/** Whether peers can be identified here at all: for a program's start. */

import { openedSystem } from "../adapters/select.ts";

/**
 * Makes sure that this program can read peer credentials: that runtime, system and CPU are supported, and
 * that the runtime's permissions allow native calls.
 *
 * Call it before a server of `node:net` or `node:http` listens. Otherwise the first connection finds it
 * out, and Deno 2.9.5 discards what a connection handler of `node:net` throws: the client waits, and
 * nothing is printed. Servers of `ucred/http`, `ucred/net`, `ucred/deno` and `ucred/bun` call it when they
 * start.
 *
 * @throws {UcredError} `ERR_UCRED_PERMISSION`, whose hint is the flag to add, or
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
  openedSystem(); // opens libc, and keeps it for the first connection
}
