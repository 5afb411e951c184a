/** Access control lists of files. Linux keeps POSIX ACLs as extended attributes: acl(5). */

import { type LinuxCalls, type Memory, memoryOf } from "../adapters/libc.ts";
import { openedSystem, type System } from "../adapters/select.ts";
import { LINUX_ERRNO } from "../ffi/errno.ts";
import { syscallError } from "./syscall_error.ts";

/**
 * The ACL of the file itself, and the default ACL that a folder passes on to new files.
 * <linux/xattr.h>
 */
const POSIX_ACLS: readonly string[] = ["system.posix_acl_access", "system.posix_acl_default"];

const { ENODATA, EOPNOTSUPP } = LINUX_ERRNO;

/** The file has no ACL, or its file system has no ACLs. */
const NO_ACL: readonly number[] = [ENODATA, EOPNOTSUPP];

/**
 * Removes the ACLs of a file or folder, for example those inherited from its parent folder. The
 * group bits of the mode stay: they were the upper limit of what the ACL granted.
 *
 * @param path A symbolic link is not followed.
 * @throws {UcredError} If an ACL could not be removed.
 */
export function removeAcls(path: string, system: System = openedSystem()): void {
  const { linux } = system.libc;
  if (linux === undefined) return;
  const name = memoryOf(system.libc, path);
  for (const acl of POSIX_ACLS) {
    const result = linux.lremovexattr(name, memoryOf(system.libc, acl));
    if (result < 0 && !NO_ACL.includes(-result)) {
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
 * Reports whether a file certainly has no ACL of any kind, so that its owner and mode are its only
 * permissions.
 *
 * @param path A symbolic link is not followed.
 */
export function hasNoAcl(path: string, system: System = openedSystem()): boolean {
  const { linux } = system.libc;
  if (linux === undefined) return false;
  const names = attributeNames(system, linux, memoryOf(system.libc, path));
  // ACLs of NFS, SMB and ZFS are in this namespace, too. Any other attribute in it may also grant
  // permissions, and counts as an ACL.
  return names !== undefined && !names.some((name) => name.startsWith("system."));
}

/** Returns the names of a file's extended attributes; `undefined` if they cannot be read. */
function attributeNames(
  system: System,
  linux: LinuxCalls,
  path: Memory,
): readonly string[] | undefined {
  const memory = system.libc.memory(MAX_NAMES_BYTES);
  const length = linux.llistxattr(path, memory);
  if (length === -EOPNOTSUPP) return [];
  if (length < 0) return undefined;
  return new TextDecoder().decode(memory.bytes.subarray(0, length)).split("\0");
}

/** `XATTR_LIST_MAX`, <linux/limits.h> */
const MAX_NAMES_BYTES = 65536;
