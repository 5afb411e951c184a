/** Runs user-supplied handlers: a throw or a rejection is reported and never stops the server. */

import { show } from "../../core/policy/document/shape.ts";

/**
 * Runs a handler. The function is not async because a promise for each connection and request would cost as
 * much as the decision.
 *
 * @param fail Receives the error that the handler throws, or that its promise rejects with.
 */
export function attempt(run: () => unknown, fail: (error: unknown) => void): void {
  try {
    const answer = run();
    if (isThenable(answer)) answer.then(undefined, fail);
  } catch (error) {
    fail(error);
  }
}

/** Returns whether a value has a `then()` method. */
export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === "object" && value !== null && "then" in value &&
    typeof value.then === "function";
}

/** Returns the handler of a server. @throws {TypeError} If it is not a function. */
export function requireHandler<Handler>(handler: Handler): Handler {
  if (handler === undefined || typeof handler === "function") return handler;
  throw new TypeError(`The handler must be a function, not ${show(handler)}`);
}
