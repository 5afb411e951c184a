/** A policy document → rules that can be compiled, or everything that is wrong with it. */

import { isId } from "../../credentials.ts";
import type { NamespaceKind } from "../../process.ts";
import { type CheckedCondition, TEXT_FIELDS, type TextField } from "../decide/condition.ts";
import { parseRange, unite } from "../decide/id_ranges.ts";
import type { PlainPeer } from "../decide/subject.ts";
import { plain } from "./plain_copy.ts";
import { type DocumentPath, type Problem, Problems } from "./problems.ts";
import { POLICY } from "./schema.ts";
import { isObject, type Report, show, suggest } from "./shape.ts";
import type {
  Accounts,
  Condition,
  Named,
  NamedKind,
  PolicyDocument,
  RuleDocument,
  TestDocument,
} from "./types.ts";

/** One rule after it was checked. */
export interface CheckedRule {
  readonly name: string;
  /** `undefined`: everyone. */
  readonly when: CheckedCondition | undefined;
  /** `undefined`: every action. */
  readonly actions: readonly string[] | undefined;
  /** Grants; `undefined`: the rule denies. */
  readonly grants: readonly string[] | undefined;
  /** The reason that a denying rule gives, if any. */
  readonly reason: string | undefined;
}

/** One test after it was checked. */
export interface CheckedTest {
  readonly name: string | undefined;
  readonly peer: PlainPeer;
  readonly action: string | undefined;
  /** Grants, `true` for any; `undefined`: denied. */
  readonly grants: readonly string[] | true | undefined;
  /** The rule that is to decide; `null` for none, `undefined` for whichever. */
  readonly rule: string | null | undefined;
  readonly path: DocumentPath;
}

/** A document that was checked. */
export interface CheckedPolicy {
  readonly rules: readonly CheckedRule[];
  readonly tests: readonly CheckedTest[];
  /** The names in it, with their ids. */
  readonly named: readonly Named[];
}

/** What names and `sameUser` are resolved with. */
export interface Resolve extends Accounts {
  /** The server's own effective uid. */
  ownUid(): number;
  /** Names that exist, for suggestions; not all of them need be there. */
  names(kind: NamedKind): Iterable<string>;
}

/** Checks a document. Of what is returned, nothing is shared with it. */
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
  POLICY.check(data.copy, [], check);
  checkNames(data.copy, check);
  if (!check.problems.isEmpty) return check;
  const { rules, tests = [] } = data.copy as PolicyDocument;
  return {
    checked: {
      rules: rules.map((rule) => ruleOf(rule, check)),
      tests: tests.map((test, index) => testOf(test, ["tests", index], check)),
      named: check.named,
    },
  };
}

/** Names of rules are unique, and tests name rules that exist. */
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

/** Gathers problems, and resolves names, each once. */
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
    if (this.problems.isFull) return; // a lookup may take long, and is of no more use
    const id = this.id(kind, name);
    if (id === undefined) {
      const meant = () => suggest(name, this.resolve.names(kind));
      this.problem(path, () => `no ${kind} ${show(name)}${meant()}`);
    } else if (isId(id)) this.named.push({ kind, name, id, path });
    else {this.problem(path, () =>
        `${kind} ${show(name)} has the id ${show(id)}, which is nobody's`);}
  }

  id(kind: NamedKind, name: string): number | undefined {
    const key = `${kind} ${name}`;
    if (!this.#ids.has(key)) {
      const id = kind === "user" ? this.resolve.uid(name) : this.resolve.gid(name);
      this.#ids.set(key, id ?? undefined); // what others wrote may say null
    }
    return this.#ids.get(key);
  }
}

// From here on, documents have the shape that they must have.

function ruleOf({ name, when, actions, allow, deny }: RuleDocument, check: Check): CheckedRule {
  return {
    name,
    when: when && conditionOf(when, deny !== undefined, check),
    actions: actions === undefined ? undefined : listOf(actions),
    grants: allow === undefined ? undefined : Object.freeze(allow === true ? [] : listOf(allow)),
    reason: typeof deny === "string" ? deny : undefined,
  };
}

/** @param keepsOut Whether a peer that meets it is kept out: in a denying rule, or in `not` of an allowing one. */
function conditionOf(condition: Condition, keepsOut: boolean, check: Check): CheckedCondition {
  const fields = Object.entries(condition);
  return { kind: "all", of: fields.map(([field, value]) => factOf(field, value, keepsOut, check)) };
}

function factOf(field: string, value: unknown, keepsOut: boolean, check: Check): CheckedCondition {
  switch (field) {
    case "any":
    case "all": {
      const of = (value as Condition[]).map((each) => conditionOf(each, keepsOut, check));
      return { kind: field, of };
    }
    case "not":
      return { kind: field, of: conditionOf(value as Condition, !keepsOut, check) };
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
  return { kind: field, globs: globs.flatMap((glob) => labelGlobs(glob, keepsOut)), text };
}

/**
 * AppArmor's labels have a mode behind the profile, "docker-default (enforce)": a glob without one means
 * every mode. What keeps peers out must not miss, so it also means the profile's children ("a//b") and
 * stacks that have it in them ("a//&b"); a label of SELinux or Smack looks like none of these.
 *
 * @see {@link https://man7.org/linux/man-pages/man7/apparmor.7.html apparmor(7)}
 */
function labelGlobs(glob: string, keepsOut: boolean): readonly string[] {
  const [, profile = glob, mode = ""] = /^(.+)( \([^()]*\))$/.exec(glob) ?? [];
  const modes = (text: string) => mode === "" && !text.endsWith("*") ? ["", " (*)"] : [mode];
  const texts = keepsOut && profile !== "**"
    ? [profile, `${profile}//**`, `**//&${profile}`, `**//&${profile}//**`]
    : [profile];
  return texts.flatMap((text) => modes(text).map((mode) => `${text}${mode}`));
}

function testOf(
  { name, peer, action, expect }: TestDocument,
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
    grants: allow === undefined || allow === true ? allow : listOf(allow),
    rule,
    path,
  };
}

const listOf = <T>(value: T | readonly T[]): readonly T[] =>
  Array.isArray(value) ? value : [value as T];
