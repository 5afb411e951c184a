/** Bun: bun:ffi, its symbol table, and the calls. */

import type * as bun from "bun:ffi";
import { UcredError } from "../core/errors.ts";
import type { Abi } from "../ffi/abi.ts";
import { builtinModule } from "./host.ts";
import { allocateDivided, type DividedMemory, type Libc, NO_ERRNO, noLibrary } from "./libc.ts";

type BunSymbols = Parameters<typeof bun.dlopen>[1];

// Signatures that two functions have.
const ofInt = { args: ["i32"], returns: "i32" } as const;
const ofInts = { args: ["i32", "i32"], returns: "i32" } as const;
const intoAddress = { args: ["i32", "buffer", "buffer"], returns: "i32" } as const;
const ofAddress = { args: ["i32", "buffer", "u32"], returns: "i32" } as const;
// The signatures of the account lookups, by id and by name.
const byId = { args: ["u32", "buffer", "buffer", "usize", "buffer"], returns: "i32" } as const;
const byName = { args: ["buffer", "buffer", "buffer", "usize", "buffer"], returns: "i32" } as const;

// The "buffer" type takes the address at the call. A pointer from ptr() becomes stale when the
// array moves, and the call then reports old credentials (oven-sh/bun PR 32055).
const symbols = {
  // int getsockopt(int fd, int level, int name, void *value, socklen_t *size);
  getsockopt: { args: ["i32", "i32", "i32", "buffer", "buffer"], returns: "i32" },
  // int getsockname(int fd, struct sockaddr *address, socklen_t *size);
  getsockname: intoAddress,
  // int getpwuid_r(uid_t, struct passwd *, char *strings, size_t, struct passwd **result);
  getpwuid_r: byId,
  // int getgrgid_r(gid_t, struct group *, char *strings, size_t, struct group **result);
  getgrgid_r: byId,
  // int getpwnam_r(const char *, struct passwd *, char *strings, size_t, struct passwd **result);
  getpwnam_r: byName,
  // int getgrnam_r(const char *, struct group *, char *strings, size_t, struct group **result);
  getgrnam_r: byName,
  // uid_t geteuid(void);
  geteuid: { args: [], returns: "u32" },
  // int flock(int fd, int operation);
  flock: ofInts,
} as const satisfies BunSymbols;

const linuxSymbols = {
  ...symbols,
  // int *__errno_location(void);
  __errno_location: { args: [], returns: "ptr" },
  // int getpeername(int fd, struct sockaddr *address, socklen_t *size);
  getpeername: intoAddress,
  // int open(const char *path, int flags, ...); variadic, but on Linux x64 and arm64 called like any other
  open: { args: ["buffer", "i32"], returns: "i32" },
  // ssize_t read(int fd, void *, size_t);
  read: { args: ["i32", "buffer", "usize"], returns: "i64" },
  // ssize_t readlink(const char *path, char *into, size_t);
  readlink: { args: ["buffer", "buffer", "usize"], returns: "i64" },
  // ssize_t llistxattr(const char *path, char *names, size_t);
  llistxattr: { args: ["buffer", "buffer", "usize"], returns: "i64" },
  // int lremovexattr(const char *path, const char *name);
  lremovexattr: { args: ["buffer", "buffer"], returns: "i32" },
  // int close(int fd);
  close: ofInt,
  // int fstatfs(int fd, struct statfs *);
  fstatfs: { args: ["i32", "buffer"], returns: "i32" },
  // int poll(struct pollfd *fds, nfds_t count, int timeout);
  poll: { args: ["buffer", "usize", "i32"], returns: "i32" },
  // int ioctl(int fd, unsigned long request, ...);
  ioctl: { args: ["i32", "usize", "buffer"], returns: "i32" },
  // long syscall(long number, ...);
  syscall: { args: ["i64", "i64", "i64", "i64"], returns: "i64" },
  // int epoll_create1(int flags);
  epoll_create1: ofInt,
  // int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event);
  epoll_ctl: { args: ["i32", "i32", "i32", "buffer"], returns: "i32" },
  // int epoll_wait(int epoll, struct epoll_event *events, int most, int timeout);
  epoll_wait: { args: ["i32", "buffer", "i32", "i32"], returns: "i32" },
  // int socket(int domain, int type, int protocol);
  socket: { args: ["i32", "i32", "i32"], returns: "i32" },
  // int bind(int fd, const struct sockaddr *address, socklen_t size);
  bind: ofAddress,
  // int connect(int fd, const struct sockaddr *address, socklen_t size);
  connect: ofAddress,
  // int setsockopt(int fd, int level, int name, const void *value, socklen_t size);
  setsockopt: { args: ["i32", "i32", "i32", "buffer", "u32"], returns: "i32" },
  // ssize_t recvmsg(int fd, struct msghdr *message, int flags);
  recvmsg: { args: ["i32", "buffer", "i32"], returns: "i64" },
  // int shutdown(int fd, int how);
  shutdown: ofInts,
  // int fcntl(int fd, int command, ...);
  fcntl: { args: ["i32", "i32", "i32"], returns: "i32" },
  // ssize_t sendto(int fd, const void *, size_t, int flags, const struct sockaddr *to, socklen_t size);
  sendto: { args: ["i32", "buffer", "usize", "i32", "buffer", "u32"], returns: "i64" },
} as const satisfies BunSymbols;

const bsdSymbols = {
  ...symbols,
  // int *__error(void);
  __error: { args: [], returns: "ptr" },
} as const satisfies BunSymbols;

/** Opens the C library with `bun:ffi`. */
export function openBun(abi: Abi, path: string = abi.libraryName): Libc<DividedMemory> {
  const ffi = builtinModule("bun:ffi") as typeof bun | undefined;
  if (ffi === undefined) {
    throw new UcredError("ERR_UCRED_UNSUPPORTED", "Cannot call libc: this Bun has no bun:ffi", {
      hint: "Use Bun 1.4 or later",
    });
  }
  const { errno, linux, ...calls } = load(ffi, abi, path);
  // The failed call is the previous statement: nothing in between can have changed errno.
  const failed = (): number => errno[0] || NO_ERRNO;
  const orErrno = (result: number | bigint): number => result < 0 ? -failed() : Number(result);
  return {
    memory: allocateDivided,
    getsockopt: (fd, level, name, value, size) =>
      calls.getsockopt(fd, level, name, value.bytes, size.bytes) === 0 ? 0 : failed(),
    getsockname: (fd, address, size) =>
      calls.getsockname(fd, address.bytes, size.bytes) === 0 ? 0 : failed(),
    getpwuid_r: (uid, memory) => calls.getpwuid_r(uid, ...parts(memory)),
    getgrgid_r: (gid, memory) => calls.getgrgid_r(gid, ...parts(memory)),
    getpwnam_r: (name, memory) => calls.getpwnam_r(name.bytes, ...parts(memory)),
    getgrnam_r: (name, memory) => calls.getgrnam_r(name.bytes, ...parts(memory)),
    geteuid: () => calls.geteuid(),
    flock: (fd, operation) => calls.flock(fd, operation) === 0 ? 0 : failed(),
    linux: linux && {
      getpeername: (fd, address, size) => orErrno(linux.getpeername(fd, address.bytes, size.bytes)),
      open: (path, flags) => orErrno(linux.open(path.bytes, flags)),
      read: (fd, { bytes }) => orErrno(linux.read(fd, bytes, bytes.length)),
      readlink: (path, into) => orErrno(linux.readlink(path.bytes, into.bytes, into.bytes.length)),
      llistxattr: (path, { bytes }) => orErrno(linux.llistxattr(path.bytes, bytes, bytes.length)),
      lremovexattr: (path, name) => orErrno(linux.lremovexattr(path.bytes, name.bytes)),
      close: (fd) => orErrno(linux.close(fd)),
      fstatfs: (fd, into) => orErrno(linux.fstatfs(fd, into.bytes)),
      poll: (fds) => orErrno(linux.poll(fds.bytes, 1, 0)),
      ioctl: (fd, request, argument) => orErrno(linux.ioctl(fd, request, argument.bytes)),
      syscall: (number, first, second, third) =>
        orErrno(linux.syscall(number, first, second, third)),
      epoll_create1: (flags) => orErrno(linux.epoll_create1(flags)),
      epoll_ctl: (epoll, operation, fd, event) =>
        orErrno(linux.epoll_ctl(epoll, operation, fd, event.bytes)),
      epoll_wait: (epoll, events, most) => orErrno(linux.epoll_wait(epoll, events.bytes, most, 0)),
      socket: (domain, type, protocol) => orErrno(linux.socket(domain, type, protocol)),
      bind: (fd, address, size) => orErrno(linux.bind(fd, address.bytes, size)),
      connect: (fd, address, size) => orErrno(linux.connect(fd, address.bytes, size)),
      setsockopt: (fd, level, name, value) =>
        orErrno(linux.setsockopt(fd, level, name, value.bytes, 4)),
      recvmsg: (fd, message, flags) => orErrno(linux.recvmsg(fd, message.bytes, flags)),
      shutdown: (fd, how) => orErrno(linux.shutdown(fd, how)),
      fcntl: (fd, command, argument) => orErrno(linux.fcntl(fd, command, argument)),
      sendto: (fd, { bytes }, length, to, size) =>
        orErrno(linux.sendto(fd, bytes, length, 0, to.bytes, size)),
      address: ({ bytes }) => BigInt(ffi.ptr(bytes.buffer)),
    },
  };
}

function parts({ bytes, struct, strings }: DividedMemory) {
  return [struct, strings, strings.length, bytes] as const;
}

function load(ffi: typeof bun, abi: Abi, path: string) {
  const view = (address: bun.Pointer | bigint | null) => {
    if (address === null) throw noLibrary([path], "it has no address for errno");
    return new Int32Array(ffi.toArrayBuffer(address, 0, 4)); // not a copy
  };
  try {
    if (abi.os === "linux") {
      const calls = ffi.dlopen(path, linuxSymbols).symbols;
      return { ...calls, linux: calls, errno: view(calls.__errno_location()) };
    }
    const calls = ffi.dlopen(path, bsdSymbols).symbols;
    return { ...calls, linux: undefined, errno: view(calls.__error()) };
  } catch (cause) {
    throw noLibrary([path], cause);
  }
}
