/** Writes hints about permissions of the runtime: Deno's `--allow-…`, and those of Node's `--permission`. */

/** The flags that a step needs, on each runtime that has permissions. */
export interface PermissionFlags {
  readonly deno: string;
  readonly node: string;
}

/** Returns the hint for an error of a runtime that denies a permission; `undefined` for other errors. */
export function permissionHint(error: unknown, flags: PermissionFlags): string | undefined {
  const { name, code } = error as { readonly name?: unknown; readonly code?: unknown };
  if (name === "NotCapable") return `Run Deno with ${flags.deno}`;
  if (code === "ERR_ACCESS_DENIED") return `Run Node with ${flags.node}`;
  return undefined;
}
