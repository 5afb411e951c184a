/** Vocabularies: the actions and attributes of the requests that a policy is about. */

import { Budget, BudgetExceeded } from "../analyze/budget.ts";
import { findText } from "../analyze/text_sets.ts";
import { AttributeNumbers, type AttributeType } from "../decide/attributes.ts";
import type { CheckedCondition } from "../decide/condition.ts";
import { type Decision, DecisionRecord, NOTHING_UNKNOWN } from "../decide/decision.ts";
import { compileGlob } from "../decide/glob.ts";
import type { PolicyVocabulary } from "./check.ts";
import { plain } from "./plain_copy.ts";
import { type DocumentPath, pathText, Problems } from "./problems.ts";
import { field, glob, policyWith, required, text } from "./schema.ts";
import {
  anyOf,
  isObject,
  type JsonSchema,
  list,
  nested,
  object,
  type Report,
  type Shape,
  show,
  suggest,
  value,
} from "./shape.ts";
import type { AttributeCondition } from "./types.ts";
import { attributeCondition, CONDITION_SHAPES, VALUE_SHAPES } from "./where.ts";

/** An attribute of requests. */
export interface VocabularyAttribute {
  /**
   * The type of its values.
   *
   * - `boolean`, `number`.
   * - `text`: a string; `null`: known to be absent.
   * - `texts`: a list of strings.
   * - `id`: a uid or gid, 0 to 2³²−2.
   * - `parameters`: an object of lists of strings. A name that it does not have has an empty list.
   */
  readonly type: AttributeType;
  /** One sentence, for people and editors. */
  readonly description: string;
  /** The actions that have the attribute. Default: all. */
  readonly actions?: readonly string[];
  /**
   * Whether its values may be secret: audit records and events then have only the number of its texts. A
   * boolean, a number or an id is never secret. By default `false`.
   */
  readonly secret?: boolean;
  /**
   * The actions of which the other attributes do not describe everything that matters. `lint()` warns about
   * an allowing rule with `where` for such an action that does not test this attribute.
   */
  readonly essential?: readonly string[];
}

/** A vocabulary as data. */
export interface VocabularyDocument {
  /** The name that policies give in `about`. */
  readonly name: string;
  /** The actions, each with one sentence. A name with stars is a glob: `"* /**"`. */
  readonly actions: { readonly [action: string]: string };
  /** The attributes. */
  readonly attributes: { readonly [name: string]: VocabularyAttribute };
}

/** A vocabulary, made by {@link defineVocabulary}. Frozen. */
export interface Vocabulary extends VocabularyDocument {
  /** The JSON Schema definitions of `where` and of `attributes`. */
  readonly schema: { readonly where: JsonSchema; readonly attributes: JsonSchema };
}

/**
 * Makes a vocabulary: the actions and attributes that policies with `about` can use.
 *
 * @throws {TypeError} If the document has mistakes.
 *
 * @example A policy about backups
 * ```ts
 * import { definePolicy } from "ucred";
 * import { defineVocabulary } from "ucred/policy";
 *
 * const backup = defineVocabulary({
 *   name: "backup",
 *   actions: { read: "Reads an archive.", delete: "Deletes an archive." },
 *   attributes: { owner: { type: "id", description: "The uid that made the archive." } },
 * });
 * const rules = [{ name: "own archives", where: { owner: "self" }, allow: true }] as const;
 * const policy = definePolicy({ version: 1, about: "backup", rules }, { vocabularies: [backup] });
 * const attributes = { owner: 1000 };
 * console.log(policy.decide({ uid: 1000 }, { action: "delete", attributes }).allowed); // true
 * console.log(policy.decide({ uid: 1001 }, { action: "delete", attributes }).allowed); // false
 * ```
 */
export function defineVocabulary(document: VocabularyDocument): Vocabulary {
  return new CompiledVocabulary(checkedDocument(document));
}

const word = (what: string, pattern: RegExp) =>
  value(what, (value) => typeof value === "string" && pattern.test(value), {});

/** A name that is no field of every object, and no word of conditions. */
const isAttributeName = (name: string) =>
  /^[A-Za-z][A-Za-z0-9]*$/.test(name) && !(name in Object.prototype) &&
  !["any", "all", "not"].includes(name);

const ATTRIBUTE = object("an attribute", {
  type: required(value(
    Object.keys(VALUE_SHAPES).join(" or "),
    (value) => typeof value === "string" && Object.hasOwn(VALUE_SHAPES, value),
    {},
  )),
  description: required(text),
  actions: field(list(text, "actions", 1)),
  secret: field(value("true or false", (value) => typeof value === "boolean", {})),
  essential: field(list(text, "actions", 1)),
});

/** An object with names of one kind, each with a value of one shape. */
const entriesOf = (what: string, isName: (name: string) => boolean, of: Shape): Shape => ({
  schema: {},
  check: (value, path, report) => {
    if (!isObject(value)) {
      return report.problem(path, () => `${what} are an object, not ${show(value)}`);
    }
    for (const [name, each] of Object.entries(value)) {
      if (!isName(name)) report.problem([...path, name], () => `not a name: ${show(name)}`);
      of.check(each, [...path, name], report);
    }
  },
});

const VOCABULARY = object("a vocabulary", {
  name: required(word("a word in lower case", /^[a-z][a-z0-9-]{0,63}$/)),
  actions: required(entriesOf("actions", (name) => name !== "", text)),
  attributes: required(entriesOf("attributes", isAttributeName, ATTRIBUTE)),
});

function checkedDocument(document: unknown): VocabularyDocument {
  const problems = new Problems<string>();
  const problem: Report["problem"] = (path, message) =>
    problems.add(() => `${pathText(path) || "vocabulary"}: ${message()}`);
  const data = plain(document);
  if ("problem" in data) problem(data.problem.path, () => data.problem.message);
  else {
    VOCABULARY.check(data.copy, [], { problem, unexpectedField: problem, name: () => {} });
    if (problems.isEmpty) {
      const { actions, attributes } = data.copy as VocabularyDocument;
      for (const [name, attribute] of Object.entries(attributes)) {
        for (const field of ["actions", "essential"] as const) {
          for (const [at, action] of (attribute[field] ?? []).entries()) {
            if (Object.hasOwn(actions, action)) continue;
            const path = ["attributes", name, field, at];
            problem(path, () => noAction(action, Object.keys(actions)));
          }
        }
      }
    }
  }
  if (problems.isEmpty) return (data as { copy: VocabularyDocument }).copy;
  throw new TypeError(`Cannot use the vocabulary: ${problems.first.join("\n")}`);
}

const noAction = (action: unknown, actions: readonly string[]) =>
  `no action ${show(action)}${typeof action === "string" ? suggest(action, actions) : ""}`;

class CompiledVocabulary implements Vocabulary, PolicyVocabulary {
  readonly name: string;
  readonly actions: VocabularyDocument["actions"];
  readonly attributes: VocabularyDocument["attributes"];
  readonly policy: Shape;
  readonly schema: Vocabulary["schema"];
  readonly #numbers = new AttributeNumbers();
  /** The actions without stars. */
  readonly #names: ReadonlySet<string>;
  readonly #globs: readonly ((action: string) => boolean)[];

  constructor({ name, actions, attributes }: VocabularyDocument) {
    this.name = name;
    this.actions = actions;
    this.attributes = attributes;
    const isGlob = (action: string) => action.includes("*");
    this.#names = new Set(Object.keys(actions).filter((action) => !isGlob(action)));
    this.#globs = Object.keys(actions).filter(isGlob).map(compileGlob);
    const entries = Object.entries(attributes);
    const shapes = (of: { readonly [type in AttributeType]: Shape }) =>
      Object.fromEntries(entries.map(([name, { type }]) => [name, field(of[type])]));
    const condition = nested(`where-${name}`, () => where);
    const conditions = field(list(condition, "conditions", 1));
    const where = object("a condition on attributes", {
      ...shapes(CONDITION_SHAPES),
      ...{ any: conditions, all: conditions, not: field(condition) },
    }, {
      schema: { minProperties: 1 },
      check: (value, path, report) => {
        if (isObject(value) && Object.keys(value).length > 0) return;
        report.problem(path, () => "a condition on attributes has at least one field");
      },
    });
    const values = object("attributes", shapes(VALUE_SHAPES));
    const shape = policyWith({
      policy: { about: required(value(name, (value) => value === name, { const: name })) },
      rule: { actions: field(anyOf(this.#actionShape(true))), where: field(condition) },
      test: { action: field(this.#actionShape(false)), attributes: field(values) },
    });
    this.policy = {
      schema: shape.schema,
      check: (value, path, report) => {
        shape.check(value, path, report);
        this.#checkUse(value, report);
      },
    };
    this.schema = { where: where.schema, attributes: values.schema };
    Object.freeze(this);
  }

  conditionOf(where: AttributeCondition): CheckedCondition {
    const of = Object.entries(where).map(([name, value]): CheckedCondition => {
      switch (name) {
        case "any":
        case "all": {
          const conditions = value as readonly AttributeCondition[];
          return { kind: name, of: conditions.map((each) => this.conditionOf(each)) };
        }
        case "not":
          return { kind: name, of: this.conditionOf(value as AttributeCondition) };
      }
      return attributeCondition(name, this.attributes[name]!.type, value, this.#numbers);
    });
    return { kind: "all", of };
  }

  refusalOf(action: string | undefined): Decision | undefined {
    if (action === undefined || this.#has(action)) return undefined;
    const decision = new DecisionRecord(undefined, true, NOTHING_UNKNOWN);
    const reason = `The vocabulary "${this.name}" has no action ${show(action)}`;
    return Object.freeze({ ...decision, reason });
  }

  #has(action: string): boolean {
    if (this.#names.has(action)) return true;
    for (const glob of this.#globs) if (glob(action)) return true;
    return false;
  }

  /** An action, or a glob that matches at least one action. */
  #actionShape(isGlob: boolean): Shape {
    const shape = isGlob ? glob : text;
    return {
      schema: shape.schema,
      check: (value, path, report) => {
        shape.check(value, path, report);
        if (typeof value !== "string" || value === "") return;
        const isKnown = isGlob ? this.#actionsOf([value]).length > 0 : this.#has(value);
        if (!isKnown) report.problem(path, () => noAction(value, Object.keys(this.actions)));
      },
    };
  }

  /** The actions that a glob may match. */
  #actionsOf(globs: readonly unknown[]): readonly string[] {
    return Object.keys(this.actions).filter((action) =>
      globs.some((glob) => typeof glob === "string" && mayMeet(glob, action))
    );
  }

  /** Checks that each rule and test uses attributes of its actions. */
  #checkUse(document: unknown, report: Report): void {
    const listIn = (name: string): readonly unknown[] => {
      const list = isObject(document) ? document[name] : undefined;
      return Array.isArray(list) ? list : [];
    };
    for (const [at, rule] of listIn("rules").entries()) {
      if (!isObject(rule)) continue;
      const actions = this.#actionsOf([rule["actions"]].flat());
      this.#checkNames(rule["where"], ["rules", at, "where"], actions, report);
    }
    for (const [at, test] of listIn("tests").entries()) {
      if (!isObject(test)) continue;
      const actions = this.#actionsOf([test["action"]]);
      this.#checkNames(test["attributes"], ["tests", at, "attributes"], actions, report);
    }
  }

  #checkNames(
    where: unknown,
    path: DocumentPath,
    actions: readonly string[],
    report: Report,
  ): void {
    if (Array.isArray(where)) {
      for (const [at, each] of where.entries()) {
        this.#checkNames(each, [...path, at], actions, report);
      }
      return;
    }
    if (!isObject(where) || actions.length === 0) return;
    for (const [name, value] of Object.entries(where)) {
      const inner = [...path, name];
      if (name === "any" || name === "all" || name === "not") {
        this.#checkNames(value, inner, actions, report);
        continue;
      }
      const having = Object.hasOwn(this.attributes, name)
        ? this.attributes[name]!.actions
        : undefined;
      if (having === undefined || actions.some((action) => having.includes(action))) continue;
      report.unexpectedField(
        inner,
        () =>
          `${show(actions[0])} has no attribute ${show(name)}: ${having.map(show).join(", ")} ` +
          (having.length === 1 ? "has it" : "have it"),
      );
    }
  }
}

/** Whether a glob and an action of the vocabulary, which may be a glob, have a text in common. */
function mayMeet(glob: string, action: string): boolean {
  if (!action.includes("*")) return compileGlob(glob)(action);
  if (!glob.includes("*")) return compileGlob(action)(glob);
  try {
    return findText({ in: [[glob], [action]], out: [] }, new Budget(1_000_000)) !== undefined;
  } catch (error) {
    if (!(error instanceof BudgetExceeded)) throw error;
    return true; // a check for mistakes, which decides nothing
  }
}
