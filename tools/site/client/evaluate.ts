/** Evaluates the fields of the playground with the code of `core/` and `policy/`. Does not use the DOM. */

import { isId } from "../../../core/credentials.ts";
import { UcredError } from "../../../core/errors.ts";
import {
  type Counterexample,
  equivalent,
  narrower,
} from "../../../core/policy/analyze/difference.ts";
import type { Explanation } from "../../../core/policy/analyze/explain.ts";
import type { Finding } from "../../../core/policy/analyze/findings.ts";
import { lint } from "../../../core/policy/analyze/lint.ts";
import { runTests, type TestReport } from "../../../core/policy/analyze/run_tests.ts";
import { who, writeWho } from "../../../core/policy/analyze/who.ts";
import type { Attributes } from "../../../core/policy/decide/decision.ts";
import type { PlainPeer } from "../../../core/policy/decide/subject.ts";
import { pathText } from "../../../core/policy/document/problems.ts";
import { isObject } from "../../../core/policy/document/shape.ts";
import type { PolicyDocument } from "../../../core/policy/document/types.ts";
import type { Vocabulary } from "../../../core/policy/document/vocabulary.ts";
import { type RulePolicy, sourceOf } from "../../../core/policy/policy.ts";
import { VOCABULARIES } from "../../../interop/vocabularies.ts";
import { definePolicy } from "../../../policy/define.ts";
import { parsePolicy, readData } from "../../../policy/parse.ts";
import { type AccountTable, nameOf, setAccounts } from "./accounts.ts";
import type { FIELDS, State } from "./state.ts";
import { type Table, tableOf } from "./table.ts";

/** A mistake in a field. */
export interface FieldProblem {
  readonly field: typeof FIELDS[number];
  readonly message: string;
  /** Line and column, from 1, in the text of the field. */
  readonly line?: number | undefined;
  readonly column?: number | undefined;
}

/** What the page shows. The parts are `undefined` if a problem prevents them. */
export interface Evaluation {
  readonly problems: readonly FieldProblem[];
  readonly explanation?: Explanation;
  readonly table?: Table;
  readonly findings?: readonly Finding[];
  /** The peers that may perform the action, in words; or why they cannot be listed. */
  readonly who?: string;
  readonly tests?: TestReport;
  readonly difference?: Difference;
  /** The actions of the vocabulary. */
  readonly actions?: readonly string[];
}

/** How the second policy differs from the first. */
export interface Difference {
  readonly text: string;
  /** A case that the policies decide differently. */
  readonly found?: Counterexample;
}

class FieldError extends Error {
  readonly problems: readonly FieldProblem[];

  constructor(problems: readonly FieldProblem[]) {
    super(problems.map(({ message }) => message).join("\n"));
    this.problems = problems;
  }
}

/** Evaluates all fields. */
export function evaluate(state: State): Evaluation {
  const problems: FieldProblem[] = [];
  /** Collects the problems of a field; its value is then `undefined`. */
  const attempt = <T>(read: () => T): T | undefined => {
    try {
      return read();
    } catch (error) {
      if (!(error instanceof FieldError)) throw error;
      problems.push(...error.problems);
      return undefined;
    }
  };
  const accounts = attempt(() => accountsOf(state.accounts));
  if (accounts === undefined) return { problems };
  setAccounts(accounts);
  const policy = attempt(() => policyOf("policy", state.policy));
  const peer = attempt(() => peerOf(state.peer));
  if (policy === undefined) return { problems };
  const vocabulary = sourceOf(policy, "evaluate()").checked.vocabulary as Vocabulary | undefined;
  const attributes = attempt(() => attributesOf(state.attributes, vocabulary));
  const action = state.action === "" ? undefined : state.action;
  const edited = state.edited.trim() === ""
    ? undefined
    : attempt(() => policyOf("edited", state.edited));
  const isComplete = peer !== undefined &&
    !problems.some(({ field }) => field === "attributes");
  return {
    problems,
    ...(isComplete && {
      explanation: policy.explain(peer, { action, attributes }),
      table: tableOf(policy, peer, { action, attributes }),
    }),
    findings: lint(policy),
    who: whoMay(policy, action),
    tests: runTests(policy),
    ...(edited !== undefined && { difference: differenceOf(policy, edited) }),
    actions: vocabulary === undefined
      ? []
      : Object.keys(vocabulary.actions).filter((action) => !action.includes("*")),
  };
}

function policyOf(field: "policy" | "edited", text: string): RulePolicy {
  try {
    return parsePolicy(text, { file: field, vocabularies: VOCABULARIES });
  } catch (error) {
    const { problems = [] } = policyErrorOf(error);
    throw new FieldError(
      problems.map(({ message, line, column }) => ({ field, message, line, column })),
    );
  }
}

/** @throws The error itself if it is not about a policy. */
function policyErrorOf(error: unknown): UcredError {
  if (error instanceof UcredError && error.code === "ERR_UCRED_POLICY") return error;
  throw error;
}

/** Reads YAML or JSON; an empty text is an empty object. */
function dataOf(field: FieldProblem["field"], text: string): unknown {
  if (text.trim() === "") return {};
  const contents = readData(text);
  if ("problem" in contents) throw new FieldError([{ field, ...contents.problem }]);
  return contents.data;
}

function accountsOf(text: string): AccountTable {
  const data = dataOf("accounts", text);
  const problem = (message: string) => new FieldError([{ field: "accounts", message }]);
  const tableOf = (kind: "users" | "groups") => {
    const table = isObject(data) && Object.hasOwn(data, kind) ? data[kind] : {};
    if (!isObject(data) || !isObject(table)) {
      throw problem("it must map users and groups, each from names to ids");
    }
    for (const [name, id] of Object.entries(table)) {
      if (!isId(id as number)) throw problem(`${kind}.${name} must be an id, 0 to 4294967294`);
    }
    return new Map(Object.entries(table) as [string, number][]);
  };
  const unexpected = isObject(data)
    ? Object.keys(data).find((name) => name !== "users" && name !== "groups")
    : undefined;
  if (unexpected !== undefined) throw problem(`unexpected field ${JSON.stringify(unexpected)}`);
  return { user: tableOf("users"), group: tableOf("groups") };
}

/** Reads a peer by the rules for peers in tests of policies, which may have names. */
function peerOf(text: string): PlainPeer {
  const peer = dataOf("peer", text);
  const rules = [{ name: "any", allow: true as const }];
  return checked("peer", { version: 1, rules, tests: [{ peer, expect: { deny: true } }] }).peer;
}

function attributesOf(text: string, vocabulary: Vocabulary | undefined): Attributes | undefined {
  const attributes = dataOf("attributes", text);
  if (vocabulary === undefined) {
    if (isObject(attributes) && Object.keys(attributes).length === 0) return undefined;
    const message = "the policy has no about, so its rules test no attributes";
    throw new FieldError([{ field: "attributes", message }]);
  }
  const tests = [{ peer: {}, attributes, expect: { deny: true } }];
  const document = { version: 1, about: vocabulary.name, rules: [], tests };
  return checked("attributes", document, [vocabulary]).attributes;
}

/** The test of a document with one test, after the checks of policies. */
function checked(
  field: "peer" | "attributes",
  document: unknown,
  vocabularies: readonly Vocabulary[] = [],
) {
  try {
    const policy = definePolicy(document as PolicyDocument, { vocabularies });
    return sourceOf(policy, "checked()").checked.tests[0]!;
  } catch (error) {
    const { problems = [] } = policyErrorOf(error);
    throw new FieldError(
      problems.map(({ path, message }) => ({
        field,
        message: path.length > 3 ? `${pathText(path.slice(3))}: ${message}` : message,
      })),
    );
  }
}

const names = {
  user: (id: number) => nameOf("user", id),
  group: (id: number) => nameOf("group", id),
};

function whoMay(policy: RulePolicy, action: string | undefined): string {
  try {
    return writeWho(who(policy, action).clauses, names);
  } catch (error) {
    return policyErrorOf(error).message;
  }
}

function differenceOf(before: RulePolicy, after: RulePolicy): Difference {
  try {
    const more = narrower(before, after);
    if (more !== undefined) return { text: "The edited policy allows more.", found: more };
    const found = equivalent(before, after);
    return found === undefined
      ? { text: "No decision changes." }
      : { text: "The edited policy allows less, and nothing more.", found };
  } catch (error) {
    return { text: policyErrorOf(error).message };
  }
}
