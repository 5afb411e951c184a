/** The error class of this library, with a closed set of codes. */

/**
 * The reason for a failure, for programs. People read `message` and `hint`.
 *
 * - `ERR_UCRED_UNSUPPORTED`: this operating system, CPU, kernel or runtime lacks a required feature.
 * - `ERR_UCRED_PERMISSION`: the runtime denies native calls, or the system denies access to the process.
 * - `ERR_UCRED_NO_FD`: the socket is closed, or the runtime hides its descriptor.
 * - `ERR_UCRED_NOT_UNIX`: the descriptor is not an AF_UNIX socket but, for example, a TCP socket, a pipe
 *   or a file.
 * - `ERR_UCRED_NO_PEER`: the socket is not connected, is a listener, or is a datagram socket without a
 *   peer.
 * - `ERR_UCRED_SYSCALL`: a system call failed for another reason; see `errno` and `syscall`.
 * - `ERR_UCRED_PEER_GONE`: the process at the other end has ended.
 * - `ERR_UCRED_NOT_PINNED`: the fact requires a pinned peer, and `identify()` was called without `pin`.
 * - `ERR_UCRED_REFUSED`: the process at the other end is not the one that the program expects.
 * - `ERR_UCRED_POLICY`: a policy document has mistakes, or a policy failed to decide. Also: a file that policies
 *   are made from, for example a recording or sudoers, or a state file of the guard, has mistakes.
 * - `ERR_UCRED_LISTEN`: a server cannot listen at this address, or not safely.
 * - `ERR_UCRED_BUS`: a call on a D-Bus message bus failed, or got no reply.
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
  | "ERR_UCRED_LISTEN"
  | "ERR_UCRED_BUS";

/** The properties of a {@link UcredError} besides its code and message. */
export interface UcredErrorDetails {
  /** One imperative sentence with a way to fix or avoid the problem. */
  readonly hint: string;
  /** The positive error number, if a system call returned one. */
  readonly errno?: number | undefined;
  /** The C function that failed. */
  readonly syscall?: string | undefined;
  /** The runtime's own error, if there is one. */
  readonly cause?: unknown;
  /** The problems of a policy. */
  readonly problems?: readonly PolicyProblem[] | undefined;
}

/** One problem of a policy. */
export interface PolicyProblem {
  /** The mistake, and the expected value. */
  readonly message: string;
  /** The keys and indexes that lead to the value; empty for the whole document or a syntax error. */
  readonly path: readonly (string | number)[];
  /** The name of the file or text; `undefined` for a policy in code. */
  readonly file: string | undefined;
  /** The line, from 1; `undefined` for a policy in code, or if the problem is the file itself. */
  readonly line: number | undefined;
  /** The column in characters, from 1; `undefined` if `line` is `undefined`. */
  readonly column: number | undefined;
}

/**
 * A failure of a call with valid arguments. (Wrong arguments throw `TypeError` or `RangeError`.)
 *
 * `message` states the operation that failed, and then the reason, with the name of the errno. `hint` is a
 * way to fix or avoid the problem.
 *
 * @example Recognise a closed socket
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
  /** The reason, for programs. */
  readonly code: UcredErrorCode;
  /** One imperative sentence with a way to fix or avoid the problem. */
  readonly hint: string;
  /** The positive error number, if a system call returned one. */
  declare readonly errno?: number;
  /** The C function that failed. */
  declare readonly syscall?: string;
  /** The problems of a policy, at most 100. Missing if its file could not be read. */
  declare readonly problems?: readonly PolicyProblem[];

  /** Creates an error. The constructor is public so that your tests can create errors, too. */
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
