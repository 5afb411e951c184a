/**
 * Whether /proc hides other users' processes from us: hidepid= of proc(5), ProtectProc= of
 * systemd.exec(5).
 */

import { openedSystem, type System } from "../adapters/select.ts";
import { parseCapabilities, parseGroups, parseHidePid, parseStatus } from "../ffi/proc.ts";
import type { HidePid } from "../ffi/proc.ts";
import { readText } from "./proc_files.ts";

/** The hint of errors that hidepid= causes. */
export const SHOW_PROCESSES =
  "Set ProtectProc=default in the server's unit, or mount /proc without hidepid=";

/**
 * Returns how /proc hides other users' processes from us.
 *
 * @returns `undefined` if it does not hide them, or if that cannot be determined. CAP_SYS_PTRACE
 * makes all processes visible, and so does membership in the group of the `gid=` mount option.
 */
export function hidingProc(system: System = openedSystem()): HidePid["mode"] | undefined {
  const found = hidePid(system);
  if (found === undefined) return undefined;
  const { linux } = system.libc;
  const text = linux === undefined ? -1 : readText(system, linux, "/proc/self/status");
  if (typeof text === "number") return found.mode;
  const status = parseStatus(text);
  if (parseCapabilities(status)?.effective.includes("CAP_SYS_PTRACE")) return undefined;
  const gids = [...parseGroups(status) ?? [], Number(status.get("Gid")?.split(/\s+/)[3])];
  const isExempt = found.mode !== "ptraceable" && gids.includes(found.gid);
  return isExempt ? undefined : found.mode;
}

/** Returns the hidepid= options of the /proc mount; `undefined` if it hides nothing. */
export function hidePid(system: System): HidePid | undefined {
  const { linux } = system.libc;
  const text = linux === undefined ? -1 : readText(system, linux, "/proc/self/mountinfo");
  return typeof text === "number" ? undefined : parseHidePid(text);
}
