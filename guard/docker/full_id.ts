/** The full ids of containers and exec instances. */

import { textIn } from "./json.ts";

const FULL_ID = /^[0-9a-f]{64}$/;

/** Returns whether a text is the full id of a container or of an exec instance. */
export function isFullId(text: unknown): text is string {
  return typeof text === "string" && FULL_ID.test(text);
}

/** Requires the full id of an object in a field. @param what The object: "a container". */
export function fullIdIn(value: unknown, name: string, what: string): string {
  const id = textIn(value, name);
  if (!isFullId(id)) throw new Error(`its response has no full id of ${what}`);
  return id;
}
