/**
 * Reads the credentials of a descriptor's peer by one getsockopt(2), and accepts them only if the descriptor
 * certainly is a connection.
 */

import { openedSystem, type System } from "../adapters/select.ts";
import { type Credentials, NO_ID } from "../core/credentials.ts";
import { UcredError } from "../core/errors.ts";
import { AF_UNIX, type BsdAbi, type LinuxAbi } from "../ffi/abi.ts";
import { AUDIT_TOKEN, decodeTokenPid, decodeXucred, XUCRED, type Xucred } from "../ffi/bsd.ts";
import { decodeUcred, UCRED } from "../ffi/linux.ts";
import { isListening, isUnixSocket } from "../system/socket_option.ts";
import { syscallError, unexpectedAnswer, UNIX_HINT } from "../system/syscall_error.ts";
import { fdOf, isAccepted, type UnixSocket } from "./fd.ts";

/**
 * Reads the credentials of the process that connected to a Unix socket, as the kernel recorded them.
 *
 * The answer dates from connect(2): if the peer has changed its user since then, or has passed its socket to
 * another process, the answer is still the former one. For a socket that your program connected, the peer is
 * the process that called listen(2); for a socketpair, it is the process that created the pair.
 *
 * @param socket A connected AF_UNIX socket. Borrowed: it stays open and is not read from.
 * @returns Effective ids in our own namespaces, frozen. `pid` is `undefined` if the process has no pid in
 * our pid namespace, or if the system does not report it reliably. Ids outside our user namespace read as
 * 65534: see `identify()`.
 * @throws {UcredError} `ERR_UCRED_NO_FD` if the socket is closed or the runtime hides its
 * descriptor; `ERR_UCRED_NOT_UNIX` for TCP and other families; `ERR_UCRED_NO_PEER` if it is not
 * connected, or a listener; `ERR_UCRED_PERMISSION` and `ERR_UCRED_UNSUPPORTED` if libc cannot be
 * called; `ERR_UCRED_SYSCALL` otherwise.
 * @throws {TypeError} If `socket` is not a socket.
 * @throws {RangeError} If `socket` is a number and not an integer from 0 to 2³¹ − 1.
 * @see {@link https://man7.org/linux/man-pages/man7/unix.7.html unix(7)}, SO_PEERCRED
 *
 * @example Accept root and our own user
 * ```ts
 * import { createServer } from "node:net";
 * import { peerCredentials } from "ucred";
 *
 * const allowed = new Set([0, process.getuid?.()]);
 * createServer((socket) => {
 *   const { uid, pid = "?" } = peerCredentials(socket.on("error", () => {}));
 *   console.log(`uid ${uid}, pid ${pid}`);
 *   socket.end(allowed.has(uid) ? "welcome\n" : "no\n");
 * }).listen("app.sock");
 * ```
 */
export function peerCredentials(socket: UnixSocket): Credentials {
  return readCredentials(openedSystem(), fdOf(socket), isAccepted(socket));
}

/**
 * Implements {@link peerCredentials} for a descriptor, on a given system.
 *
 * @param isConnection Whether the descriptor certainly is a connection of AF_UNIX, and no listener.
 */
export function readCredentials(system: System, fd: number, isConnection = false): Credentials {
  if (system.abi.os === "linux") return readUcred(system, system.abi, fd, isConnection);
  const { credentials } = readXucred(system, system.abi, fd);
  if (system.abi.os === "freebsd") return credentials;
  return Object.freeze({ ...credentials, pid: readTokenPid(system, system.abi, fd, credentials) });
}

const what = (fd: number): string => `read peer credentials of fd ${fd}`;

function readUcred(
  system: System,
  { options }: LinuxAbi,
  fd: number,
  isConnection: boolean,
): Credentials {
  const { libc, value: { words }, size, remembered: { verified } } = system;
  // For a short answer the kernel reports success and leaves the rest of the memory unchanged. That rest
  // must not be 0, since 0 is root.
  words[0] = words[1] = words[2] = NO_ID;
  size.words[0] = UCRED.size;
  const errno = libc.getsockopt(fd, options.SOL_SOCKET, options.SO_PEERCRED, system.value, size);
  if (errno !== 0) throw syscallError(system, what(fd), "getsockopt", errno);
  if (size.words[0] !== UCRED.size) throw wrongSize(fd, size.words[0]!, UCRED.size);

  // The call also succeeds for a listener (with the credentials of the process that called listen(2)) and
  // for sockets of other families (Bluetooth returns our own credentials). A second call excludes both. It
  // is made once for each descriptor and peer, since a reused descriptor number has another peer. Our own
  // pid always needs the second call, since those two kinds of socket report it.
  const before = verified[fd];
  if (before?.pid === words[0] && before.uid === words[1] && before.gid === words[2]) return before;
  const found = decodeUcred(words);
  const isOther = found?.pid !== undefined && found.pid !== system.pid;
  if (found === undefined || !(isConnection && isOther || hasPeerName(system, fd))) {
    requireConnection(system, fd);
    throw noPeer(fd, "it is not connected");
  }
  verified[fd] = isOther ? found : undefined;
  return found;
}

/** Reads `struct xucred` on macOS and FreeBSD: credentials and groups, both as of connect. */
export function readXucred(system: System, { os, options }: BsdAbi, fd: number): Xucred {
  const { libc, value, size } = system;
  const expected = os === "darwin" ? XUCRED.darwinSize : XUCRED.freebsdSize;
  value.words.fill(NO_ID);
  size.words[0] = expected;
  const errno = libc.getsockopt(fd, options.SOL_LOCAL, options.LOCAL_PEERCRED, value, size);
  // On a TCP socket, level 0 is IPPROTO_IP, and its option 1 has another size.
  const answered = size.words[0]!;
  const found = decodeXucred(value.words.subarray(0, expected / 4)); // the next call overwrites it
  requireConnection(system, fd);
  if (errno !== 0) throw syscallError(system, what(fd), "getsockopt", errno);
  if (answered !== expected) throw wrongSize(fd, answered, expected);
  if (found === undefined) throw noPeer(fd, "it is not connected");
  return found;
}

/** Reads the pid of a macOS peer; `undefined` if it is not certain. */
function readTokenPid(system: System, { options }: BsdAbi, fd: number, of: Credentials) {
  const { libc, value, size } = system;
  value.words.fill(NO_ID);
  size.words[0] = AUDIT_TOKEN.size;
  const errno = libc.getsockopt(fd, options.SOL_LOCAL, options.LOCAL_PEERTOKEN, value, size);
  return errno === 0 && size.words[0] === AUDIT_TOKEN.size
    ? decodeTokenPid(value.words, of)
    : undefined;
}

/**
 * Reports whether a descriptor is an AF_UNIX socket with a peer; a listener has no peer. Only on
 * Linux, a socket keeps its peer's name after the peer has closed its end.
 */
function hasPeerName({ libc, value, size, abi }: System, fd: number): boolean {
  value.words[0] = NO_ID;
  size.words[0] = value.bytes.length;
  return libc.linux?.getpeername(fd, value, size) === 0 && abi.family(value.bytes) === AF_UNIX;
}

/** Requires an AF_UNIX socket that does not listen. */
function requireConnection(system: System, fd: number): void {
  if (!isUnixSocket(system, fd, what(fd))) {
    throw new UcredError("ERR_UCRED_NOT_UNIX", `Cannot ${what(fd)}: it is not a Unix socket`, {
      hint: UNIX_HINT,
    });
  }
  if (isListening(system, fd, what(fd))) throw noPeer(fd, "it is a listening socket");
}

function noPeer(fd: number, why: string): UcredError {
  return new UcredError("ERR_UCRED_NO_PEER", `Cannot ${what(fd)}: ${why}`, {
    hint: "Pass an accepted connection, or a socket of your own after it has connected",
  });
}

function wrongSize(fd: number, size: number, expected: number): UcredError {
  return unexpectedAnswer(what(fd), "getsockopt", `${size} bytes where ${expected} were expected`);
}
