/** Shapes of data: each checks a value and has a JSON Schema. */

import { visible } from "../../text.ts";
import type { DocumentPath } from "./problems.ts";
import type { NamedKind } from "./types.ts";

/** Receives problems, and looks up account names. */
export interface Report {
  /** Reports a problem. `message` is called only if the problem is listed. */
  problem(path: DocumentPath, message: () => string): void;
  /** Reports an unknown field. */
  unexpectedField(path: DocumentPath, message: () => string): void;
  /** Looks up an account, and reports a problem if there is none. */
  name(kind: NamedKind, name: string, path: DocumentPath): void;
}

/** A JSON Schema. */
export type JsonSchema = { readonly [key: string]: unknown };

/** The shape of a value. */
export interface Shape {
  /** Reports every problem of a value. */
  check(value: unknown, path: DocumentPath, report: Report): void;
  /** The closest JSON Schema. */
  readonly schema: JsonSchema;
}

/** A value that `test` accepts. */
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

/** One value, or a list of at least one value. */
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

/** A constant, or a value of another shape. */
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
  readonly isRequired?: boolean;
}

/** An object with these fields and no others. */
export function object(
  what: string,
  fields: { readonly [name: string]: Field },
  /** Conditions on the object as a whole. */
  whole: {
    check?: Shape["check"];
    schema?: JsonSchema;
    /** Fields that people expect, with the reason why they do not exist. */
    none?: { readonly [name: string]: string };
  } = {},
): Shape {
  const entries = Object.entries(fields);
  const required = entries.filter(([, { isRequired }]) => isRequired).map(([name]) => name);
  return {
    get schema() {
      const properties = entries.map(([name, { shape }]) => [name, shape.schema] as const);
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
        // A field without a value is a mistake: ignoring it would widen the condition.
        const field = Object.hasOwn(value, name) ? value[name] : undefined;
        if (isRequired || Object.hasOwn(value, name)) shape.check(field, [...path, name], report);
      }
      whole.check?.(value, path, report);
    },
  };
}

/** A recursive shape: a reference in the schema. */
export function nested(name: string, shape: () => Shape): Shape {
  return {
    schema: { $ref: `#/$defs/${name}` },
    check: (value, path, report) => shape().check(value, path, report),
  };
}

/** Whether a value is an object and not an array. */
export function isObject(value: unknown): value is { readonly [key: string]: unknown } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The innermost field name, the subject of a message. */
export const subjectOf = (path: DocumentPath): string =>
  String(path.findLast((key) => typeof key === "string") ?? "it");

/** Writes a value for a message; a long text is cut off. */
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
  return visible(String(value)); // the description of a symbol is any text
}

const MAX_SHOWN_CHARACTERS = 60;

function showObject(value: object): string {
  const [empty, full] = Array.isArray(value) ? ["[]", "a list"] : ["{}", "an object"];
  for (const _ in value) return full; // Object.keys() would list a million
  return empty;
}

/** Returns "; did you mean …?" if a similar word exists. */
export function suggest(wrong: string, right: Iterable<string>): string {
  let [best, least] = ["", Math.max(2, Math.floor(wrong.length / 3)) + 1];
  let left = MAX_COMPARED_CHARACTERS;
  for (const candidate of right) {
    if ((left -= candidate.length) < 0) break;
    const changes = distance(wrong, candidate);
    if (changes < least) [best, least] = [candidate, changes];
  }
  return best === "" ? "" : `; did you mean ${show(best)}?`;
}

/** About ten thousand names. */
const MAX_COMPARED_CHARACTERS = 100_000;

/** The edit distance: insertions, deletions, replacements and swaps of neighbours. */
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
