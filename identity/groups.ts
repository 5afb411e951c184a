/** Descriptor → supplementary groups, as of connect. */

import type { System } from "../adapters/select.ts";
import { type Credentials, NO_ID } from "../core/credentials.ts";
import { UcredError } from "../core/errors.ts";
import { type Fact, known, unknown } from "../core/facts.ts";
import type { LinuxAbi } from "../ffi/abi.ts";
import { readXucred } from "./credentials.ts";
import { failure, senseless } from "./failure.ts";
import { readOption } from "./option.ts";

/** The kernel's limit of 65536 groups (NGROUPS_MAX, <linux/limits.h>), in bytes. */
const MOST_BYTES = 65536 * 4;

const WHAT = "read the peer's groups";

/**
 * The peer's supplementary groups and its gid, ascending, each once.
 *
 * @see {@link https://man7.org/linux/man-pages/man7/socket.7.html socket(7)}, SO_PEERGROUPS
 */
export function readGroups(on: System, fd: number, of: Credentials): Fact<readonly number[]> {
  try {
    const groups = on.abi.os === "linux"
      ? readPeerGroups(on, on.abi, fd)
      : readXucred(on, on.abi, fd).groups;
    if (groups === undefined) {
      const hint = "Decide by uid and gid on this system";
      const message = `Cannot ${WHAT}: struct xucred holds 16 and is full`;
      return unknown(new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint }));
    }
    return known(withGid(groups, of.gid), "kernel@connect");
  } catch (error) {
    if (error instanceof UcredError) return unknown(error);
    throw error;
  }
}

/** Supplementary groups and the gid, ascending, each once. */
export function withGid(groups: ArrayLike<number>, gid: number): readonly number[] {
  // Linux keeps groups sorted. Others are sorted as Uint32Array: an Array takes ten times as long.
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

/** SO_PEERGROUPS leaves the gid out, and counts its length in bytes. */
function readPeerGroups(on: System, { options }: LinuxAbi, fd: number): Uint32Array {
  const bytes = readOption(on, fd, options.SO_PEERGROUPS, MOST_BYTES, WHAT);
  if (typeof bytes === "number") throw failure(on, WHAT, "getsockopt", bytes);
  const groups = new Uint32Array(bytes.buffer, 0, Math.floor(bytes.length / 4));
  if (bytes.length % 4 !== 0 || groups.includes(NO_ID)) {
    throw senseless(WHAT, "getsockopt", "what is no list of groups");
  }
  return groups;
}
