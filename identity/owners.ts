/** Whose files are as safe from others as this process is. */

import { system } from "../adapters/select.ts";
import { ownUid } from "./accounts.ts";
import { isAmbiguous } from "./namespaces.ts";

/**
 * Whether files of this owner are root's, or our own user's for certain: where our user namespace has
 * no number for an owner it shows 65534 (nobody), which may then be our own uid and anybody's.
 */
export function isTrusted(uid: number): boolean {
  return uid === 0 || (uid === ownUid() && !isAmbiguous(system(), "uid", uid));
}
