/** Error numbers by name and names by number, from each system's header. */

/** Names by number, for error messages. */
export type ErrnoNames = { readonly [errno: number]: string };

/** Error numbers by name. */
interface Numbers {
  readonly [name: string]: number;
}

/** The oldest numbers, which are equal on every supported system. Sources: <asm-generic/errno-base.h>, <sys/errno.h> */
const COMMON = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  EBADF: 9,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOTTY: 25,
  EFBIG: 27,
  ENOSPC: 28,
  ESPIPE: 29,
  EROFS: 30,
  EPIPE: 32,
  ERANGE: 34,
} as const satisfies Numbers;

/** Source: <asm-generic/errno.h>; powerpc differs only in EDEADLOCK. */
export const LINUX_ERRNO = {
  ...COMMON,
  EAGAIN: 11,
  EDEADLK: 35,
  ENAMETOOLONG: 36,
  ENOSYS: 38,
  ELOOP: 40,
  ENODATA: 61,
  EPROTO: 71,
  EOVERFLOW: 75,
  ENOTSOCK: 88,
  EDESTADDRREQ: 89,
  EMSGSIZE: 90,
  EPROTOTYPE: 91,
  ENOPROTOOPT: 92,
  EPROTONOSUPPORT: 93,
  EOPNOTSUPP: 95,
  EAFNOSUPPORT: 97,
  EADDRINUSE: 98,
  EADDRNOTAVAIL: 99,
  ECONNABORTED: 103,
  ECONNRESET: 104,
  ENOBUFS: 105,
  EISCONN: 106,
  ENOTCONN: 107,
  ESHUTDOWN: 108,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
} as const satisfies Numbers;

/** Source: <sys/errno.h> of xnu and FreeBSD, where they agree. */
const BSD = {
  ...COMMON,
  EDEADLK: 11,
  EAGAIN: 35,
  ENOTSOCK: 38,
  EDESTADDRREQ: 39,
  EMSGSIZE: 40,
  EPROTOTYPE: 41,
  ENOPROTOOPT: 42,
  EPROTONOSUPPORT: 43,
  EAFNOSUPPORT: 47,
  EADDRINUSE: 48,
  EADDRNOTAVAIL: 49,
  ECONNABORTED: 53,
  ECONNRESET: 54,
  ENOBUFS: 55,
  EISCONN: 56,
  ENOTCONN: 57,
  ESHUTDOWN: 58,
  ETIMEDOUT: 60,
  ECONNREFUSED: 61,
  ELOOP: 62,
  ENAMETOOLONG: 63,
  ENOSYS: 78,
  EOVERFLOW: 84,
} as const satisfies Numbers;

/** Source: xnu bsd/sys/errno.h */
export const DARWIN_ERRNO = {
  ...BSD,
  ENOTSUP: 45,
  ENODATA: 96,
  EOPNOTSUPP: 102,
} as const satisfies Numbers;

/** Source: FreeBSD sys/sys/errno.h */
export const FREEBSD_ERRNO = { ...BSD, EOPNOTSUPP: 45 } as const satisfies Numbers;

/** The numbers that every supported system defines. */
export type Errno = {
  readonly [name in keyof typeof LINUX_ERRNO & keyof typeof FREEBSD_ERRNO]: number;
};

/** Inverts a table of numbers. */
export function namesOf(numbers: Numbers): ErrnoNames {
  return Object.fromEntries(Object.entries(numbers).map(([name, number]) => [number, name]));
}
