/** Which ids may stand for "has no number in our user namespace". */

import type { System } from "../adapters/select.ts";
import { readText } from "./files.ts";

/** All ids but (uid_t) −1. */
const EVERY_ID = 2 ** 32 - 1;

/** The id that unmapped ones read as, unless the system sets another. <linux/highuid.h> */
const DEFAULT_OVERFLOW_ID = 65534;

/**
 * Tells whether `id` proves nothing: it is the overflow id, and our user namespace leaves ids out.
 * Where that cannot be read, it is assumed.
 *
 * @see {@link https://man7.org/linux/man-pages/man7/user_namespaces.7.html user_namespaces(7)}
 */
export function isAmbiguous(on: System, kind: "uid" | "gid", id: number): boolean {
  if (on.abi.os !== "linux") return false; // no user namespaces there
  return id === overflowId(on, kind) && !mapsEvery(on, kind);
}

/** Whether {@link isAmbiguous} holds for any of these ids. */
export function someAmbiguous(on: System, kind: "uid" | "gid", ids: readonly number[]): boolean {
  if (on.abi.os !== "linux") return false;
  return ids.includes(overflowId(on, kind)) && !mapsEvery(on, kind);
}

/** Read once, since a system sets it when it starts, if ever; a failure is not remembered. */
function overflowId(on: System, kind: "uid" | "gid"): number {
  const { overflowIds } = on.remembered;
  const before = overflowIds[kind];
  if (before !== undefined) return before;
  const id = Number.parseInt(textOf(on, `/proc/sys/kernel/overflow${kind}`), 10);
  if (Number.isNaN(id)) return DEFAULT_OVERFLOW_ID;
  return overflowIds[kind] = id;
}

/** Lines of "first id inside, first id outside, how many"; they do not overlap. */
export function mapsEveryId(map: string): boolean {
  const counts = map.trimEnd().split("\n").map((line) => Number(line.trim().split(/\s+/)[2]));
  return counts.reduce((sum, count) => sum + count, 0) === EVERY_ID;
}

/** Whether every uid, or gid, has a number here. */
export function mapsEvery(on: System, kind: "uid" | "gid"): boolean {
  return mapsEveryId(textOf(on, `/proc/self/${kind}_map`));
}

/** The file's text, or "" where it cannot be read. */
function textOf(on: System, path: string): string {
  const { linux } = on.libc;
  const text = linux === undefined ? "" : readText(on, linux, path);
  return typeof text === "string" ? text : "";
}
