/** Reads attributes of a request and tests their values. */

import { isId } from "../../credentials.ts";
import { type AttributeTest, type Evaluate, missing, type Truth } from "./condition.ts";
import { compileGlob } from "./glob.ts";
import { hasId } from "./id_ranges.ts";
import type { AttributeFact, Subject } from "./subject.ts";

/** The types of attributes. */
export const ATTRIBUTE_TYPES = ["boolean", "number", "text", "texts", "id", "parameters"] as const;
/** The type of an attribute. */
export type AttributeType = typeof ATTRIBUTE_TYPES[number];

/** A longer list of texts is unknown, so that a request cannot make a decision slow. */
export const MAX_LIST_TEXTS = 10_000;

/** An attribute, or one name of an attribute of type parameters. */
export interface AttributeName {
  readonly name: string;
  readonly type: AttributeType;
  /** The name within the parameters. */
  readonly parameter?: string;
}

/** The name of an attribute in decisions: "attributes.query.limit". */
export function factOf({ name, parameter }: AttributeName): AttributeFact {
  return `attributes.${parameter === undefined ? name : `${name}.${parameter}`}`;
}

/** Compiles a condition on an attribute. */
export function compileAttribute(attribute: AttributeName, test: AttributeTest): Evaluate {
  const fact = factOf(attribute);
  const holds = compileTest(test);
  return (subject) => {
    const value = subject.once(fact, () => readAttribute(subject.attributes, attribute));
    return value === undefined ? missing(subject, fact) : holds(value, subject);
  };
}

/**
 * Reads an attribute. Returns `undefined` if it is missing, has another type, or cannot be read. Lists are
 * copied, so that all rules test the same values.
 */
export function readAttribute(
  attributes: unknown,
  { name, type, parameter }: AttributeName,
): unknown {
  try {
    const value = ownField(attributes, name);
    switch (type) {
      case "boolean":
        return typeof value === "boolean" ? value : undefined;
      case "number":
        return Number.isFinite(value) ? value : undefined;
      case "text":
        return typeof value === "string" || value === null ? value : undefined;
      case "texts":
        return readTexts(value);
      case "id":
        return isId(value) ? value : undefined;
      case "parameters":
        if (Array.isArray(value) || Object(value) !== value) return undefined;
        return Object.hasOwn(value as object, parameter!)
          ? readTexts(ownField(value, parameter!))
          : [];
    }
  } catch {
    return undefined; // a getter or a proxy threw
  }
}

/** Returns an own field; `undefined` if there is none. */
function ownField(of: unknown, name: string): unknown {
  return typeof of === "object" && of !== null && Object.hasOwn(of, name)
    ? (of as { readonly [name: string]: unknown })[name]
    : undefined;
}

function readTexts(list: unknown): readonly string[] | undefined {
  if (!Array.isArray(list)) return undefined;
  const { length } = list;
  if (length > MAX_LIST_TEXTS) return undefined;
  const texts: string[] = [];
  for (let at = 0; at < length; at++) {
    const text: unknown = Object.hasOwn(list, at) ? list[at] : undefined;
    if (typeof text !== "string") return undefined;
    texts.push(text);
  }
  return texts;
}

/** Compiles a test of a value of the right type. */
function compileTest(test: AttributeTest): (value: unknown, subject: Subject) => Truth {
  switch (test.type) {
    case "boolean":
      return (value) => value === test.value;
    case "number":
      return (value) => hasId(test.ranges, value as number);
    case "id":
      return (value) => hasId(test.ranges, value as number);
    case "self":
      return (value, subject) =>
        subject.uid === undefined ? missing(subject, "uid") : value === subject.uid;
  }
  const globs = test.globs.map(compileGlob);
  const matches = (text: string) => globs.some((glob) => glob(text));
  if (test.type === "text") return (value) => value !== null && matches(value as string);
  return test.quantifier === "every"
    ? (value) => (value as readonly string[]).every(matches)
    : (value) => (value as readonly string[]).some(matches);
}
