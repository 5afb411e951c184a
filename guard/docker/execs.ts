/** Remembers which user has prepared which exec in which container. */

import type { JsonObject } from "./json.ts";
import { BoundedMap } from "./owners.ts";

/** An exec instance. */
export interface Exec {
  /** The full id of its container. */
  readonly container: string;
  /** Who has prepared it; `undefined` after a restart of the guard. */
  readonly uid: number | undefined;
  /** The attributes of the request that has prepared it. */
  readonly attributes: JsonObject;
}

/** The exec instances that were prepared through this guard, by their full id. */
export class Execs extends BoundedMap<Exec> {}
