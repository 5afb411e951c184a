/** macOS and FreeBSD: socket options, struct xucred and audit_token_t, as their headers define them. */

import { type Credentials, credentials, NO_ID } from "../core/credentials.ts";

/** Level and options of local sockets. */
export const BSD_OPTIONS = {
  SOL_SOCKET: 0xffff, // <sys/socket.h>, both
  SO_ACCEPTCONN: 0x2, // <sys/socket.h>, both
  SOL_LOCAL: 0, // <sys/un.h>, both
  LOCAL_PEERCRED: 1, // <sys/un.h>, both: as of connect
  // Not LOCAL_PEERPID (2): it reports the last accessor's pid without the ids of that process.
  LOCAL_PEERTOKEN: 6, // macOS <sys/un.h>: the socket's last accessor, now
} as const;

/** `struct xucred`, <sys/ucred.h>. Only FreeBSD has `cr_pid`, since version 13. */
export const XUCRED = {
  darwinSize: 76, // bytes
  freebsdSize: 88, // bytes, LP64
  version: 0, //   u_int, must be XUCRED_VERSION, 0
  uid: 4, //       uid_t, the effective one
  ngroups: 8, //   short
  groups: 12, //   gid_t[16], the first is the effective gid
  maxGroups: 16,
  pid: 80, //      pid_t on FreeBSD, in a union as wide as a pointer: 0 = unknown
} as const;

/** The contents of a `struct xucred`. */
export interface Xucred {
  readonly credentials: Credentials;
  /**
   * Effective gid first, then the supplementary groups. `undefined` if the list may be truncated.
   */
  readonly groups: readonly number[] | undefined;
}

/**
 * Decodes a `struct xucred`.
 *
 * @param words The structure in host byte order, {@link XUCRED}.darwinSize or .freebsdSize bytes.
 * @returns `undefined` if it has another version or names no peer.
 */
export function decodeXucred(words: Uint32Array): Xucred | undefined {
  const ngroups = new Int16Array(words.buffer, words.byteOffset + XUCRED.ngroups, 1)[0]!;
  if (words[XUCRED.version / 4] !== 0 || ngroups < 1 || ngroups > XUCRED.maxGroups) {
    return undefined;
  }
  const groups = [...words.subarray(XUCRED.groups / 4, XUCRED.groups / 4 + ngroups)];
  const pid = words[XUCRED.pid / 4]! | 0; // 0 on macOS, where the structure ends before it
  const found = credentials(pid, words[XUCRED.uid / 4]!, groups[0]!);
  if (found === undefined || groups.includes(NO_ID)) return undefined;
  return { credentials: found, groups: ngroups < XUCRED.maxGroups ? groups : undefined };
}

/** `audit_token_t`, macOS <bsm/audit.h>: eight 32-bit words. */
export const AUDIT_TOKEN = {
  size: 32, // bytes
  euid: 4,
  egid: 8,
  pid: 20,
} as const;

/**
 * Decodes the pid of an audit token, if the token has the same uid and gid as the credentials.
 *
 * The token names the socket's *last accessor*, the credentials name the process that connected. If
 * the socket was passed on, these are two processes, and the pid of one must not be combined with
 * the uid of the other.
 */
export function decodeTokenPid(words: Uint32Array, of: Credentials): number | undefined {
  const pid = words[AUDIT_TOKEN.pid / 4]! | 0;
  const same = words[AUDIT_TOKEN.euid / 4] === of.uid && words[AUDIT_TOKEN.egid / 4] === of.gid;
  return same && pid > 0 ? pid : undefined;
}

/** `sa_len`, `sa_family`, <sys/socket.h>: one byte each. */
export function decodeBsdFamily(address: Uint8Array): number {
  return address[1]!;
}
