/** Creates policies that resolve names with this system's accounts. */

import { type OptionNames, requireOptions } from "../core/options.ts";
import { checkPolicy, type PolicyVocabulary, type Resolve } from "../core/policy/document/check.ts";
import { ownOf } from "../core/policy/document/plain_copy.ts";
import {
  type DocumentPath,
  policyError,
  type Problem,
  type Problems,
} from "../core/policy/document/problems.ts";
import type { Accounts, PolicyDocument } from "../core/policy/document/types.ts";
import type { Vocabulary } from "../core/policy/document/vocabulary.ts";
import { compilePolicy, type RulePolicy } from "../core/policy/policy.ts";
import { idOf, localNames, ownUid } from "../system/accounts.ts";

/** Options of {@link definePolicy}. */
export interface DefineOptions {
  /** Resolves names to ids. Default: the system's account database. */
  readonly accounts?: Accounts | undefined;
  /** The vocabularies that `about` can name. Policies in texts and files can also name the built-in ones. */
  readonly vocabularies?: readonly Vocabulary[] | undefined;
}

/** The option names of {@link DefineOptions}. */
export const DEFINE_OPTIONS: OptionNames<DefineOptions> = {
  accounts: true,
  vocabularies: true,
};

/**
 * Creates a policy from rules. The first matching rule decides; without a match, access is denied.
 *
 * Names of users and groups are resolved once, with the system's account database unless `accounts` is
 * given. A policy without names and without `sameUser` makes no system call.
 *
 * @param document The rules, as data. They are copied.
 * @throws {UcredError} `ERR_UCRED_POLICY` if the document has mistakes, which `problems` lists. If a name
 * cannot be looked up, the error of the lookup.
 * @throws {TypeError} If an option is unknown.
 *
 * @example Root may read and write, users may read
 * ```ts
 * import { definePolicy } from "ucred";
 *
 * const policy = definePolicy({
 *   version: 1,
 *   rules: [
 *     { name: "root", when: { uid: 0 }, allow: ["read", "write"] },
 *     { name: "reader", when: { uid: "1000-1999" }, actions: "GET /**", allow: "read" },
 *   ],
 * });
 * const { allowed, grants, reason } = policy.decide({ uid: 1000 }, { action: "GET /status" });
 * console.log(allowed, grants.join(), reason); // true read Rule "reader" allows it: read
 * ```
 */
export function definePolicy(document: PolicyDocument, options: DefineOptions = {}): RulePolicy {
  requireOptions("definePolicy()", options, DEFINE_OPTIONS);
  const checked = checkDocument(document, options);
  if ("policy" in checked) return checked.policy;
  const { first, more } = checked.problems;
  const problems = first.map(({ path, message }) => ({
    ...{ message, path, file: undefined, line: undefined, column: undefined },
  }));
  throw policyError(problems, more, { hint: "Fix the listed fields" });
}

/**
 * Checks and compiles data of any type. Returns the policy, or the problems.
 *
 * @param where Converts a path in the document to "file:line:column".
 */
export function checkDocument(
  document: unknown,
  options: DefineOptions,
  where?: (path: DocumentPath) => string,
): { readonly policy: RulePolicy } | { readonly problems: Problems<Problem> } {
  const { accounts, vocabularies } = ownOf(options);
  const resolve: Resolve = {
    uid: (name) => accounts === undefined ? idOf("user", name) : accounts.uid(name),
    gid: (name) => accounts === undefined ? idOf("group", name) : accounts.gid(name),
    names: (kind) => accounts === undefined ? localNames(kind) : [],
    ownUid,
    vocabularies: vocabularies as readonly (Vocabulary & PolicyVocabulary)[] | undefined,
  };
  const result = checkPolicy(document, resolve);
  if ("problems" in result) return result;
  return { policy: compilePolicy(result.checked, { resolve, where }) };
}
