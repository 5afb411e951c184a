/** Commands of sudoers(5) as conditions on the attributes `command` and `arguments`. */

import { all, any, type Formula, not } from "../formula.ts";

/** The requests that a command of sudoers matches. */
export interface CommandMatch {
  readonly actions: readonly ("run" | "edit")[];
  readonly where: Formula;
}

/** Resolves the symbolic links of a folder. Returns the path itself if there is no such folder. */
export type ResolveFolder = (folder: string) => string;

/** The condition on requests without arguments. */
export const NO_ARGUMENTS: Formula = { not: { arguments: "**" } };

/**
 * Converts a command with its arguments, in the syntax of `cvtsudoers -f json`.
 *
 * @returns The requests that match; a text is the reason why a policy cannot express the command.
 */
export function matchCommand(
  command: string,
  isNegated: boolean,
  resolve: ResolveFolder,
): CommandMatch | string {
  if (command === "ALL") return { actions: ["run", "edit"], where: true };
  const space = command.indexOf(" ");
  const path = space < 0 ? command : command.slice(0, space);
  const given = space < 0 ? undefined : command.slice(space + 1);
  if (path.startsWith("^")) return "a regular expression";
  if (path !== "sudoedit" && !path.startsWith("/")) return "neither a path nor sudoedit";
  const where = matchArguments(given, path === "sudoedit");
  if (typeof where === "string") return where;
  if (path === "sudoedit") return { actions: ["edit"], where };
  if (path.endsWith("/") && given !== undefined) {
    return "a folder with arguments, which sudo does not compare";
  }
  const onPath = matchPath(path, isNegated, resolve);
  if (typeof onPath === "string") return onPath;
  return { actions: ["run"], where: all(onPath, where) };
}

function matchArguments(given: string | undefined, areFiles: boolean): Formula | string {
  if (given === undefined) return true;
  if (given === '""') return NO_ARGUMENTS;
  if (given.startsWith("^") && given.endsWith("$")) return "a regular expression";
  if (/[\\?[]/.test(given)) return "a wildcard other than * in the arguments";
  // For sudo, `*` in the names of files to edit does not match "/", but in other arguments it does.
  const glob = given.replaceAll(/\*+/g, areFiles ? "*" : "**");
  if (!/^\*+$/.test(glob)) return { arguments: glob };
  return areFiles ? any(NO_ARGUMENTS, { arguments: glob }) : true;
}

function matchPath(path: string, isNegated: boolean, resolve: ResolveFolder): Formula | string {
  if (/[\\?[\]]/.test(path)) return "a wildcard other than * in the path";
  const hasStars = path.includes("*");
  if (path.endsWith("/")) {
    if (hasStars) return "a folder with wildcards";
    if (isNegated) return "a negated folder: sudo also denies links to its files elsewhere";
    return { command: `${resolve(path).replace(/\/$/, "")}/*` };
  }
  const slash = path.lastIndexOf("/");
  const base = path.slice(slash + 1).replaceAll(/\*+/g, "*");
  if (base === "." || base === "..") return "a path that ends with a dot";
  if (isNegated) {
    // sudo denies every path of the same file with the same name, so the policy denies the name anywhere.
    return base.startsWith("*")
      ? "a negated path with a name that begins with a wildcard: sudo also denies links elsewhere"
      : { command: `**/${base}` };
  }
  const folders = path.slice(1, slash).split("/").filter((name) => name !== "");
  if (hasStars && folders.some((name) => name === "." || name === "..")) {
    return 'a path with wildcards and ".."';
  }
  const wild = folders.findIndex((name) => name.includes("*"));
  const count = wild < 0 ? folders.length : wild;
  const start = resolve(`/${folders.slice(0, count).join("/")}`).split("/").filter((name) =>
    name !== ""
  );
  if (start.some((name) => name.includes("*"))) return "a folder with * in its name";
  const rest = [...folders.slice(count).map((name) => name.replaceAll(/\*+/g, "*")), base];
  const join = (names: readonly string[]) => `/${[...start, ...names].join("/")}`;
  // A wildcard at the beginning of a name does not match a dot: glob(7).
  const hidden = rest.flatMap((name, at) =>
    name.startsWith("*") ? [join(rest.with(at, ".*"))] : []
  );
  return all({ command: join(rest) }, hidden.length === 0 ? true : not({ command: hidden }));
}
