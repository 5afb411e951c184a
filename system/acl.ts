/** Access control lists of files: POSIX ACLs, which Linux keeps as extended attributes. See acl(5). */

import type { LinuxCalls, Memory } from "../adapters/libc.ts";
import { openedSystem, type System } from "../adapters/select.ts";
import { syscallError } from "./syscall_error.ts";

/** The list of a file itself, and the one that new files in a folder get. <linux/xattr.h> */
const POSIX_ACLS: readonly string[] = ["system.posix_acl_access", "system.posix_acl_default"];

/** ENODATA and EOPNOTSUPP, <asm-generic/errno.h>: there is none, or the file system has no such lists. */
const WITHOUT: readonly number[] = [61, 95];

/**
 * Removes the lists of a file or folder, such as it has inherited from the folder that it was made in.
 * The mode's bits for the group stay, which were the most that the list granted.
 *
 * @param path Not followed if it is a link.
 * @throws {UcredError} If a list is there still.
 */
export function removeAcls(path: string, system: System = openedSystem()): void {
  const { linux } = system.libc;
  if (linux === undefined) return;
  const name = cString(system, path);
  for (const acl of POSIX_ACLS) {
    const result = linux.lremovexattr(name, cString(system, acl));
    if (result < 0 && !WITHOUT.includes(-result)) {
      throw syscallError(
        system,
        `remove the ACL of ${JSON.stringify(path)}`,
        "lremovexattr",
        -result,
      );
    }
  }
}

/**
 * Whether a file certainly has no access control list of any kind, so that its mode and owner say all.
 *
 * @param path Not followed if it is a link.
 */
export function hasNoAcl(path: string, system: System = openedSystem()): boolean {
  const { linux } = system.libc;
  if (linux === undefined) return false;
  const names = attributeNames(system, linux, cString(system, path));
  // Lists of NFS, SMB and ZFS are in this name space, too: nothing else of it is known to be harmless.
  return names !== undefined && !names.some((name) => name.startsWith("system."));
}

/** `undefined` where they cannot be read. */
function attributeNames(
  system: System,
  linux: LinuxCalls,
  path: Memory,
): readonly string[] | undefined {
  const memory = system.libc.memory(MOST_BYTES);
  const length = linux.llistxattr(path, memory);
  if (length === -WITHOUT[1]!) return [];
  if (length < 0) return undefined;
  return new TextDecoder().decode(memory.bytes.subarray(0, length)).split("\0");
}

/** `XATTR_LIST_MAX`, <linux/limits.h> */
const MOST_BYTES = 65536;

function cString(system: System, text: string): Memory {
  const bytes = new TextEncoder().encode(text);
  const memory = system.libc.memory(Math.ceil((bytes.length + 1) / 8) * 8); // zeroed: it ends itself
  memory.bytes.set(bytes);
  return memory;
}
