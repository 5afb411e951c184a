/** The request of a client: command, arguments, target user and group, variables, and terminal. */

import { isObject } from "../../../core/policy/document/shape.ts";
import type { TerminalSize } from "../../../system/pseudo_terminal.ts";

/** A request as the client sent it. */
export interface CommandRequest {
  /** An absolute path. */
  readonly command: string;
  readonly args: readonly string[];
  /** The name of the target user. */
  readonly user: string;
  /** The name of the requested group; `undefined` without a request. */
  readonly group: string | undefined;
  /** The size of the client's terminal; `undefined` if the command runs with pipes. */
  readonly terminal: TerminalSize | undefined;
  /** Variables of the client. The helper chooses the ones that reach the command. */
  readonly variables: Readonly<Record<string, string | undefined>>;
}

/** A signal that a client can send to its command. */
export type ForwardedSignal = "SIGINT" | "SIGTERM" | "SIGHUP" | "SIGQUIT" | "SIGUSR1" | "SIGUSR2";

/** All of them. A client that disconnects kills it. */
export const FORWARDED_SIGNALS: readonly ForwardedSignal[] = [
  "SIGINT",
  "SIGTERM",
  "SIGHUP",
  "SIGQUIT",
  "SIGUSR1",
  "SIGUSR2",
];

/** Maximum columns and rows of a terminal: `struct winsize` has 16 bits for each. */
const MAX_TERMINAL_SIZE = 0xffff;

/** Reads a request, or returns the reason why it is refused. */
export function readCommandRequest(json: string): CommandRequest | string {
  const data = parse(json);
  if (!isObject(data)) return "the request is not a JSON object";
  const { command, args, user, group, terminal, variables, ...others } = data;
  if (Object.keys(others).length > 0) return "the request has an unknown field";
  if (!isText(command) || !isText(user)) return "command and user must be texts";
  if (!Array.isArray(args) || !args.every(isText)) return "args must be a list of texts";
  if (group !== undefined && !isText(group)) return "group must be a text";
  if (!isObject(variables)) return "variables must be an object";
  const size = terminal === undefined ? undefined : terminalSizeOf(terminal);
  if (typeof size === "string") return size;
  const variablesByName = variables as CommandRequest["variables"];
  return { command, args, user, group, terminal: size, variables: variablesByName };
}

/** Reads the size of a terminal, or returns the reason why it is refused. */
export function readTerminalSize(json: string): TerminalSize | string {
  return terminalSizeOf(parse(json));
}

function terminalSizeOf(data: unknown): TerminalSize | string {
  const wrong = `columns and rows of a terminal must be integers from 0 to ${MAX_TERMINAL_SIZE}`;
  if (!isObject(data)) return wrong;
  const { columns, rows } = data;
  return isSize(columns) && isSize(rows) ? { columns, rows } : wrong;
}

function parse(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return undefined;
  }
}

const isSize = (value: unknown): value is number =>
  Number.isInteger(value) && (value as number) >= 0 && (value as number) <= MAX_TERMINAL_SIZE;

/**
 * Whether a value is a text that the command receives in the same form as the policy. A NUL would end an
 * argument, and an unpaired surrogate has no UTF-8.
 */
const isText = (value: unknown): value is string =>
  typeof value === "string" && !/\0|\p{Cs}/u.test(value);
