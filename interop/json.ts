/**
 * JSON without ambiguity: a reader that rejects each text that two programs may read differently, and a
 * writer. Numbers keep their text.
 */

/** A JSON value. Objects are maps, so that no key is special. */
export type JsonValue = null | boolean | string | JsonNumber | readonly JsonValue[] | JsonObject;

/** A JSON object, in the order of the text. */
export type JsonObject = ReadonlyMap<string, JsonValue>;

/** A number, as its text: JavaScript rounds integers beyond 2⁵³. */
export class JsonNumber {
  /** The number as JSON: "1e3". */
  readonly text: string;

  /** Wraps a number in the syntax of JSON. */
  constructor(text: string) {
    this.text = text;
  }
}

/** The deepest nesting that is read. Bodies of Docker's API have 8 levels at most. */
export const MAX_DEPTH = 64;

/** The most values that are read: an empty object takes two bytes of a text, and 400 bytes of memory. */
export const MAX_VALUES = 200_000;

/**
 * Reads a JSON text. Returns the value, or why it is rejected.
 *
 * @param maxValues The most values that are read, by default {@link MAX_VALUES}.
 */
export function readJson(
  bytes: Uint8Array,
  maxValues: number = MAX_VALUES,
): { readonly value: JsonValue } | { readonly problem: string } {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return { problem: "The JSON text is not in UTF-8" };
  }
  const reader = new Reader(text, maxValues);
  try {
    return { value: reader.document() };
  } catch (error) {
    if (!(error instanceof Rejected)) throw error;
    return { problem: error.message };
  }
}

/** Writes a value as JSON. */
export function writeJson(value: JsonValue): string {
  if (value instanceof JsonNumber) return value.text;
  if (Array.isArray(value)) return `[${value.map(writeJson).join()}]`;
  if (value instanceof Map) {
    const entries = [...value as JsonObject].map(([key, each]) =>
      `${JSON.stringify(key)}:${writeJson(each)}`
    );
    return `{${entries.join()}}`;
  }
  return JSON.stringify(value);
}

/** Whether a value is an object. */
export const isJsonObject = (value: unknown): value is JsonObject => value instanceof Map;

class Rejected extends Error {}

// The grammar of RFC 8259. Sticky expressions match at one position only, in linear time.
const SPACE = /[ \t\n\r]*/y;
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
/** Characters of a string up to a quote, a backslash or a control character. */
// deno-lint-ignore no-control-regex
const PLAIN = /[^"\\\u0000-\u001f]*/y;
const ESCAPED: { readonly [letter: string]: string } = {
  ...{ '"': '"', "\\": "\\", "/": "/", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" },
};

class Reader {
  readonly #text: string;
  readonly #maxValues: number;
  #at = 0;
  #values = 0;

  constructor(text: string, maxValues: number) {
    this.#text = text;
    this.#maxValues = maxValues;
  }

  document(): JsonValue {
    const value = this.#value(0);
    this.#space();
    if (this.#at < this.#text.length) throw this.#unexpected();
    return value;
  }

  #value(depth: number): JsonValue {
    if (++this.#values > this.#maxValues) {
      throw new Rejected(`The JSON text has more than ${this.#maxValues} values`);
    }
    this.#space();
    switch (this.#text[this.#at]) {
      case "{":
        return this.#object(depth + 1);
      case "[":
        return this.#array(depth + 1);
      case '"':
        return this.#string();
      case "t":
        return this.#word("true", true);
      case "f":
        return this.#word("false", false);
      case "n":
        return this.#word("null", null);
    }
    const number = this.#match(NUMBER);
    if (number === "") throw this.#unexpected();
    return new JsonNumber(number);
  }

  #object(depth: number): JsonObject {
    this.#deeper(depth);
    const object = new Map<string, JsonValue>();
    if (this.#skipTo("}")) return object;
    do {
      this.#space();
      if (this.#text[this.#at] !== '"') throw this.#unexpected();
      const key = this.#string();
      if (object.has(key)) throw new Rejected(`The JSON text has the key ${quoted(key)} twice`);
      this.#space();
      if (this.#text[this.#at] !== ":") throw this.#unexpected();
      this.#at++;
      object.set(key, this.#value(depth));
    } while (this.#isMore("}"));
    return object;
  }

  #array(depth: number): readonly JsonValue[] {
    this.#deeper(depth);
    const list: JsonValue[] = [];
    if (this.#skipTo("]")) return list;
    do list.push(this.#value(depth)); while (this.#isMore("]"));
    return list;
  }

  #deeper(depth: number): void {
    if (depth > MAX_DEPTH) throw new Rejected(`The JSON text nests more than ${MAX_DEPTH} deep`);
    this.#at++;
  }

  /** Skips space and, if it follows, the end of an empty object or array. */
  #skipTo(end: string): boolean {
    this.#space();
    if (this.#text[this.#at] !== end) return false;
    this.#at++;
    return true;
  }

  /** Skips a comma or the end. Returns whether it was a comma. */
  #isMore(end: string): boolean {
    this.#space();
    const next = this.#text[this.#at];
    if (next !== "," && next !== end) throw this.#unexpected();
    this.#at++;
    return next === ",";
  }

  #string(): string {
    let text = "";
    this.#at++;
    while (true) {
      text += this.#match(PLAIN);
      const next = this.#text[this.#at++];
      if (next === '"') break;
      if (next !== "\\") {
        this.#at--;
        throw this.#unexpected();
      }
      const letter = this.#text[this.#at++] ?? "";
      if (letter === "u") {
        const digits = this.#text.slice(this.#at, this.#at + 4);
        if (!/^[0-9a-fA-F]{4}$/.test(digits)) throw this.#unexpected();
        text += String.fromCharCode(parseInt(digits, 16));
        this.#at += 4;
      } else {
        const character = Object.hasOwn(ESCAPED, letter) ? ESCAPED[letter]! : undefined;
        if (character === undefined) throw this.#unexpected();
        text += character;
      }
    }
    // Go replaces half of a surrogate pair by U+FFFD, and programs in C end a string at U+0000.
    if (/\p{Cs}/u.test(text)) throw new Rejected("The JSON text has half of a surrogate pair");
    if (text.includes("\0")) throw new Rejected("The JSON text has the character U+0000");
    return text;
  }

  #word<T>(word: string, value: T): T {
    if (!this.#text.startsWith(word, this.#at)) throw this.#unexpected();
    this.#at += word.length;
    return value;
  }

  #space(): void {
    this.#match(SPACE);
  }

  #match(pattern: RegExp): string {
    pattern.lastIndex = this.#at;
    const [text = ""] = pattern.exec(this.#text) ?? [];
    this.#at += text.length;
    return text;
  }

  #unexpected(): Rejected {
    const character = this.#text.codePointAt(this.#at);
    return new Rejected(
      character === undefined
        ? "The JSON text ends too early"
        : `Unexpected ${quoted(String.fromCodePoint(character))} in the JSON text, at ${this.#at}`,
    );
  }
}

/** A key or character in a message, shortened. */
const quoted = (text: string): string => JSON.stringify(text.slice(0, 100));
