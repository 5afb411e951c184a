/** Linux: socket option numbers, struct ucred and struct sockaddr, as the kernel's headers define them. */

import { type Credentials, credentials } from "../core/credentials.ts";

/** The socket options of one CPU family, all at level `SOL_SOCKET`, and one ioctl of sockets. */
export interface LinuxOptions {
  readonly SOL_SOCKET: number;
  readonly SO_TYPE: number;
  readonly SO_ACCEPTCONN: number;
  readonly SO_PEERCRED: number;
  readonly SO_PEERSEC: number;
  readonly SO_PEERGROUPS: number;
  readonly SO_PEERPIDFD: number;
  readonly SO_COOKIE: number;
  readonly SO_PASSCRED: number;
  readonly SO_PASSPIDFD: number;
  readonly SO_PASSRIGHTS: number;
  /** An ioctl: the number of bytes that can be read. */
  readonly FIONREAD: number;
}

/** Sources: <asm-generic/socket.h>, <asm-generic/ioctls.h> */
const GENERIC: LinuxOptions = {
  SOL_SOCKET: 1,
  SO_TYPE: 3,
  SO_ACCEPTCONN: 30,
  SO_PEERCRED: 17,
  SO_PEERSEC: 31,
  SO_PEERGROUPS: 59,
  SO_PEERPIDFD: 77,
  SO_COOKIE: 57,
  SO_PASSCRED: 16,
  SO_PASSPIDFD: 76,
  SO_PASSRIGHTS: 83,
  FIONREAD: 0x541b,
};

/**
 * Sources: arch/powerpc/include/uapi/asm/socket.h, which includes the generic header, and ioctls.h.
 */
const POWERPC: LinuxOptions = {
  ...GENERIC,
  SO_PASSCRED: 20,
  SO_PEERCRED: 21,
  FIONREAD: 0x4004667f, // _IOR('f', 127, int), where reading is 2 << 29
};

/**
 * Options by CPU, named as in `process.arch`. Lists only 64-bit CPUs for which a runtime has a
 * foreign function interface. Any other CPU is unsupported instead of guessed: on powerpc the
 * generic 17 is SO_SNDLOWAT, and getsockopt would succeed.
 */
export const LINUX_OPTIONS: { readonly [cpu: string]: LinuxOptions } = {
  x64: GENERIC,
  arm64: GENERIC,
  riscv64: GENERIC,
  s390x: GENERIC,
  loong64: GENERIC,
  ppc64: POWERPC,
};

/** `struct ucred`, <linux/socket.h>: three 4-byte fields, no padding, host byte order. */
export const UCRED = {
  size: 12, // bytes
  pid: 0, //  pid_t, int32:  0 = the peer is outside our pid namespace
  uid: 4, //  uid_t, uint32: 2³²−1 = the socket has no peer
  gid: 8, //  gid_t, uint32
} as const;

/**
 * Decodes a `struct ucred`.
 *
 * @param words The first {@link UCRED}.size bytes of the kernel's answer, in host byte order.
 * @returns `undefined` if they name no peer.
 */
export function decodeUcred(words: Uint32Array): Credentials | undefined {
  const pid = words[UCRED.pid / 4]! | 0;
  return credentials(pid, words[UCRED.uid / 4]!, words[UCRED.gid / 4]!);
}

/** `sa_family_t sa_family`, <linux/socket.h>: the first two bytes of every address. */
export function decodeLinuxFamily(address: Uint8Array): number {
  return new Uint16Array(address.buffer, address.byteOffset, 1)[0]!;
}

/** Types and flags of sockets, <linux/net.h>, <asm-generic/fcntl.h>: the same on every CPU above. */
export const SOCK = {
  STREAM: 1,
  DGRAM: 2,
  SEQPACKET: 5,
  CLOEXEC: 0o2000000,
  NONBLOCK: 0o4000,
} as const;

/** `SHUT_RDWR`, <sys/socket.h>: ends receiving and sending. */
export const SHUT_RDWR = 2;

/** Commands of fcntl(2): `F_SETFD` <asm-generic/fcntl.h>, `F_DUPFD_CLOEXEC` <linux/fcntl.h>. */
export const FCNTL = { SETFD: 2, DUPFD_CLOEXEC: 1030 } as const;

/** `FD_CLOEXEC`, <asm-generic/fcntl.h> */
export const FD_CLOEXEC = 1;

/** `O_RDONLY | O_CLOEXEC`, <asm-generic/fcntl.h>, which every CPU above uses. */
export const O_CLOEXEC: number = SOCK.CLOEXEC; // defined as equal
