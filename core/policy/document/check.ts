/** Checks a policy document. Returns rules that can be compiled, or all problems. */

import { isId } from "../../credentials.ts";
import type { NamespaceKind } from "../../process.ts";
import type { AttributeType } from "../decide/attributes.ts";
import { type CheckedCondition, TEXT_FIELDS, type TextField } from "../decide/condition.ts";
import { parseRange, unite } from "../decide/id_ranges.ts";
import type { PlainPeer } from "../decide/subject.ts";
import { plain } from "./plain_copy.ts";
import type { Attributes, Decision } from "../decide/decision.ts";
import { type DocumentPath, type Problem, Problems } from "./problems.ts";
import { oneOf, POLICY } from "./schema.ts";
import { isObject, type Report, type Shape, show, suggest } from "./shape.ts";
import type {
  Accounts,
  AttributeCondition,
  Condition,
  Named,
  NamedKind,
  PolicyDocument,
  RuleDocument,
  TestDocument,
} from "./types.ts";

/** A checked rule. */
export interface CheckedRule {
  readonly name: string;
  /** `undefined`: every peer. */
  readonly when: CheckedCondition | undefined;
  /** Conditions on attributes; `undefined`: any attributes. */
  readonly where: CheckedCondition | undefined;
  /** `undefined`: every action. */
  readonly actions: readonly string[] | undefined;
  /** Grants; `undefined`: the rule denies. */
  readonly grants: readonly string[] | undefined;
  /** The reason of a denying rule, if any. */
  readonly reason: string | undefined;
}

/** A checked test. */
export interface CheckedTest {
  readonly name: string | undefined;
  readonly peer: PlainPeer;
  readonly action: string | undefined;
  readonly attributes: Attributes | undefined;
  /** Grants, `true` for any; `undefined`: denied. */
  readonly grants: readonly string[] | true | undefined;
  /** The rule that must decide; `null`: no rule, `undefined`: any. */
  readonly rule: string | null | undefined;
  readonly path: DocumentPath;
}

/** A checked document. */
export interface CheckedPolicy {
  readonly rules: readonly CheckedRule[];
  readonly tests: readonly CheckedTest[];
  /** The vocabulary that `about` names. */
  readonly vocabulary: PolicyVocabulary | undefined;
  /** The account names in the document, with their ids. */
  readonly named: readonly Named[];
}

/** Resolves names and `sameUser`. */
export interface Resolve extends Accounts {
  /** The server's own effective uid. */
  ownUid(): number;
  /** Existing names, for suggestions. The list may be incomplete. */
  names(kind: NamedKind): Iterable<string>;
  /** The vocabularies that `about` can name. */
  readonly vocabularies?: readonly PolicyVocabulary[] | undefined;
}

/** The parts of a vocabulary that a policy needs. Its code comes with it, because most programs use none. */
export interface PolicyVocabulary {
  readonly name: string;
  readonly actions: { readonly [action: string]: string };
  readonly attributes: {
    readonly [name: string]: {
      readonly type: AttributeType;
      readonly secret?: boolean;
      readonly essential?: readonly string[];
    };
  };
  /** The shape of policies about it. */
  readonly policy: Shape;
  /** Converts the `where` of a rule. */
  conditionOf(where: AttributeCondition): CheckedCondition;
  /** Returns the decision about an action that the vocabulary does not have; `undefined` if it has it. */
  refusalOf(action: string | undefined): Decision | undefined;
}

/** Checks a document. The result shares nothing with it. */
export function checkPolicy(
  document: unknown,
  resolve: Resolve,
): { readonly checked: CheckedPolicy } | { readonly problems: Problems<Problem> } {
  const check = new Check(resolve);
  const data = plain(document);
  if ("problem" in data) {
    check.problems.add(() => data.problem);
    return check;
  }
  const { about } = Object(data.copy) as { about?: unknown };
  const { vocabularies = [] } = resolve;
  const vocabulary = vocabularies.find(({ name }) => name === about);
  if (about !== undefined && vocabulary === undefined) {
    oneOf("vocabulary", vocabularies.map(({ name }) => name)).check(about, ["about"], check);
    return check;
  }
  (vocabulary?.policy ?? POLICY).check(data.copy, [], check);
  checkNames(data.copy, check);
  if (!check.problems.isEmpty) return check;
  const { rules, tests = [] } = data.copy as PolicyDocument;
  return {
    checked: {
      rules: rules.map((rule) => ({
        ...ruleOf(rule, check),
        where: rule.where && vocabulary!.conditionOf(rule.where),
      })),
      vocabulary,
      tests: tests.map((test, index) => testOf(test, ["tests", index], check)),
      named: check.named,
    },
  };
}

/** Checks that rule names are unique, and that tests name existing rules. */
function checkNames(document: unknown, check: Check): void {
  const listIn = (field: string): readonly unknown[] => {
    const list = isObject(document) ? document[field] : undefined;
    return Array.isArray(list) ? list : [];
  };
  const names = new Set<unknown>();
  for (const [index, rule] of listIn("rules").entries()) {
    const name = isObject(rule) ? rule["name"] : undefined;
    if (names.has(name)) {
      check.problem(["rules", index, "name"], () => `two rules have the name ${show(name)}`);
    }
    if (typeof name === "string") names.add(name);
  }
  for (const [index, test] of listIn("tests").entries()) {
    const expect = isObject(test) ? test["expect"] : undefined;
    const rule = isObject(expect) ? expect["rule"] : undefined;
    if (typeof rule !== "string" || names.has(rule)) continue;
    const meant = () => suggest(rule, names as ReadonlySet<string>);
    const path = ["tests", index, "expect", "rule"];
    check.problem(path, () => `no rule ${show(rule)}${meant()}`);
  }
}

/** Collects problems, and resolves each name once. */
class Check implements Report {
  readonly problems: Problems<Problem> = new Problems();
  readonly named: Named[] = [];
  readonly resolve: Resolve;
  readonly #ids = new Map<string, number | undefined>();

  constructor(resolve: Resolve) {
    this.resolve = resolve;
  }

  problem(path: DocumentPath, message: () => string): void {
    this.problems.add(() => ({ path, message: message() }));
  }

  unexpectedField(path: DocumentPath, message: () => string): void {
    this.problems.add(() => ({ path, message: message(), isField: true }));
  }

  name(kind: NamedKind, name: string, path: DocumentPath): void {
    if (this.problems.isFull) return; // a lookup may be slow, and its result would not be used
    const id = this.id(kind, name);
    if (id === undefined) {
      const meant = () => suggest(name, this.resolve.names(kind));
      this.problem(path, () => `no ${kind} ${show(name)}${meant()}`);
    } else if (isId(id)) this.named.push({ kind, name, id, path });
    else {this.problem(path, () =>
        `${kind} ${show(name)} has the id ${show(id)}, which is not an id`);}
  }

  id(kind: NamedKind, name: string): number | undefined {
    const key = `${kind} ${name}`;
    if (!this.#ids.has(key)) {
      const id = kind === "user" ? this.resolve.uid(name) : this.resolve.gid(name);
      this.#ids.set(key, id ?? undefined); // a custom lookup may return null
    }
    return this.#ids.get(key);
  }
}

// The functions below take documents of the right shape.

function ruleOf(
  { name, when, actions, allow, deny }: RuleDocument,
  check: Check,
): Omit<CheckedRule, "where"> {
  return {
    name,
    when: when && conditionOf(when, deny !== undefined, check),
    actions: actions === undefined ? undefined : listOf(actions),
    grants: allow === undefined ? undefined : Object.freeze(allow === true ? [] : listOf(allow)),
    reason: typeof deny === "string" ? deny : undefined,
  };
}

/** @param denies Whether a match denies: in a denying rule, or in `not` of an allowing rule. */
function conditionOf(condition: Condition, denies: boolean, check: Check): CheckedCondition {
  const fields = Object.entries(condition);
  return { kind: "all", of: fields.map(([field, value]) => factOf(field, value, denies, check)) };
}

function factOf(field: string, value: unknown, denies: boolean, check: Check): CheckedCondition {
  switch (field) {
    case "any":
    case "all": {
      const of = (value as Condition[]).map((each) => conditionOf(each, denies, check));
      return { kind: field, of };
    }
    case "not":
      return { kind: field, of: conditionOf(value as Condition, !denies, check) };
  }
  const text = `${field} ${listOf(value).join(" or ")}`;
  switch (field) {
    case "uid":
    case "gid": {
      const ranges = unite(listOf(value as string).flatMap((each) => parseRange(each) ?? []));
      return { kind: field, ranges, text };
    }
    case "user":
    case "group": {
      const ids = listOf(value as string).map((name) => check.id(field, name)!);
      const ranges = unite(ids.map((id) => ({ first: id, last: id })));
      return { kind: field === "user" ? "uid" : "group", ranges, text };
    }
    case "sameUser": {
      const own = check.resolve.ownUid();
      const ranges = [{ first: own, last: own }];
      const same: CheckedCondition = { kind: "uid", ranges, text: `uid ${own}, the server's own` };
      return value === true ? same : { kind: "not", of: same };
    }
    case "unchanged":
      return { kind: field, value: value === true, text };
    case "sameNamespaces": {
      const kinds = listOf(value as NamespaceKind);
      return { kind: field, kinds, text: `the server's namespaces: ${kinds.join(", ")}` };
    }
  }
  if (!(TEXT_FIELDS as readonly string[]).includes(field)) throw new TypeError(`No field ${field}`);
  const globs = listOf(value as string);
  if (field !== "label") return { kind: field as TextField, globs, text };
  return { kind: field, globs: globs.flatMap((glob) => labelGlobs(glob, denies)), text };
}

/**
 * AppArmor labels have a mode after the profile, "docker-default (enforce)": a glob without a mode matches
 * every mode. In a condition that denies, it also matches the profile's children ("a//b") and stacks with
 * the profile ("a//&b"). Labels of SELinux and Smack have other forms.
 *
 * @see {@link https://man7.org/linux/man-pages/man7/apparmor.7.html apparmor(7)}
 */
function labelGlobs(glob: string, denies: boolean): readonly string[] {
  const [, profile = glob, mode = ""] = /^(.+)( \([^()]*\))$/.exec(glob) ?? [];
  const modes = (text: string) => mode === "" && !text.endsWith("*") ? ["", " (*)"] : [mode];
  const texts = denies && profile !== "**"
    ? [profile, `${profile}//**`, `**//&${profile}`, `**//&${profile}//**`]
    : [profile];
  return texts.flatMap((text) => modes(text).map((mode) => `${text}${mode}`));
}

function testOf(
  { name, peer, action, attributes, expect }: TestDocument,
  path: DocumentPath,
  check: Check,
): CheckedTest {
  const { user, group, groups, ...facts } = peer;
  const uid = user === undefined ? peer.uid : check.id("user", user);
  const gid = group === undefined ? peer.gid : check.id("group", group);
  const gids = groups?.map((each) => typeof each === "string" ? check.id("group", each)! : each);
  const { allow, rule } = expect;
  return {
    name,
    peer: {
      ...facts,
      ...(uid !== undefined && { uid }),
      ...(gid !== undefined && { gid }),
      ...(gids && { groups: gids }),
    },
    action,
    attributes,
    grants: allow === undefined || allow === true ? allow : listOf(allow),
    rule,
    path,
  };
}

const listOf = <T>(value: T | readonly T[]): readonly T[] =>
  Array.isArray(value) ? value : [value as T];
