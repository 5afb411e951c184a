/**
 * Finds the sockets that are bound to a file, and the processes that hold them, as `ss -xp` shows.
 */

import { nodeFs } from "../adapters/builtins.ts";
import { memoryOf } from "../adapters/libc.ts";
import { openedSystem, type System } from "../adapters/select.ts";
import { UcredError } from "../core/errors.ts";
import { AF_UNIX } from "../ffi/abi.ts";
import {
  AF_NETLINK,
  decodeDiag,
  diagRequest,
  type DiagSocket,
  KERNEL_ADDRESS,
  kernelDevice,
  NETLINK_SOCK_DIAG,
  NETLINK_SOCKET,
  STATE,
} from "../ffi/diag.ts";
import { LINUX_ERRNO } from "../ffi/errno.ts";
import { DATAGRAM_SOCKET, encodeAddress } from "../ffi/message.ts";
import { OwnedDescriptor } from "./owned_descriptor.ts";
import { syscallError, unexpectedAnswer } from "./syscall_error.ts";

/** The sockets behind a file, by their inode numbers as in /proc/PID/fd. */
export interface SocketsAt {
  readonly listeners: readonly number[];
  /** Established connections: our end of each, and the client's. */
  readonly connections: readonly { readonly server: number; readonly client: number }[];
}

const WHAT = "list Unix sockets";

/**
 * Returns the sockets that are bound to a file, also after it was renamed.
 *
 * @param file The result of stat(2).
 * @throws {UcredError} `ERR_UCRED_UNSUPPORTED` if the kernel does not list sockets.
 */
export function socketsAt(
  file: FileNumbers,
  system: System = openedSystem(),
): SocketsAt {
  const bound = listSockets(system).filter((socket) =>
    socket.file !== undefined && isFile(socket.file, file)
  );
  return {
    listeners: bound.filter(({ state }) => state === STATE.LISTEN).map(({ inode }) => inode),
    connections: bound.flatMap(({ state, inode, peer }) =>
      state === STATE.ESTABLISHED && peer !== undefined ? [{ server: inode, client: peer }] : []
    ),
  };
}

/** A socket that accepts connections. */
export interface ListeningSocket {
  /** The inode number of the socket, as in /proc/PID/fd. */
  readonly inode: number;
  /** `SOCK_STREAM` or `SOCK_SEQPACKET`, <linux/net.h>. */
  readonly type: number;
  /** The path in bind(2), or "\0name" for an abstract socket. */
  readonly address: string;
  /** Whether a file is the one to which the socket is bound. `undefined` for an abstract socket. */
  readonly isBoundTo: ((file: FileNumbers) => boolean) | undefined;
}

/** The numbers of stat(2) that identify a file. */
interface FileNumbers {
  readonly dev: bigint;
  readonly ino: bigint;
}

/**
 * Returns all listening Unix sockets of our network namespace.
 *
 * @throws {UcredError} `ERR_UCRED_UNSUPPORTED` if the kernel does not list sockets.
 */
export function listeningSockets(system: System = openedSystem()): readonly ListeningSocket[] {
  return listSockets(system).flatMap(({ state, inode, type, address, file }) => {
    if (state !== STATE.LISTEN || address === undefined) return [];
    const isBoundTo = file && ((numbers: FileNumbers) => isFile(file, numbers));
    return [{ inode, type, address, isBoundTo }];
  });
}

function isFile(file: NonNullable<DiagSocket["file"]>, { dev, ino }: FileNumbers): boolean {
  // The kernel reports 32 bits of the inode number.
  return file.inode === Number(ino & 0xffffffffn) && file.device === kernelDevice(dev);
}

/**
 * Reports whether a socket is bound to a path, even one that does not listen or has a full queue.
 *
 * This connects a datagram socket, which sends nothing, waits for no queue, and fails with EPROTOTYPE if a
 * socket of another type is bound there. A stream socket could not distinguish a bound socket without
 * listen(2) from a closed one (ECONNREFUSED); nor could it on Bun 1.4.5 if the queue is full, since Bun
 * reports EAGAIN as ECONNREFUSED. Errors other than ENOENT and ECONNREFUSED count as bound.
 *
 * @returns `undefined` if that cannot be determined.
 */
export function isBound(path: string, system: System = openedSystem()): boolean | undefined {
  const { libc, libc: { linux }, abi } = system;
  const address = linux === undefined ? undefined : encodeAddress(path);
  if (linux === undefined || address === undefined || abi.os !== "linux") return undefined;
  const to = memoryOf(libc, address);
  const fd = linux.socket(AF_UNIX, DATAGRAM_SOCKET, 0);
  if (fd < 0) throw syscallError(system, WHAT, "socket", -fd);
  const connected = linux.connect(fd, to, address.length);
  linux.close(fd);
  return connected !== -LINUX_ERRNO.ENOENT && connected !== -LINUX_ERRNO.ECONNREFUSED;
}

/** Lists every Unix socket of our network namespace. */
function listSockets(system: System): readonly DiagSocket[] {
  const { libc: { linux, memory } } = system;
  if (linux === undefined) {
    const hint = "Use the system's own tools";
    throw new UcredError("ERR_UCRED_UNSUPPORTED", `Cannot ${WHAT}: only Linux supports that`, {
      hint,
    });
  }
  const fd = linux.socket(AF_NETLINK, NETLINK_SOCKET, NETLINK_SOCK_DIAG);
  if (fd < 0) throw syscallError(system, WHAT, "socket", -fd);
  const socket = new OwnedDescriptor(system, linux, fd, WHAT);
  try {
    const [request, address, answer] = [memory(64), memory(16), memory(1 << 16)];
    request.bytes.set(diagRequest());
    address.bytes.set(KERNEL_ADDRESS);
    const { length } = diagRequest();
    const sent = linux.sendto(socket.use(WHAT), request, length, address, KERNEL_ADDRESS.length);
    if (sent < 0) throw syscallError(system, WHAT, "sendto", -sent);
    const sockets: DiagSocket[] = [];
    for (;;) {
      const got = linux.read(socket.use(WHAT), answer);
      if (got <= 0) throw syscallError(system, WHAT, "read", -got);
      const part = decodeDiag(answer.bytes.subarray(0, got));
      if (part === undefined) throw unexpectedAnswer(WHAT, "read", "a malformed list of sockets");
      if (part.errno !== undefined) throw syscallError(system, WHAT, "sendto", part.errno);
      sockets.push(...part.sockets);
      if (part.isLast) return sockets;
    }
  } finally {
    socket.close();
  }
}

/**
 * Returns the processes that hold sockets. Root sees all processes; other users see their own.
 *
 * @returns Pids by the socket's inode number.
 */
export function holdersOf(sockets: Iterable<number>): ReadonlyMap<number, readonly number[]> {
  const files = nodeFs();
  const wanted = new Map([...sockets].map((socket) => [`socket:[${socket}]`, socket]));
  const holders = new Map<number, number[]>();
  for (const pid of files.readdirSync("/proc").filter((name) => /^[0-9]+$/.test(name))) {
    const folder = `/proc/${pid}/fd`;
    for (const fd of orNone(() => files.readdirSync(folder)) ?? []) {
      const socket = wanted.get(orNone(() => files.readlinkSync(`${folder}/${fd}`)) ?? "");
      if (socket === undefined) continue;
      const pids = holders.get(socket) ?? [];
      if (pids.at(-1) !== Number(pid)) pids.push(Number(pid));
      holders.set(socket, pids);
    }
  }
  return holders;
}

/**
 * Counts the connections of a listener with clients in other network namespaces. sock_diag(7) does
 * not list them, since a socket that accept(2) returns is in the client's network namespace. The
 * server holds such a socket, which is bound to the listener's address, and /proc/PID/net/unix of
 * any process in that namespace lists it.
 *
 * @param listener The inode number of the listening socket.
 * @param holders The processes that accept from it.
 * @returns The number of connections in the network namespaces of the processes that we may inspect.
 */
export function connectionsElsewhere(listener: number, holders: readonly number[]): number {
  const files = nodeFs();
  const socketsOf = (pid: number | string) =>
    unixSockets(orNone(() => files.readFileSync(`/proc/${pid}/net/unix`, "utf8")) ?? "");
  const address = socketsOf("self").get(listener);
  if (address === undefined || address === "") return 0;
  const held = new Set(
    holders.flatMap((pid) =>
      (orNone(() => files.readdirSync(`/proc/${pid}/fd`)) ?? [])
        .map((fd) => orNone(() => files.readlinkSync(`/proc/${pid}/fd/${fd}`)))
    ),
  );
  const namespaceOf = (pid: string) => orNone(() => files.readlinkSync(`/proc/${pid}/ns/net`));
  const seen = new Set([namespaceOf("self"), undefined]);
  let count = 0;
  for (const pid of files.readdirSync("/proc").filter((name) => /^[0-9]+$/.test(name))) {
    const namespace = namespaceOf(pid);
    if (seen.has(namespace)) continue;
    seen.add(namespace);
    for (const [socket, bound] of socketsOf(pid)) {
      if (bound === address && held.has(`socket:[${socket}]`)) count++;
    }
  }
  return count;
}

/**
 * Parses /proc/PID/net/unix: the address of each socket by its inode. Lines are "number: … inode
 * address", after a title.
 */
function unixSockets(text: string): ReadonlyMap<number, string> {
  const lines = text.split("\n").map((line) =>
    /^[0-9a-f]+:(?: \S+){5} +([0-9]+) ?(.*)$/.exec(line)
  );
  return new Map(lines.flatMap((line) => line === null ? [] : [[Number(line[1]), line[2]!]]));
}

/** Returns `undefined` if the process has ended or we may not read it. */
function orNone<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}
