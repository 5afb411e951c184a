/** Reads YAML or JSON with the position of each value. Misleading or oversized texts are rejected. */

import {
  Composer,
  type CST,
  isAlias,
  isMap,
  isNode,
  isScalar,
  isSeq,
  Lexer,
  type Pair,
  Parser,
  type Scalar,
  type YAMLMap,
} from "yaml";
import { MAX_DEPTH } from "../core/policy/document/plain_copy.ts";
import { type Problem, Problems } from "../core/policy/document/problems.ts";
import { show } from "../core/policy/document/shape.ts";
import { everyUnseenIn, visible } from "../core/text.ts";

/** Maximum length of a text in UTF-16 code units. Ten thousand rules are shorter. */
export const MAX_TEXT_CHARACTERS = 4 << 20;

/** Maximum tokens of the lexer: the library creates an object for each. Ten thousand rules have half as many. */
export const MAX_LEXEMES = 1_000_000;

/** Maximum number of aliases. Their values also count as if they were written out: see `MAX_VALUES`. */
export const MAX_ALIASES = 1000;

/** A problem in a text. */
export interface Found {
  /** Position in UTF-16 code units. */
  readonly offset: number;
  readonly message: string;
  /** The path in the document; `undefined` for an error of syntax. */
  readonly path?: Problem["path"];
}

/** The contents of a text. */
export interface Contents {
  readonly data: unknown;
  /** Returns the position of a problem: of the wrong value, or of the name of the unexpected field. */
  offsetOf(problem: Pick<Problem, "path" | "isField">): number;
}

/** The problems of a text, and its readable part. */
export interface Faulty {
  readonly problems: Problems<Found>;
  /** The readable part, for further checks; `undefined` if the text was not read to its end. */
  readonly rest: Rest | undefined;
}

/** The readable part of a text with problems. */
export interface Rest extends Contents {
  /** Returns whether a problem is independent of the problems that were found while reading. */
  isOwn(problem: Pick<Problem, "path" | "isField">): boolean;
}

/** Reads YAML 1.2, which includes JSON. */
export function readYaml(text: string): Contents | Faulty {
  const reader = new Reader();
  try {
    return reader.read(text);
  } catch (error) {
    if (!(error instanceof Stop)) throw error;
    return { problems: reader.problems, rest: undefined };
  }
}

/** Thrown to stop reading. */
class Stop extends Error {}

/** Tags of the core schema, the only tags that all readers of YAML 1.2 interpret alike. */
const CORE_TAGS: ReadonlySet<string> = new Set(
  ["str", "int", "float", "bool", "null", "map", "seq"].map((name) => `tag:yaml.org,2002:${name}`),
);

/** Carriage returns without a line feed, which some readers treat as line ends. */
const LONE_RETURN = /\r(?!\n)/;

/** Messages of the library are cut off at this length: they may quote the whole text. */
const MAX_MESSAGE_CHARACTERS = 200;

/** An anchored value, which aliases may use once it is read completely. */
interface Anchored {
  isRead: boolean;
  data: unknown;
}

class Reader {
  readonly problems: Problems<Found> = new Problems();
  readonly #anchors = new Map<string, Anchored>();
  #aliases = 0;
  /** Whether the syntax has no problem, so that a missing field is really missing. */
  #isWhole = true;
  /** Position of the first syntax error: values after it may be misread. */
  #syntaxEnd = Infinity;
  /** Objects with a field that could not be read. */
  readonly #broken = new Set<unknown>();

  read(text: string): Contents | Faulty {
    if (text.length > MAX_TEXT_CHARACTERS) {
      this.#stop(0, `it has ${text.length} characters; the maximum is ${MAX_TEXT_CHARACTERS}`);
    }
    for (const { at, name } of everyUnseenIn(text.replaceAll(/[\t\n\r]/g, " "))) {
      this.#problem(at, () => `it contains the invisible character ${name}`);
    }
    const lone = text.search(LONE_RETURN);
    if (lone >= 0) {
      this.#stop(lone, "it contains the character U+000D without U+000A");
    }
    const root = this.#compose(this.#tokensOf(text), text.length);
    this.#isWhole = this.problems.isEmpty;
    if (!isNode(root) || (isScalar(root) && root.source === "" && root.type === "PLAIN")) {
      if (this.#isWhole) this.#stop(0, "it is empty: a policy has a version and rules");
      throw new Stop();
    }
    const data = this.#dataOf(root);
    const contents: Contents = { data, offsetOf: (problem) => offsetOf(root, problem) };
    if (this.problems.isEmpty) return contents;
    const places = this.problems.first.map(({ offset }) => offset);
    const isOwn = (problem: Pick<Problem, "path" | "isField">) => {
      const node = nodeAt(root, problem);
      if (!isNode(node) || !node.range || node.range[1] > this.#syntaxEnd) return false;
      const [first, last] = node.range;
      const isCollection = isMap(node) || isSeq(node);
      if (!isCollection && places.some((at) => at >= first && at <= last)) return false;
      const isMissing = problem.isField !== true && valueAt(data, problem.path) === undefined;
      if (isMissing) return this.#isWhole && this.#broken.size === 0;
      return !isCollection || this.#isWhole && !this.#broken.has(node);
    };
    return { problems: this.problems, rest: { ...contents, isOwn } };
  }

  #problem(offset: number, message: () => string): void {
    this.problems.add(() => ({ offset, message: message() }));
  }

  #syntax(offset: number, message: string): void {
    this.#syntaxEnd = Math.min(this.#syntaxEnd, offset);
    this.#problem(offset, () => short(message));
  }

  #stop(offset: number, message: string): never {
    this.#problem(offset, () => message);
    throw new Stop();
  }

  /** Returns the tokens of the document. They are counted before they are composed. */
  #tokensOf(text: string): CST.Token[] {
    const tokens: CST.Token[] = [];
    const parser = new Parser();
    let lexemes = 0;
    let hasDocument = false;
    const take = (token: CST.Token): void => {
      const { type, offset } = token;
      switch (type) {
        case "directive":
          if (/^%YAML[ \t]+1\.2[ \t]*$/.test(token.source)) tokens.push(token);
          else this.#problem(offset, () => "the only supported directive is %YAML 1.2");
          return;
        case "document":
          if (hasDocument) {
            this.#problem(offset, () => "a second document begins; a policy is a single document");
            return;
          }
          hasDocument = true;
          tokens.push(token);
          return;
        case "doc-end":
          if (hasDocument) tokens.push(token);
          else this.#problem(offset, () => "a document ends before it begins");
          return;
        case "error":
          this.#syntax(offset, token.message);
      }
    };
    for (const lexeme of new Lexer().lex(text)) {
      const { offset } = parser;
      if (++lexemes > MAX_LEXEMES) {
        this.#stop(offset, `more than ${MAX_LEXEMES} tokens`);
      }
      for (const token of parser.next(lexeme)) take(token);
      // The stack also has the document itself and a scalar.
      if (parser.stack.length > MAX_DEPTH + 2) {
        this.#stop(offset, `nested more than ${MAX_DEPTH} deep`);
      }
    }
    for (const token of parser.end()) take(token);
    return tokens;
  }

  /** Returns the contents of the document; `null` or `undefined` if it is empty. */
  #compose(tokens: readonly CST.Token[], end: number): unknown {
    const composer = new Composer({
      version: "1.2",
      schema: "core",
      resolveKnownTags: false,
      prettyErrors: false,
      logLevel: "silent",
      uniqueKeys: false, // quadratic; #mapOf() checks the names
    });
    // A million Error objects would take a gigabyte, so further problems are only counted.
    const onError: ErrorHandler = (source, code, message) => {
      const offset = typeof source === "number"
        ? source
        : "offset" in source
        ? source.offset
        : source[0];
      if (code === "TAG_RESOLVE_FAILED") this.#problem(offset ?? 0, () => short(message));
      else this.#syntax(offset ?? 0, message);
    };
    (composer as unknown as { onError: ErrorHandler }).onError = onError;
    let contents: unknown;
    for (const document of composer.compose(tokens, true, end)) {
      for (const { pos, code, message } of [...document.errors, ...document.warnings]) {
        onError(pos, code, message);
      }
      contents = document.contents;
    }
    return contents;
  }

  #dataOf(node: unknown): unknown {
    if (isAlias(node)) return this.#aliased(node.source, node.range![0]);
    if (!isNode(node)) return null; // "? a"
    const offset = node.range![0];
    if (!isScalar(node) && !isMap(node) && !isSeq(node)) this.#stop(offset, "unsupported syntax");
    const { tag, anchor } = node;
    if (this.#isWhole && tag !== undefined && !CORE_TAGS.has(tag)) { // otherwise already reported
      this.#problem(offset, () => `the tag ${show(tag)} is not in YAML's core schema`);
    }
    const anchored: Anchored = { isRead: false, data: undefined };
    if (anchor !== undefined) this.#anchors.set(anchor, anchored);
    const data = isMap(node)
      ? this.#mapOf(node)
      : isSeq(node)
      ? node.items.map((item) => this.#dataOf(item))
      : this.#valueOf(node);
    anchored.data = data;
    anchored.isRead = true;
    return data;
  }

  #aliased(name: string, offset: number): unknown {
    if (++this.#aliases > MAX_ALIASES) this.#stop(offset, `more than ${MAX_ALIASES} aliases`);
    const anchored = this.#anchors.get(name);
    if (anchored === undefined) {
      this.#problem(offset, () => `no anchor &${visible(name)} precedes the alias`);
    } else if (!anchored.isRead) {
      this.#problem(offset, () => `the alias is inside its own anchor &${visible(name)}`);
    }
    return anchored?.data;
  }

  #mapOf(map: YAMLMap): object {
    const { items } = map;
    const data: { [name: string]: unknown } = Object.create(null);
    const names = new Set<string>();
    for (const { key, value } of items as Pair[]) {
      const name = this.#nameOf(key, names);
      const field = this.#dataOf(value);
      if (name !== undefined) data[name] = field;
      if (name === undefined || field === undefined) this.#broken.add(map);
    }
    return data;
  }

  /** Returns the name of a new field; `undefined` if it is not a valid name. */
  #nameOf(key: unknown, names: Set<string>): string | undefined {
    const offset = isNode(key) ? key.range![0] : 0;
    let why: (() => string) | undefined;
    if (!isScalar(key)) {
      why = () =>
        `the name of a field is a text, not ${isAlias(key) ? "an alias" : "a list or an object"}`;
    } else if (typeof key.value !== "string") {
      why = () => `the name of a field is a text, not ${show(key.value)}`;
    } else if (key.anchor !== undefined || key.tag !== undefined) {
      why = () => "the name of a field has no anchor and no tag";
    } else if (key.value === "<<") {
      why = () => `merge keys ("<<") are not supported: write the fields out`;
    } else if (names.has(key.value)) {
      why = () => `two fields are called ${show(key.value)}`;
    } else {
      names.add(key.value);
      return key.value;
    }
    this.#problem(offset, why);
    return undefined;
  }

  /** Rejects plain scalars that YAML 1.1 reads differently: the author may expect that meaning. */
  #valueOf({ value, type, source = "", range }: Scalar & { source?: string }): unknown {
    if (type !== "PLAIN") return value;
    if (typeof value === "string" && /^(?:yes|no|on|off|y|n)$/i.test(value)) {
      const meant = () =>
        `YAML 1.1 reads ${value} as true or false: write true or false, or "${value}" for a text`;
      this.#problem(range![0], meant);
    } else if (typeof value === "number" && /^[-+]?0[0-9]/.test(source)) {
      this.#problem(
        range![0],
        () => `YAML 1.1 reads ${source} as octal: write it without leading zeros`,
      );
    }
    return value;
  }
}

type ErrorHandler = (
  source: number | readonly number[] | { readonly offset: number },
  code: string,
  message: string,
) => void;

function short(message: string): string {
  const line = message.split("\n", 1)[0]!;
  return visible(
    line.length > MAX_MESSAGE_CHARACTERS ? `${line.slice(0, MAX_MESSAGE_CHARACTERS)}…` : line,
  );
}

function offsetOf(root: unknown, problem: Pick<Problem, "path" | "isField">): number {
  const node = nodeAt(root, problem);
  return isNode(node) ? node.range?.[0] ?? 0 : 0;
}

/** Returns the node of a problem, or the innermost node that contains it. */
function nodeAt(root: unknown, { path, isField }: Pick<Problem, "path" | "isField">): unknown {
  let node = root;
  for (const [index, name] of path.entries()) {
    let inside: unknown;
    if (isSeq(node)) inside = node.items[name as number];
    else if (isMap(node)) {
      const pair = (node.items as Pair[]).find(({ key }) => isScalar(key) && key.value === name);
      inside = isField && index === path.length - 1 ? pair?.key : pair?.value ?? pair?.key;
    }
    // Missing values and the values of aliases have no position. The enclosing node is returned instead.
    if (!isNode(inside) || !inside.range) return node;
    node = inside;
  }
  return node;
}

function valueAt(data: unknown, path: Problem["path"]): unknown {
  let value = data;
  for (const name of path) {
    if (typeof value !== "object" || value === null) return undefined;
    value = Object.hasOwn(value, name) ? (value as { [name: string]: unknown })[name] : undefined;
  }
  return value;
}
