/** Calls of libc that fail one after the other in this process. All other calls reach the kernel. */

import assert from "node:assert/strict";
import { constants } from "node:os";
import process from "node:process";
import { openedSystem } from "../../adapters/select.ts";
import { SYS_CLOSE_RANGE } from "../../ffi/close_range.ts";
import { SYS_PIDFD_OPEN } from "../../ffi/pidfd.ts";
import { SYS_FSTAT } from "../../ffi/stat.ts";
import { SYS_GETSID } from "../../ffi/terminal.ts";
import { THREAD_CALLS } from "../../ffi/thread_ids.ts";
import { soak } from "./suite.ts";

const ACCOUNT = ["EINTR", "EIO", "EMFILE", "ENFILE", "ENOMEM", "ERANGE"];

/** Function → the errnos in its man page that the kernel can return for the arguments that are used. */
const ERRNOS: { readonly [call: string]: readonly string[] } = {
  getsockopt: [
    "ENOPROTOOPT",
    "EINVAL",
    "ENOTSOCK",
    "EBADF",
    "ENODATA",
    "ENOMEM",
    "EMFILE",
    "ESRCH",
  ],
  getsockname: ["ENOBUFS", "EINVAL", "ENOTSOCK", "EBADF"],
  getpeername: ["ENOTCONN", "ENOBUFS", "EINVAL", "ENOTSOCK", "EBADF"],
  getpwuid_r: ACCOUNT,
  getgrgid_r: ACCOUNT,
  getpwnam_r: ACCOUNT,
  getgrnam_r: ACCOUNT,
  flock: ["EINTR", "ENOLCK", "EAGAIN", "EINVAL", "EBADF"],
  open: ["EMFILE", "EINTR", "ENFILE", "ENOENT", "EACCES", "ENOMEM", "EPERM", "ELOOP", "ESRCH"],
  read: ["EINTR", "EIO", "EAGAIN", "ESRCH", "EINVAL", "EBADF", "ENOBUFS"],
  readlink: ["ENOENT", "EACCES", "EIO", "ELOOP", "ENOMEM", "ESRCH", "EINVAL"],
  llistxattr: ["EACCES", "EOPNOTSUPP", "ERANGE", "E2BIG", "ENOENT", "ENOMEM"],
  lremovexattr: ["EPERM", "EOPNOTSUPP", "EROFS", "ENODATA", "ENOENT"],
  close: ["EINTR", "EIO", "ENOSPC"],
  fstatfs: ["EINTR", "EIO", "ENOMEM", "ENOSYS", "EOVERFLOW", "EBADF"],
  poll: ["EINTR", "ENOMEM", "EINVAL"],
  ioctl: ["ENOTTY", "EINVAL", "ESRCH", "EIO", "EBADF"],
  fstat: ["ENOMEM", "EBADF", "EPERM"],
  pidfd_open: ["EMFILE", "EINVAL", "ENFILE", "ENOMEM", "ENODEV", "ESRCH", "EPERM"],
  getsid: ["ESRCH", "EPERM"],
  close_range: ["EINVAL", "EMFILE", "ENOMEM", "EPERM"],
  /** The system calls of system/thread_ids.ts. */
  syscall: ["EPERM", "EINVAL", "EAGAIN", "ENOMEM", "ENOSYS"],
  epoll_create1: ["EMFILE", "ENFILE", "ENOMEM"],
  epoll_ctl: ["ENOMEM", "ENOSPC", "ENOENT", "EEXIST", "EBADF", "EPERM"],
  epoll_wait: ["EINTR", "EBADF", "EINVAL"],
  socket: ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EACCES", "EAFNOSUPPORT"],
  bind: ["EADDRINUSE", "EACCES", "ENOENT", "ENOMEM", "EROFS", "ELOOP"],
  // ENOENT and ECONNREFUSED are answers: nothing is bound to the path.
  connect: ["EAGAIN", "EINTR", "EACCES", "EPERM", "EPROTOTYPE", "ENOMEM"],
  setsockopt: ["ENOPROTOOPT", "EINVAL", "ENOMEM", "ENOTSOCK", "EBADF"],
  recvmsg: ["EINTR", "EAGAIN", "ENOMEM", "ECONNREFUSED", "ENOTSOCK", "EBADF"],
  shutdown: ["ENOTCONN", "ENOTSOCK", "EBADF"],
  fcntl: ["EMFILE", "EINVAL", "EAGAIN", "EBADF"],
  sendto: ["EAGAIN", "EINTR", "ENOBUFS", "ENOMEM", "EPIPE", "ECONNREFUSED", "EACCES", "ENOTCONN"],
};

/** The functions that cannot fail, or make no system call. */
const ALWAYS_SUCCEED: ReadonlySet<string> = new Set(["memory", "address", "geteuid"]);

const numbers = constants.errno as { readonly [name: string]: number };

/** A call that has failed. */
export interface Fault {
  /** The function. */
  readonly call: string;
  readonly errno: string;
  /** Its place in the order of calls, from 1. */
  readonly at: number;
  /** Whether all later calls of this function fail, too. */
  readonly isLasting: boolean;
}

/**
 * Returns whether a fault prevents the check that a number still is our descriptor. The descriptor then stays
 * open: closing it could close a descriptor of other code.
 */
export function hidesOwnership({ call }: Fault): boolean {
  return call === "fstat" || call === "epoll_ctl"; // EPOLL_CTL_MOD is the check of an epoll
}

/** Returns a text that identifies a fault in the message of an assertion. */
export function textOfFault({ call, errno, at, isLasting }: Fault): string {
  return `${call}() fails with ${errno}, call ${at}${isLasting ? " and all later ones" : ""}`;
}

function failureOf(fault: Fault, cause: unknown): Error {
  return new Error(`${textOfFault(fault)}: ${(cause as Error).message}`, { cause });
}

/** The process has called exit_group(2), which it does not reach under this test. */
export class Exited extends Error {}

type Call = (...args: unknown[]) => unknown;

interface Plan {
  readonly at: number;
  /** Which errno of the function. */
  readonly choice: number;
  readonly isLasting: boolean;
}

let plan: Plan | undefined;
let count = 0;
let fault: Fault | undefined;
let listed = 0;

const exitGroup = THREAD_CALLS[process.arch]?.exit_group;
/** The names of system calls, by their numbers. */
const NAMES = new Map<unknown, string>([
  [SYS_FSTAT[process.arch], "fstat"],
  [SYS_PIDFD_OPEN, "pidfd_open"],
  [SYS_GETSID[process.arch], "getsid"],
  [SYS_CLOSE_RANGE, "close_range"],
]);

/** Returns the errno with which a call must fail; `undefined` if it must reach the kernel. */
function faultOf(call: string): number | undefined {
  if (plan === undefined) return undefined;
  const { at, choice, isLasting } = plan;
  if (++count === at) {
    const errnos = ERRNOS[call];
    assert.ok(errnos, `The errnos of ${call}() are not listed`);
    listed = errnos.length;
    const errno = errnos[choice % errnos.length]!;
    // A repeated call succeeds after EINTR, unless further signals arrive.
    fault = { call, errno, at, isLasting: isLasting && errno !== "EINTR" };
    return numbers[errno]!;
  }
  return fault?.isLasting && fault.call === call ? numbers[fault.errno]! : undefined;
}

/** Replaces the functions of an object. `failed` makes the result of a failed call. */
function wrap(object: object, failed: (errno: number) => number): void {
  const functions = object as { [name: string]: Call };
  for (const [call, original] of Object.entries(functions)) {
    if (typeof original !== "function" || ALWAYS_SUCCEED.has(call)) continue;
    functions[call] = (...args) => {
      if (call === "syscall" && args[0] === exitGroup) throw new Exited("exit_group(2)");
      const errno = faultOf(call === "syscall" ? NAMES.get(args[0]) ?? call : call);
      if (errno === undefined) return original(...args);
      if (call === "close") original(...args); // Linux closes the descriptor before it reports an error
      return failed(errno);
    };
  }
}

let isWrapped = false;

/** Makes the calls of the opened system fail by plan, from now on. */
function wrapOnce(): void {
  if (isWrapped) return;
  isWrapped = true;
  const { libc } = openedSystem();
  wrap(libc, (errno) => errno);
  wrap(libc.linux!, (errno) => -errno);
}

/** Runs a part of a test, in which no call fails. */
export function withoutFaults<T>(run: () => T): T {
  const before = plan;
  plan = undefined;
  try {
    return run();
  } finally {
    plan = before;
  }
}

/** Options of {@link failEachCall}. */
export interface EachCall {
  /** The operation. It must not depend on the time. */
  readonly run: () => unknown;
  /** Runs after each operation, when no call fails any more. */
  readonly verify: (fault: Fault) => unknown;
  /** 1 tries each call, and N each N-th one. By default each eleventh one in `npm test`. */
  readonly step?: number;
}

/**
 * Repeats an operation: the N-th time its N-th call fails, until it makes fewer calls.
 *
 * `npm test` tries one errno for each N-th call, and lets some faults last until the operation has ended.
 * `npm run test:soak` tries each errno of each call.
 *
 * @returns All faults.
 */
export async function failEachCall(
  { run, verify, step = soak(11, 1) }: EachCall,
): Promise<readonly Fault[]> {
  wrapOnce();
  await run(); // the first time fills caches
  const faults: Fault[] = [];
  const attempt = async (next: Plan): Promise<boolean> => {
    [plan, count, fault] = [next, 0, undefined];
    try {
      await run();
    } catch (error) {
      throw fault === undefined ? error : failureOf(fault, error);
    } finally {
      plan = undefined;
    }
    const made: Fault | undefined = fault;
    if (made === undefined) return false;
    faults.push(made);
    try {
      await verify(made);
    } catch (error) {
      throw failureOf(made, error);
    }
    return true;
  };
  for (let at = 1;; at += step) {
    if (!await attempt({ at, choice: at, isLasting: at % 4 === 1 })) return faults;
    for (let choice = 0; choice < soak(0, listed); choice++) {
      await attempt({ at, choice, isLasting: choice % 2 === at % 2 });
    }
  }
}
