/**
 * The runtime's built-in modules, loaded on first use. An `import` would keep the library out of
 * browser bundles, and would make Deno prompt for permissions when the library is loaded.
 */

import { builtinModule } from "./host.ts";

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

/** Returns the environment variables of this process. */
export function environment(): { readonly [name: string]: string | undefined } {
  return (builtinModule("node:process") as typeof import("node:process")).env;
}

/** Reports whether this process is a worker of node:cluster. */
export function isClusterWorker(): boolean {
  return (builtinModule("node:cluster") as { isWorker?: boolean } | undefined)?.isWorker === true;
}
