/** Linux: the dump of Unix sockets of sock_diag(7), as the kernel's headers define it. */

import { AF_UNIX, LITTLE_ENDIAN } from "./abi.ts";
import { SOCK } from "./linux.ts";

/** `AF_NETLINK`, <linux/socket.h>; `NETLINK_SOCK_DIAG`, <linux/netlink.h>. */
export const AF_NETLINK = 16;
export const NETLINK_SOCK_DIAG = 4;

/** `SOCK_DGRAM | SOCK_CLOEXEC`, <linux/net.h>. Reads never wait: the kernel replies before sendto(2) returns. */
export const NETLINK_SOCKET: number = SOCK.DGRAM | SOCK.CLOEXEC;

/** `struct sockaddr_nl`, <linux/netlink.h>: the kernel has port 0. */
export const KERNEL_ADDRESS: Uint8Array = new Uint8Array(
  new Uint16Array([AF_NETLINK, 0, 0, 0, 0, 0]).buffer,
);

/** Netlink messages, <linux/netlink.h>. */
const NLMSG = { header: 16, ERROR: 2, DONE: 3 } as const;

/** `SOCK_DIAG_BY_FAMILY`, <linux/sock_diag.h> */
const SOCK_DIAG_BY_FAMILY = 20;

/** `NLM_F_REQUEST | NLM_F_DUMP`, <linux/netlink.h> */
const REQUEST_DUMP = 0x301;

/** `UDIAG_SHOW_NAME | UDIAG_SHOW_VFS | UDIAG_SHOW_PEER`, <linux/unix_diag.h> */
const SHOW = 1 | 2 | 4;

/** Attributes of an answer, <linux/unix_diag.h>. */
const ATTRIBUTE = { NAME: 0, VFS: 1, PEER: 2 } as const;

/** States of a socket, <net/tcp_states.h>. */
export const STATE = { ESTABLISHED: 1, LISTEN: 10 } as const;

/** One Unix socket of the network namespace. */
export interface DiagSocket {
  /** The inode number of the socket, as in /proc/PID/fd: "socket:[4711]". */
  readonly inode: number;
  /** `SOCK_STREAM`, `SOCK_DGRAM` or `SOCK_SEQPACKET`, <linux/net.h>. */
  readonly type: number;
  readonly state: number;
  /** The path, or "\0name" for an abstract socket; `undefined` if it is not bound. */
  readonly address: string | undefined;
  /** The file that it is bound to, if any: its inode, and its device in the kernel's encoding. */
  readonly file: { readonly inode: number; readonly device: number } | undefined;
  /** The inode number of the socket at the other end, if there is one. */
  readonly peer: number | undefined;
}

/** Encodes `struct nlmsghdr` and `struct unix_diag_req`: a request for all Unix sockets. */
export function diagRequest(): Uint8Array {
  const bytes = new Uint8Array(NLMSG.header + 24);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, bytes.length, LITTLE_ENDIAN);
  view.setUint16(4, SOCK_DIAG_BY_FAMILY, LITTLE_ENDIAN);
  view.setUint16(6, REQUEST_DUMP, LITTLE_ENDIAN);
  view.setUint8(NLMSG.header, AF_UNIX);
  view.setUint32(NLMSG.header + 4, 0xffffffff, LITTLE_ENDIAN); // any state
  view.setUint32(NLMSG.header + 12, SHOW, LITTLE_ENDIAN);
  view.setUint32(NLMSG.header + 16, 0xffffffff, LITTLE_ENDIAN); // no cookie
  view.setUint32(NLMSG.header + 20, 0xffffffff, LITTLE_ENDIAN);
  return bytes;
}

/** The contents of one read of the answer. */
export interface DiagPart {
  readonly sockets: readonly DiagSocket[];
  /** Whether it is the last part. */
  readonly isLast: boolean;
  /** The errno with which the kernel rejected the request. */
  readonly errno: number | undefined;
}

const decoder = new TextDecoder();

/** Decodes the bytes of one read(2); `undefined` if they are malformed. */
export function decodeDiag(bytes: Uint8Array): DiagPart | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const sockets: DiagSocket[] = [];
  for (let at = 0; at + NLMSG.header <= view.byteLength;) {
    const length = view.getUint32(at, LITTLE_ENDIAN);
    const type = view.getUint16(at + 4, LITTLE_ENDIAN);
    if (length < NLMSG.header || at + length > view.byteLength) return undefined;
    const body = at + NLMSG.header;
    if (type === NLMSG.DONE) return { sockets, isLast: true, errno: undefined };
    if (type === NLMSG.ERROR) {
      if (length < NLMSG.header + 4) return undefined;
      return { sockets, isLast: true, errno: -view.getInt32(body, LITTLE_ENDIAN) };
    }
    if (type === SOCK_DIAG_BY_FAMILY) {
      if (length < NLMSG.header + 16) return undefined;
      sockets.push(decodeSocket(view, body, at + length));
    }
    at += Math.ceil(length / 4) * 4;
  }
  return { sockets, isLast: false, errno: undefined };
}

/** Decodes `struct unix_diag_msg` and its attributes up to `end`. */
function decodeSocket(view: DataView, at: number, end: number): DiagSocket {
  let file: DiagSocket["file"];
  let peer: number | undefined;
  let address: string | undefined;
  for (let attribute = at + 16; attribute + 4 <= end;) {
    const length = view.getUint16(attribute, LITTLE_ENDIAN);
    const type = view.getUint16(attribute + 2, LITTLE_ENDIAN);
    if (length < 4 || attribute + length > end) break;
    const word = (offset: number) => view.getUint32(attribute + 4 + offset, LITTLE_ENDIAN);
    if (type === ATTRIBUTE.NAME && length > 4) {
      const { buffer, byteOffset } = view;
      const name = new Uint8Array(buffer, byteOffset + attribute + 4, length - 4);
      // A path ends with a NUL; an abstract name begins with one, and may contain others.
      address = decoder.decode(name[0] === 0 ? name : name.subarray(0, untilNul(name)));
    }
    if (type === ATTRIBUTE.VFS && length >= 12) file = { inode: word(0), device: word(4) };
    if (type === ATTRIBUTE.PEER && length >= 8) peer = word(0);
    attribute += Math.ceil(length / 4) * 4;
  }
  const inode = view.getUint32(at + 4, LITTLE_ENDIAN);
  return { inode, type: view.getUint8(at + 1), state: view.getUint8(at + 2), address, file, peer };
}

function untilNul(bytes: Uint8Array): number {
  const end = bytes.indexOf(0);
  return end < 0 ? bytes.length : end;
}

/** Converts `st_dev` of stat(2) to the kernel's encoding (`MKDEV`, <linux/kdev_t.h>): 12 and 20 bits. */
export function kernelDevice(device: bigint): number {
  const major = device >> 8n & 0xfffn;
  const minor = (device & 0xffn) | (device >> 12n & ~0xffn);
  return Number(major << 20n | minor);
}
