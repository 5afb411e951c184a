/** The interface of every adapter: memory that C can write to, and the calls, spelled as in C. */

import { UcredError } from "../core/errors.ts";
import type { Abi } from "../ffi/abi.ts";
import { ACCOUNT } from "../ffi/accounts.ts";

/**
 * Memory that outlives the calls it is passed to. It is allocated once and reused, because a fresh
 * buffer per call costs two to five times the call itself.
 */
export interface Memory {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The same memory as 32-bit words in host byte order. */
  readonly words: Uint32Array<ArrayBuffer>;
}

/**
 * The C library through one runtime's FFI. `M` is that runtime's memory.
 *
 * Every call is synchronous. A call that can fail returns 0 on success and its errno on failure, or
 * {@link NO_ERRNO} if it failed without setting errno. {@link LinuxCalls} have another convention.
 */
export interface Libc<M extends Memory = Memory> {
  /** Allocates at least `size` bytes, zeroed and rounded up to a multiple of 8. */
  memory(size: number): M;
  /** `int getsockopt(int fd, int level, int name, void *value, socklen_t *size)` */
  getsockopt(fd: number, level: number, name: number, value: M, size: M): number;
  /** `int getsockname(int fd, struct sockaddr *address, socklen_t *size)` */
  getsockname(fd: number, address: M, size: M): number;
  /** `getpwuid_r(3)` into memory divided by `ACCOUNT`; returns the error number itself. */
  getpwuid_r(uid: number, memory: M): number;
  /** `getgrgid_r(3)` into memory divided by `ACCOUNT`; returns the error number itself. */
  getgrgid_r(gid: number, memory: M): number;
  /** `getpwnam_r(3)` into memory divided by `ACCOUNT`; the name ends in NUL. */
  getpwnam_r(name: M, memory: M): number;
  /** `getgrnam_r(3)` into memory divided by `ACCOUNT`; the name ends in NUL. */
  getgrnam_r(name: M, memory: M): number;
  /** `uid_t geteuid(void)` */
  geteuid(): number;
  /** `int flock(int fd, int operation)` */
  flock(fd: number, operation: number): number;
  /** Calls that are used on Linux only. */
  readonly linux: LinuxCalls<M> | undefined;
}

/**
 * Calls that only Linux has, or that ucred needs only there. Each returns the result of the C
 * function, or −errno.
 */
export interface LinuxCalls<M extends Memory = Memory> {
  /** `int getpeername(int fd, struct sockaddr *address, socklen_t *size)` */
  getpeername(fd: number, address: M, size: M): number;
  /** `int open(const char *path, int flags)` */
  open(path: M, flags: number): number;
  /** `ssize_t read(int fd, void *into, size_t)`, at most the size of `into` */
  read(fd: number, into: M): number;
  /** `ssize_t readlink(const char *path, char *into, size_t)`, at most the size of `into` */
  readlink(path: M, into: M): number;
  /** `ssize_t llistxattr(const char *path, char *names, size_t)`, at most the size of `names` */
  llistxattr(path: M, names: M): number;
  /** `int lremovexattr(const char *path, const char *name)` */
  lremovexattr(path: M, name: M): number;
  /** `int close(int fd)` */
  close(fd: number): number;
  /** `int fstatfs(int fd, struct statfs *into)` */
  fstatfs(fd: number, into: M): number;
  /** `int poll(struct pollfd *fds, nfds_t 1, int 0)`: one descriptor, without waiting */
  poll(fds: M): number;
  /** `int ioctl(int fd, unsigned long request, void *argument)` */
  ioctl(fd: number, request: number, argument: M): number;
  /**
   * `long syscall(long number, …)` with three integers: for system calls that some C libraries lack, and
   * for those that the C library applies to all threads
   */
  syscall(number: number, first: number, second: number, third: number): number;
  /** `int epoll_create1(int flags)` */
  epoll_create1(flags: number): number;
  /** `int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)` */
  epoll_ctl(epoll: number, operation: number, fd: number, event: M): number;
  /** `int epoll_wait(int epoll, struct epoll_event *events, int most, int 0)`, without waiting */
  epoll_wait(epoll: number, events: M, most: number): number;
  /** `int socket(int domain, int type, int protocol)` */
  socket(domain: number, type: number, protocol: number): number;
  /** `int bind(int fd, const struct sockaddr *address, socklen_t size)` */
  bind(fd: number, address: M, size: number): number;
  /** `int connect(int fd, const struct sockaddr *address, socklen_t size)` */
  connect(fd: number, address: M, size: number): number;
  /** `int setsockopt(int fd, int level, int name, const int *value, socklen_t 4)` */
  setsockopt(fd: number, level: number, name: number, value: M): number;
  /** `ssize_t recvmsg(int fd, struct msghdr *message, int flags)` */
  recvmsg(fd: number, message: M, flags: number): number;
  /** `int shutdown(int fd, int how)` */
  shutdown(fd: number, how: number): number;
  /** `int fcntl(int fd, int command, int argument)` */
  fcntl(fd: number, command: number, argument: number): number;
  /** `ssize_t sendto(int fd, const void *data, size_t length, int 0, const struct sockaddr *to, socklen_t size)` */
  sendto(fd: number, data: M, length: number, to: M, size: number): number;
  /**
   * Returns the address of memory, for structures that point to it. Valid while the memory is
   * referenced.
   */
  address(memory: M): bigint;
}

/** Stands for a failure without an errno, which must not count as success. */
export const NO_ERRNO = 0x7fffffff;

/** Opens the C library of `abi`, or the library at `path` instead (for tests). */
export type OpenLibc = (abi: Abi, path?: string) => Libc;

/** Allocates memory in the form that all adapters share. */
export function allocate(size: number): Memory {
  // The buffer is an explicit ArrayBuffer, which never moves. The garbage collector moves a small typed
  // array that was created by length, and a pointer to it becomes stale (oven-sh/bun PR 32055).
  const buffer = new ArrayBuffer(Math.ceil(size / 8) * 8);
  return { bytes: new Uint8Array(buffer), words: new Uint32Array(buffer) };
}

/** Copies bytes, or the UTF-8 bytes of a string, into new memory and appends a NUL. */
export function memoryOf<M extends Memory>(libc: Libc<M>, content: Uint8Array | string): M {
  const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
  const memory = libc.memory(bytes.length + 1);
  memory.bytes.set(bytes);
  return memory;
}

/** Memory for account lookups on runtimes that pass pointers as views; the views are made once. */
export interface DividedMemory extends Memory {
  readonly struct: Uint8Array<ArrayBuffer>;
  readonly strings: Uint8Array<ArrayBuffer>;
}

/** Allocates memory divided by `ACCOUNT`. */
export function allocateDivided(size: number): DividedMemory {
  const memory = allocate(size);
  const part = (start: number) => memory.bytes.subarray(Math.min(start, size));
  return { ...memory, struct: part(ACCOUNT.struct), strings: part(ACCOUNT.strings) };
}

/** Builds the error for a C library that cannot be opened or lacks a function. */
export function noLibrary(paths: readonly string[], cause: unknown): UcredError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new UcredError("ERR_UCRED_UNSUPPORTED", `Cannot open the C library: ${why}`, {
    hint: `Check that one of these is readable: ${paths.join(", ")}`,
    cause,
  });
}
