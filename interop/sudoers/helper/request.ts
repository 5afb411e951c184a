/** The request of a client: command, arguments, target user, and variables of its environment. */

import { isObject } from "../../../core/policy/document/shape.ts";

/** A request as the client sent it. */
export interface CommandRequest {
  /** An absolute path. */
  readonly command: string;
  readonly args: readonly string[];
  /** The name of the target user. */
  readonly user: string;
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

/**
 * Arguments that the policy would see in two readings: it compares all arguments, joined by spaces.
 * A NUL would end the argument early.
 */
const AMBIGUOUS = /^$|[\s\0]/;

/** Reads a request. A text is the reason why it is refused. */
export function readCommandRequest(json: string): CommandRequest | string {
  let data: unknown;
  try {
    data = JSON.parse(json);
  } catch {
    return "the request is not JSON";
  }
  if (!isObject(data)) return "the request is not an object";
  const { command, args, user, variables, ...others } = data;
  if (Object.keys(others).length > 0) return "the request has an unknown field";
  if (typeof command !== "string" || typeof user !== "string") {
    return "command and user must be texts";
  }
  if (!Array.isArray(args) || !args.every((arg) => typeof arg === "string")) {
    return "args must be a list of texts";
  }
  if (args.some((arg) => AMBIGUOUS.test(arg))) {
    return "an argument is empty or has white space, which a policy cannot distinguish from several arguments";
  }
  if (!isObject(variables)) return "variables must be an object";
  return { command, args, user, variables: variables as CommandRequest["variables"] };
}
