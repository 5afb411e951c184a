/** Builds a string that identifies a pinned process uniquely, also across reboots. */

import { UcredError } from "../../core/errors.ts";
import { type Fact, known, unknown } from "../../core/facts.ts";
import { syscallError } from "../../system/syscall_error.ts";
import { readText } from "../../system/proc_files.ts";
import { type Pinned, readStartTime } from "./snapshot.ts";
import type { Pin } from "./pidfd.ts";

/** Returns the key; equal keys mean the same process. `unknown` without a pin. */
export function keyOf(pinned: Pinned): Fact<string> {
  if (pinned instanceof UcredError) return unknown(pinned);
  try {
    const inode = pinned.inode();
    // pidfs assigns an inode number once per boot. A pid is reused, but never with the same start
    // time.
    return inode === undefined
      ? known(`${bootId(pinned)}-${pinned.pid}-${readStartTime(pinned)}`, "procfs@now")
      : known(`${bootId(pinned)}-${inode}`, "kernel@now");
  } catch (error) {
    if (error instanceof UcredError) return unknown(error);
    throw error;
  }
}

/** Reads the boot id, which the kernel generates at random when it boots: random(4). */
function bootId({ system, calls }: Pin): string {
  const id = readText(system, calls, "/proc/sys/kernel/random/boot_id");
  if (typeof id === "number") throw syscallError(system, "read the boot id", "read", -id);
  return id.trim();
}
