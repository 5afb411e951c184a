/** A socket's file → the sockets behind it, and the processes that hold those: what `ss -xp` tells. */

import { nodeFs } from "../adapters/builtins.ts";
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
import { DATAGRAM_SOCKET, encodeAddress } from "../ffi/message.ts";
import { OwnedDescriptor } from "./owned_descriptor.ts";
import { syscallError, unexpectedAnswer } from "./syscall_error.ts";

/** What is behind a socket's file, by the numbers that /proc/PID/fd shows. */
export interface SocketsAt {
  readonly listeners: readonly number[];
  /** Open connections: our side of each, and the other. */
  readonly connections: readonly { readonly server: number; readonly client: number }[];
}

const WHAT = "list Unix sockets";

/**
 * The sockets that are bound to a file, wherever it was renamed to since.
 *
 * @param file As stat(2) has it.
 * @throws {UcredError} `ERR_UCRED_UNSUPPORTED` where the kernel does not list sockets.
 */
export function socketsAt(
  file: { readonly dev: bigint; readonly ino: bigint },
  system: System = openedSystem(),
): SocketsAt {
  const device = kernelDevice(file.dev);
  const inode = Number(file.ino & 0xffffffffn); // as many bits as the kernel tells
  const bound = listSockets(system).filter((socket) =>
    socket.file?.inode === inode && socket.file.device === device
  );
  return {
    listeners: bound.filter(({ state }) => state === STATE.LISTEN).map(({ inode }) => inode),
    connections: bound.flatMap(({ state, inode, peer }) =>
      state === STATE.ESTABLISHED && peer !== undefined ? [{ server: inode, client: peer }] : []
    ),
  };
}

/** <asm-generic/errno.h>, and powerpc's: ENOENT, ECONNREFUSED. */
const NOBODY: readonly number[] = [2, 111];

/**
 * Whether a socket is bound to a path, also one that does not listen, or has a full queue: a stream
 * socket that connects to these gets the error of a dead one, or one that Bun 1.4.5 calls ECONNREFUSED,
 * too. So a datagram socket connects: it sends nothing, has no queue to wait for, and gets another
 * error from sockets of another type.
 *
 * @returns `undefined` where that cannot be determined.
 */
export function isBound(path: string, system: System = openedSystem()): boolean | undefined {
  const { libc: { linux, memory }, abi } = system;
  const address = linux === undefined ? undefined : encodeAddress(path);
  if (linux === undefined || address === undefined || abi.os !== "linux") return undefined;
  const to = memory(Math.ceil(address.length / 8) * 8);
  to.bytes.set(address);
  const fd = linux.socket(AF_UNIX, DATAGRAM_SOCKET, 0);
  if (fd < 0) throw syscallError(system, WHAT, "socket", -fd);
  const connected = linux.connect(fd, to, address.length);
  linux.close(fd);
  return !NOBODY.includes(-connected);
}

/** Every Unix socket of our network namespace. */
function listSockets(system: System): readonly DiagSocket[] {
  const { libc: { linux, memory } } = system;
  if (linux === undefined) {
    const hint = "Use the system's own tools";
    throw new UcredError("ERR_UCRED_UNSUPPORTED", `Cannot ${WHAT}: Linux alone tells`, { hint });
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
      if (part === undefined) throw unexpectedAnswer(WHAT, "read", "what is no list of sockets");
      if (part.errno !== undefined) throw syscallError(system, WHAT, "sendto", part.errno);
      sockets.push(...part.sockets);
      if (part.isLast) return sockets;
    }
  } finally {
    socket.close();
  }
}

/**
 * The processes that hold sockets, as far as we may look: root sees all, others their own.
 *
 * @returns Pids by the socket's number.
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
 * How many connections of a listener belong to clients in other network namespaces, which sock_diag(7)
 * does not list: a socket that accept(2) returns is in the client's network namespace. Such a socket is
 * held by the server and bound to the listener's address; /proc/PID/net/unix of any process there has it.
 *
 * @param listener The listening socket, by its number.
 * @param holders The processes that accept from it.
 * @returns Of those that we may see.
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

/** Lines of "number: … inode address", after a title: the address of each socket by its inode. */
function unixSockets(text: string): ReadonlyMap<number, string> {
  const lines = text.split("\n").map((line) =>
    /^[0-9a-f]+:(?: \S+){5} +([0-9]+) ?(.*)$/.exec(line)
  );
  return new Map(lines.flatMap((line) => line === null ? [] : [[Number(line[1]), line[2]!]]));
}

/** `undefined` for what has gone, or is not ours to see. */
function orNone<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}
