/** A policy document → rules that can be compiled, or everything that is wrong with it. */

import type { NamespaceKind } from "../process.ts";
import { type Checked, TEXT_FIELDS } from "./condition.ts";
import type { Accounts } from "./document.ts";
import { parseRange, type Range } from "./ids.ts";

/** Something wrong, and where: the keys and indexes that lead there. */
export interface Problem {
  readonly path: readonly (string | number)[];
  /** What is wrong, and what was expected. */
  readonly message: string;
  /** It is the field itself that should not be there, not its value. */
  readonly isField?: boolean;
}

/** One rule after it was checked. */
export interface CheckedRule {
  readonly name: string;
  /** `undefined`: everyone. */
  readonly when: Checked | undefined;
  /** `undefined`: every action. */
  readonly actions: readonly string[] | undefined;
  /** Grants; `undefined`: the rule denies. */
  readonly grants: readonly string[] | undefined;
  /** The reason that a denying rule gives, if any. */
  readonly reason: string | undefined;
}

/** What names and `sameUser` are resolved with. */
export interface Resolve extends Accounts {
  /** The server's own effective uid. */
  ownUid(): number;
  /** Names that exist, for suggestions; not all of them need be there. */
  names(kind: "user" | "group"): Iterable<string>;
}

/** Checks a document. The rules are only to be used where there is no problem. */
export function checkPolicy(
  document: unknown,
  resolve: Resolve,
): { readonly rules: readonly CheckedRule[]; readonly problems: readonly Problem[] } {
  const check = new Check(resolve);
  const rules = check.policy(document);
  return { rules, problems: check.problems };
}

type Path = readonly (string | number)[];

const CONDITION_FIELDS = [
  ...["uid", "gid", "user", "group", "sameUser"],
  ...TEXT_FIELDS,
  ...["sameNamespaces", "unchanged", "any", "all", "not"],
] as const;

const NAMESPACES: readonly string[] = [
  ...["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"],
];

/** Deeper conditions are refused: they would exhaust the stack. */
const DEEPEST = 32;

/** More conditions are refused: one that contains itself twice would never end. */
const MOST_CONDITIONS = 1_000_000;

class Check {
  readonly problems: Problem[] = [];
  readonly #resolve: Resolve;
  #conditions = 0;

  constructor(resolve: Resolve) {
    this.#resolve = resolve;
  }

  policy(document: unknown): readonly CheckedRule[] {
    if (!this.#isObject(document, [], "a policy")) return [];
    this.#onlyKeys(document, ["version", "rules"], []);
    const { version, rules } = document;
    if (version !== 1) this.#problem(["version"], `version is 1, not ${show(version)}`);
    if (!Array.isArray(rules)) {
      this.#problem(["rules"], `rules is a list of rules, not ${show(rules)}`);
      return [];
    }
    const names = new Set<unknown>();
    return rules.flatMap((rule, index) => {
      const checked = this.#rule(rule, ["rules", index]);
      if (checked === undefined) return [];
      if (names.has(checked.name)) {
        this.#problem(["rules", index, "name"], `two rules have the name ${show(checked.name)}`);
      }
      names.add(checked.name);
      return [checked];
    });
  }

  #rule(rule: unknown, path: Path): CheckedRule | undefined {
    if (!this.#isObject(rule, path, "a rule")) return undefined;
    this.#onlyKeys(rule, ["name", "when", "actions", "allow", "deny"], path);
    const { name, when, actions, allow, deny } = rule;
    if (typeof name !== "string" || name === "") {
      this.#problem([...path, "name"], `a rule has a name, not ${show(name)}`);
    }
    if ((allow === undefined) === (deny === undefined)) {
      this.#problem(path, "a rule has either allow or deny");
    }
    if (deny !== undefined && deny !== true && (typeof deny !== "string" || deny === "")) {
      this.#problem([...path, "deny"], `deny is true or a reason, not ${show(deny)}`);
    }
    return {
      name: String(name),
      when: when === undefined ? undefined : this.#condition(when, [...path, "when"], 0),
      actions: actions === undefined ? undefined : this.#texts(actions, [...path, "actions"]),
      grants: allow === undefined
        ? undefined
        : allow === true
        ? []
        : this.#texts(allow, [...path, "allow"]),
      reason: typeof deny === "string" ? deny : undefined,
    };
  }

  #condition(condition: unknown, path: Path, depth: number): Checked {
    const nothing: Checked = { kind: "any", of: [] }; // false, should it ever be used
    if (!this.#isObject(condition, path, "a condition")) return nothing;
    if (depth > DEEPEST) {
      this.#problem(path, `conditions nest at most ${DEEPEST} deep`);
      this.#conditions = MOST_CONDITIONS; // whatever nests so deep may have no end
      return nothing;
    }
    if (this.#conditions++ >= MOST_CONDITIONS) {
      if (this.#conditions === MOST_CONDITIONS + 1 && this.problems.length === 0) {
        this.#problem(path, `there are at most ${MOST_CONDITIONS} conditions`);
      }
      return nothing;
    }
    this.#onlyKeys(condition, CONDITION_FIELDS, path);
    const entries = Object.entries(condition);
    if (entries.length === 0) this.#problem(path, "a condition has at least one field");
    const all = entries.flatMap(([field, value]) =>
      this.#field(field, value, [...path, field], depth) ?? []
    );
    return { kind: "all", of: all };
  }

  #field(field: string, value: unknown, path: Path, depth: number): Checked | undefined {
    const text = `${field} ${listOf(value).join(" or ")}`;
    switch (field) {
      case "uid":
      case "gid":
        return { kind: field, ranges: this.#ranges(value, path), text };
      case "user":
      case "group": {
        const ranges = this.#texts(value, path).flatMap((name) => {
          const id = this.#id(field, name, path);
          return id === undefined ? [] : [{ first: id, last: id }];
        });
        return { kind: field === "user" ? "uid" : "group", ranges, text };
      }
      case "sameUser": {
        if (!this.#isBoolean(value, path)) return undefined;
        const own = this.#resolve.ownUid();
        const ranges = [{ first: own, last: own }];
        const same: Checked = { kind: "uid", ranges, text: `uid ${own}, the server's own` };
        return value ? same : { kind: "not", of: same };
      }
      case "unchanged":
        return this.#isBoolean(value, path) ? { kind: field, value, text } : undefined;
      case "sameNamespaces": {
        const kinds = this.#texts(value, path);
        for (const kind of kinds) {
          if (!NAMESPACES.includes(kind)) {
            this.#problem(path, `no namespace ${show(kind)}${suggest(kind, NAMESPACES)}`);
          }
        }
        return {
          kind: field,
          kinds: kinds as NamespaceKind[],
          text: `the server's namespaces: ${kinds.join(", ")}`,
        };
      }
      case "any":
      case "all":
        if (!Array.isArray(value) || value.length === 0) {
          this.#problem(path, `${field} is a list of conditions, not ${show(value)}`);
          return undefined;
        }
        return {
          kind: field,
          of: value.map((each, index) => this.#condition(each, [...path, index], depth + 1)),
        };
      case "not":
        return { kind: field, of: this.#condition(value, path, depth + 1) };
    }
    const kind = TEXT_FIELDS.find((name) => name === field);
    if (kind === undefined) return undefined; // said already
    const globs = this.#texts(value, path);
    for (const glob of globs) {
      if (kind === "exeSha256" && !/^[0-9a-f]{64}$/.test(glob)) {
        this.#problem(path, `exeSha256 is 64 hexadecimal digits in lower case, not ${show(glob)}`);
      }
    }
    return { kind, globs, text };
  }

  #id(field: "user" | "group", name: string, path: Path): number | undefined {
    const id = field === "user" ? this.#resolve.uid(name) : this.#resolve.gid(name);
    if (id === undefined) {
      const meant = suggest(name, this.#resolve.names(field));
      this.#problem(path, `no ${field} ${show(name)}${meant}`);
    }
    return id;
  }

  #ranges(value: unknown, path: Path): readonly Range[] {
    return listOf(value).flatMap((each) => {
      const range = typeof each === "number" || typeof each === "string"
        ? parseRange(each)
        : undefined;
      if (range !== undefined) return [range];
      const expected = 'an id from 0 to 4294967294, or a range like "1000-1999"';
      this.#problem(path, `${path.at(-1)} is ${expected}, not ${show(each)}`);
      return [];
    });
  }

  #texts(value: unknown, path: Path): readonly string[] {
    const list = listOf(value);
    if (list.length === 0) this.#problem(path, `${path.at(-1)} is at least one text, not []`);
    return list.flatMap((each) => {
      if (typeof each === "string" && each !== "") return [each];
      this.#problem(path, `${path.at(-1)} is a text or a list of them, not ${show(each)}`);
      return [];
    });
  }

  #isBoolean(value: unknown, path: Path): value is boolean {
    if (typeof value === "boolean") return true;
    this.#problem(path, `${path.at(-1)} is true or false, not ${show(value)}`);
    return false;
  }

  #isObject(value: unknown, path: Path, what: string): value is { [key: string]: unknown } {
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return true;
    this.#problem(path, `${what} is an object, not ${show(value)}`);
    return false;
  }

  #onlyKeys(value: object, allowed: readonly string[], path: Path): void {
    for (const key of Object.keys(value)) {
      if (!allowed.includes(key)) {
        const message = `no field ${show(key)} here${suggest(key, allowed)}`;
        this.problems.push({ path: [...path, key], message, isField: true });
      }
    }
  }

  #problem(path: Path, message: string): void {
    this.problems.push({ path, message });
  }
}

const listOf = (value: unknown): readonly unknown[] => Array.isArray(value) ? value : [value];

/** A value in a message, cut off where it is long. */
function show(value: unknown): string {
  if (typeof value === "object" && value !== null && Object.keys(value).length > 0) {
    return Array.isArray(value) ? "a list" : "an object"; // which may be large, or contain itself
  }
  const text = value === undefined ? "nothing" : JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}…` : text;
}

/** "; did you mean …?" where something similar exists. */
export function suggest(wrong: string, right: Iterable<string>): string {
  let [best, least] = ["", Math.max(2, Math.floor(wrong.length / 3)) + 1];
  for (const candidate of right) {
    const changes = distance(wrong, candidate);
    if (changes < least) [best, least] = [candidate, changes];
  }
  return best === "" ? "" : `; did you mean ${show(best)}?`;
}

/** Insertions, deletions, replacements and swaps of neighbours between two words. */
function distance(a: string, b: string): number {
  if (Math.max(a.length, b.length) > 64) return Infinity;
  let [before, row] = [[] as number[], Array.from({ length: b.length + 1 }, (_, at) => at)];
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const differs = a[i - 1] === b[j - 1] ? 0 : 1;
      next[j] = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + differs);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        next[j] = Math.min(next[j]!, before[j - 2]! + 1);
      }
    }
    [before, row] = [row, next];
  }
  return row[b.length]!;
}
