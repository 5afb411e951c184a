/** `ucred polkit`: actions of polkit. */

import { readFileSync } from "node:fs";
import type { ImplicitAuthorization } from "../interop/polkit/action_id.ts";
import {
  formatAction,
  parseActions,
  type PolkitAction,
  readActions,
} from "../interop/polkit/actions.ts";
import {
  columns,
  type ExitCode,
  print,
  printable,
  printJson,
  UsageError,
  write,
} from "./output.ts";

/** `actions`: prints the actions of this system, or those of files. */
export function listActions(
  files: readonly string[],
  { json }: { readonly json?: boolean },
): ExitCode {
  const actions = files.length === 0 ? readActions() : files.flatMap(actionsIn);
  if (json) printJson(actions);
  else columns([HEAD, ...actions.map(rowOf)]).forEach(print);
  return 0;
}

function actionsIn(file: string): readonly PolkitAction[] {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    throw new UsageError(`Cannot read the file: ${(error as Error).message}`);
  }
  return parseActions(text, file);
}

const HEAD = ["ACTION", "ACTIVE SESSION", "INACTIVE", "OTHERS", "DESCRIPTION"];

const rowOf = ({ id, defaults: { active, inactive, any }, description }: PolkitAction) => [
  id,
  active,
  inactive,
  any,
  printable(description),
];

/** Options of `new`. */
export interface NewActionOptions {
  readonly description: string;
  readonly message: string;
  readonly vendor?: string;
  readonly owner?: string;
  readonly active: ImplicitAuthorization;
  readonly inactive: ImplicitAuthorization;
  readonly others: ImplicitAuthorization;
}

/** `new`: prints the file of an action. */
export function newAction(id: string, options: NewActionOptions): ExitCode {
  const { description, message, vendor, owner, active, inactive, others: any } = options;
  const key = "org.freedesktop.policykit.owner";
  const annotations: { readonly [key: string]: string } = owner === undefined
    ? {}
    : { [key]: `unix-user:${owner}` };
  const defaults = { any, inactive, active };
  const action = { id, description, message, defaults, annotations };
  write(formatAction(vendor === undefined ? action : { ...action, vendor }));
  return 0;
}
