/** Rejects unknown options: a server with a misspelled `policy` must not run without a policy. */

import { show, suggest } from "./policy/document/shape.ts";

/** The option names of an interface. The compiler requires all of them. */
export type OptionNames<Options> = { readonly [name in keyof Options]-?: true };

/**
 * Rejects options that a function does not have. An option that is `undefined` counts as missing.
 *
 * @param owner The function that takes the options, for example "serve()".
 * @param options The options that the caller passed.
 * @param names The names of the existing options.
 * @throws {TypeError} If `options` is not an object, or has an unknown option.
 */
export function requireOptions(
  owner: string,
  options: unknown,
  names: { readonly [name: string]: true },
): void {
  if (typeof options !== "object" || options === null) {
    const found = options === undefined ? "undefined" : show(options); // show() would print "nothing"
    throw new TypeError(`${owner} takes an object of options, not ${found}`);
  }
  // policy.decide() runs this for each request: Object.keys() would allocate a list each time.
  for (const name in options) {
    if (names[name] === true || !Object.hasOwn(options, name)) continue;
    if ((options as { readonly [name: string]: unknown })[name] === undefined) continue;
    throw new TypeError(`${owner} has no option ${show(name)}${meant(name, Object.keys(names))}`);
  }
}

/** Returns a suggestion of the option that was probably meant; otherwise a list of all options. */
function meant(wrong: string, right: readonly string[]): string {
  const longer = right.find((name) => name.startsWith(wrong) || wrong.startsWith(name));
  if (longer !== undefined) return `; did you mean ${show(longer)}?`;
  return suggest(wrong, right) || `; it has ${right.map(show).join(", ")}`;
}
