/**
 * The runtime's built-in modules, loaded on first use. An `import` would keep the library out of
 * browser bundles, and would make Deno prompt for permissions when the library is loaded.
 */

import { builtinModule, host } from "./host.ts";

/** node:fs */
export function nodeFs(): typeof import("node:fs") {
  return builtinModule("node:fs") as typeof import("node:fs");
}

/** node:path */
export function nodePath(): typeof import("node:path") {
  return builtinModule("node:path") as typeof import("node:path");
}

/** node:crypto */
export function nodeCrypto(): typeof import("node:crypto") {
  return builtinModule("node:crypto") as typeof import("node:crypto");
}

/** node:process */
export function nodeProcess(): typeof import("node:process") {
  return builtinModule("node:process") as typeof import("node:process");
}

/** node:http2, which takes a quarter as long to load as the rest of the command. */
export function nodeHttp2(): typeof import("node:http2") {
  return builtinModule("node:http2") as typeof import("node:http2");
}

/** Returns the environment variables of this process. */
export function environment(): { readonly [name: string]: string | undefined } {
  return nodeProcess().env;
}

/** Reports whether this is the main thread and not a worker of node:worker_threads. */
export function isMainThread(): boolean {
  return (builtinModule("node:worker_threads") as typeof import("node:worker_threads"))
    .isMainThread;
}

/**
 * Creates a socket from a connected descriptor. The socket then owns the descriptor. If this function
 * throws, the descriptor is still open.
 */
export function adoptConnection(fd: number, allowHalfOpen: boolean): import("node:net").Socket {
  const net = builtinModule("node:net") as typeof import("node:net");
  // In Bun 1.4.5, `new Socket({ fd })` receives no data. connect({ fd }) does.
  if (host().runtime === "bun") return net.connect({ fd, allowHalfOpen } as never);
  return new net.Socket({ fd, allowHalfOpen });
}

/** Reports whether this process is a worker of node:cluster. */
export function isClusterWorker(): boolean {
  return (builtinModule("node:cluster") as { isWorker?: boolean } | undefined)?.isWorker === true;
}
