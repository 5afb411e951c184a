/** Reads attributes of a request and tests their values. */

import { isId } from "../../credentials.ts";
import {
  type AttributeTest,
  type CheckedCondition,
  type Evaluate,
  missing,
  partsOf,
  type Truth,
} from "./condition.ts";
import { compileGlob } from "./glob.ts";
import { hasId } from "./id_ranges.ts";
import type { AttributeFact, Subject } from "./subject.ts";

/** The type of an attribute. */
export type AttributeType = "boolean" | "number" | "text" | "texts" | "id" | "parameters";

/** A longer list of texts is unknown, so that a request cannot make a decision slow. */
export const MAX_LIST_TEXTS = 10_000;

/** An attribute, or one name of an attribute of type parameters. */
export interface AttributeName {
  readonly name: string;
  readonly type: AttributeType;
  /** The name within the parameters. */
  readonly parameter?: string | undefined;
}

/** The name of an attribute in logs: "query.limit". */
export function keyOf({ name, parameter }: Omit<AttributeName, "type">): string {
  return parameter === undefined ? name : `${name}.${parameter}`;
}

/** The name of an attribute in decisions: "attributes.query.limit". */
export function factOf(attribute: AttributeName): AttributeFact {
  return `attributes.${keyOf(attribute)}`;
}

/**
 * The attributes that the `where` of a rule tests. The name of an attribute has no dot, and that of a
 * parameter may have some.
 */
export function attributesIn(
  where: CheckedCondition | undefined,
): readonly Omit<AttributeName, "type">[] {
  return partsOf(where).map(({ kind }) => {
    const [, name, parameter] = /^attributes\.([^.]+)(?:\.([^]*))?/.exec(kind)!;
    return { name: name!, parameter };
  });
}

/** Numbers the attributes of a vocabulary, so that a decision stores their values in a list. */
export class AttributeNumbers {
  /** Compiled conditions, to share. */
  readonly conditions: Map<string, CheckedCondition> = new Map();
  readonly #numbers = new Map<AttributeFact, number>();

  of(fact: AttributeFact): number {
    const known = this.#numbers.get(fact);
    if (known !== undefined) return known;
    this.#numbers.set(fact, this.#numbers.size);
    return this.#numbers.size - 1;
  }
}

/** Marks an attribute that is missing, has another type, or cannot be read. */
const UNKNOWN = Symbol("unknown");

/** New lists have this many fields of their own, so that fields of `Array.prototype` do not appear in them. */
const MIN_VALUES = 8;
// deno-fmt-ignore
const newValues = (): unknown[] =>
  [undefined, undefined, undefined, undefined, undefined, undefined, undefined, undefined];

const valueIn = (values: readonly unknown[] | undefined, number: number): unknown =>
  values !== undefined && (number < MIN_VALUES || Object.hasOwn(values, number))
    ? values[number]
    : undefined;

/** Compiles a condition on an attribute. Each attribute is read once for a decision. */
export function compileAttribute(
  attribute: AttributeName,
  test: AttributeTest,
  numbers: AttributeNumbers,
): Evaluate {
  const fact = factOf(attribute);
  const number = numbers.of(fact);
  const read = readerOf(attribute);
  const holds = compileTest(test);
  return (subject) => {
    const isFirst = subject.attributeNumber === number;
    let value = isFirst ? subject.attributeValue : valueIn(subject.attributeValues, number);
    if (value === undefined) {
      try {
        value = read(subject.attributes);
      } catch {
        // A getter or a proxy threw.
      }
      if (value === undefined) value = UNKNOWN;
      if (subject.attributeNumber >= 0) (subject.attributeValues ??= newValues())[number] = value;
      else {
        subject.attributeNumber = number;
        subject.attributeValue = value;
      }
    }
    return value === UNKNOWN ? missing(subject, fact) : holds(value, subject);
  };
}

/** Reads an attribute; `undefined` if it is unknown. */
export const readAttribute = (attributes: unknown, attribute: AttributeName): unknown =>
  readerOf(attribute)(attributes);

/**
 * Returns a function that reads an attribute. It returns `undefined` if the attribute is missing or has
 * another type, and throws if it cannot be read. Lists are copied, so that all rules test the same values.
 */
function readerOf({ name, type, parameter }: AttributeName): (attributes: unknown) => unknown {
  const read = VALUE_READERS[type];
  if (parameter === undefined) return (attributes) => read(ownField(attributes, name));
  return (attributes) => {
    const parameters = ownField(attributes, name);
    if (Array.isArray(parameters) || Object(parameters) !== parameters) return undefined;
    return Object.hasOwn(parameters as object, parameter)
      ? read(ownField(parameters, parameter))
      : [];
  };
}

const VALUE_READERS: { readonly [type in AttributeType]: (value: unknown) => unknown } = {
  boolean: (value) => typeof value === "boolean" ? value : undefined,
  number: (value) => Number.isFinite(value) ? value : undefined,
  text: (value) => typeof value === "string" || value === null ? value : undefined,
  texts: readTexts,
  id: (value) => isId(value) ? value : undefined,
  parameters: readTexts,
};

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
    case "id":
      return (value) => hasId(test.ranges, value as number);
    case "self":
      return (value, subject) =>
        subject.uid === undefined ? missing(subject, "uid") : value === subject.uid;
  }
  const globs = test.globs.map(compileGlob);
  const matches = globs.length === 1
    ? globs[0]!
    : (text: string) => globs.some((glob) => glob(text));
  if (test.type === "text") return (value) => value !== null && matches(value as string);
  return test.quantifier === "every"
    ? (value) => (value as readonly string[]).every((text) => matches(text))
    : (value) => (value as readonly string[]).some((text) => matches(text));
}
