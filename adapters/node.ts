/** Node and Electron: the symbol table of node:ffi, and the calls by node:ffi or koffi. */

// @ts-ignore: Deno's own types have no node:ffi; TypeScript checks this file against Node's
import type * as node from "node:ffi";
import type { Abi } from "../ffi/abi.ts";
import { ACCOUNT } from "../ffi/accounts.ts";
import { builtinModule } from "./host.ts";
import { deniedFfi, loadKoffi, type NodeFfi } from "./koffi.ts";
import { allocate, type Libc, type Memory, NO_ERRNO, noLibrary } from "./libc.ts";

type NodeSymbols = NonNullable<Parameters<typeof node.dlopen>[1]>;

// Signatures that two functions have.
const ofInt = { arguments: ["i32"], return: "i32" } as const;
const ofInts = { arguments: ["i32", "i32"], return: "i32" } as const;
const intoAddress = { arguments: ["i32", "pointer", "pointer"], return: "i32" } as const;
const ofAddress = { arguments: ["i32", "pointer", "u32"], return: "i32" } as const;
// The signatures of the account lookups, by id and by name.
const byId = { arguments: ["u32", "pointer", "pointer", "u64", "pointer"], return: "i32" } as const;
const byName = {
  arguments: ["pointer", "pointer", "pointer", "u64", "pointer"],
  return: "i32",
} as const;

const symbols = {
  // int getsockopt(int fd, int level, int name, void *value, socklen_t *size);
  // Declared as "pointer" and called with bigint, which is Node's fast path: i32 and buffer take 3 × as
  // long. A non-negative int has the same register value in both declarations.
  getsockopt: { arguments: ["pointer", "pointer", "pointer", "pointer", "pointer"], return: "i32" },
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
  geteuid: { arguments: [], return: "u32" },
  // int flock(int fd, int operation);
  flock: ofInts,
} as const satisfies NodeSymbols;

const linuxSymbols = {
  ...symbols,
  // int *__errno_location(void);
  __errno_location: { arguments: [], return: "pointer" },
  // int getpeername(int fd, struct sockaddr *address, socklen_t *size);
  getpeername: intoAddress,
  // int open(const char *path, int flags, ...); variadic, but on Linux x64 and arm64 called like any other
  open: { arguments: ["pointer", "i32"], return: "i32" },
  // ssize_t read(int fd, void *, size_t);
  read: { arguments: ["i32", "pointer", "u64"], return: "i64" },
  // ssize_t readlink(const char *path, char *into, size_t);
  readlink: { arguments: ["pointer", "pointer", "u64"], return: "i64" },
  // ssize_t llistxattr(const char *path, char *names, size_t);
  llistxattr: { arguments: ["pointer", "pointer", "u64"], return: "i64" },
  // int lremovexattr(const char *path, const char *name);
  lremovexattr: { arguments: ["pointer", "pointer"], return: "i32" },
  // int close(int fd);
  close: ofInt,
  // int fstatfs(int fd, struct statfs *);
  fstatfs: { arguments: ["i32", "pointer"], return: "i32" },
  // int poll(struct pollfd *fds, nfds_t count, int timeout);
  poll: { arguments: ["pointer", "u64", "i32"], return: "i32" },
  // int ioctl(int fd, unsigned long request, ...);
  ioctl: { arguments: ["i32", "u64", "pointer"], return: "i32" },
  // long syscall(long number, ...);
  syscall: { arguments: ["i64", "i64", "i64", "i64"], return: "i64" },
  // int epoll_create1(int flags);
  epoll_create1: ofInt,
  // int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event);
  epoll_ctl: { arguments: ["i32", "i32", "i32", "pointer"], return: "i32" },
  // int epoll_wait(int epoll, struct epoll_event *events, int most, int timeout);
  epoll_wait: { arguments: ["i32", "pointer", "i32", "i32"], return: "i32" },
  // int socket(int domain, int type, int protocol);
  socket: { arguments: ["i32", "i32", "i32"], return: "i32" },
  // int bind(int fd, const struct sockaddr *address, socklen_t size);
  bind: ofAddress,
  // int connect(int fd, const struct sockaddr *address, socklen_t size);
  connect: ofAddress,
  // int setsockopt(int fd, int level, int name, const void *value, socklen_t size);
  setsockopt: { arguments: ["i32", "i32", "i32", "pointer", "u32"], return: "i32" },
  // ssize_t recvmsg(int fd, struct msghdr *message, int flags);
  recvmsg: { arguments: ["i32", "pointer", "i32"], return: "i64" },
  // int shutdown(int fd, int how);
  shutdown: ofInts,
  // int fcntl(int fd, int command, ...);
  fcntl: { arguments: ["i32", "i32", "i32"], return: "i32" },
  // ssize_t sendto(int fd, const void *, size_t, int flags, const struct sockaddr *to, socklen_t size);
  sendto: { arguments: ["i32", "pointer", "u64", "i32", "pointer", "u32"], return: "i64" },
} as const satisfies NodeSymbols;

const bsdSymbols = {
  ...symbols,
  // int *__error(void);
  __error: { arguments: [], return: "pointer" },
} as const satisfies NodeSymbols;

type NodeMemory = Memory & { readonly address: bigint };

/**
 * Opens the C library with `node:ffi`, or with `koffi` where Node lacks node:ffi. The default is the
 * library inside this process, which is right on every distribution.
 */
export function openNode(abi: Abi, path: string | null = null): Libc<NodeMemory> {
  const ffi = builtinModule("node:ffi") as NodeFfi | undefined ?? loadKoffi();
  const { errno, linux, ...calls } = load(ffi, abi, path);
  // The failed call is the previous statement: nothing in between can have changed errno.
  const failed = (): number => errno() || NO_ERRNO;
  const orErrno = (result: number | bigint): number => result < 0 ? -failed() : Number(result);
  const memoryAt = ({ bytes, words }: Memory): NodeMemory => ({
    bytes,
    words,
    address: ffi.getRawPointer(bytes.buffer),
  });
  return {
    memory: (size) => memoryAt(allocate(size)),
    getsockopt(fd, level, name, value, size) {
      const result = calls.getsockopt(big(fd), big(level), big(name), value.address, size.address);
      return result === 0 ? 0 : failed();
    },
    getsockname: (fd, address, size) =>
      calls.getsockname(fd, address.address, size.address) === 0 ? 0 : failed(),
    getpwuid_r: (uid, memory) => calls.getpwuid_r(uid, ...parts(memory)),
    getgrgid_r: (gid, memory) => calls.getgrgid_r(gid, ...parts(memory)),
    getpwnam_r: (name, memory) => calls.getpwnam_r(name.address, ...parts(memory)),
    getgrnam_r: (name, memory) => calls.getgrnam_r(name.address, ...parts(memory)),
    geteuid: () => calls.geteuid(),
    flock: (fd, operation) => calls.flock(fd, operation) === 0 ? 0 : failed(),
    linux: linux && {
      getpeername: (fd, address, size) =>
        orErrno(linux.getpeername(fd, address.address, size.address)),
      open: (path, flags) => orErrno(linux.open(path.address, flags)),
      read: (fd, into) => orErrno(linux.read(fd, into.address, big(into.bytes.length))),
      readlink: (path, into) =>
        orErrno(linux.readlink(path.address, into.address, big(into.bytes.length))),
      llistxattr: (path, { address, bytes }) =>
        orErrno(linux.llistxattr(path.address, address, big(bytes.length))),
      lremovexattr: (path, name) => orErrno(linux.lremovexattr(path.address, name.address)),
      close: (fd) => orErrno(linux.close(fd)),
      fstatfs: (fd, into) => orErrno(linux.fstatfs(fd, into.address)),
      poll: (fds) => orErrno(linux.poll(fds.address, 1n, 0)),
      ioctl: (fd, request, argument) => orErrno(linux.ioctl(fd, big(request), argument.address)),
      syscall: (number, first, second, third) =>
        orErrno(linux.syscall(big(number), big(first), big(second), big(third))),
      epoll_create1: (flags) => orErrno(linux.epoll_create1(flags)),
      epoll_ctl: (epoll, operation, fd, event) =>
        orErrno(linux.epoll_ctl(epoll, operation, fd, event.address)),
      epoll_wait: (epoll, events, most) =>
        orErrno(linux.epoll_wait(epoll, events.address, most, 0)),
      socket: (domain, type, protocol) => orErrno(linux.socket(domain, type, protocol)),
      bind: (fd, address, size) => orErrno(linux.bind(fd, address.address, size)),
      connect: (fd, address, size) => orErrno(linux.connect(fd, address.address, size)),
      setsockopt: (fd, level, name, value) =>
        orErrno(linux.setsockopt(fd, level, name, value.address, 4)),
      recvmsg: (fd, message, flags) => orErrno(linux.recvmsg(fd, message.address, flags)),
      shutdown: (fd, how) => orErrno(linux.shutdown(fd, how)),
      fcntl: (fd, command, argument) => orErrno(linux.fcntl(fd, command, argument)),
      sendto: (fd, { address }, length, to, size) =>
        orErrno(linux.sendto(fd, address, big(length), 0, to.address, size)),
      address: ({ address }) => address,
    },
  };
}

function parts({ address, bytes }: NodeMemory): [bigint, bigint, bigint, bigint] {
  const length = BigInt(bytes.length - ACCOUNT.strings);
  return [address + BigInt(ACCOUNT.struct), address + BigInt(ACCOUNT.strings), length, address];
}

/** Small numbers as bigint, converted once: converting each time takes a tenth of a lookup. */
const BIG: readonly bigint[] = Array.from({ length: 1024 }, (_, number) => BigInt(number));
function big(number: number): bigint {
  return BIG[number] ?? BigInt(number);
}

function load(ffi: NodeFfi, abi: Abi, path: string | null) {
  /** Returns a function that reads errno at its address. */
  const reader = (address: bigint | null) => {
    if (!address) throw new Error("it has no address for errno");
    const view = new Int32Array(ffi.toArrayBuffer?.(address, 4, false) ?? []);
    return ffi.errno ?? (() => view[0]!);
  };
  try {
    if (abi.os === "linux") {
      const calls = ffi.dlopen(path, linuxSymbols).functions;
      return { ...calls, linux: calls, errno: reader(calls.__errno_location()) };
    }
    const calls = ffi.dlopen(path, bsdSymbols).functions;
    return { ...calls, linux: undefined, errno: reader(calls.__error()) };
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && cause.code === "ERR_ACCESS_DENIED") {
      throw deniedFfi("--allow-ffi", cause);
    }
    throw noLibrary([path ?? "the process image"], cause);
  }
}
