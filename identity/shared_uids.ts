/** Whether our uids mean the same to services outside of our user namespace. */

import { openedSystem } from "../adapters/select.ts";
import { keepsEveryUid } from "../system/overflow_ids.ts";

/** Reports whether services in the initial user namespace number all users as we do. */
export function sharesEveryUid(): boolean {
  return keepsEveryUid(openedSystem());
}
