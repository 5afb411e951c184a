/**
 * Detects ids that may be the overflow id, as which the kernel reports every id that our user namespace
 * does not map.
 */

import { openedSystem, type System } from "../adapters/select.ts";
import { readText } from "./proc_files.ts";

/** The number of valid ids: all 32-bit values except (uid_t) −1. */
const EVERY_ID = 2 ** 32 - 1;

/** The default overflow id, which unmapped ids read as. <linux/highuid.h> */
const DEFAULT_OVERFLOW_ID = 65534;

/**
 * Returns a test for ambiguous ids: ids that equal the overflow id while our user namespace leaves
 * some ids unmapped. If the mapping cannot be read, it counts as incomplete.
 *
 * The overflow id is read on each call, since kernel.overflowuid may change at run time. Former
 * values stay ambiguous, since an id may have been read before the change.
 *
 * @see {@link https://man7.org/linux/man-pages/man7/user_namespaces.7.html user_namespaces(7)}
 */
export function ambiguity(system: System, kind: "uid" | "gid"): (id: number) => boolean {
  if (system.abi.os !== "linux" || mapsEvery(system, kind)) return NEVER; // other systems have no user namespaces
  const ids = system.remembered.overflowIds[kind];
  const id = Number.parseInt(readIdText(system, `/proc/sys/kernel/overflow${kind}`), 10);
  ids.add(Number.isNaN(id) ? DEFAULT_OVERFLOW_ID : id); // at most 2 ** 16 values, by the kernel's limit
  return (id) => ids.has(id);
}

/** The test for ambiguous ids where none can be ambiguous. */
export const NEVER = (): boolean => false;

/** Reports whether one id is ambiguous: see {@link ambiguity}. */
export function isAmbiguous(system: System, kind: "uid" | "gid", id: number): boolean {
  return ambiguity(system, kind)(id);
}

/**
 * Reports whether a uid_map or gid_map maps every id. Its lines are "first inside, first outside,
 * count" and do not overlap.
 */
export function mapsEveryId(map: string): boolean {
  const counts = map.trimEnd().split("\n").map((line) => Number(line.trim().split(/\s+/)[2]));
  return counts.reduce((sum, count) => sum + count, 0) === EVERY_ID;
}

/**
 * Reports whether our user namespace maps every uid or gid. A map is written once and cannot
 * change.
 */
export function mapsEvery(system: System, kind: "uid" | "gid"): boolean {
  const { mapsEvery } = system.remembered;
  const before = mapsEvery[kind];
  if (before !== undefined) return before;
  const map = readIdText(system, `/proc/self/${kind}_map`);
  const found = mapsEveryId(map);
  if (map.trim() !== "") mapsEvery[kind] = found;
  return found;
}

/** Reports whether a uid_map gives every uid the same number on both sides. */
export function isIdentityMap(map: string): boolean {
  return /^ *0 +0 +4294967295\n?$/.test(map);
}

/**
 * Reports whether our user namespace numbers every user as the initial one does, so that our uids can be
 * given to a service outside.
 */
export function keepsEveryUid(system: System = openedSystem()): boolean {
  return system.abi.os !== "linux" || isIdentityMap(readIdText(system, "/proc/self/uid_map"));
}

/** Returns the text of a file, or "" if it cannot be read. */
function readIdText(system: System, path: string): string {
  const { linux } = system.libc;
  const text = linux === undefined ? "" : readText(system, linux, path);
  return typeof text === "string" ? text : "";
}
