/** Which owners are trusted: files of root and of our own user. */

import { openedSystem } from "../adapters/select.ts";
import { ownUid } from "./accounts.ts";
import { hasNoAcl } from "./acl.ts";
import { isAmbiguous } from "./overflow_ids.ts";
import { isPrivateGroup } from "./private_group.ts";

/**
 * Reports whether a uid is root, or certainly our own user. An owner that our user namespace does
 * not map reads as the overflow id (65534), which may equal our own uid and stand for anybody.
 */
export function isTrusted(uid: number): boolean {
  return uid === 0 || (uid === ownUid() && !isAmbiguous(openedSystem(), "uid", uid));
}

/**
 * Reports whether our own user is certainly the only member of a file's group, and the file has no
 * ACL. With an ACL, the group bits of the mode apply to more than the group.
 *
 * @param path A symbolic link is not followed.
 */
export function hasOwnGroupOnly(path: string, { gid }: { readonly gid: number }): boolean {
  return isPrivateGroup(ownUid(), gid) && hasNoAcl(path);
}
