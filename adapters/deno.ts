/** Deno: Deno.dlopen, its symbol table, and the calls. */

import { UcredError } from "../core/errors.ts";
import type { Abi } from "../ffi/abi.ts";
import {
  allocate,
  allocateDivided,
  type DividedMemory,
  type Libc,
  NO_ERRNO,
  noLibrary,
} from "./libc.ts";

// Signatures that two functions have.
const ofInt = { parameters: ["i32"], result: "i32" } as const;
const ofInts = { parameters: ["i32", "i32"], result: "i32" } as const;
const intoAddress = { parameters: ["i32", "buffer", "buffer"], result: "i32" } as const;
const ofAddress = { parameters: ["i32", "buffer", "u32"], result: "i32" } as const;
// The signatures of the account lookups, by id and by name.
const byId = { parameters: ["u32", "buffer", "buffer", "usize", "buffer"], result: "i32" } as const;
const byName = {
  parameters: ["buffer", "buffer", "buffer", "usize", "buffer"],
  result: "i32",
} as const;

const symbols = {
  // int getsockopt(int fd, int level, int name, void *value, socklen_t *size);
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
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
  geteuid: { parameters: [], result: "u32" },
  // int flock(int fd, int operation);
  flock: ofInts,
  // void *memcpy(void *to, const void *from, size_t);
  memcpy: { parameters: ["buffer", "usize", "usize"], result: "pointer" },
} as const satisfies Deno.ForeignLibraryInterface;

const linuxSymbols = {
  ...symbols,
  // int *__errno_location(void);
  errno: { name: "__errno_location", parameters: [], result: "usize" },
  // int getpeername(int fd, struct sockaddr *address, socklen_t *size);
  getpeername: intoAddress,
  // int open(const char *path, int flags, ...); variadic, but on Linux x64 and arm64 called like any other
  open: { parameters: ["buffer", "i32"], result: "i32" },
  // ssize_t read(int fd, void *, size_t);
  read: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  // ssize_t readlink(const char *path, char *into, size_t);
  readlink: { parameters: ["buffer", "buffer", "usize"], result: "isize" },
  // ssize_t llistxattr(const char *path, char *names, size_t);
  llistxattr: { parameters: ["buffer", "buffer", "usize"], result: "isize" },
  // int lremovexattr(const char *path, const char *name);
  lremovexattr: { parameters: ["buffer", "buffer"], result: "i32" },
  // int close(int fd);
  close: ofInt,
  // int fstatfs(int fd, struct statfs *);
  fstatfs: { parameters: ["i32", "buffer"], result: "i32" },
  // int poll(struct pollfd *fds, nfds_t count, int timeout);
  poll: { parameters: ["buffer", "usize", "i32"], result: "i32" },
  // int ioctl(int fd, unsigned long request, ...);
  ioctl: { parameters: ["i32", "usize", "buffer"], result: "i32" },
  // long syscall(long number, ...);
  syscall: { parameters: ["isize", "isize", "isize", "isize"], result: "isize" },
  // int epoll_create1(int flags);
  epoll_create1: ofInt,
  // int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event);
  epoll_ctl: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
  // int epoll_wait(int epoll, struct epoll_event *events, int most, int timeout);
  epoll_wait: { parameters: ["i32", "buffer", "i32", "i32"], result: "i32" },
  // int socket(int domain, int type, int protocol);
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  // int bind(int fd, const struct sockaddr *address, socklen_t size);
  bind: ofAddress,
  // int connect(int fd, const struct sockaddr *address, socklen_t size);
  connect: ofAddress,
  // int setsockopt(int fd, int level, int name, const void *value, socklen_t size);
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  // ssize_t recvmsg(int fd, struct msghdr *message, int flags);
  recvmsg: { parameters: ["i32", "buffer", "i32"], result: "isize" },
  // int shutdown(int fd, int how);
  shutdown: ofInts,
  // int fcntl(int fd, int command, ...);
  fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
  // ssize_t sendto(int fd, const void *, size_t, int flags, const struct sockaddr *to, socklen_t size);
  sendto: { parameters: ["i32", "buffer", "usize", "i32", "buffer", "u32"], result: "isize" },
  // void *memcpy(void *to, const void *from, size_t); copies no bytes, and returns the address of `to`
  address: { name: "memcpy", parameters: ["buffer", "buffer", "usize"], result: "usize" },
} as const satisfies Deno.ForeignLibraryInterface;

const bsdSymbols = {
  ...symbols,
  // int *__error(void);
  errno: { name: "__error", parameters: [], result: "usize" },
} as const satisfies Deno.ForeignLibraryInterface;

/** Opens the C library with `Deno.dlopen`. */
export function openDeno(abi: Abi, path?: string): Libc<DividedMemory> {
  const { calls, linux } = load(abi, path === undefined ? candidates(abi) : [path]);
  const errnoAddress = calls.errno(); // constant for the life of this thread
  const errno = allocate(8);
  // memcpy, since a path-scoped --allow-ffi denies UnsafePointerView (denoland/deno 15511).
  const failed = (): number => {
    calls.memcpy(errno.bytes, errnoAddress, 4n);
    return errno.words[0] || NO_ERRNO;
  };
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
      read: (fd, { bytes }) => orErrno(linux.read(fd, bytes, BigInt(bytes.length))),
      readlink: (path, into) =>
        orErrno(linux.readlink(path.bytes, into.bytes, BigInt(into.bytes.length))),
      llistxattr: (path, { bytes }) =>
        orErrno(linux.llistxattr(path.bytes, bytes, BigInt(bytes.length))),
      lremovexattr: (path, name) => orErrno(linux.lremovexattr(path.bytes, name.bytes)),
      close: (fd) => orErrno(linux.close(fd)),
      fstatfs: (fd, into) => orErrno(linux.fstatfs(fd, into.bytes)),
      poll: (fds) => orErrno(linux.poll(fds.bytes, 1n, 0)),
      ioctl: (fd, request, argument) => orErrno(linux.ioctl(fd, BigInt(request), argument.bytes)),
      syscall: (number, first, second, third) =>
        orErrno(
          linux.syscall(BigInt(number), BigInt(first), BigInt(second), BigInt(third)),
        ),
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
        orErrno(linux.sendto(fd, bytes, BigInt(length), 0, to.bytes, size)),
      address: ({ bytes }) => linux.address(bytes, bytes, 0n),
    },
  };
}

function parts({ bytes, struct, strings }: DividedMemory) {
  return [struct, strings, BigInt(strings.length), bytes] as const;
}

function load(abi: Abi, paths: readonly string[]) {
  let cause: unknown;
  for (const path of paths) {
    try {
      if (abi.os !== "linux") return { calls: Deno.dlopen(path, bsdSymbols).symbols };
      const calls = Deno.dlopen(path, linuxSymbols).symbols;
      return { calls, linux: calls };
    } catch (error) {
      cause = error;
      if (error instanceof Deno.errors.NotCapable) break;
    }
  }
  const { state } = Deno.permissions.querySync({ name: "ffi" });
  const named = paths.length === 1 && !abi.libraryPaths.includes(paths[0]!); // set by a test
  if (state === "granted" || named) throw noLibrary(paths, cause);
  // FFI is denied, or the granted path does not exist on this system.
  const flag = `--allow-ffi=${existing(pathsOf(abi)).join(",")}`;
  throw new UcredError("ERR_UCRED_PERMISSION", "Cannot call libc: Deno denies FFI", {
    hint: state === "denied"
      ? `Run Deno without --deny-ffi, with ${flag}`
      : `Run Deno with ${flag}`,
    cause,
  });
}

/**
 * Returns the paths to try. A name without a folder finds the library that the process already uses, but
 * requires `--allow-ffi` without a path. Otherwise only the granted paths are tried; if none is granted, all
 * are tried, and Deno prompts for them or denies them.
 */
function candidates(abi: Abi): readonly string[] {
  if (Deno.permissions.querySync({ name: "ffi" }).state === "granted") {
    return [abi.libraryName, ...pathsOf(abi)];
  }
  const paths = pathsOf(abi);
  const granted = paths.filter((path) =>
    Deno.permissions.querySync({ name: "ffi", path }).state === "granted"
  );
  return granted.length > 0 ? granted : paths;
}

/** Selects glibc or musl: a process of one must not load the other on a system with both. */
function pathsOf(abi: Abi): readonly string[] {
  const musl = (Deno.build.env ?? "").startsWith("musl");
  return abi.os === "linux"
    ? abi.libraryPaths.filter((path) => path.includes("musl") === musl)
    : abi.libraryPaths;
}

/**
 * Returns the first path that exists and that we may read. If there is none, returns all distinct paths,
 * since one of them exists.
 */
function existing(paths: readonly string[]): readonly string[] {
  // "/usr/lib/…" is the same file as "/lib/…" since distributions merged /usr.
  const found = paths.find((path) => {
    try {
      return Deno.permissions.querySync({ name: "read", path }).state === "granted" &&
        Deno.statSync(path).isFile;
    } catch {
      return false; // the file does not exist
    }
  });
  return found === undefined
    ? paths.filter((path) => !paths.includes(path.slice("/usr".length)))
    : [found];
}
