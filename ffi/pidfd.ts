/** Linux: pidfds and the calls that wait on them, as the kernel's headers define them. */

import type { ProcessIds } from "../core/peer.ts";
import { LITTLE_ENDIAN } from "./abi.ts";

/**
 * `pidfd_open(2)`: 434 on every CPU here, since all numbers after 402 are common. <asm/unistd.h>
 */
export const SYS_PIDFD_OPEN = 434;

/** `_IOWR(0xFF, 11, struct pidfd_info)` for the first 64 bytes, <linux/pidfd.h>; Linux 6.13. */
export const PIDFD_GET_INFO = 0xc040ff0b;

/** `struct pidfd_info`, <linux/pidfd.h>: its first version. Every id is 32 bits wide. */
export const PIDFD_INFO = {
  size: 64, //  bytes
  mask: 0, //   u64: the requested parts, and then the returned ones
  tgid: 20, //  the process, also if the pidfd refers to one of its threads
  ruid: 28,
  rgid: 32,
  euid: 36,
  egid: 40,
  suid: 44,
  sgid: 48,
  fsuid: 52,
  fsgid: 56,
} as const;

/** `PIDFD_INFO_CREDS`: without this bit in the answer its ids are 0, which is root. */
const PIDFD_INFO_CREDS = 2;

/** `PIDFD_INFO_PID`: the answer has the process's pids. */
const PIDFD_INFO_PID = 1;

/** The word of the mask that contains the bits above. */
const MASK = PIDFD_INFO.mask / 4 + (LITTLE_ENDIAN ? 0 : 1);

/** Decodes the pid in our pid namespace; `undefined` if PIDFD_GET_INFO did not report it. */
export function decodePidfdPid(words: Uint32Array): number | undefined {
  const pid = words[PIDFD_INFO.tgid / 4]! | 0;
  return (words[MASK]! & PIDFD_INFO_PID) !== 0 && pid > 0 ? pid : undefined;
}

/** Decodes the ids; `undefined` if PIDFD_GET_INFO did not report them. */
export function decodePidfdIds(words: Uint32Array): ProcessIds | undefined {
  if ((words[MASK]! & PIDFD_INFO_CREDS) === 0) return undefined;
  const { ruid, euid, suid, fsuid, rgid, egid, sgid, fsgid } = PIDFD_INFO;
  return {
    ruid: words[ruid / 4]!,
    euid: words[euid / 4]!,
    suid: words[suid / 4]!,
    fsuid: words[fsuid / 4]!,
    rgid: words[rgid / 4]!,
    egid: words[egid / 4]!,
    sgid: words[sgid / 4]!,
    fsgid: words[fsgid / 4]!,
  };
}

/** Encodes the requested parts as the mask's two words. */
export function pidfdRequest(): readonly [number, number] {
  const parts = PIDFD_INFO_CREDS | PIDFD_INFO_PID;
  return LITTLE_ENDIAN ? [parts, 0] : [0, parts];
}

/**
 * `struct statfs`, <sys/statfs.h>: at most 120 bytes; the first 32 bits are the file system's type.
 */
export const STATFS = { size: 120, type: 0 } as const;

/** `PIDFS_MAGIC`, <linux/magic.h>: the file system of pidfds since Linux 6.9, with one inode per process. */
export const PIDFS_MAGIC = 0x50494446;

/** `struct pollfd`, <poll.h>: descriptor, then two shorts. */
export const POLLFD = { size: 8, fd: 0, events: 4, revents: 6 } as const;

/** `POLLIN`, `EPOLLIN`: a pidfd is readable from the moment that its process is a zombie. */
export const POLLIN = 1;

/** `POLLHUP`: both directions of a socket are closed. */
export const POLLHUP = 0x10;

/** `POLLNVAL`: the descriptor is not open. */
export const POLLNVAL = 0x20;

/** `EPOLL_CTL_ADD`, `EPOLL_CTL_DEL`, `EPOLL_CTL_MOD`, <sys/epoll.h> */
export const EPOLL_CTL = { add: 1, del: 2, modify: 3 } as const;

/**
 * `struct epoll_event`, <sys/epoll.h>: u32 events, then a u64 that the kernel returns unchanged.
 */
export interface EpollEvent {
  readonly size: number;
  readonly data: number;
}

/** Returns the layout of the structure, which is packed on x86-64 only. */
export function epollEvent(cpu: string): EpollEvent {
  return cpu === "x64" ? { size: 12, data: 4 } : { size: 16, data: 8 };
}
