/**
 * Policies in text and files, and analyses of policies.
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
export { type Counterexample, equivalent, narrower } from "../core/policy/analyze/difference.ts";
export type {
  ConditionExplanation,
  Explanation,
  RuleExplanation,
} from "../core/policy/analyze/explain.ts";
export type { Finding, FindingKind } from "../core/policy/analyze/findings.ts";
export { lint, type LintOptions } from "../core/policy/analyze/lint.ts";
export type { PolicyCase } from "../core/policy/analyze/region.ts";
export { runTests, type TestReport, type TestResult } from "../core/policy/analyze/run_tests.ts";
export { type Who, who, type WhoClause } from "../core/policy/analyze/who.ts";
export type { AttributeType } from "../core/policy/decide/attributes.ts";
export type { Attributes, DecideOptions, Decision } from "../core/policy/decide/decision.ts";
export type { IdRange } from "../core/policy/decide/id_ranges.ts";
export type { FactName, PlainPeer } from "../core/policy/decide/subject.ts";
export { policySchema } from "../core/policy/document/json_schema.ts";
export type { JsonSchema } from "../core/policy/document/shape.ts";
export type {
  Accounts,
  AttributeCondition,
  TextsCondition,
} from "../core/policy/document/types.ts";
export {
  defineVocabulary,
  type Vocabulary,
  type VocabularyAttribute,
  type VocabularyDocument,
} from "../core/policy/document/vocabulary.ts";
export { httpVocabulary } from "../core/policy/vocabularies.ts";
export type { Policy, RulePolicy } from "../core/policy/policy.ts";
export {
  type ShadowCase,
  type ShadowDifference,
  type ShadowedPolicy,
  type ShadowOptions,
  shadowPolicy,
} from "../core/policy/shadow.ts";
