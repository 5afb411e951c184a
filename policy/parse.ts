/** Text → policy: YAML or JSON, and for everything that is wrong the line and column. */

import { type Document, isMap, isNode, isScalar, LineCounter, parseDocument } from "yaml";
import type { UcredError } from "../core/errors.ts";
import type { Problem } from "../core/policy/check.ts";
import type { Policy } from "../core/policy/policy.ts";
import { policyError } from "../core/policy/problems.ts";
import { checkDocument, type DefineOptions } from "../identity/policy.ts";

/** How a text is to be read. */
export interface ParseOptions extends DefineOptions {
  /** What the text is called in errors; by default "policy". */
  readonly file?: string | undefined;
}

/** In characters. Ten thousand rules take less. */
const LONGEST = 4 << 20;

/** Aliases that are followed: enough to write a list once, too few to blow a small file up. */
const MOST_ALIASES = 100;

/**
 * Reads a policy from YAML 1.2 or JSON.
 *
 * @param text At most 4 Mi characters.
 * @throws {UcredError} `ERR_UCRED_POLICY` if anything is wrong: the message has a line for each
 * problem, "file:line:column: what is wrong". As `definePolicy()` does otherwise.
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
export function parsePolicy(text: string, options: ParseOptions = {}): Policy {
  const { file = "policy" } = options;
  const lines = new LineCounter();
  const fail = (first: readonly Found[], more = 0): never => {
    throw wrong(
      file,
      first.map(({ offset, message }) => ({ ...lines.linePos(offset), message })),
      more,
    );
  };
  if (text.length > LONGEST) fail([{ offset: 0, message: `longer than ${LONGEST} characters` }]);
  const document = parse(text, lines, fail);
  const syntax = [...document.errors, ...document.warnings];
  if (syntax.length > 0) {
    fail(syntax.map(({ pos: [offset], message }) => ({ offset, message: firstLine(message) })));
  }
  let data: unknown;
  try {
    data = document.toJS({ maxAliasCount: MOST_ALIASES });
  } catch (error) {
    fail([{ offset: 0, message: firstLine((error as Error).message) }]);
  }
  const checked = checkDocument(data, options, (path) => {
    const { line, col } = lines.linePos(offsetOf(document, { path }));
    return `${file}:${line}:${col}`;
  });
  if ("policy" in checked) return checked.policy;
  const { first, more } = checked.problems;
  const found = first.map((problem) => ({
    offset: offsetOf(document, problem),
    message: problem.message,
  }));
  return fail(found, more);
}

interface Found {
  readonly offset: number;
  readonly message: string;
}

function parse(
  text: string,
  lineCounter: LineCounter,
  fail: (problems: readonly Found[]) => never,
): Document.Parsed {
  try {
    return parseDocument(text, {
      lineCounter,
      prettyErrors: false,
      version: "1.2",
      logLevel: "error",
    });
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return fail([{ offset: 0, message: "nests too deep" }]); // the parser's stack is full
  }
}

/** Where a problem is: at the wrong value, or at the field that should not be there. */
function offsetOf(
  document: Document.Parsed,
  { path, isField = false }: Pick<Problem, "path" | "isField">,
): number {
  // What is missing has no place of its own: then where it should be.
  for (let length = path.length; length > 0; length--) {
    const parent = length === 1
      ? document.contents
      : document.getIn(path.slice(0, length - 1), true);
    const pair = isMap(parent)
      ? parent.items.find(({ key }) => isScalar(key) && key.value === path[length - 1])
      : undefined;
    const node = isField ? pair?.key : document.getIn(path.slice(0, length), true);
    if (isNode(node) && node.range) return node.range[0];
  }
  return document.contents?.range[0] ?? 0;
}

const firstLine = (message: string): string => message.split("\n", 1)[0]!;

/** The error for a policy file: a line for each problem. */
export function wrong(
  file: string,
  first: readonly { readonly line: number; readonly col: number; readonly message: string }[],
  more = 0,
): UcredError {
  return policyError(
    { first, more },
    ({ line, col, message }) => `${file}:${line}:${col}: ${message}`,
  );
}
