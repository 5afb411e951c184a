/** Reads JSON of the engine: each function throws if a value has another type than expected. */

import { isObject } from "../../core/policy/document/shape.ts";

/** A JSON object. */
export interface JsonObject {
  readonly [name: string]: unknown;
}

/** Requires an object. */
export function record(value: unknown): JsonObject {
  if (!isObject(value)) throw new Error("its response has no object where one is expected");
  return value;
}

/** Requires a list of objects; null is an empty list, as Go writes it. */
export function records(value: unknown): readonly JsonObject[] {
  if (value === null || value === undefined) return [];
  if (!Array.isArray(value)) throw new Error("its response has no list where one is expected");
  return value.map(record);
}

/** Returns a field, as `undefined` if the object has none. */
export function fieldIn(value: unknown, name: string): unknown {
  const object = record(value);
  return Object.hasOwn(object, name) ? object[name] : undefined;
}

/** Returns a text. */
export function textIn(value: unknown, name: string): string {
  const text = fieldIn(value, name);
  if (typeof text !== "string") throw new Error(`its response has no text ${name}`);
  return text;
}

/** Returns an object; `undefined` if it is missing or null. */
export function objectIn(value: unknown, name: string): JsonObject | undefined {
  const object = fieldIn(value, name);
  return object === undefined || object === null ? undefined : record(object);
}
