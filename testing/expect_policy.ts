/** Assertions about the decisions of a policy. */

import { AssertionError } from "node:assert";
import type { Peer } from "../core/peer.ts";
import type { Attributes } from "../core/policy/decide/decision.ts";
import type { PlainPeer } from "../core/policy/decide/subject.ts";
import type { Policy } from "../core/policy/policy.ts";

/** The assertions of {@link expectPolicy}. */
export interface PolicyExpectation {
  /**
   * Requires that the policy allows an action.
   *
   * @param action The action; without one, the connection itself.
   * @param attributes Attributes of the request, for policies with `about`.
   * @returns The same assertions, for the next one.
   * @throws {AssertionError} With the explanation, if the policy denies the action.
   */
  allows(peer: Peer | PlainPeer, action?: string, attributes?: Attributes): PolicyExpectation;
  /**
   * Requires that the policy denies an action. A policy also denies because a fact is unknown: set each fact
   * that its rules test.
   *
   * @param action The action; without one, the connection itself.
   * @param attributes Attributes of the request, for policies with `about`.
   * @returns The same assertions, for the next one.
   * @throws {AssertionError} With the explanation, if the policy allows the action.
   */
  denies(peer: Peer | PlainPeer, action?: string, attributes?: Attributes): PolicyExpectation;
}

/**
 * Returns assertions about a policy. The message of a failure is the explanation, rule by rule.
 *
 * @throws {TypeError} If `policy` is not a policy.
 *
 * @example Test a policy
 * ```ts
 * import { definePolicy } from "ucred";
 * import { expectPolicy, fakePeer } from "ucred/testing";
 *
 * const policy = definePolicy({
 *   version: 1,
 *   rules: [{ name: "users read", when: { uid: "1000-1999" }, actions: "GET /**", allow: true }],
 * });
 * expectPolicy(policy)
 *   .allows(fakePeer({ uid: 1000 }), "GET /status")
 *   .denies(fakePeer({ uid: 1000 }), "POST /status")
 *   .denies(fakePeer({ uid: 33 }), "GET /status");
 * console.log("as expected");
 * ```
 */
export function expectPolicy(policy: Policy): PolicyExpectation {
  if (typeof policy?.decide !== "function") {
    throw new TypeError('expectPolicy() requires a Policy from definePolicy() or "ucred/policy"');
  }
  const expect = (
    isAllowed: boolean,
    peer: Peer | PlainPeer,
    action: string | undefined,
    attributes: Attributes | undefined,
  ): PolicyExpectation => {
    const options = { action, attributes };
    const { allowed, reason } = policy.decide(peer, options);
    if (allowed === isAllowed) return expectation;
    const what = action === undefined ? "the connection" : JSON.stringify(action);
    const why = policy.explain?.(peer, options).toString() ?? reason;
    throw new AssertionError({
      message: `The policy ${allowed ? "allows" : "denies"} ${what} of uid ${peer.uid}\n${why}`,
      actual: allowed,
      expected: isAllowed,
      operator: isAllowed ? "allows" : "denies",
    });
  };
  const expectation: PolicyExpectation = {
    allows: (peer, action, attributes) => expect(true, peer, action, attributes),
    denies: (peer, action, attributes) => expect(false, peer, action, attributes),
  };
  return expectation;
}
