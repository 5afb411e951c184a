/** How console.log() shows what has a toJSON(), in Node, Bun and Deno alike. */

/** The name of the method that all three look for. */
export const INSPECT: unique symbol = Symbol.for("nodejs.util.inspect.custom") as never;

/** What the method is called with: depth, options, and the function that formats anything. */
export type InspectArguments = [
  depth: number,
  options: unknown,
  inspect: (value: unknown, options: unknown) => string,
];

/** The name, and then the plain data. */
export function inspectAs(
  name: string,
  data: unknown,
  [, options, inspect]: InspectArguments,
): string {
  return `${name} ${inspect(data, options)}`;
}
