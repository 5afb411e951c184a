/** Linux: datagrams and their control messages, as the kernel's headers define them. */

import { AF_UNIX, LITTLE_ENDIAN } from "./abi.ts";
import { SOCK } from "./linux.ts";

/** `SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK`, <linux/net.h>, <asm-generic/fcntl.h> */
export const DATAGRAM_SOCKET: number = SOCK.DGRAM | SOCK.CLOEXEC | SOCK.NONBLOCK;

/** `MSG_TRUNC`, `MSG_CTRUNC`, `MSG_CMSG_CLOEXEC`, <linux/socket.h> */
export const MSG = { TRUNC: 0x20, CTRUNC: 0x8, CMSG_CLOEXEC: 0x40000000 } as const;

/** `struct msghdr`, <sys/socket.h> of glibc and musl, 64-bit: pointers and lengths. */
export const MSGHDR = {
  size: 56, //          bytes
  name: 0, //           void *
  nameLength: 8, //     socklen_t
  parts: 16, //         struct iovec *
  partCount: 24, //     size_t
  control: 32, //       void *
  controlLength: 40, // size_t
  flags: 48, //         int
} as const;

/** `struct iovec`, <bits/types/struct_iovec.h>: a pointer and a length. */
export const IOVEC = { size: 16, base: 0, length: 8 } as const;

/** `struct sockaddr_un`, <sys/un.h>. */
export const SOCKADDR_UN = { size: 110, family: 0, path: 2, pathSize: 108 } as const;

/**
 * `struct cmsghdr`, <sys/socket.h>, 64-bit: each is followed by its data and aligned to 8 bytes.
 */
const CMSGHDR = { size: 16, length: 0, level: 8, type: 12 } as const;

/** `SCM_RIGHTS`, <linux/socket.h>; also `SCM_CREDENTIALS` and `SCM_PIDFD`. */
const SCM = { RIGHTS: 1, CREDENTIALS: 2, PIDFD: 4 } as const;

/** `SCM_MAX_FD`, <net/scm.h>: maximum number of descriptors in one message. */
const MAX_DESCRIPTORS = 253;

/**
 * Space for a `struct ucred`, the pidfd, and everything that a sender can add. With less, passed
 * descriptors would leave no space for the pidfd, which is last.
 */
export const CONTROL_SIZE: number = (CMSGHDR.size + 16) + (CMSGHDR.size + 8) +
  (CMSGHDR.size + Math.ceil(MAX_DESCRIPTORS / 2) * 8);

/** The control messages of a datagram. */
export interface Control {
  /** `struct ucred`: pid, uid, gid. */
  readonly ucred: Uint32Array | undefined;
  /** The sender's pidfd; negative if the kernel could not create one. */
  readonly pidfd: number | undefined;
  /** Descriptors that the sender passed, which are now open in this process. */
  readonly descriptors: readonly number[];
}

/** Decodes the control messages of a datagram, `length` bytes. */
export function decodeControl(bytes: Uint8Array, length: number, level: number): Control {
  const view = new DataView(bytes.buffer, bytes.byteOffset, Math.min(length, bytes.length));
  let ucred: Uint32Array | undefined;
  let pidfd: number | undefined;
  const descriptors: number[] = [];
  for (let at = 0; at + CMSGHDR.size <= view.byteLength;) {
    const size = Number(view.getBigUint64(at + CMSGHDR.length, LITTLE_ENDIAN));
    if (size < CMSGHDR.size || at + size > view.byteLength) break;
    const [start, count] = [at + CMSGHDR.size, Math.floor((size - CMSGHDR.size) / 4)];
    const words = Uint32Array.from(
      { length: count },
      (_, index) => view.getUint32(start + index * 4, LITTLE_ENDIAN),
    );
    if (view.getInt32(at + CMSGHDR.level, LITTLE_ENDIAN) === level) {
      const type = view.getInt32(at + CMSGHDR.type, LITTLE_ENDIAN);
      if (type === SCM.CREDENTIALS && count === 3) ucred = words;
      if (type === SCM.PIDFD && count === 1) pidfd = words[0]! | 0;
      if (type === SCM.RIGHTS) descriptors.push(...words);
    }
    at += Math.ceil(size / 8) * 8;
  }
  return { ucred, pidfd, descriptors };
}

/**
 * Encodes the address of a path, or of an abstract name that begins with "\0".
 *
 * @returns The significant bytes of a `struct sockaddr_un`; `undefined` if the path is too long.
 */
export function encodeAddress(path: string): Uint8Array | undefined {
  const name = new TextEncoder().encode(path.startsWith("\0") ? path : `${path}\0`);
  if (name.length > SOCKADDR_UN.pathSize) return undefined;
  const bytes = new Uint8Array(SOCKADDR_UN.path + name.length);
  new Uint16Array(bytes.buffer, SOCKADDR_UN.family, 1)[0] = AF_UNIX;
  bytes.set(name, SOCKADDR_UN.path);
  return bytes;
}

/**
 * Decodes the path or abstract name in an address of `length` bytes; `undefined` if there is none.
 * Bytes that are not UTF-8 become U+FFFD.
 */
export function decodeAddress(bytes: Uint8Array, length: number): string | undefined {
  const name = bytes.subarray(SOCKADDR_UN.path, Math.min(length, bytes.length));
  if (name.length === 0) return undefined;
  const end = name[0] === 0 ? name.length : name.indexOf(0);
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(
    end === -1 ? name : name.subarray(0, end),
  );
}
