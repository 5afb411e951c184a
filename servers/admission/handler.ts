/** The author's handlers: whatever becomes of them, the server goes on. */

import { show } from "../../core/policy/document/shape.ts";

/**
 * Runs a handler. Not async: a promise for each connection and request would cost as much as the
 * decision about it.
 *
 * @param fail Is told what it throws, or what its promise rejects with.
 */
export function attempt(run: () => unknown, fail: (error: unknown) => void): void {
  try {
    const answer = run();
    if (isThenable(answer)) answer.then(undefined, fail);
  } catch (error) {
    fail(error);
  }
}

/** Whether it is a promise of any make. */
export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === "object" && value !== null && "then" in value &&
    typeof value.then === "function";
}

/** The handler that a server was given, if it is one. @throws {TypeError} If it is something else. */
export function requireHandler<Handler>(handler: Handler): Handler {
  if (handler === undefined || typeof handler === "function") return handler;
  throw new TypeError(`The handler is a function, not ${show(handler)}`);
}
