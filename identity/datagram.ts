/** Receives datagrams with their senders: the kernel attaches the credentials to every message. */

import { nodePath } from "../adapters/builtins.ts";
import { timers } from "../adapters/host.ts";
import type { LinuxCalls, Memory } from "../adapters/libc.ts";
import { openedSystem, type System } from "../adapters/select.ts";
import { type Credentials, NO_ID } from "../core/credentials.ts";
import { UcredError } from "../core/errors.ts";
import { unknown } from "../core/facts.ts";
import { type OptionNames, requireOptions } from "../core/options.ts";
import type { Peer } from "../core/peer.ts";
import { AF_UNIX, type LinuxAbi, LITTLE_ENDIAN } from "../ffi/abi.ts";
import { LINUX_ERRNO } from "../ffi/errno.ts";
import { decodeUcred } from "../ffi/linux.ts";
import {
  CONTROL_SIZE,
  DATAGRAM_SOCKET,
  decodeAddress,
  decodeControl,
  encodeAddress,
  IOVEC,
  MSG,
  MSGHDR,
  SOCKADDR_UN,
} from "../ffi/message.ts";
import { OwnedDescriptor } from "../system/owned_descriptor.ts";
import { syscallError } from "../system/syscall_error.ts";
import { CapturedPeer } from "./peer.ts";
import { gone, Pin } from "./process/pidfd.ts";
import {
  type FileStats,
  lstatIfThere,
  PrivateFolder,
  type PublishedFile,
  Purpose,
} from "../system/private_folder.ts";
import { isBound } from "../system/unix_sockets.ts";

/** Options of {@link receive}. */
export interface ReceiveOptions {
  /**
   * File mode of the socket: sending requires write permission. Default: `0o600`, for our own user
   * and root. An abstract name has no mode: every user may send to it.
   */
  readonly mode?: number | undefined;
  /**
   * Whether users other than root and our own may own or write the socket's folder or a folder above
   * it. Default: `false`, since they could replace the socket with one of their own.
   */
  readonly allowUnsafeFolder?: boolean | undefined;
  /** Longer datagrams are truncated to this length and marked. Default: 65,536. */
  readonly maxBytes?: number | undefined;
  /** Whether senders stay pinned until you close them. By default the next read closes them. */
  readonly pin?: boolean | undefined;
  /**
   * Whether to accept descriptors that senders pass, and close them at once: sd_notify's barrier
   * waits for that. By default they are rejected (EPERM for the sender) since Linux 6.16; older
   * kernels always accept them, and they are closed. Closing a file of a FUSE file system waits for
   * its server, which the sender may control.
   */
  readonly closeDescriptors?: boolean | undefined;
}

const RECEIVE_OPTIONS: OptionNames<ReceiveOptions> = {
  mode: true,
  allowUnsafeFolder: true,
  maxBytes: true,
  pin: true,
  closeDescriptors: true,
};

/** One datagram and its sender. */
export interface Datagram {
  /** A copy of the data. */
  readonly data: Uint8Array<ArrayBuffer>;
  /** Whether it was longer than `maxBytes`. */
  readonly truncated: boolean;
  /** The path that the sender's socket is bound to, if any; an abstract name begins with "\0". */
  readonly from: string | undefined;
  /**
   * The sending process, with its real uid and gid unless it chose another of its own ids. Root can name
   * any other process as the sender. The root of a container can name any process in that container.
   */
  readonly sender: Peer;
  /**
   * Whether these ids differ from the process's real, effective and saved ids. If so, root named another
   * sender, or the process has changed its ids since then. `undefined` if that cannot be determined. With
   * `false`, root may still have named another process together with the ids of that process.
   */
  readonly forged: boolean | undefined;
}

/** A datagram socket that identifies each sender. Linux only. */
export interface Receiver extends AsyncIterable<Datagram> {
  /** The absolute path, or the abstract name. */
  readonly path: string;
  /** Number of datagrams that were dropped because the kernel did not report their sender. */
  readonly dropped: number;
  /**
   * Returns the next datagram without waiting, if there is one. @throws {UcredError} Once closed.
   */
  read(): Datagram | undefined;
  /**
   * Waits for the next datagram; `undefined` once the receiver is closed. Keeps the program
   * running.
   */
  next(): Promise<Datagram | undefined>;
  /**
   * Closes the socket and removes its file; pending calls resolve to `undefined`. May be called
   * again.
   */
  close(): void;
  /** Calls {@link Receiver.close}, for `using`. */
  [Symbol.dispose](): void;
}

/**
 * Receives datagrams at a path or an abstract name, each with the process that sent it, for example
 * for a service manager (sd_notify) or a syslog daemon.
 *
 * Pending datagrams are read at once, with a turn of the event loop after some of them. Otherwise
 * the socket is polled at growing intervals, up to 20 ms.
 *
 * The socket is bound like that of a server: it is never more accessible than `mode`, and the file
 * of a killed receiver is replaced.
 *
 * @param path Where to bind. A relative path is made absolute; an abstract name begins with "\0".
 * @returns The receiver, which owns its socket: close it.
 * @throws {UcredError} `ERR_UCRED_LISTEN` if the path is in use or its folder is not safe;
 * `ERR_UCRED_UNSUPPORTED` on other systems than Linux, `ERR_UCRED_PERMISSION`, or
 * `ERR_UCRED_SYSCALL` with the errno.
 * @throws {RangeError} If the path is empty or longer than 107 bytes, `mode` is not from 0 to
 * 0o777, or `maxBytes` is not from 1 to 2²⁴.
 * @throws {TypeError} If an abstract name has a mode, or an option is unknown.
 * @see {@link https://man7.org/linux/man-pages/man7/unix.7.html unix(7)}, SCM_CREDENTIALS
 *
 * @example Print each message and its sender
 * ```ts
 * import { receive } from "ucred/datagram";
 *
 * using receiver = receive("notify.sock", { mode: 0o666 });
 * console.log(`receiving at ${receiver.path}`);
 * for (let datagram; (datagram = receiver.read()); ) {
 *   console.log(datagram.sender.uid, new TextDecoder().decode(datagram.data));
 * }
 * ```
 */
export function receive(path: string, options: ReceiveOptions = {}): Receiver {
  requireOptions("receive()", options, RECEIVE_OPTIONS);
  return receiveOn(openedSystem(), path, options);
}

/** Implements {@link receive} on a given system. */
export function receiveOn(system: System, path: string, options: ReceiveOptions = {}): Receiver {
  const { maxBytes = 65536 } = options;
  if (!Number.isInteger(maxBytes) || maxBytes < 1 || maxBytes > 1 << 24) {
    throw new RangeError(`maxBytes must be an integer from 1 to ${1 << 24}, not ${maxBytes}`);
  }
  const { mode } = options;
  if (mode !== undefined && (!Number.isInteger(mode) || mode < 0 || mode > 0o777)) {
    throw new RangeError(`mode must be an integer from 0 to 0o777, not ${mode}`);
  }
  if (encodeAddress(path) === undefined || path === "" || path.indexOf("\0", 1) !== -1) {
    throw new RangeError(`A path must have 1 to 107 bytes and no NUL: ${JSON.stringify(path)}`);
  }
  const { abi, libc: { linux } } = system;
  if (abi.os !== "linux" || linux === undefined) {
    const message = `Cannot receive datagrams with their senders: ${abi.os} does not report them`;
    const hint = "Use stream sockets, which identify their peers";
    throw new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint });
  }
  return new DatagramReceiver(system, abi, linux, path, { ...options, maxBytes });
}

/** Maximum poll interval while no datagram arrives. */
const MAX_WAIT_MS = 20;

/**
 * Maximum number of datagrams in one turn of the event loop. They take up to 2 ms, at 10 to 30 µs
 * each. A turn itself costs as much as one datagram.
 */
const MAX_IN_TURN = 64;

const absolute = (path: string): string => nodePath().resolve(path);

class DatagramReceiver implements Receiver {
  readonly path: string;
  dropped = 0;
  readonly #system: System;
  readonly #calls: LinuxCalls;
  readonly #pin: boolean;
  readonly #name: Memory;
  readonly #data: Memory;
  readonly #control: Memory;
  readonly #message: Memory;
  #fd = -1;
  /** Owns the same descriptor, and checks that it still is this socket. */
  #socket: OwnedDescriptor | undefined;
  /** `undefined` for an abstract name. */
  #file: PublishedFile | undefined;
  #last: Peer | undefined;
  /** Datagrams since the last turn of the event loop. */
  #inTurn = 0;

  constructor(
    system: System,
    abi: LinuxAbi,
    calls: LinuxCalls,
    path: string,
    { maxBytes, pin = false, ...options }: ReceiveOptions & { readonly maxBytes: number },
  ) {
    this.path = path.startsWith("\0") ? path : absolute(path);
    this.#system = system;
    this.#calls = calls;
    this.#pin = pin;
    const { libc } = system;
    this.#name = libc.memory(SOCKADDR_UN.size);
    this.#data = libc.memory(maxBytes);
    this.#control = libc.memory(CONTROL_SIZE);
    this.#message = libc.memory(MSGHDR.size + IOVEC.size);
    const view = new DataView(this.#message.bytes.buffer);
    const point = (at: number, to: bigint) => view.setBigUint64(at, to, LITTLE_ENDIAN);
    point(MSGHDR.name, calls.address(this.#name));
    point(MSGHDR.parts, calls.address(this.#message) + BigInt(MSGHDR.size));
    point(MSGHDR.partCount, 1n);
    point(MSGHDR.control, calls.address(this.#control));
    point(MSGHDR.size + IOVEC.base, calls.address(this.#data));
    point(MSGHDR.size + IOVEC.length, BigInt(maxBytes));
    try {
      this.#open(abi, options);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  #open(
    abi: LinuxAbi,
    { mode, allowUnsafeFolder = false, closeDescriptors = false }: ReceiveOptions,
  ): void {
    const { value } = this.#system;
    const { SOL_SOCKET, SO_PASSCRED, SO_PASSPIDFD, SO_PASSRIGHTS } = abi.options;
    const what = `receive datagrams at ${JSON.stringify(this.path)}`;
    const orFail = (result: number, syscall: string): number => {
      if (result < 0) throw syscallError(this.#system, what, syscall, -result);
      return result;
    };
    this.#fd = orFail(this.#calls.socket(AF_UNIX, DATAGRAM_SOCKET, 0), "socket");
    this.#socket = new OwnedDescriptor(this.#system, this.#calls, this.#fd, what);
    // Before bind, so that every datagram has its sender.
    value.words[0] = 1;
    orFail(this.#calls.setsockopt(this.#fd, SOL_SOCKET, SO_PASSCRED, value), "setsockopt");
    value.words[0] = 1;
    this.#calls.setsockopt(this.#fd, SOL_SOCKET, SO_PASSPIDFD, value); // since Linux 6.5
    value.words[0] = Number(closeDescriptors);
    this.#calls.setsockopt(this.#fd, SOL_SOCKET, SO_PASSRIGHTS, value); // since Linux 6.16
    const bind = (path: string) => {
      const address = encodeAddress(path)!; // its length was checked
      this.#name.bytes.set(address);
      orFail(this.#calls.bind(this.#fd, this.#name, address.length), "bind");
    };
    if (!this.path.startsWith("\0")) this.#file = this.#publish(bind, { mode, allowUnsafeFolder });
    else if (mode === undefined) bind(this.path);
    else throw new TypeError("An abstract name has no mode: every user can send to it");
  }

  #publish(
    bind: (path: string) => void,
    { mode = 0o600, allowUnsafeFolder = false }: ReceiveOptions,
  ): PublishedFile {
    const purpose = new Purpose("receive datagrams", this.path);
    const folder = PrivateFolder.open(this.path, allowUnsafeFolder, purpose);
    try {
      const stale = requireFree(folder.target, purpose);
      const socket = folder.freeSocket();
      bind(socket);
      return folder.publish(socket, { mode }, stale);
    } catch (error) {
      throw purpose.wrap(error);
    } finally {
      folder.end();
    }
  }

  read(): Datagram | undefined {
    this.#closeLast(); // before the check: an abort handler may close the receiver
    if (this.#fd < 0) {
      const hint = "Read before close()";
      const message = "Cannot receive datagrams: the receiver was closed";
      throw new UcredError("ERR_UCRED_NO_FD", message, { hint });
    }
    for (;;) {
      const view = new DataView(this.#message.bytes.buffer);
      view.setUint32(MSGHDR.nameLength, SOCKADDR_UN.size, LITTLE_ENDIAN);
      view.setBigUint64(MSGHDR.controlLength, BigInt(CONTROL_SIZE), LITTLE_ENDIAN);
      this.#control.words.fill(NO_ID);
      // Checked before each read: another socket's data must not be returned.
      const fd = this.#socket!.use("receive a datagram");
      const length = this.#calls.recvmsg(fd, this.#message, MSG.CMSG_CLOEXEC);
      if (length === -LINUX_ERRNO.EAGAIN) return undefined;
      if (length < 0) throw syscallError(this.#system, "receive a datagram", "recvmsg", -length);
      const datagram = this.#decode(view, length);
      if (datagram !== undefined) return datagram;
      this.dropped++;
    }
  }

  /** Decodes a message; `undefined` if the kernel did not report its sender. */
  #decode(view: DataView, length: number): Datagram | undefined {
    const { abi } = this.#system;
    const flags = view.getInt32(MSGHDR.flags, LITTLE_ENDIAN);
    const controlLength = Number(view.getBigUint64(MSGHDR.controlLength, LITTLE_ENDIAN));
    const control = decodeControl(this.#control.bytes, controlLength, abi.options.SOL_SOCKET);
    for (const fd of control.descriptors) this.#calls.close(fd);
    const credentials = control.ucred && decodeUcred(control.ucred);
    if (credentials === undefined) {
      if (control.pidfd !== undefined && control.pidfd >= 0) this.#calls.close(control.pidfd);
      return undefined;
    }
    const pinned = this.#pinOf(control.pidfd, credentials);
    const sender = new CapturedPeer(this.#system, {
      credentials,
      groups: unknown(notAttached("groups")),
      label: unknown(notAttached("label")),
      pinned,
      source: "kernel@send",
    });
    this.#last = sender;
    return {
      data: this.#data.bytes.slice(0, length),
      truncated: (flags & MSG.TRUNC) !== 0,
      from: decodeAddress(this.#name.bytes, view.getUint32(MSGHDR.nameLength, LITTLE_ENDIAN)),
      sender,
      forged: pinned instanceof Pin ? isForged(pinned, credentials) : undefined,
    };
  }

  #pinOf(pidfd: number | undefined, { pid }: Credentials): Pin | UcredError {
    if (pidfd !== undefined && pidfd >= 0) {
      try {
        return new Pin(this.#system, this.#calls, pidfd, "connect", pid);
      } catch (error) {
        if (error instanceof UcredError) return error;
        throw error;
      }
    }
    if (pidfd === undefined) {
      const message = "Cannot pin the sender's process: the kernel passed no pidfd";
      const hint = "Use Linux 6.5 or later, and check the limit on open files";
      return new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint });
    }
    const error = syscallError(this.#system, "pin the sender's process", "recvmsg", -pidfd);
    return error.code === "ERR_UCRED_SYSCALL" ? error : gone("pin the sender's process");
  }

  #closeLast(): void {
    const last = this.#last;
    this.#last = undefined;
    if (!this.#pin) last?.close();
  }

  async next(): Promise<Datagram | undefined> {
    const { setTimeout } = timers();
    if (++this.#inTurn > MAX_IN_TURN) await this.#turn();
    for (let wait = 0; this.#fd >= 0; wait = Math.min(wait * 2 || 1, MAX_WAIT_MS)) {
      this.#closeLast();
      if (this.#fd < 0) break;
      const datagram = this.read();
      if (datagram !== undefined) return datagram;
      if (wait === 0) await this.#turn();
      else await new Promise<void>((resolve) => void setTimeout(resolve, wait));
    }
    return undefined;
  }

  /** Lets the event loop process timers, signals and other sockets. */
  #turn(): Promise<void> {
    this.#inTurn = 0;
    return new Promise((resolve) => void timers().setImmediate(resolve));
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Datagram, void, void> {
    for (let datagram; (datagram = await this.next()) !== undefined;) yield datagram;
  }

  close(): void {
    if (this.#fd < 0) return;
    this.#file?.remove(); // while the socket is open, so that its inode is not reused
    this.#fd = -1;
    this.#socket?.close();
    this.#closeLast();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/**
 * Requires that a path is free, or has a socket that is no longer bound. @returns The stale file.
 */
function requireFree(path: string, purpose: Purpose): FileStats | undefined {
  const found = lstatIfThere(path);
  if (found === undefined) return undefined;
  if (!found.isSocket()) {
    throw purpose.inUse("the existing file is not a socket", "Remove it, or use another path");
  }
  if (isBound(path) === false) return found;
  throw purpose.inUse(
    "a socket is bound there",
    "Stop the program that receives there, or use another path",
  );
}

/** Reports whether the process has none of these ids; `undefined` if its ids cannot be read. */
function isForged(pin: Pin, { uid, gid }: Credentials): boolean | undefined {
  try {
    const { ruid, euid, suid, rgid, egid, sgid } = pin.readIds().ids;
    return ![ruid, euid, suid].includes(uid) || ![rgid, egid, sgid].includes(gid);
  } catch (error) {
    if (error instanceof UcredError) return undefined;
    throw error;
  }
}

function notAttached(fact: string): UcredError {
  const message =
    `Cannot determine the sender's ${fact}: the kernel does not attach them to datagrams`;
  return new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint: "Decide by uid and gid" });
}
