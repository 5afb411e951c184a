/** Runs the tests in a policy, and lists the rules that decide no test. */

import type { Decision } from "../decide/decision.ts";
import type { CheckedTest } from "../document/check.ts";
import { type Policy, sourceOf } from "../policy.ts";
import { outcomeOf } from "./reach.ts";

/** The result of one test. */
export interface TestResult {
  /** Its name, or "test 3". */
  readonly name: string;
  /** Whether the decision was the expected one. */
  readonly passed: boolean;
  /** The expected and the actual decision, in a sentence; `undefined` if the test passed. */
  readonly message: string | undefined;
  /** The decision. */
  readonly decision: Decision;
  /** Path in the document. */
  readonly path: readonly (string | number)[];
  /** "file:line:column"; `undefined` for a policy in code. */
  readonly where: string | undefined;
}

/** The results of all tests. `String(report)` is text for a terminal. */
export interface TestReport {
  /** Whether all tests passed. A policy without tests passes. */
  readonly passed: boolean;
  /** In order. */
  readonly results: readonly TestResult[];
  /** Names of the rules that decide no test. */
  readonly uncovered: readonly string[];
  /** Lines of text. */
  toString(): string;
}

/**
 * Runs the tests in a policy's document, and lists the rules that decide no test.
 *
 * @throws {TypeError} If the policy is not one of `definePolicy()`, `parsePolicy()` or `loadPolicy()`.
 *
 * @example Run the tests of a policy
 * ```ts
 * import { definePolicy } from "ucred";
 * import { runTests } from "ucred/policy";
 *
 * const policy = definePolicy({
 *   version: 1,
 *   rules: [{ name: "root", when: { uid: 0 }, allow: true }],
 *   tests: [{ peer: { uid: 1 }, expect: { deny: true } }],
 * });
 * const { passed, uncovered } = runTests(policy);
 * console.log(passed, uncovered.join()); // true root
 * ```
 */
export function runTests(policy: Policy): TestReport {
  const { checked: { rules, tests }, context: { where } } = sourceOf(policy, "runTests()");
  const results = tests.map((test, index): TestResult => {
    const { name = `test ${index + 1}`, path, peer, action, attributes } = test;
    const decision = policy.decide(peer, { action, attributes });
    const message = objection(test, decision);
    return {
      ...{ name, passed: message === undefined, message, decision },
      ...{ path, where: where?.(path) },
    };
  });
  const decided = new Set(results.map(({ decision }) => decision.rule));
  const uncovered = rules.map(({ name }) => name).filter((name) => !decided.has(name));
  const report = { passed: results.every(({ passed }) => passed), results, uncovered };
  return { ...report, toString: () => reportText(report) };
}

/** Describes how a decision differs from the expected one; `undefined` if it does not. */
function objection({ grants, rule }: CheckedTest, decision: Decision): string | undefined {
  const { allowed, reason } = decision;
  const actual = `The decision is: ${allowed ? "allowed" : "denied"}. ${reason}`;
  if (allowed !== (grants !== undefined)) {
    return `Expected: ${allowed ? "denied" : "allowed"}. ${actual}`;
  }
  if (grants !== undefined && grants !== true && outcomeOf({ grants }) !== outcomeOf(decision)) {
    return `Expected the grants ${grants.join(", ")}. ${actual}`;
  }
  if (rule !== undefined && (rule ?? undefined) !== decision.rule) {
    return `Expected ${rule === null ? "no rule" : `rule "${rule}"`} to decide. ${actual}`;
  }
  return undefined;
}

function reportText({ results, uncovered }: Omit<TestReport, "toString">): string {
  const failed = results.filter(({ passed }) => !passed).length;
  return [
    ...results.flatMap(({ name, message, where }) => [
      `${message === undefined ? "ok    " : "FAILED"}  ${
        where === undefined ? "" : `${where}: `
      }${name}`,
      ...(message === undefined ? [] : [`        ${message}`]),
    ]),
    ...uncovered.map((name) => `No test is decided by rule "${name}"`),
    `${results.length - failed} passed, ${failed} failed`,
  ].join("\n");
}
