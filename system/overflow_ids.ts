/** Which ids may stand for "has no number in our user namespace". */

import type { System } from "../adapters/select.ts";
import { readText } from "./proc_files.ts";

/** All ids but (uid_t) −1. */
const EVERY_ID = 2 ** 32 - 1;

/** The id that unmapped ones read as, unless the system sets another. <linux/highuid.h> */
const DEFAULT_OVERFLOW_ID = 65534;

/**
 * Whether ids prove nothing: an id that reads as the overflow id, while our user namespace leaves ids out.
 * Where that cannot be read, it is assumed.
 *
 * The overflow id is read anew each time, since it may be set at run time (kernel.overflowuid); what it was
 * before stays ambiguous, since the id may have been read before.
 *
 * @see {@link https://man7.org/linux/man-pages/man7/user_namespaces.7.html user_namespaces(7)}
 */
export function ambiguity(system: System, kind: "uid" | "gid"): (id: number) => boolean {
  if (system.abi.os !== "linux" || mapsEvery(system, kind)) return NEVER; // others have no user namespaces
  const ids = system.remembered.overflowIds[kind];
  const id = Number.parseInt(readIdText(system, `/proc/sys/kernel/overflow${kind}`), 10);
  ids.add(Number.isNaN(id) ? DEFAULT_OVERFLOW_ID : id); // the kernel takes 16 bits: it stays small
  return (id) => ids.has(id);
}

const NEVER = () => false;

/** {@link ambiguity} of one id. */
export function isAmbiguous(system: System, kind: "uid" | "gid", id: number): boolean {
  return ambiguity(system, kind)(id);
}

/** Lines of "first id inside, first id outside, how many"; they do not overlap. */
export function mapsEveryId(map: string): boolean {
  const counts = map.trimEnd().split("\n").map((line) => Number(line.trim().split(/\s+/)[2]));
  return counts.reduce((sum, count) => sum + count, 0) === EVERY_ID;
}

/** Whether every uid, or gid, has a number here. A map is written once, and then stays. */
export function mapsEvery(system: System, kind: "uid" | "gid"): boolean {
  const { mapsEvery } = system.remembered;
  const before = mapsEvery[kind];
  if (before !== undefined) return before;
  const map = readIdText(system, `/proc/self/${kind}_map`);
  const found = mapsEveryId(map);
  if (map.trim() !== "") mapsEvery[kind] = found;
  return found;
}

/** The file's text, or "" where it cannot be read. */
function readIdText(system: System, path: string): string {
  const { linux } = system.libc;
  const text = linux === undefined ? "" : readText(system, linux, path);
  return typeof text === "string" ? text : "";
}
