/** A policy's own tests → what came of each, and which rules no test is decided by. */

import type { Decision } from "../decide/decision.ts";
import type { CheckedTest } from "../document/check.ts";
import { type Policy, sourceOf } from "../policy.ts";
import { outcomeOf } from "./reach.ts";

/** What came of one test. */
export interface TestResult {
  /** Its name, or "test 3". */
  readonly name: string;
  /** Whether the policy said what was expected. */
  readonly passed: boolean;
  /** What was expected and what was said, in a sentence; `undefined` if it passed. */
  readonly message: string | undefined;
  /** What the policy said. */
  readonly decision: Decision;
  /** Where it stands in the document. */
  readonly path: readonly (string | number)[];
  /** Where it stands in the file, "file:line:column"; `undefined` for a policy that is from none. */
  readonly where: string | undefined;
}

/** What came of all. `String(report)` is for a person at a terminal. */
export interface TestReport {
  /** Whether all passed. A policy without tests passes. */
  readonly passed: boolean;
  /** In order. */
  readonly results: readonly TestResult[];
  /** Names of the rules that no test is decided by. */
  readonly uncovered: readonly string[];
  /** Lines of text. */
  toString(): string;
}

/**
 * Runs the tests in a policy's document, and lists the rules that no test reaches.
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
    const decision = policy.decide(test.peer, { action: test.action });
    const message = objection(test, decision);
    const { name = `test ${index + 1}`, path } = test;
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

/** Why a decision is not what was expected. */
function objection({ grants, rule }: CheckedTest, decision: Decision): string | undefined {
  const { allowed, reason } = decision;
  const said = `The policy said: ${allowed ? "allowed" : "denied"}. ${reason}`;
  if (allowed !== (grants !== undefined)) {
    return `Expected ${allowed ? "a no" : "a yes"}. ${said}`;
  }
  if (grants !== undefined && grants !== true && outcomeOf({ grants }) !== outcomeOf(decision)) {
    return `Expected the grants ${grants.join(", ")}. ${said}`;
  }
  if (rule !== undefined && (rule ?? undefined) !== decision.rule) {
    return `Expected ${rule === null ? "no rule" : `rule "${rule}"`} to decide. ${said}`;
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
    ...uncovered.map((name) => `Rule "${name}" is decided by no test`),
    `${results.length - failed} passed, ${failed} failed`,
  ].join("\n");
}
