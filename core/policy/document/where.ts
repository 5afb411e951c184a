/** The shapes of conditions on attributes and of their values, and the conversion of conditions. */

import { isId, NO_ID } from "../../credentials.ts";
import type { AttributeTest, CheckedCondition } from "../decide/condition.ts";
import {
  type AttributeName,
  type AttributeNumbers,
  type AttributeType,
  compileAttribute,
  factOf,
} from "../decide/attributes.ts";
import { type IdRange, parseRange, unite } from "../decide/id_ranges.ts";
import { field, flag, globs, ID } from "./schema.ts";
import { anyOf, isObject, list, object, type Shape, show, value } from "./shape.ts";
import type { TextsCondition } from "./types.ts";

/** Requires at least one field. */
const notEmpty = (what: string) => ({
  schema: { minProperties: 1 },
  check: ((value, path, report) => {
    if (isObject(value) && Object.keys(value).length === 0) {
      report.problem(path, () => `${what} has at least one field`);
    }
  }) satisfies Shape["check"],
});

const TEXTS = object("a condition on a list", {
  every: field(globs),
  some: field(globs),
  none: field(globs),
  empty: field(flag),
}, notEmpty("a condition on a list"));

/** An object with any names, each with a value of one shape. */
const namesOf = (
  what: string,
  of: Shape,
  whole: { schema?: object; check?: Shape["check"] } = {},
) => ({
  schema: { type: "object", additionalProperties: of.schema, ...whole.schema },
  check: ((value, path, report) => {
    if (!isObject(value)) {
      return report.problem(path, () => `${what} is an object, not ${show(value)}`);
    }
    for (const [name, each] of Object.entries(value)) of.check(each, [...path, name], report);
    whole.check?.(value, path, report);
  }) satisfies Shape["check"],
});

const RANGE_OF_NUMBERS = "^[0-9]{1,15}-[0-9]{1,15}$";

/** The shape of a condition on an attribute of each type. */
export const CONDITION_SHAPES: { readonly [type in AttributeType]: Shape } = {
  boolean: flag,
  number: anyOf(
    value('a number, or a range like "0-1023"', (value) => rangeOfNumbers(value) !== undefined, {
      anyOf: [{ type: "number" }, { type: "string", pattern: RANGE_OF_NUMBERS }],
    }),
    "at least one number",
  ),
  text: globs,
  texts: TEXTS,
  id: anyOf(
    value(
      `an id from 0 to ${NO_ID - 1}, a range like "1000-1999", or self`,
      (value) =>
        value === "self" ||
        (typeof value === "number" || typeof value === "string") && parseRange(value) !== undefined,
      { anyOf: [ID, { type: "string", pattern: "^(self|[0-9]{1,10}(-[0-9]{1,10})?)$" }] },
    ),
    "at least one id",
  ),
  parameters: namesOf("a condition on parameters", TEXTS, notEmpty("a condition on parameters")),
};

const anyText = value("a text", (value) => typeof value === "string", { type: "string" });
const texts = list(anyText, "texts");

/** The shape of a value of each type, for tests. */
export const VALUE_SHAPES: { readonly [type in AttributeType]: Shape } = {
  boolean: flag,
  number: value("a number", Number.isFinite, { type: "number" }),
  text: value("a text or null", (value) => typeof value === "string" || value === null, {
    anyOf: [{ type: "string" }, { const: null }],
  }),
  texts,
  id: value(`an id from 0 to ${NO_ID - 1}`, isId, ID),
  parameters: namesOf("parameters", texts),
};

/** Parses a number, or a range of digits. */
function rangeOfNumbers(value: unknown): IdRange | undefined {
  if (typeof value === "number") {
    return Number.isFinite(value) ? { first: value, last: value } : undefined;
  }
  if (typeof value !== "string" || !new RegExp(RANGE_OF_NUMBERS).test(value)) return undefined;
  const [first, last] = value.split("-").map(Number) as [number, number];
  return first <= last ? { first, last } : undefined;
}

/** Ranges of numbers, ascending and without overlaps. */
function uniteNumbers(ranges: readonly IdRange[]): readonly IdRange[] {
  const united: IdRange[] = [];
  for (const range of ranges.toSorted((a, b) => a.first - b.first)) {
    const before = united.at(-1);
    if (before === undefined || range.first > before.last) united.push(range);
    else if (range.last > before.last) {
      united[united.length - 1] = { first: before.first, last: range.last };
    }
  }
  return united;
}

interface NumberedAttribute extends AttributeName {
  readonly numbers: AttributeNumbers;
}

/** Converts a condition of the right shape on one attribute. */
export function attributeCondition(
  name: string,
  type: AttributeType,
  value: unknown,
  numbers: AttributeNumbers,
): CheckedCondition {
  const attribute: NumberedAttribute = { name, type, numbers };
  switch (type) {
    case "boolean":
      return leaf(attribute, { type, value: value === true }, `${value}`);
    case "number": {
      const ranges = uniteNumbers(listOf(value).map((each) => rangeOfNumbers(each)!));
      return leaf(attribute, { type, ranges }, orOf(value));
    }
    case "text":
      return leaf(attribute, { type, globs: listOf(value as string) }, orOf(value));
    case "id": {
      const ids = listOf(value as string).filter((each) => each !== "self");
      const ranges = unite(ids.map((each) => parseRange(each)!));
      const self = leaf(attribute, { type: "self" }, "self");
      if (ids.length === 0) return self;
      const other = leaf(attribute, { type, ranges }, orOf(ids));
      return ids.length === listOf(value).length ? other : { kind: "any", of: [self, other] };
    }
    case "texts":
      return textsCondition(attribute, value as TextsCondition);
    case "parameters": {
      const of = Object.entries(value as { readonly [name: string]: TextsCondition })
        .map(([parameter, texts]) => textsCondition({ ...attribute, parameter }, texts));
      return { kind: "all", of };
    }
  }
}

function textsCondition(attribute: NumberedAttribute, condition: TextsCondition): CheckedCondition {
  const { every, some, none, empty } = condition;
  const quantified = (
    quantifier: "every" | "some",
    globs: string | readonly string[],
    text: string,
  ) => leaf(attribute, { type: "texts", quantifier, globs: listOf(globs) }, text);
  const of: CheckedCondition[] = [];
  if (every !== undefined) of.push(quantified("every", every, `every ${orOf(every)}`));
  if (some !== undefined) of.push(quantified("some", some, `some ${orOf(some)}`));
  if (none !== undefined) {
    of.push({ kind: "not", of: quantified("some", none, `some ${orOf(none)}`) });
  }
  if (empty !== undefined) {
    const any = quantified("some", "**", "some **");
    of.push(empty ? { kind: "not", of: any } : any);
  }
  return { kind: "all", of };
}

function leaf(attribute: NumberedAttribute, test: AttributeTest, text: string): CheckedCondition {
  const kind = factOf(attribute);
  const { conditions } = attribute.numbers;
  // Rules often repeat a condition. One function for all of them stays in the CPU's cache.
  const key = JSON.stringify([kind, test, text]);
  let condition = conditions.get(key);
  if (condition === undefined) {
    const evaluate = compileAttribute(attribute, test, attribute.numbers);
    condition = { kind, test, evaluate, text: `${kind.slice("attributes.".length)} ${text}` };
    if (conditions.size >= MAX_SHARED_CONDITIONS) conditions.clear();
    conditions.set(key, condition);
  }
  return condition;
}

/** More different conditions than a policy usually has. */
const MAX_SHARED_CONDITIONS = 1000;

const listOf = <T>(value: T | readonly T[]): readonly T[] =>
  Array.isArray(value) ? value : [value as T];

const orOf = (value: unknown): string => listOf(value).join(" or ");
