/** Reads the supplementary groups of a descriptor's peer, as of connect. */

import type { RememberedGroups, System } from "../adapters/select.ts";
import { type Credentials, NO_ID } from "../core/credentials.ts";
import { UcredError } from "../core/errors.ts";
import { type Fact, known, unknown } from "../core/facts.ts";
import type { LinuxAbi } from "../ffi/abi.ts";
import { readXucred } from "./credentials.ts";
import { syscallError, unexpectedAnswer } from "../system/syscall_error.ts";
import { readOption } from "../system/socket_option.ts";

/** The maximum of 65536 groups (NGROUPS_MAX, <linux/limits.h>), in bytes. */
const MAX_GROUP_LIST_BYTES = 65536 * 4;

const WHAT = "read the peer's groups";

/**
 * Returns the peer's supplementary groups and its gid, ascending, without duplicates.
 *
 * @see {@link https://man7.org/linux/man-pages/man7/socket.7.html socket(7)}, SO_PEERGROUPS
 */
export function readGroups(system: System, fd: number, of: Credentials): Fact<readonly number[]> {
  try {
    if (system.abi.os === "linux") return readPeerGroups(system, system.abi, fd, of);
    const { groups } = readXucred(system, system.abi, fd);
    if (groups !== undefined) return known(withGid(groups, of.gid), "kernel@connect");
    const hint = "Decide by uid and gid on this system";
    const message = `Cannot ${WHAT}: struct xucred holds 16 and is full`;
    return unknown(new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint }));
  } catch (error) {
    if (error instanceof UcredError) return unknown(error);
    throw error;
  }
}

const supplementary = new WeakMap<readonly number[], Uint32Array>();

/**
 * Returns the supplementary groups alone, in the order of the kernel. They include the gid only if the
 * peer's process also has it as a supplementary group.
 *
 * @param groups A list of {@link readGroups}. @returns `undefined` for any other list.
 */
export function supplementaryGroups(groups: readonly number[]): Uint32Array | undefined {
  return supplementary.get(groups);
}

/** Merges the gid into the supplementary groups: ascending, without duplicates. */
export function withGid(groups: ArrayLike<number>, gid: number): readonly number[] {
  // Linux keeps groups sorted. Other lists are sorted as Uint32Array: an Array takes ten times as
  // long.
  const sorted = isAscending(groups) ? groups : Uint32Array.from(groups).sort();
  const all: number[] = [];
  let last = -1;
  const add = (group: number) => {
    if (group !== last) all.push(last = group);
  };
  let at = 0;
  for (; at < sorted.length && sorted[at]! <= gid; at++) add(sorted[at]!);
  add(gid);
  for (; at < sorted.length; at++) add(sorted[at]!);
  return Object.freeze(all);
}

function isAscending(numbers: ArrayLike<number>): boolean {
  for (let at = 1; at < numbers.length; at++) if (numbers[at - 1]! > numbers[at]!) return false;
  return true;
}

/** Maximum number of users in the cache. */
const MAX_REMEMBERED_USERS = 256;

/** Maximum length of a list in the cache. */
const MAX_REMEMBERED_GROUPS = 256;

/** Reads SO_PEERGROUPS. The list may lack the gid, and its length is in bytes. */
function readPeerGroups(
  system: System,
  { options }: LinuxAbi,
  fd: number,
  { uid, gid }: Credentials,
): Fact<readonly number[]> {
  const found = readOption(
    system,
    fd,
    options.SO_PEERGROUPS,
    MAX_GROUP_LIST_BYTES,
    WHAT,
    (answer, length) => {
      const count = length / 4;
      const before = system.remembered.groups.get(uid);
      if (before?.gid === gid && isSame(answer.words, before.answer, count)) return before.groups;
      const answered = answer.words.slice(0, count);
      if (length % 4 !== 0 || answered.includes(NO_ID)) {
        throw unexpectedAnswer(WHAT, "getsockopt", "a malformed group list");
      }
      const all = withGid(answered, gid);
      const groups = known(all, "kernel@connect");
      supplementary.set(all, answered);
      if (count <= MAX_REMEMBERED_GROUPS) remember(system, uid, { gid, answer: answered, groups });
      return groups;
    },
  );
  if (typeof found === "number") throw syscallError(system, WHAT, "getsockopt", found);
  return found;
}

/** Compares an answer with a cached one: most connections of a user have the same groups. */
function isSame(words: Uint32Array, all: Uint32Array, count: number): boolean {
  if (count !== all.length) return false;
  for (let at = 0; at < count; at++) if (words[at] !== all[at]) return false;
  return true;
}

function remember({ remembered: { groups } }: System, uid: number, found: RememberedGroups): void {
  if (groups.size >= MAX_REMEMBERED_USERS && !groups.has(uid)) groups.clear();
  groups.set(uid, found);
}
