/** Copies data of any origin, so that the checked values are the ones that are used. */

import type { DocumentPath, Problem } from "./problems.ts";
import { show } from "./shape.ts";

/** Values in a document. Ten thousand rules have a tenth of it; cyclic data would never end. */
export const MAX_VALUES = 1_000_000;

/** Length of all texts in a document: four times the longest file. */
const MAX_TEXT_CHARACTERS = 16 << 20;

/** Depth of nesting. The functions that read documents are recursive. */
export const MAX_DEPTH = 64;

/**
 * Copies plain data: primitive values, arrays, and objects without a class. Each field is read once. The
 * copies have no prototype, so that fields added to `Object.prototype` do not appear in them.
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

/** Copies options without inherited fields, so that fields of `Object.prototype` have no effect. */
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
    if (path.length >= MAX_DEPTH) throw new NotPlain(path, `nested more than ${MAX_DEPTH} deep`);
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
