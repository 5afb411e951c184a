/** Formats an object as its plain data in console.log() of Node, Bun and Deno. */

/** The name of the method that the three runtimes call. */
export const INSPECT: unique symbol = Symbol.for("nodejs.util.inspect.custom") as never;

/** The method's arguments: depth, options, and the runtime's formatting function. */
export type InspectArguments = [
  depth: number,
  options: unknown,
  inspect: (value: unknown, options: unknown) => string,
];

/** Returns the name, followed by the plain data. */
export function inspectAs(
  name: string,
  data: unknown,
  [, options, inspect]: InspectArguments,
): string {
  return `${name} ${inspect(data, options)}`;
}
