/** Converts what the strict reader of JSON returns to plain values, for decisions. */

import { isJsonObject, JsonNumber, type JsonValue } from "../../interop/json.ts";

/** Replaces a number that other programs may round differently. MCP has no value of this type, so checks reject it. */
const UNCERTAIN = Symbol("uncertain number");

/** Converts to the values of JSON.parse(), with objects that inherit nothing. */
export function plainOf(value: JsonValue): unknown {
  if (value instanceof JsonNumber) {
    const number = Number(value.text);
    return String(number) === value.text ? number : UNCERTAIN;
  }
  if (Array.isArray(value)) return (value as readonly JsonValue[]).map(plainOf);
  if (!isJsonObject(value)) return value;
  const object: { [key: string]: unknown } = Object.create(null);
  for (const [key, each] of value) object[key] = plainOf(each);
  return object;
}
