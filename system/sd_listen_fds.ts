/** Listening Unix sockets that a service manager passed: sd_listen_fds(3). */

import { environment } from "../adapters/builtins.ts";
import { host } from "../adapters/host.ts";
import { openedSystem, type System } from "../adapters/select.ts";
import { UcredError } from "../core/errors.ts";
import { FCNTL, FD_CLOEXEC, SOCK } from "../ffi/linux.ts";
import { decodeAddress } from "../ffi/message.ts";
import { OwnedDescriptor } from "./owned_descriptor.ts";
import { syscallError } from "./syscall_error.ts";
import { openFile } from "./proc_files.ts";
import { tryLock } from "./file_lock.ts";
import { isListening, isUnixSocket, readCookie, readIntOption } from "./socket_option.ts";

/** A listening socket that was passed. */
export interface InheritedSocket {
  readonly fd: number;
  /** `FileDescriptorName=` of the socket unit; "unknown" if the manager gave none. */
  readonly name: string;
  /** The bound path; an abstract name begins with "\0". */
  readonly path: string;
  /** Returns the socket after a failed listen(2), so that it can be taken again. */
  giveBack(): void;
}

/** The environment variables of sd_listen_fds(3). */
export interface ListenVariables {
  readonly LISTEN_PID?: string | undefined;
  readonly LISTEN_FDS?: string | undefined;
  readonly LISTEN_FDNAMES?: string | undefined;
}

/** `SD_LISTEN_FDS_START`, <systemd/sd-daemon.h> */
const FIRST = 3;

/** Maximum value of LISTEN_FDS; a larger one is an error. */
const MAX_SOCKETS = 1024;

const taken = new Set<number>();

/**
 * Takes a socket that the service manager passed. No thread of this process can take it again.
 * Processes that we start inherit none of the passed sockets.
 *
 * @param name Selects a socket by its name; may be omitted if only one is left.
 * @throws {UcredError} `ERR_UCRED_NO_FD` if there is no such socket or another thread has taken it,
 * `ERR_UCRED_NOT_UNIX` if it is not a Unix socket, `ERR_UCRED_NO_PEER` if it does not listen for
 * connections.
 * @see {@link https://man7.org/linux/man-pages/man3/sd_listen_fds.3.html sd_listen_fds(3)}
 */
export function takeInherited(
  name?: string,
  system: System = openedSystem(),
  variables: ListenVariables = environment(),
): InheritedSocket {
  const all = passed(variables);
  const left = all.filter(({ fd }) => !taken.has(fd));
  // Sets FD_CLOEXEC on every passed descriptor, as sd_listen_fds(3) does. Failures matter only for
  // the chosen one, checked below.
  for (const { fd } of left) system.libc.linux?.fcntl(fd, FCNTL.SETFD, FD_CLOEXEC);
  const found = name === undefined ? left : left.filter((socket) => socket.name === name);
  if (found.length !== 1) {
    const names = left.map((socket) => JSON.stringify(socket.name)).join(", ") || "none";
    const why = found.length === 0
      ? `no socket is ${name === undefined ? "left" : `named ${JSON.stringify(name)}`}`
      : `${found.length} sockets ${name === undefined ? "are left" : "have this name"}`;
    throw noSocket(
      `${why}; available: ${names}`,
      "Select one by the FileDescriptorName= of its unit",
    );
  }
  const { fd } = found[0]!;
  const path = requireListening(system, fd);
  const lock = lockDescriptor(system, fd);
  const result = system.libc.linux?.fcntl(fd, FCNTL.SETFD, FD_CLOEXEC) ?? 0;
  if (result < 0) {
    lock?.close();
    throw syscallError(system, WHAT, "fcntl", -result);
  }
  taken.add(fd); // before the server listens: until then another caller could take it
  const cookieNow = () =>
    system.abi.os === "linux" ? readCookie(system, system.abi, fd) : undefined;
  const cookie = cookieNow();
  const giveBack = () => {
    // A different cookie means that the number belongs to another socket by now.
    if (cookie === undefined || cookieNow() === cookie) taken.delete(fd);
    lock?.close();
  };
  return { ...found[0]!, path, giveBack };
}

/**
 * Locks a descriptor for this thread. Its /proc/self/fdinfo file is the same for all threads of the
 * process, and other users cannot open it. The lock is kept until the process ends, even after the
 * thread has ended: its listener has then closed the descriptor.
 *
 * @returns `undefined` if there is no /proc: then the program must prevent two threads from taking
 * it.
 * @throws {UcredError} `ERR_UCRED_NO_FD` if another thread has it.
 */
function lockDescriptor(system: System, fd: number): OwnedDescriptor | undefined {
  const { linux } = system.libc;
  const opened = linux === undefined ? -1 : openFile(system, linux, `/proc/self/fdinfo/${fd}`);
  if (linux === undefined || opened < 0) return undefined;
  const lock = new OwnedDescriptor(system, linux, opened, WHAT);
  let isLocked = false;
  try {
    isLocked = tryLock(opened, system);
  } finally {
    if (!isLocked) lock.close();
  }
  if (isLocked) return lock;
  const hint = "Take each socket in one thread, and pass its connections or messages to the others";
  throw noSocket(`another thread of this process has taken fd ${fd}`, hint);
}

const WHAT = "take a socket from the service manager";

function passed({ LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES }: ListenVariables) {
  if (LISTEN_FDS === undefined || LISTEN_PID === undefined) {
    const hint = "Start the program by a systemd socket unit, or listen on a path";
    throw noSocket("LISTEN_FDS and LISTEN_PID are not set", hint);
  }
  const pid = host().pid;
  if (!isDecimal(LISTEN_PID) || Number(LISTEN_PID) !== pid) {
    const hint = "Start the runtime itself in ExecStart= of the unit, without a script";
    throw noSocket(`LISTEN_PID is ${JSON.stringify(LISTEN_PID)}, and our pid is ${pid}`, hint);
  }
  const count = Number(LISTEN_FDS);
  if (!isDecimal(LISTEN_FDS) || count > MAX_SOCKETS) {
    throw noSocket(
      `LISTEN_FDS is ${JSON.stringify(LISTEN_FDS)}`,
      `Set it to a number up to ${MAX_SOCKETS}, or unset it`,
    );
  }
  const names = (LISTEN_FDNAMES ?? "").split(":");
  return Array.from({ length: count }, (_, at) => ({
    fd: FIRST + at,
    name: names[at] || "unknown",
  }));
}

/** Number() alone would accept "1e3", "0x10" and "", too. */
const isDecimal = (text: string) => /^(0|[1-9][0-9]*)$/.test(text);

/** Requires a Unix stream socket that listens. @returns The path that it is bound to. */
function requireListening(system: System, fd: number): string {
  const what = `${WHAT}, fd ${fd}`;
  const { value, size, abi } = system;
  if (!isUnixSocket(system, fd, what)) {
    const hint = "Set ListenStream= of the socket unit to a path";
    throw new UcredError("ERR_UCRED_NOT_UNIX", `Cannot ${WHAT}: fd ${fd} is not a Unix socket`, {
      hint,
    });
  }
  const path = decodeAddress(value.bytes, size.words[0]!) ?? "";
  const isStream = abi.os !== "linux" ||
    readIntOption(system, fd, abi.options.SO_TYPE, what) === SOCK.STREAM;
  if (isStream && isListening(system, fd, what)) return path;
  const why = isStream ? "it does not listen" : "it is not a stream socket";
  throw new UcredError("ERR_UCRED_NO_PEER", `Cannot ${what}: ${why}`, {
    hint: "Use ListenStream= and Accept=no in the socket unit",
  });
}

function noSocket(why: string, hint: string): UcredError {
  return new UcredError("ERR_UCRED_NO_FD", `Cannot ${WHAT}: ${why}`, { hint });
}
