/** Options of public functions: a misspelled `policy` must not pass for a missing one. */

import { show, suggest } from "./policy/document/shape.ts";

/** The names of an interface's options. With `satisfies` the compiler finds one that is missing. */
export type OptionNames<Options> = { readonly [name in keyof Options]-?: true };

/**
 * Refuses options that do not exist. An option that is `undefined` counts as not given.
 *
 * @param owner What has the options: "serve()", say.
 * @param options As the caller passed them.
 * @param names The options that exist.
 * @throws {TypeError} If `options` is not an object, or has an option that does not exist.
 */
export function requireOptions(
  owner: string,
  options: unknown,
  names: { readonly [name: string]: true },
): void {
  if (typeof options !== "object" || options === null) {
    throw new TypeError(`${owner} takes an object of options, not ${show(options)}`);
  }
  // Not Object.keys(): policy.decide() runs this for each request, and a list would be garbage each time.
  for (const name in options) {
    if (names[name] === true || !Object.hasOwn(options, name)) continue;
    if ((options as { readonly [name: string]: unknown })[name] === undefined) continue;
    throw new TypeError(`${owner} has no option ${show(name)}${meant(name, Object.keys(names))}`);
  }
}

/** The option that was probably meant, or else those that exist. */
function meant(wrong: string, right: readonly string[]): string {
  const longer = right.find((name) => name.startsWith(wrong) || wrong.startsWith(name));
  if (longer !== undefined) return `; did you mean ${show(longer)}?`;
  return suggest(wrong, right) || `; it has ${right.map(show).join(", ")}`;
}
