/** A pinned process → a string that no other process has, ever. */

import { UcredError } from "../../core/errors.ts";
import { type Fact, known, unknown } from "../../core/facts.ts";
import { syscallError } from "../../system/syscall_error.ts";
import { readText } from "../../system/proc_files.ts";
import { type Pinned, readStartTime } from "./snapshot.ts";
import type { Pin } from "./pidfd.ts";

/** The key, by which two peers are told to be the same process; `unknown` without a pin. */
export function keyOf(pinned: Pinned): Fact<string> {
  if (pinned instanceof UcredError) return unknown(pinned);
  try {
    const inode = pinned.inode();
    // An inode number of pidfs is given once per boot; a pid is given again, but not at one time.
    return inode === undefined
      ? known(`${bootId(pinned)}-${pinned.pid}-${readStartTime(pinned)}`, "procfs@now")
      : known(`${bootId(pinned)}-${inode}`, "kernel@now");
  } catch (error) {
    if (error instanceof UcredError) return unknown(error);
    throw error;
  }
}

/** A random number that the kernel makes when it starts. random(4) */
function bootId({ system, calls }: Pin): string {
  const id = readText(system, calls, "/proc/sys/kernel/random/boot_id");
  if (typeof id === "number") throw syscallError(system, "read the boot id", "read", -id);
  return id.trim();
}
