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
export type { DefineOptions } from "../identity/policy.ts";
export type { Accounts } from "../core/policy/document.ts";
export type { DecideOptions, Decision, Policy } from "../core/policy/policy.ts";
export type { ConditionExplanation, Explanation, RuleExplanation } from "../core/policy/explain.ts";
export type { FactName, PlainPeer, SubjectFacts } from "../core/policy/subject.ts";
