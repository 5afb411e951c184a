/** The ids and implicit authorizations of polkit's actions. The parser of their files is apart, because it takes long to load. */

/** What polkit does without a rule, polkit(8). */
export type ImplicitAuthorization =
  | "no"
  | "yes"
  | "auth_self"
  | "auth_admin"
  | "auth_self_keep"
  | "auth_admin_keep";

/** All values of {@link ImplicitAuthorization}. */
export const IMPLICIT: readonly string[] = [
  "no",
  "yes",
  "auth_self",
  "auth_admin",
  "auth_self_keep",
  "auth_admin_keep",
] satisfies ImplicitAuthorization[];

const ACTION_ID = /^[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+$/;

const MAX_ID_CHARACTERS = 255;

/** Returns whether a value is the id of an action: at least two elements with dots between them. */
export function isActionId(value: unknown): value is string {
  return typeof value === "string" && value.length <= MAX_ID_CHARACTERS && ACTION_ID.test(value);
}
