/**
 * Policies in files.
 *
 * @example A policy in YAML
 * ```ts
 * import { parsePolicy } from "ucred/policy";
 *
 * const policy = parsePolicy("version: 1\nrules: [{ name: all, allow: true }]\n");
 * console.log(policy.decide({}).rule); // all
 * ```
 *
 * @module
 */

export { type LoadOptions, loadPolicy } from "./load.ts";
export { type ParseOptions, parsePolicy } from "./parse.ts";
export { type WatchedPolicy, type WatchOptions, watchPolicy } from "./watch.ts";
export type { DefineOptions } from "./define.ts";
export type { Accounts } from "../core/policy/document/types.ts";
export type { DocumentPath } from "../core/policy/document/problems.ts";
export type { IdRange } from "../core/policy/decide/id_ranges.ts";
export type { PolicyCase } from "../core/policy/analyze/region.ts";
export { policySchema } from "../core/policy/document/schema.ts";
export type { Finding, FindingKind } from "../core/policy/analyze/findings.ts";
export type { LintOptions } from "../core/policy/analyze/lint.ts";
export type { JsonSchema } from "../core/policy/document/shape.ts";
export type { TestReport, TestResult } from "../core/policy/analyze/run_tests.ts";
export type { PeerIds, Who, WhoClause } from "../core/policy/analyze/who.ts";
export type { DecideOptions, Decision } from "../core/policy/decide/decision.ts";
export type { Policy } from "../core/policy/policy.ts";
export type {
  ConditionExplanation,
  Explanation,
  RuleExplanation,
} from "../core/policy/analyze/explain.ts";
export type { FactName, PlainPeer, SubjectFacts } from "../core/policy/decide/subject.ts";
