/** Parsers of arguments and option values. commander prints the messages of their errors. */

import { InvalidArgumentError } from "commander";
import { isId } from "../core/credentials.ts";
import { isIdentityHeader } from "../guard/headers.ts";
import { isActionId } from "../interop/polkit/action_id.ts";

/** The text of a range of ids, for messages. */
export const ID_RANGE = "an id from 0 to 4294967294";

/** Parses an id in decimal digits; `undefined` if the text is not an id. */
export function parseId(text: string): number | undefined {
  const number = Number(text);
  return /^[0-9]{1,10}$/.test(text) && isId(number) ? number : undefined;
}

export function id(text: string): number {
  const parsed = parseId(text);
  if (parsed !== undefined) return parsed;
  throw new InvalidArgumentError(`It must be ${ID_RANGE}.`);
}

export function socketName(text: string): string {
  if (text !== "" && text !== "@") return text;
  throw new InvalidArgumentError("It must be a path, or @ and a name.");
}

export function octal(text: string): number {
  if (/^0?[0-7]{3}$/.test(text)) return parseInt(text, 8);
  throw new InvalidArgumentError("It must be an octal mode such as 0660.");
}

export function positive(text: string): number {
  if (/^[0-9]{1,15}$/.test(text) && Number(text) > 0) return Number(text);
  throw new InvalidArgumentError("It must be a whole number above 0.");
}

export function seconds(text: string): number {
  const number = Number(text);
  if (/^[0-9]+(\.[0-9]+)?$/.test(text) && number <= 1_000_000) return number;
  throw new InvalidArgumentError("It must be a number of seconds.");
}

/** Appends a value of --keep-header. */
export function headerNames(name: string, before: readonly string[] = []): readonly string[] {
  if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name)) {
    throw new InvalidArgumentError("It must be the name of a header.");
  }
  if (isIdentityHeader(name)) {
    throw new InvalidArgumentError("The guard sets this header itself.");
  }
  return [...before, name];
}

export function actionId(text: string): string {
  if (isActionId(text)) return text;
  throw new InvalidArgumentError("It must be the id of an action, such as org.example.restart.");
}
