/** What can go wrong, as one class with a closed set of codes. */

/**
 * Why a call failed. Programs branch on this; people read `message` and `hint`.
 *
 * - `ERR_UCRED_UNSUPPORTED`: this operating system, CPU, kernel or runtime cannot do it.
 * - `ERR_UCRED_PERMISSION`: the runtime does not let the program call native functions, or the system
 *   does not let it look at the process.
 * - `ERR_UCRED_NO_FD`: the socket is closed, or the runtime hides its descriptor.
 * - `ERR_UCRED_NOT_UNIX`: TCP, a pipe, a file: anything but an AF_UNIX socket.
 * - `ERR_UCRED_NO_PEER`: not connected, a listener, or a datagram socket without a peer.
 * - `ERR_UCRED_SYSCALL`: the system call failed in another way; see `errno` and `syscall`.
 * - `ERR_UCRED_PEER_GONE`: the process at the other end has ended.
 * - `ERR_UCRED_NOT_PINNED`: only a pinned peer has it; `identify()` was not asked to pin.
 * - `ERR_UCRED_REFUSED`: the process at the other end is not the one that the program expects.
 * - `ERR_UCRED_POLICY`: a policy document is wrong, or a policy failed to decide.
 * - `ERR_UCRED_LISTEN`: a server cannot listen there, or not safely.
 */
export type UcredErrorCode =
  | "ERR_UCRED_UNSUPPORTED"
  | "ERR_UCRED_PERMISSION"
  | "ERR_UCRED_NO_FD"
  | "ERR_UCRED_NOT_UNIX"
  | "ERR_UCRED_NO_PEER"
  | "ERR_UCRED_SYSCALL"
  | "ERR_UCRED_PEER_GONE"
  | "ERR_UCRED_NOT_PINNED"
  | "ERR_UCRED_REFUSED"
  | "ERR_UCRED_POLICY"
  | "ERR_UCRED_LISTEN";

/** What a {@link UcredError} carries beside its code and message. */
export interface UcredErrorDetails {
  /** One imperative sentence: what the reader can do about it. */
  readonly hint: string;
  /** The positive error number, where a system call gave one. */
  readonly errno?: number | undefined;
  /** The C function that failed. */
  readonly syscall?: string | undefined;
  /** The runtime's own error, where there is one. */
  readonly cause?: unknown;
  /** The problems of a policy. */
  readonly problems?: readonly PolicyProblem[] | undefined;
}

/** One problem of a policy. */
export interface PolicyProblem {
  /** What is wrong, and what was expected. */
  readonly message: string;
  /** The keys and indexes that lead to the value; empty for the whole document, or an error of syntax. */
  readonly path: readonly (string | number)[];
  /** The name of the file or text; `undefined` for a policy in code. */
  readonly file: string | undefined;
  /** The line, from 1; `undefined` for a policy in code, or if the problem is the file itself. */
  readonly line: number | undefined;
  /** The column in characters, from 1; `undefined` where `line` is. */
  readonly column: number | undefined;
}

/**
 * Every failure that is not the caller's own mistake (those are `TypeError` and `RangeError`).
 *
 * `message` says what could not be done, then why, with the errno's name; `hint` says what to do.
 *
 * @example Tell a closed socket from the rest
 * ```ts
 * import { peerCredentials, UcredError } from "ucred";
 *
 * try {
 *   peerCredentials(2147483647); // no process has that many descriptors open
 * } catch (error) {
 *   if (!(error instanceof UcredError)) throw error;
 *   console.log(error.code, error.errno); // ERR_UCRED_NO_FD 9
 * }
 * ```
 */
export class UcredError extends Error {
  /** Why, for programs. */
  readonly code: UcredErrorCode;
  /** What the reader can do about it. */
  readonly hint: string;
  /** The positive error number, where a system call gave one. */
  declare readonly errno?: number;
  /** The C function that failed. */
  declare readonly syscall?: string;
  /** What is wrong with a policy: at most 100 problems. Missing if its file could not be read. */
  declare readonly problems?: readonly PolicyProblem[];

  /** Made by this library; public so that tests of your own can make one. */
  constructor(code: UcredErrorCode, message: string, details: UcredErrorDetails) {
    super(message, "cause" in details ? { cause: details.cause } : undefined);
    this.code = code;
    if (details.errno !== undefined) this.errno = details.errno;
    if (details.syscall !== undefined) this.syscall = details.syscall;
    if (details.problems !== undefined) this.problems = details.problems;
    this.hint = details.hint;
  }

  /** Always `"UcredError"`. */
  override get name(): string {
    return "UcredError";
  }
}
