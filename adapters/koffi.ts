/** Node without node:ffi, and Electron: the package koffi behind the interface of node:ffi. */

// @ts-ignore: Deno's own types have no node:ffi; TypeScript checks this file against Node's
import type * as node from "node:ffi";
import { UcredError } from "../core/errors.ts";
import { builtinModule, host } from "./host.ts";

/** The functions of node:ffi that the adapter for Node calls. */
export interface NodeFfi extends Pick<typeof node, "dlopen" | "getRawPointer"> {
  /** node:ffi only */
  toArrayBuffer?: typeof node.toArrayBuffer;
  /** koffi only: returns errno of this thread. Electron forbids views of memory outside of its heap. */
  errno?: () => number;
}

/** Type of node:ffi → type of koffi. */
const TYPES: { readonly [type: string]: string } = {
  i32: "int32",
  u32: "uint32",
  i64: "int64",
  u64: "uint64",
  pointer: "void*",
};

// The CommonJS bundle of a program has this name and no import.meta.url.
declare const __filename: string;

/**
 * Loads koffi. It is resolved from this file, or from the bundle that contains it, and never from the
 * working directory.
 */
export function loadKoffi(): NodeFfi {
  try {
    const module = builtinModule("node:module") as typeof import("node:module") | undefined;
    // Older versions lack process.getBuiltinModule().
    if (module === undefined) throw new Error("it needs Node 20.16 or 22.3");
    const { address, errno, load } = module.createRequire(import.meta.url ?? __filename)("koffi");
    const dlopen = (path: string | null, symbols: { [name: string]: Signature }) => {
      const library = load(path);
      const functions = Object.entries(symbols).map(([name, signature]) => {
        const parameters = signature.arguments.map((type) => TYPES[type]);
        return [name, library.func(name, TYPES[signature.return], parameters)];
      });
      return { functions: Object.fromEntries(functions) };
    };
    return { getRawPointer: address, errno, dlopen: dlopen as unknown as typeof node.dlopen };
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === "ERR_DLOPEN_DISABLED") {
      throw deniedFfi("--allow-addons, and without --no-addons", cause);
    }
    if (code === "ERR_ACCESS_DENIED") throw deniedFfi("--allow-fs-read=*", cause);
    const why = `${host().name} has no node:ffi, and koffi cannot be loaded`;
    throw new UcredError(
      "ERR_UCRED_UNSUPPORTED",
      `Cannot call libc: ${why}: ${message.split("\n")[0]}`,
      {
        hint: 'Run "npm install koffi", or use Node 26.1 or later without --no-experimental-ffi',
        cause,
      },
    );
  }
}

/** Builds the error for a Node whose flags deny calls of libc. */
export function deniedFfi(flags: string, cause: unknown): UcredError {
  return new UcredError("ERR_UCRED_PERMISSION", "Cannot call libc: Node denies FFI", {
    hint: `Run Node with ${flags}`,
    cause,
  });
}

/** A function in the symbol table of the adapter for Node. */
interface Signature {
  readonly arguments: readonly string[];
  readonly return: string;
}
