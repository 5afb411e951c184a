/** Parses a policy from YAML or JSON. Each problem has its line and column. */

import { type PolicyProblem, UcredError } from "../core/errors.ts";
import { type OptionNames, requireOptions } from "../core/options.ts";
import { runTests } from "../core/policy/analyze/run_tests.ts";
import { ownOf } from "../core/policy/document/plain_copy.ts";
import {
  type DocumentPath,
  fixFileHint,
  policyError,
  Problems,
} from "../core/policy/document/problems.ts";
import { show } from "../core/policy/document/shape.ts";
import type { RulePolicy } from "../core/policy/policy.ts";
import { BUILT_IN_VOCABULARIES } from "../core/policy/vocabularies.ts";
import { visible } from "../core/text.ts";
import { checkDocument, DEFINE_OPTIONS, type DefineOptions } from "./define.ts";
import { type Contents, type Faulty, type Found, readYaml } from "./yaml.ts";

/** Options of {@link parsePolicy}. */
export interface ParseOptions extends DefineOptions {
  /** Name of the text in errors. Default: "policy". */
  readonly file?: string | undefined;
  /** Whether to run the policy's tests, and to reject the policy if one fails. Default: `false`. */
  readonly runTests?: boolean | undefined;
}

/** The option names of {@link ParseOptions}. */
export const PARSE_OPTIONS: OptionNames<ParseOptions> = {
  ...DEFINE_OPTIONS,
  file: true,
  runTests: true,
};

/**
 * Reads a policy from YAML 1.2 or JSON.
 *
 * Misleading YAML is rejected: tags outside the core schema, merge keys, aliases as names, `yes`, `no`,
 * `on`, `off`, `y`, `n` and numbers such as 0755 without quotes, and invisible characters.
 *
 * @param text At most 4 Mi characters, a million tokens, a thousand aliases, and a million values, nested
 * 64 deep. Each alias counts as the values that it stands for.
 * @throws {UcredError} `ERR_UCRED_POLICY` if the text has mistakes. `problems` lists the first hundred, and
 * the message has a line "file:line:column: message" for each. Otherwise as `definePolicy()` does.
 * @throws {TypeError} If `text` is not a string, or an option is unknown.
 *
 * @example A policy in YAML
 * ```ts
 * import { parsePolicy } from "ucred/policy";
 *
 * const policy = parsePolicy(`
 * version: 1
 * rules:
 *   - name: root
 *     when: { uid: 0 }
 *     allow: full
 * `);
 * console.log(policy.decide({ uid: 0 }).allowed); // true
 * ```
 */
export function parsePolicy(text: string, options: ParseOptions = {}): RulePolicy {
  requireOptions("parsePolicy()", options, PARSE_OPTIONS);
  return parse(text, options);
}

/** Implements {@link parsePolicy} with checked options. */
export function parse(text: string, options: ParseOptions): RulePolicy {
  if (typeof text !== "string") throw new TypeError("text must be a string");
  const { file, runTests: areTestsRun = false } = ownOf(options);
  const content = withoutByteOrderMark(text);
  const lines = new Lines(content);
  const rejected = ({ first, more }: Pick<Problems<Found>, "first" | "more">) => {
    const problems = first.map(({ message, path = [], offset }): PolicyProblem => ({
      ...{ message, path, file: file ?? "policy", ...lines.placeOf(offset) },
    }));
    const hint = file === undefined ? "Fix the listed places" : fixFileHint(file);
    return policyError(problems, more, { hint });
  };
  const contents = readYaml(content);
  if ("problems" in contents) throw rejected(withOthers(contents, options));
  const { data, offsetOf } = contents;
  const where = (path: DocumentPath) => {
    const { line, column } = lines.placeOf(offsetOf({ path }));
    return `${visible(file ?? "policy")}:${line}:${column}`;
  };
  const checked = checkDocument(data, withBuiltIn(options), where);
  if ("policy" in checked) {
    const failed = areTestsRun ? failuresOf(checked.policy, offsetOf) : undefined;
    if (failed === undefined) return checked.policy;
    throw rejected(failed);
  }
  const { first, more } = checked.problems;
  throw rejected({
    first: first.map((problem) => ({
      ...{ offset: offsetOf(problem), message: problem.message, path: problem.path },
    })),
    more,
  });
}

/**
 * Reads plain data by the rules of policies: YAML 1.2 or JSON, without misleading syntax.
 *
 * @returns The data, or the first problem with its line and column.
 */
export function readData(
  text: string,
): { readonly data: unknown } | { readonly problem: Omit<PolicyProblem, "file" | "path"> } {
  const content = withoutByteOrderMark(text);
  const contents = readYaml(content);
  if (!("problems" in contents)) return { data: contents.data };
  const { message, offset } = contents.problems.first[0]!;
  return { problem: { message, ...new Lines(content).placeOf(offset) } };
}

/** Adds the built-in vocabularies. Those of the caller take precedence. */
function withBuiltIn(options: ParseOptions): ParseOptions {
  const { vocabularies = [], ...others } = ownOf(options);
  return { ...others, vocabularies: [...vocabularies, ...BUILT_IN_VOCABULARIES] };
}

function withoutByteOrderMark(text: string): string {
  return text.startsWith("\ufeff") ? text.slice(1) : text;
}

/** Adds the problems of the readable part of a text with syntax errors, in the order of the text. */
function withOthers({ problems, rest }: Faulty, options: ParseOptions): Problems<Found> {
  if (rest === undefined || problems.isFull) return problems;
  const found = [...problems.first];
  let more = problems.more;
  try {
    const checked = checkDocument(rest.data, withBuiltIn(options));
    if ("problems" in checked) {
      for (const problem of checked.problems.first) {
        if (!rest.isOwn(problem)) continue;
        const { path, message } = problem;
        found.push({ offset: rest.offsetOf(problem), message, path });
      }
      more += checked.problems.more;
    }
  } catch (error) {
    if (!(error instanceof UcredError)) throw error; // accounts could not be looked up
  }
  const all = new Problems<Found>();
  for (const each of found.sort((a, b) => a.offset - b.offset)) all.add(() => each);
  all.more += more;
  return all;
}

/** Returns a problem for each failing test of the policy; `undefined` if all pass. */
function failuresOf(
  policy: RulePolicy,
  offsetOf: Contents["offsetOf"],
): Problems<Found> | undefined {
  const { passed, results } = runTests(policy);
  if (passed) return undefined;
  const failures = new Problems<Found>();
  for (const { passed, path, name, message } of results) {
    if (passed) continue;
    failures.add(() => ({
      ...{ offset: offsetOf({ path }), path },
      message: visible(`the test ${show(name)} fails: ${message}`),
    }));
  }
  return failures;
}

/** Converts offsets in a text to lines and columns. */
class Lines {
  readonly #text: string;
  #starts: readonly number[] | undefined;

  constructor(text: string) {
    this.#text = text;
  }

  /** Returns line and column, both from 1; a tab is one character. */
  placeOf(offset: number): { readonly line: number; readonly column: number } {
    const starts = this.#starts ??= startsOf(this.#text);
    let low = 0;
    let high = starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (starts[middle]! <= offset) low = middle;
      else high = middle - 1;
    }
    let column = 1;
    for (let at = starts[low]!; at < offset; column++) {
      at += this.#text.codePointAt(at)! > 0xffff ? 2 : 1;
    }
    return { line: low + 1, column };
  }
}

function startsOf(text: string): readonly number[] {
  const starts = [0];
  for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) starts.push(at + 1);
  return starts;
}
