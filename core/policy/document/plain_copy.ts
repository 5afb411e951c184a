/** Data from anywhere → a copy of our own, so that what is checked is what is used. */

import type { DocumentPath, Problem } from "./problems.ts";
import { show } from "./shape.ts";

/** Values in a document. Ten thousand rules have a tenth; one that contains itself never ends. */
export const MAX_VALUES = 1_000_000;

/** In characters, of all texts in it: four times the longest file. */
const MAX_TEXT_CHARACTERS = 16 << 20;

/** How deep they nest: what looks at them calls itself. */
export const DEEPEST = 64;

/**
 * Copies plain data: what has no list or object in it as it is, lists, and objects of no class. Each
 * field is read once. The copies inherit nothing, so a field that they lack is missing whatever others
 * have added to `Object.prototype`.
 */
export function plain(data: unknown): { readonly copy: unknown } | { readonly problem: Problem } {
  try {
    return { copy: new Copy().of(data, []) };
  } catch (error) {
    if (!(error instanceof NotPlain)) throw error;
    const { path, message } = error;
    return { problem: { path, message } };
  }
}

/** Options without what all objects may have been given: only what is theirs counts. */
export function ownOf<Options extends object>(options: Options): Options {
  return Object.assign(Object.create(null), options);
}

class NotPlain extends Error {
  readonly path: DocumentPath;

  constructor(path: DocumentPath, message: string) {
    super(message);
    this.path = path;
  }
}

class Copy {
  #values = 0;
  #text = 0;

  of(value: unknown, path: DocumentPath): unknown {
    if (++this.#values > MAX_VALUES) throw new NotPlain([], `more than ${MAX_VALUES} values`);
    if (typeof value === "string" && (this.#text += value.length) > MAX_TEXT_CHARACTERS) {
      throw new NotPlain([], `more than ${MAX_TEXT_CHARACTERS} characters in all`);
    }
    if (typeof value !== "object" || value === null) return value;
    if (path.length >= DEEPEST) throw new NotPlain(path, `nested more than ${DEEPEST} deep`);
    return Array.isArray(value) ? this.#list(value, path) : this.#object(value, path);
  }

  #list(list: readonly unknown[], path: DocumentPath): readonly unknown[] {
    const copy: unknown[] = [];
    const { length } = list;
    for (let at = 0; at < length; at++) {
      copy.push(this.of(Object.hasOwn(list, at) ? list[at] : undefined, [...path, at]));
    }
    return Object.freeze(copy);
  }

  #object(object: object, path: DocumentPath): object {
    const prototype = Object.getPrototypeOf(object);
    if (prototype !== Object.prototype && prototype !== null) {
      throw new NotPlain(path, "an object of a class, which is no plain data");
    }
    const copy: { [key: string]: unknown } = Object.create(null);
    for (const key of Reflect.ownKeys(object)) {
      if (typeof key === "symbol" || !Object.prototype.propertyIsEnumerable.call(object, key)) {
        throw new NotPlain(path, `a hidden field ${show(String(key))}, which is no plain data`);
      }
      copy[key] = this.of((object as { [key: string]: unknown })[key], [...path, key]);
    }
    return Object.freeze(copy);
  }
}
