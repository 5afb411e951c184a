/**
 * Builds the error for a failed call, from the errno's meaning for a socket, a process or an account.
 */

import type { System } from "../adapters/select.ts";
import { NO_ERRNO } from "../adapters/libc.ts";
import { UcredError, type UcredErrorCode } from "../core/errors.ts";

/** Hint for a socket that is closed or not connected any more. */
export const ACCEPT_HINT = "Read credentials in the accept handler, before the socket closes";

/** Hint for a socket of another address family. */
export const UNIX_HINT = "Use a Unix domain socket: the kernel records no peer for other sockets";

const CONNECTION = "Pass a connected Unix domain socket";
const DENIED =
  "Check for a seccomp filter or security module; only root may read every user's processes";

type Meanings = { readonly [name: string]: readonly [code: UcredErrorCode, hint: string] };

/** Meanings for calls on a socket. */
const OF_SOCKET: Meanings = {
  EBADF: ["ERR_UCRED_NO_FD", ACCEPT_HINT],
  ENOTSOCK: ["ERR_UCRED_NOT_UNIX", CONNECTION],
  ENOTCONN: ["ERR_UCRED_NO_PEER", CONNECTION],
  ENODATA: ["ERR_UCRED_NO_PEER", CONNECTION],
  ENOPROTOOPT: ["ERR_UCRED_UNSUPPORTED", "Use a kernel that has this socket option"],
};

/** Meanings for calls on a socket or a process. */
const OF_PEER: Meanings = {
  ESRCH: ["ERR_UCRED_PEER_GONE", ACCEPT_HINT],
  ENOSYS: ["ERR_UCRED_UNSUPPORTED", "Use a kernel that has this call"],
  EPERM: ["ERR_UCRED_PERMISSION", DENIED],
  EACCES: ["ERR_UCRED_PERMISSION", DENIED],
};

/** Hints for all calls. These errors, and all others, are `ERR_UCRED_SYSCALL`. */
const LIMITS: { readonly [name: string]: string } = {
  EMFILE: "Raise the limit on open files, or limit connections",
  ENFILE: "Raise the system's limit on open files, fs.file-max",
};

const SOCKET_CALLS: ReadonlySet<string> = new Set(["getsockopt", "getsockname"]);
const ACCOUNT_CALLS: ReadonlySet<string> = new Set([
  ...["getpwuid_r", "getgrgid_r", "getpwnam_r", "getgrnam_r"],
]);

/** Builds the error for a call that failed with `errno`. `what` completes "Cannot …". */
export function syscallError(
  system: System,
  what: string,
  syscall: string,
  errno: number,
): UcredError {
  if (errno === NO_ERRNO) {
    const hint = "Report this: the C library behaves unlike all supported ones";
    const message = `Cannot ${what}: ${syscall} failed without an errno`;
    return new UcredError("ERR_UCRED_SYSCALL", message, { syscall, hint });
  }
  const name = system.abi.errnoNames[errno] ?? `errno ${errno}`;
  const meaning = SOCKET_CALLS.has(syscall) ? OF_SOCKET[name] : undefined;
  const [code, hint] = meaning ?? (ACCOUNT_CALLS.has(syscall) ? undefined : OF_PEER[name]) ??
    ["ERR_UCRED_SYSCALL", LIMITS[name] ?? `See ${syscall} in the manual`];
  const message = `Cannot ${what}: ${syscall} failed with ${name}`;
  return new UcredError(code, message, { errno, syscall, hint });
}

/** Builds the error for a call that succeeded with an impossible answer. */
export function unexpectedAnswer(what: string, syscall: string, why: string): UcredError {
  return new UcredError("ERR_UCRED_SYSCALL", `Cannot ${what}: ${syscall} returned ${why}`, {
    syscall,
    hint: "Report this with your kernel's version; the answer was not used",
  });
}
