/** Bun: bun:ffi, its symbol table, and the calls. */

import type * as bun from "bun:ffi";
import { UcredError } from "../core/errors.ts";
import type { Abi } from "../ffi/abi.ts";
import { ACCOUNT } from "../ffi/accounts.ts";
import { builtinModule } from "./host.ts";
import {
  allocate,
  cString,
  type Libc,
  type Memory,
  NO_ERRNO,
  noLibrary,
  O_CLOEXEC,
} from "./libc.ts";

type BunSymbols = Parameters<typeof bun.dlopen>[1];

// The "buffer" type takes the address at the call: a pointer kept from ptr() goes stale when the
// array moves, and the call then answers with old credentials (oven-sh/bun PR 32055).
const symbols = {
  // int getsockopt(int fd, int level, int name, void *value, socklen_t *size);
  getsockopt: { args: ["i32", "i32", "i32", "buffer", "buffer"], returns: "i32" },
  // int getsockname(int fd, struct sockaddr *address, socklen_t *size);
  getsockname: { args: ["i32", "buffer", "buffer"], returns: "i32" },
  // int getpwuid_r(uid_t, struct passwd *, char *strings, size_t, struct passwd **result);
  getpwuid_r: { args: ["u32", "buffer", "buffer", "usize", "buffer"], returns: "i32" },
  // int getgrgid_r(gid_t, struct group *, char *strings, size_t, struct group **result);
  getgrgid_r: { args: ["u32", "buffer", "buffer", "usize", "buffer"], returns: "i32" },
} as const satisfies BunSymbols;

const linuxSymbols = {
  ...symbols,
  // int *__errno_location(void);
  __errno_location: { args: [], returns: "ptr" },
  // int open(const char *path, int flags, ...); variadic, but on Linux called like any other
  open: { args: ["buffer", "i32"], returns: "i32" },
  // ssize_t read(int fd, void *, size_t);
  read: { args: ["i32", "buffer", "usize"], returns: "i64" },
  // int close(int fd);
  close: { args: ["i32"], returns: "i32" },
} as const satisfies BunSymbols;

const bsdSymbols = {
  ...symbols,
  // int *__error(void);
  __error: { args: [], returns: "ptr" },
} as const satisfies BunSymbols;

type BunMemory = Memory & {
  /** Views of the parts that `ACCOUNT` divides memory into, made once. */
  readonly struct: Uint8Array<ArrayBuffer>;
  readonly strings: Uint8Array<ArrayBuffer>;
};

/** Opens the C library with `bun:ffi`. */
export function openBun(abi: Abi, path: string = abi.libraryName): Libc<BunMemory> {
  const ffi = builtinModule("bun:ffi") as typeof bun | undefined;
  if (ffi === undefined) {
    throw new UcredError("ERR_UCRED_UNSUPPORTED", "Cannot call libc: this Bun has no bun:ffi", {
      hint: "Use Bun 1.4 or later",
    });
  }
  const { errno, linux, ...calls } = load(ffi, abi, path);
  // The failed call is the statement before: nothing in between can have set errno anew.
  const failed = (): number => errno[0] || NO_ERRNO;
  return {
    memory(size) {
      const memory = allocate(size);
      const part = (start: number) => memory.bytes.subarray(Math.min(start, size));
      return { ...memory, struct: part(ACCOUNT.struct), strings: part(ACCOUNT.strings) };
    },
    getsockopt: (fd, level, name, value, size) =>
      calls.getsockopt(fd, level, name, value.bytes, size.bytes) === 0 ? 0 : failed(),
    getsockname: (fd, address, size) =>
      calls.getsockname(fd, address.bytes, size.bytes) === 0 ? 0 : failed(),
    getpwuid_r: (uid, { bytes, struct, strings }) =>
      calls.getpwuid_r(uid, struct, strings, strings.length, bytes),
    getgrgid_r: (gid, { bytes, struct, strings }) =>
      calls.getgrgid_r(gid, struct, strings, strings.length, bytes),
    readFile(path, into) {
      if (linux === undefined) return -NO_ERRNO;
      const fd = linux.open(cString(path), O_CLOEXEC);
      if (fd < 0) return -failed();
      const length = Number(linux.read(fd, into.bytes, into.bytes.length));
      const result = length < 0 ? -failed() : length;
      linux.close(fd);
      return result;
    },
  };
}

function load(ffi: typeof bun, abi: Abi, path: string) {
  const view = (address: bun.Pointer | bigint | null) => {
    if (address === null) throw noLibrary([path], "it gives no address for errno");
    return new Int32Array(ffi.toArrayBuffer(address, 0, 4)); // not a copy
  };
  try {
    if (abi.os === "linux") {
      const calls = ffi.dlopen(path, linuxSymbols).symbols;
      return { ...calls, linux: calls, errno: view(calls.__errno_location()) };
    }
    const calls = ffi.dlopen(path, bsdSymbols).symbols;
    return { ...calls, linux: undefined, errno: view(calls.__error()) };
  } catch (cause) {
    throw noLibrary([path], cause);
  }
}
