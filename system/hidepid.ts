/**
 * Detects that /proc hides other users' processes from us: hidepid= of proc(5), ProtectProc= of
 * systemd.exec(5).
 */

import { openedSystem, type System } from "../adapters/select.ts";
import { parseCapabilities, parseGroups, parseHidePid, parseStatus } from "../ffi/proc.ts";
import type { HidePid } from "../ffi/proc.ts";
import { readText } from "./proc_files.ts";

/** The hint of errors that hidepid= causes. */
export const SHOW_PROCESSES =
  "Set ProtectProc=default in the server's unit, or mount /proc without hidepid=";

/** Whether /proc hides other users' processes. */
export interface ProcVisibility {
  /** The mount's `hidepid=`; `undefined` if it hides nothing. */
  readonly mode: HidePid["mode"] | undefined;
  /** Whether the processes are hidden from us. */
  readonly isHiddenFromUs: boolean;
}

/**
 * Reads whether /proc hides other users' processes, and whether it hides them from us. CAP_SYS_PTRACE
 * makes all processes visible, and so does membership in the group of the `gid=` mount option, except with
 * `hidepid=ptraceable`.
 *
 * @returns `undefined` if that cannot be determined.
 */
export function procVisibility(system: System = openedSystem()): ProcVisibility | undefined {
  const { linux } = system.libc;
  const mounts = linux === undefined ? -1 : readText(system, linux, "/proc/self/mountinfo");
  if (linux === undefined || typeof mounts === "number") return undefined;
  const found = parseHidePid(mounts);
  if (found === undefined) return { mode: undefined, isHiddenFromUs: false };
  const { mode } = found;
  const text = readText(system, linux, "/proc/self/status");
  if (typeof text === "number") return { mode, isHiddenFromUs: true };
  const status = parseStatus(text);
  const gids = [...parseGroups(status) ?? [], Number(status.get("Gid")?.split(/\s+/)[3])];
  const isExempt = parseCapabilities(status)?.effective.includes("CAP_SYS_PTRACE") === true ||
    (mode !== "ptraceable" && gids.includes(found.gid));
  return { mode, isHiddenFromUs: !isExempt };
}
