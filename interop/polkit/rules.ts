/** Polkit's rules in JavaScript, converted to a policy if they only compare and return. */

import { Buffer } from "node:buffer";
import { type Expression, type Node, parse, type Program, type Statement } from "acorn";
import { show } from "../../core/policy/document/shape.ts";
import type { PolicyDocument, RuleDocument } from "../../core/policy/document/types.ts";
import { fileError } from "../file_error.ts";

/** A text of rules, and the name of its file for errors. */
export interface RulesFile {
  /** The name, or path. */
  readonly file: string;
  /** The JavaScript. */
  readonly text: string;
}

/** One comparison. */
interface Literal {
  readonly about: "id" | "peer" | "attribute";
  readonly field: string;
  readonly value: string | boolean;
  readonly isNegated: boolean;
}

/** A condition in disjunctive normal form: one of the lists must hold entirely. */
type Formula = readonly (readonly Literal[])[];

const ALWAYS: Formula = [[]];
const NEVER: Formula = [];

/** Maximum alternatives of one `if`: people write fewer. */
const MAX_ALTERNATIVES = 256;

type Result = "yes" | "no" | "next";

/** What a function returns under a condition. */
interface Return {
  readonly when: Formula;
  readonly result: Result;
  readonly line: number;
}

const WHAT = "import polkit's rules";

/**
 * Converts rules of polkit to a policy with `about: polkit`.
 *
 * Functions of `polkit.addRule()` may compare `action.id`, `subject.user`, `subject.active` and
 * `subject.local`, call `subject.isInGroup()`, `action.id.startsWith(…)` and `action.id.indexOf(…) == 0`, combine these with `&&`, `||`
 * and `!`, and return `polkit.Result.YES`, `NO` or `NOT_HANDLED`. Everything else is an error: a policy
 * cannot ask for a password, as `AUTH_ADMIN` does, and cannot run programs, as `polkit.spawn()` does.
 *
 * Requests that no rule handles are denied, while polkit then uses the defaults of the action.
 *
 * @param files In any order: polkitd evaluates them by the names without folders, and of two files with one
 * name those of /etc first. Give the files of /etc before those of /usr/share.
 * @throws {UcredError} `ERR_UCRED_POLICY` with file, line and column if a policy cannot express a part.
 *
 * @example
 * ```ts
 * import { importRules } from "ucred/polkit";
 *
 * const text = `polkit.addRule(function (action, subject) {
 *   if (action.id == "org.example.restart" && subject.isInGroup("operators")) {
 *     return polkit.Result.YES;
 *   }
 * });`;
 * const { rules } = importRules([{ file: "10-example.rules", text }]);
 * console.log(rules[0]?.actions); // org.example.restart
 * ```
 */
export function importRules(files: readonly RulesFile[]): PolicyDocument {
  const bytesOf = ({ file }: RulesFile) => Buffer.from(baseOf(file)); // polkitd compares bytes
  const ordered = [...files].sort((one, other) => Buffer.compare(bytesOf(one), bytesOf(other)));
  const rules = ordered.flatMap((file) => new Reader(file).rules());
  const names = new Map<string, number>();
  const unique = rules.map((rule) => {
    const count = (names.get(rule.name) ?? 0) + 1;
    names.set(rule.name, count);
    return count === 1 ? rule : { ...rule, name: `${rule.name}, number ${count}` };
  });
  return { version: 1, about: "polkit", rules: unique };
}

const baseOf = (file: string) => file.replace(/^.*\//, "");

type Call = Extract<Expression, { type: "CallExpression" }>;
type Func = Extract<Expression, { type: "FunctionExpression" }>;

class Reader {
  readonly #file: string;
  readonly #program: Program;
  /** The names of the function's parameters. */
  #action = "";
  #subject = "";

  constructor({ file, text }: RulesFile) {
    this.#file = file;
    try {
      // The language of polkitd's engine: it rejects a file with newer syntax.
      this.#program = parse(text, { ecmaVersion: 5, sourceType: "script", locations: true });
    } catch (error) {
      const { message, loc } = error as Error & { loc?: { line: number; column: number } };
      const place = { line: loc?.line, column: loc && loc.column + 1 };
      throw fileError(WHAT, file, message.replace(/ \(\d+:\d+\)$/, "").toLowerCase(), place);
    }
  }

  #fail(node: Node, message: string): never {
    const { start } = node.loc!;
    throw fileError(WHAT, this.#file, message, { line: start.line, column: start.column + 1 });
  }

  rules(): RuleDocument[] {
    return this.#program.body.flatMap((statement) => {
      if (statement.type === "EmptyStatement") return [];
      const call = statement.type === "ExpressionStatement" ? statement.expression : undefined;
      if (call?.type !== "CallExpression" || this.#nameOf(call.callee) !== "polkit.addRule") {
        this.#fail(statement, "only calls of polkit.addRule() can be imported");
      }
      return this.#rulesOf(this.#functionOf(call));
    });
  }

  #functionOf(call: Call): Func {
    const [found, ...others] = call.arguments;
    if (
      others.length > 0 ||
      found?.type !== "FunctionExpression"
    ) this.#fail(call, "polkit.addRule() takes one function");
    const [action, subject, ...more] = found.params;
    const names = [action, subject].map((each) => each?.type === "Identifier" ? each.name : "");
    if (more.length > 0) this.#fail(found, "the function takes an action and a subject");
    const bound = [...names, found.id?.name];
    if (bound.includes("polkit") || bound.includes("undefined")) {
      this.#fail(found, "a name in the function hides `polkit` or `undefined`");
    }
    if (action && names[0] === names[1]) this.#fail(found, "both parameters have the same name");
    [this.#action, this.#subject] = names as [string, string];
    return found;
  }

  #rulesOf({ body }: Func): RuleDocument[] {
    const returns: Return[] = [];
    this.#run(body.body, ALWAYS, returns);
    return this.#emit(returns);
  }

  /** Adds what the statements return, and returns the condition under which they return nothing. */
  #run(statements: readonly Statement[], when: Formula, returns: Return[]): Formula {
    let rest = when;
    for (const statement of statements) {
      switch (statement.type) {
        case "EmptyStatement":
          break;
        case "BlockStatement":
          rest = this.#run(statement.body, rest, returns);
          break;
        case "ReturnStatement": {
          const { argument } = statement;
          const result = argument == null ? "next" : this.#resultOf(argument);
          returns.push({ when: rest, result, line: line(statement) });
          rest = NEVER;
          break;
        }
        case "IfStatement": {
          const { test, consequent, alternate } = statement;
          const holds = this.#formulaOf(test, false);
          const fails = this.#formulaOf(test, true);
          const after = this.#run([consequent], this.#and(rest, holds, test), returns);
          const otherwise = this.#and(rest, fails, test);
          const other = alternate == null ? otherwise : this.#run([alternate], otherwise, returns);
          rest = this.#limit([...after, ...other], test);
          break;
        }
        default:
          this.#fail(statement, "a policy can express only `if` and `return`");
      }
    }
    return rest;
  }

  #resultOf(node: Expression): Result {
    if (node.type === "Literal" && node.value === null) return "next";
    const name = this.#nameOf(node);
    switch (name) {
      case "polkit.Result.YES":
        return "yes";
      case "polkit.Result.NO":
        return "no";
      case "polkit.Result.NOT_HANDLED":
      case "undefined":
        return "next";
    }
    if (name?.startsWith("polkit.Result.AUTH_") === true) {
      this.#fail(node, `a policy cannot ask for a password, as ${name} does`);
    }
    if (node.type === "Literal" && (node.value === "yes" || node.value === "no")) return node.value;
    return this.#fail(node, "a rule must return a value of polkit.Result");
  }

  /** "a.b.c", `undefined` for other expressions. */
  #nameOf(node: Node): string | undefined {
    const found = node as Expression;
    if (found.type === "Identifier") return found.name;
    if (found.type !== "MemberExpression" || found.computed) return undefined;
    const [owner, property] = [this.#nameOf(found.object), this.#nameOf(found.property)];
    return owner === undefined || property === undefined ? undefined : `${owner}.${property}`;
  }

  #formulaOf(node: Expression, isNegated: boolean): Formula {
    switch (node.type) {
      case "UnaryExpression":
        if (node.operator === "!") return this.#formulaOf(node.argument, !isNegated);
        break;
      case "LogicalExpression": {
        const left = this.#formulaOf(node.left, isNegated);
        const right = this.#formulaOf(node.right, isNegated);
        const isAnd = (node.operator === "&&") !== isNegated;
        return isAnd ? this.#and(left, right, node) : this.#limit([...left, ...right], node);
      }
      case "BinaryExpression":
        return this.#comparison(node, isNegated);
      case "CallExpression":
        return [[{ ...this.#groupOf(node), isNegated }]];
      case "Literal":
        if (typeof node.value === "boolean") return node.value !== isNegated ? ALWAYS : NEVER;
        break;
      case "MemberExpression": {
        const field = this.#flagOf(node);
        if (field !== undefined) {
          return [[{ about: "attribute", field, value: true, isNegated }]];
        }
      }
    }
    return this.#fail(node, "a policy cannot express this condition");
  }

  /** `active` or `local`. */
  #flagOf(node: Expression): string | undefined {
    const name = this.#nameOf(node);
    return ["active", "local"].find((flag) => name === `${this.#subject}.${flag}`);
  }

  #comparison(
    node: Extract<Expression, { type: "BinaryExpression" }>,
    isNegated: boolean,
  ): Formula {
    const { operator } = node;
    const isEqual = operator === "==" || operator === "===";
    if (!isEqual && operator !== "!=" && operator !== "!==") {
      this.#fail(node, `a policy cannot compare with ${operator}`);
    }
    const sides = [node.left as Expression, node.right];
    const constant = sides.find((side) => side.type === "Literal");
    const other = sides.find((side) => side !== constant);
    if (constant === undefined || other === undefined) {
      return this.#fail(node, "a policy compares with a constant");
    }
    const { value } = constant;
    const negated = isNegated === isEqual;
    const prefix = this.#prefixOf(other);
    if (prefix !== undefined && value === 0) {
      return [[{ about: "id", field: "id", value: `${prefix}**`, isNegated: negated }]];
    }
    const flag = this.#flagOf(other);
    if (flag !== undefined && typeof value === "boolean") {
      return [[{ about: "attribute", field: flag, value: true, isNegated: negated === value }]];
    }
    const name = this.#nameOf(other);
    if (typeof value === "string") {
      if (value.includes("*")) this.#fail(constant, `${show(value)} would be a glob in a policy`);
      if (name === `${this.#action}.id`) {
        return [[{ about: "id", field: "id", value, isNegated: negated }]];
      }
      if (name === `${this.#subject}.user`) {
        return [[{ about: "peer", field: "user", value, isNegated: negated }]];
      }
    }
    return this.#fail(node, "a policy cannot express this comparison");
  }

  /** The argument of `action.id.indexOf("…")`. */
  #prefixOf(node: Expression): string | undefined {
    if (node.type !== "CallExpression") return undefined;
    if (this.#nameOf(node.callee) !== `${this.#action}.id.indexOf`) return undefined;
    return this.#textIn(node);
  }

  #groupOf(node: Call): Omit<Literal, "isNegated"> {
    const name = this.#nameOf(node.callee);
    if (name === `${this.#subject}.isInGroup`) {
      return { about: "peer", field: "group", value: this.#textIn(node) };
    }
    if (name === `${this.#action}.id.startsWith`) {
      return { about: "id", field: "id", value: `${this.#textIn(node)}**` };
    }
    return this.#fail(node, `a policy cannot call ${name ?? "this function"}()`);
  }

  /** The only argument of a call, a text that is no glob. */
  #textIn(node: Call): string {
    const [argument, ...others] = node.arguments;
    const isText = argument?.type === "Literal" && typeof argument.value === "string";
    if (others.length > 0 || !isText || (argument.value as string).includes("*")) {
      this.#fail(node, "a policy takes one constant text here");
    }
    return argument.value as string;
  }

  #and(one: Formula, other: Formula, node: Node): Formula {
    return this.#limit(one.flatMap((each) => other.map((more) => [...each, ...more])), node);
  }

  /** Removes alternatives that contradict themselves. */
  #limit(formula: Formula, node: Node): Formula {
    const possible = formula.filter((all) =>
      !all.some((one) => all.some((other) => excludes(one, other)))
    );
    if (possible.length > MAX_ALTERNATIVES) this.#fail(node, "the condition is too complex");
    return possible;
  }

  /** Returns one rule for each alternative. */
  #emit(returns: readonly Return[]): RuleDocument[] {
    return returns.filter(({ result }) => result !== "next").flatMap(({ when, result, line }) =>
      when.map((literals, at) => {
        const suffix = when.length > 1 ? `, case ${at + 1}` : "";
        const name = `${baseOf(this.#file)} line ${line}${suffix}`;
        return { name, ...conditionsOf(literals), ...(result === "yes" ? { allow: true } : DENY) };
      })
    );
  }
}

const DENY = { deny: "polkit's rules do not allow it" };

const line = (node: Node): number => node.loc!.start.line;

/** Whether two comparisons cannot both hold. */
function excludes(one: Literal, other: Literal): boolean {
  if (one.about !== other.about || one.field !== other.field) return false;
  if (one.value === other.value) return one.isNegated !== other.isNegated;
  const isExact = ({ value }: Literal) => typeof value === "string" && !value.endsWith("**");
  return one.field !== "group" && !one.isNegated && !other.isNegated && isExact(one) &&
    isExact(other);
}

/** The conditions of a rule for comparisons that must all hold. */
function conditionsOf(literals: readonly Literal[]): Omit<RuleDocument, "name"> {
  const unique = [...new Map(literals.map((each) => [JSON.stringify(each), each])).values()];
  const first = unique.find(({ about, isNegated }) => about === "id" && !isNegated);
  const others = unique.filter((each) => each !== first);
  const peer = others.filter(({ about }) => about === "peer").map(fieldsOf);
  const request = others.filter(({ about }) => about !== "peer").map(fieldsOf);
  return {
    ...(first && { actions: String(first.value) }),
    ...(peer.length > 0 && { when: joined(peer) }),
    ...(request.length > 0 && { where: joined(request) }),
  } as Omit<RuleDocument, "name">;
}

type Fields = { readonly [field: string]: unknown };

function fieldsOf({ field, value, isNegated }: Literal): Fields {
  return isNegated ? { not: { [field]: value } } : { [field]: value };
}

const joined = (list: readonly Fields[]): Fields => list.length === 1 ? list[0]! : { all: list };
