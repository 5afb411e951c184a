/** Whose files are as safe from others as this process is. */

import { openedSystem } from "../adapters/select.ts";
import { ownUid } from "./accounts.ts";
import { hasNoAcl } from "./acl.ts";
import { isAmbiguous } from "./overflow_ids.ts";
import { isPrivateGroup } from "./private_group.ts";

/**
 * Whether files of this owner are root's, or our own user's for certain: where our user namespace has
 * no number for an owner it shows 65534 (nobody), which may then be our own uid and anybody's.
 */
export function isTrusted(uid: number): boolean {
  return uid === 0 || (uid === ownUid() && !isAmbiguous(openedSystem(), "uid", uid));
}

/**
 * Whether the group of a file certainly has no member but our own user, and no access control list
 * grants the file to anybody else: where there is one, the mode's bits for the group are not the
 * group's alone.
 *
 * @param path Not followed if it is a link.
 */
export function hasOwnGroupOnly(path: string, { gid }: { readonly gid: number }): boolean {
  return isPrivateGroup(ownUid(), gid) && hasNoAcl(path);
}
