/** What data must look like, said once: for checking it, and as a JSON Schema for editors. */

import { visible } from "../../text.ts";
import type { DocumentPath } from "./problems.ts";
import type { NamedKind } from "./types.ts";

/** Where problems go, and what names are looked up with. */
export interface Report {
  /** Something is wrong. What, is asked only if it is to be told. */
  problem(path: DocumentPath, message: () => string): void;
  /** A field should not be there at all. */
  unexpectedField(path: DocumentPath, message: () => string): void;
  /** Looks a name up, and reports it if it does not exist. */
  name(kind: NamedKind, name: string, path: DocumentPath): void;
}

/** A schema, as JSON. */
export type JsonSchema = { readonly [key: string]: unknown };

/** What a value must look like. */
export interface Shape {
  /** Reports everything that is wrong with a value. */
  check(value: unknown, path: DocumentPath, report: Report): void;
  /** The same as JSON Schema, as far as that can say it. */
  readonly schema: JsonSchema;
}

/** A value that a test accepts. */
export function value(
  expected: string,
  test: (value: unknown) => boolean,
  schema: JsonSchema,
): Shape {
  return {
    schema,
    check: (value, path, report) => {
      if (test(value)) return;
      report.problem(path, () => `${subjectOf(path)} is ${expected}, not ${show(value)}`);
    },
  };
}

/** One value of a shape, or a list of at least one. */
export function anyOf(one: Shape, expected = "at least one text"): Shape {
  return {
    schema: { anyOf: [one.schema, { type: "array", items: one.schema, minItems: 1 }] },
    check: (value, path, report) => {
      if (!Array.isArray(value)) return one.check(value, path, report);
      if (value.length === 0) {
        report.problem(path, () => `${subjectOf(path)} is ${expected}, not []`);
      }
      for (const [index, each] of value.entries()) one.check(each, [...path, index], report);
    },
  };
}

/** A list. */
export function list(of: Shape, what: string, atLeast = 0): Shape {
  return {
    schema: { type: "array", items: of.schema, ...(atLeast > 0 && { minItems: atLeast }) },
    check: (value, path, report) => {
      if (!Array.isArray(value) || value.length < atLeast) {
        report.problem(path, () => `${subjectOf(path)} is a list of ${what}, not ${show(value)}`);
      } else {
        for (const [index, each] of value.entries()) of.check(each, [...path, index], report);
      }
    },
  };
}

/** A constant, or else another shape. */
export function either(constant: unknown, otherwise: Shape): Shape {
  return {
    schema: { anyOf: [{ const: constant }, otherwise.schema] },
    check: (value, path, report) => {
      if (value !== constant) otherwise.check(value, path, report);
    },
  };
}

/** A field of an object. */
export interface Field {
  readonly shape: Shape;
  /** For people, in an editor. */
  readonly about: string;
  readonly isRequired?: boolean;
}

/** An object with these fields, and no others. */
export function object(
  what: string,
  fields: { readonly [name: string]: Field },
  /** What is to be true of the whole. */
  whole: {
    check?: Shape["check"];
    schema?: JsonSchema;
    /** Fields that people look for, and why there is none. */
    none?: { readonly [name: string]: string };
  } = {},
): Shape {
  const entries = Object.entries(fields);
  const required = entries.filter(([, { isRequired }]) => isRequired).map(([name]) => name);
  return {
    get schema() {
      const properties = entries.map(([name, { shape, about }]) =>
        [name, { description: about, ...shape.schema }] as const
      );
      return {
        type: "object",
        properties: Object.fromEntries(properties),
        additionalProperties: false,
        ...(required.length > 0 && { required }),
        ...whole.schema,
      };
    },
    check: (value, path, report) => {
      if (!isObject(value)) {
        return report.problem(path, () => `${what} is an object, not ${show(value)}`);
      }
      for (const name of Object.keys(value)) {
        if (!Object.hasOwn(fields, name)) {
          const { none = {} } = whole;
          const meant = () =>
            Object.hasOwn(none, name) ? `: ${none[name]}` : suggest(name, Object.keys(fields));
          report.unexpectedField([...path, name], () => `no field ${show(name)} here${meant()}`);
        }
      }
      for (const [name, { shape, isRequired = false }] of entries) {
        // One that is there without a value is a mistake: to drop it would widen the condition.
        const field = Object.hasOwn(value, name) ? value[name] : undefined;
        if (isRequired || Object.hasOwn(value, name)) shape.check(field, [...path, name], report);
      }
      whole.check?.(value, path, report);
    },
  };
}

/** A shape that is named in the schema, so that it may contain itself. */
export function nested(name: string, shape: () => Shape): Shape {
  return {
    schema: { $ref: `#/$defs/${name}` },
    check: (value, path, report) => shape().check(value, path, report),
  };
}

/** Whether it is an object with fields. */
export function isObject(value: unknown): value is { readonly [key: string]: unknown } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** What a message is about: the field's name. */
export const subjectOf = (path: DocumentPath): string =>
  String(path.findLast((key) => typeof key === "string") ?? "it");

/** A value in a message, cut off where it is long. */
export function show(value: unknown): string {
  switch (typeof value) {
    case "undefined":
      return "nothing";
    case "function":
      return "a function";
    case "bigint":
      return `${value}n`;
    case "string":
      return visible(
        JSON.stringify(
          value.length > MAX_SHOWN_CHARACTERS ? `${value.slice(0, MAX_SHOWN_CHARACTERS)}…` : value,
        ),
      );
    case "object":
      if (value !== null) return showObject(value);
  }
  return visible(String(value)); // a symbol may be called anything
}

/** In characters. */
const MAX_SHOWN_CHARACTERS = 60;

function showObject(value: object): string {
  const [empty, full] = Array.isArray(value) ? ["[]", "a list"] : ["{}", "an object"];
  for (const _ in value) return full; // not Object.keys(): there may be a million
  return empty;
}

/**
 * The same for schemas: as ranges, since not everyone's regular expressions know the properties. What is
 * beyond U+FFFF stands there itself, since each has an escape of its own for it.
 */
const UNSEEN_RANGES =
  "\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u034f\\u0600-\\u0605\\u061c\\u06dd\\u070f" +
  "\\u0890-\\u0891\\u08e2\\u115f-\\u1160\\u17b4-\\u17b5\\u180b-\\u180f\\u200b-\\u200f" +
  "\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufffb" +
  "\u{110bd}\u{110cd}\u{13430}-\u{1343f}\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}";
const SPACE_LIKE_RANGES = "\\u00a0\\u1680\\u2000-\\u200a\\u202f\\u205f\\u2800\\u3000";

/** Matches texts without {@link unseenIn}. */
export const SEEN_PATTERN = `^[^${UNSEEN_RANGES}]*$`;

/** Matches texts without {@link unseenIn} and {@link spaceLikeIn}. */
export const PLAIN_PATTERN = `^[^${UNSEEN_RANGES}${SPACE_LIKE_RANGES}]*$`;

/** "; did you mean …?" where something similar exists. */
export function suggest(wrong: string, right: Iterable<string>): string {
  let [best, least] = ["", Math.max(2, Math.floor(wrong.length / 3)) + 1];
  let left = MAX_COMPARED;
  for (const candidate of right) {
    if ((left -= candidate.length) < 0) break;
    const changes = distance(wrong, candidate);
    if (changes < least) [best, least] = [candidate, changes];
  }
  return best === "" ? "" : `; did you mean ${show(best)}?`;
}

/** In characters: some ten thousand names. */
const MAX_COMPARED = 100_000;

/** Insertions, deletions, replacements and swaps of neighbours between two words. */
function distance(a: string, b: string): number {
  if (Math.max(a.length, b.length) > 64) return Infinity;
  let [before, row] = [[] as number[], Array.from({ length: b.length + 1 }, (_, at) => at)];
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const differs = a[i - 1] === b[j - 1] ? 0 : 1;
      next[j] = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + differs);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        next[j] = Math.min(next[j]!, before[j - 2]! + 1);
      }
    }
    [before, row] = [row, next];
  }
  return row[b.length]!;
}
