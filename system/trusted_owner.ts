/** Decides whether the owner of a file is trusted. Root is trusted, and one user, by default our own. */

import { openedSystem } from "../adapters/select.ts";
import { ownUid } from "./accounts.ts";
import { hasNoAcl } from "./acl.ts";
import { isAmbiguous } from "./overflow_ids.ts";
import { isPrivateGroup } from "./private_group.ts";

/**
 * Reports whether a uid is root, or certainly the user. An owner that our user namespace does not
 * map reads as the overflow id (65534), which may equal the user's uid and stand for any user.
 */
export function isTrusted(uid: number, user: number = ownUid()): boolean {
  return uid === 0 || (uid === user && !isAmbiguous(openedSystem(), "uid", uid));
}

/**
 * Reports whether the user is certainly the only member of a file's group, and the file has no ACL.
 * With an ACL, the group bits of the mode apply to more than the group.
 *
 * @param path A symbolic link is not followed.
 */
export function hasOwnGroupOnly(
  path: string,
  { gid }: { readonly gid: number },
  user: number = ownUid(),
): boolean {
  return isPrivateGroup(user, gid) && hasNoAcl(path);
}
