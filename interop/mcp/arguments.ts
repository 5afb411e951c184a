/** The arguments of a tool or prompt as an attribute of type `parameters`. */

// Beyond these limits, all arguments are unknown: a request cannot make a decision slow.
const MAX_DEPTH = 64;
const MAX_NAMES = 10_000;
const MAX_NAME_CHARACTERS = 1024;

/** Whether a value is an object, and no array. */
export function isObject(value: unknown): value is { readonly [key: string]: unknown } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Returns an own field; `undefined` if there is none. */
export function ownField(of: unknown, name: string): unknown {
  return isObject(of) && Object.hasOwn(of, name) ? of[name] : undefined;
}

/**
 * Removes the differences between keys that decoders of Go ignore: upper and lower case, and the two
 * characters outside of ASCII that Unicode folds to s and k. toLowerCase() folds the latter, U+212A.
 */
export const folded = (key: string): string => key.toLowerCase().replaceAll("\u017f", "s");

/** The texts of one argument. */
interface Texts {
  /** The path of the first value. */
  readonly path: string;
  /** `undefined`: unknown. */
  list: string[] | undefined;
}

/**
 * Returns the arguments by name. A string is a list of one text, an array a list of its items. Numbers,
 * booleans and null are texts in the notation of JSON. The arguments in an object have the names of both,
 * joined by a dot, and those in an array of objects are lists of the values in all objects.
 *
 * An argument is unknown if it is or contains an object, if two paths lead to its name, if it is spelled
 * differently from the name in a condition only by case, and if a number is not in its shortest notation.
 *
 * @returns `undefined` if everything is unknown.
 */
export function argumentTexts(value: unknown): object | undefined {
  const found = new Map<string, Texts>();
  const names = new Map<string, string | undefined>();
  if (!isObject(value) || !collectFields(found, value, undefined, 1)) return undefined;
  for (const name of found.keys()) {
    const key = folded(name);
    // Two spellings of a name: programs choose differently.
    names.set(key, names.has(key) ? undefined : name);
  }
  const lists: { [name: string]: readonly string[] | undefined } = Object.create(null);
  for (const [name, { list }] of found) {
    lists[name] = names.get(folded(name)) === undefined ? undefined : list;
  }
  // A missing name has an empty list. A name that is there in another spelling must not count as missing: some
  // programs ignore case.
  return new Proxy(lists, {
    getOwnPropertyDescriptor: (target, name) => {
      const own = Object.getOwnPropertyDescriptor(target, name);
      if (own !== undefined || typeof name !== "string" || !names.has(folded(name))) return own;
      return { value: undefined, writable: true, enumerable: false, configurable: true };
    },
  });
}

/** Where a value is: its name with dots, and a path with the lengths of its keys, because keys may contain dots. */
interface Place {
  readonly name: string;
  readonly path: string;
}

/** Collects the texts of the fields of an object. Returns `false` if there is too much. */
function collectFields(
  found: Map<string, Texts>,
  object: object,
  place: Place | undefined,
  depth: number,
): boolean {
  return Object.entries(object).every(([key, each]) => {
    const name = place === undefined ? key : `${place.name}.${key}`;
    if (name.length > MAX_NAME_CHARACTERS) return false;
    return collect(found, each, { name, path: `${place?.path ?? ""}${key.length}.` }, depth);
  });
}

/** Collects the texts of a value and of everything inside. Returns `false` if there is too much. */
function collect(
  found: Map<string, Texts>,
  value: unknown,
  place: Place,
  depth: number,
): boolean {
  if (depth > MAX_DEPTH || found.size > MAX_NAMES) return false;
  const texts = textsAt(found, place); // also of an empty array, which is an empty list
  if (Array.isArray(value)) return value.every((each) => collect(found, each, place, depth + 1));
  const text = textOf(value);
  if (text === undefined) texts.list = undefined;
  else texts.list?.push(text);
  return !isObject(value) || collectFields(found, value, place, depth + 1);
}

/** The texts of the argument at a place. */
function textsAt(found: Map<string, Texts>, { name, path }: Place): Texts {
  let texts = found.get(name);
  if (texts === undefined) found.set(name, texts = { path, list: [] });
  if (texts.path !== path) texts.list = undefined;
  return texts;
}

function textOf(value: unknown): string | undefined {
  switch (typeof value) {
    case "string":
      return value;
    case "boolean":
      return `${value}`;
    case "number":
      return Number.isFinite(value) ? `${value}` : undefined;
    default:
      return value === null ? "null" : undefined;
  }
}
