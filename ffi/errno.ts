/** Error numbers and their names, as each system's header gives them. */

/** Names by number. Where two names share a number, the one that sockets and files use. */
export type ErrnoNames = { readonly [errno: number]: string };

/** POSIX's oldest, equal on every system here. Source: <asm-generic/errno-base.h>, <sys/errno.h> */
const COMMON: ErrnoNames = {
  1: "EPERM",
  2: "ENOENT",
  3: "ESRCH",
  4: "EINTR",
  5: "EIO",
  6: "ENXIO",
  7: "E2BIG",
  9: "EBADF",
  12: "ENOMEM",
  13: "EACCES",
  14: "EFAULT",
  16: "EBUSY",
  17: "EEXIST",
  19: "ENODEV",
  20: "ENOTDIR",
  21: "EISDIR",
  22: "EINVAL",
  23: "ENFILE",
  24: "EMFILE",
  25: "ENOTTY",
  27: "EFBIG",
  28: "ENOSPC",
  29: "ESPIPE",
  30: "EROFS",
  32: "EPIPE",
  34: "ERANGE",
};

/** Source: <asm-generic/errno.h>; powerpc differs only in EDEADLOCK. */
export const LINUX_ERRNO: ErrnoNames = {
  ...COMMON,
  11: "EAGAIN",
  35: "EDEADLK",
  36: "ENAMETOOLONG",
  38: "ENOSYS",
  40: "ELOOP",
  61: "ENODATA",
  71: "EPROTO",
  75: "EOVERFLOW",
  88: "ENOTSOCK",
  89: "EDESTADDRREQ",
  90: "EMSGSIZE",
  91: "EPROTOTYPE",
  92: "ENOPROTOOPT",
  93: "EPROTONOSUPPORT",
  95: "EOPNOTSUPP",
  97: "EAFNOSUPPORT",
  98: "EADDRINUSE",
  99: "EADDRNOTAVAIL",
  103: "ECONNABORTED",
  104: "ECONNRESET",
  105: "ENOBUFS",
  106: "EISCONN",
  107: "ENOTCONN",
  108: "ESHUTDOWN",
  110: "ETIMEDOUT",
  111: "ECONNREFUSED",
};

/** Source: <sys/errno.h> of xnu and FreeBSD, where they agree. */
const BSD: ErrnoNames = {
  ...COMMON,
  11: "EDEADLK",
  35: "EAGAIN",
  38: "ENOTSOCK",
  39: "EDESTADDRREQ",
  40: "EMSGSIZE",
  41: "EPROTOTYPE",
  42: "ENOPROTOOPT",
  43: "EPROTONOSUPPORT",
  47: "EAFNOSUPPORT",
  48: "EADDRINUSE",
  49: "EADDRNOTAVAIL",
  53: "ECONNABORTED",
  54: "ECONNRESET",
  55: "ENOBUFS",
  56: "EISCONN",
  57: "ENOTCONN",
  58: "ESHUTDOWN",
  60: "ETIMEDOUT",
  61: "ECONNREFUSED",
  62: "ELOOP",
  63: "ENAMETOOLONG",
  78: "ENOSYS",
  84: "EOVERFLOW",
};

/** Source: xnu bsd/sys/errno.h */
export const DARWIN_ERRNO: ErrnoNames = { ...BSD, 45: "ENOTSUP", 96: "ENODATA", 102: "EOPNOTSUPP" };

/** Source: FreeBSD sys/sys/errno.h */
export const FREEBSD_ERRNO: ErrnoNames = { ...BSD, 45: "EOPNOTSUPP" };
