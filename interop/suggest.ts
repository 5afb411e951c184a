/** Suggests the narrowest policy that allows the requests of a recording: `ucred policy suggest`. */

import { DYNAMIC_IDS } from "../core/policy/analyze/lint_conditions.ts";
import type { PlainPeer } from "../core/policy/decide/subject.ts";
import { MAX_GLOB_CHARACTERS } from "../core/policy/document/schema.ts";
import type {
  Accounts,
  Condition,
  PolicyDocument,
  RuleDocument,
  TestDocument,
  TestPeer,
} from "../core/policy/document/types.ts";
import { visible } from "../core/text.ts";
import { definePolicy } from "../policy/define.ts";
import { testsOf } from "./docker/learned.ts";
import type { RecordedCaller, RecordedEntry, Recording } from "./recording.ts";
import { conditionOf, mergeRules, type SuggestedRule, type Tests } from "./suggested_rules.ts";
import { VOCABULARIES } from "./vocabularies.ts";

/** The fact by which callers are distinguished. */
export type CallersBy = "uid" | "group" | "unit" | "container";

/** Options of {@link suggest}. */
export interface SuggestOptions {
  /** The fact by which callers are distinguished. */
  readonly by: CallersBy;
  /** Whether the policy also allows requests that were denied. */
  readonly includeDenied: boolean;
  /** Returns the name of a group; `undefined` if it has none. */
  readonly groupName: (gid: number) => string | undefined;
  /** Resolves that name. Default: the accounts of this system. */
  readonly accounts?: Accounts | undefined;
}

/** A rule, with lines about it for its reader. */
interface NotedRule {
  readonly rule: RuleDocument;
  readonly notes: readonly string[];
}

/** A policy to review. */
export interface Suggestion {
  readonly about: string | undefined;
  readonly rules: readonly NotedRule[];
  /** Rules that allow any value of a field that the recording does not have. */
  readonly unlimited: readonly NotedRule[];
  readonly tests: readonly TestDocument[];
  /** Recorded requests that no rule allows, with the reason. */
  readonly missing: readonly { readonly entry: RecordedEntry; readonly why: string }[];
  /** The number of recorded requests that were denied, and are not allowed. */
  readonly denied: number;
}

/** The document of a suggestion. */
export function documentOf({ about, rules, tests }: Suggestion): PolicyDocument {
  return {
    version: 1,
    ...(about !== undefined && { about }),
    rules: rules.map(({ rule }) => rule),
    tests,
  };
}

/** Maximum tests that a suggestion makes from recorded requests. */
const MAX_TESTS = 1000;

/** Callers that share rules. */
interface Callers {
  /** For the names of rules: "uid 1000". */
  readonly label: string;
  readonly when: Condition;
  readonly entries: RecordedEntry[];
  /** A peer to which the rules do not apply. */
  readonly stranger: TestPeer;
}

/** Suggests a policy. */
export function suggest(recording: Recording, options: SuggestOptions): Suggestion {
  const { mode } = recording;
  const about = mode === "docker" ? "docker" : undefined;
  const entries = recording.entries.filter(({ allowed }) => allowed || options.includeDenied);
  const missing: { entry: RecordedEntry; why: string }[] = [];
  const rules: NotedRule[] = [], unlimited: NotedRule[] = [];
  const skip = (entry: RecordedEntry, why: string) => void missing.push({ entry, why });
  const groups = options.by === "group"
    ? callersByGroup(entries, options, skip)
    : callersByFact(entries, options.by, skip);
  const allowed = new Set<RecordedEntry>();
  for (const callers of groups) {
    const limitedRules: SuggestedRule[] = [], unlimitedRules: SuggestedRule[] = [];
    const reasons = new Set<string>();
    for (const entry of callers.entries) {
      const found = mode === "docker" ? testsOf(entry) : { tests: new Map() as Tests };
      const problem = "problem" in found ? found.problem : unusable(entry.action, found.tests);
      if (problem !== undefined || "problem" in found) {
        skip(entry, problem!);
        continue;
      }
      const rule = { actions: [entry.action], tests: found.tests, count: entry.count };
      if (found.unlimited === undefined) {
        limitedRules.push(rule);
        allowed.add(entry);
      } else {
        unlimitedRules.push(rule);
        reasons.add(found.unlimited);
        skip(entry, `the recording has no value of ${found.unlimited}`);
      }
    }
    const names = new Set<string>();
    rules.push(...mergeRules(limitedRules).map((rule) => ruleOf(callers, rule, names, [])));
    const notes = [...reasons].map((fields) => `It allows any value of ${fields}`);
    unlimited.push(
      ...mergeRules(unlimitedRules).map((rule) => ruleOf(callers, rule, names, notes)),
    );
  }
  const policy = definePolicy(
    { version: 1, ...(about && { about }), rules: rules.map(({ rule }) => rule) },
    { vocabularies: VOCABULARIES, accounts: options.accounts },
  );
  const tests: TestDocument[] = [];
  for (const callers of groups) {
    for (const entry of callers.entries) {
      if (allowed.has(entry) && tests.length < MAX_TESTS) tests.push(testOf(entry, callers.when));
    }
  }
  for (const callers of groups) {
    for (const test of denialsOf(callers, mode)) {
      const { peer, action, attributes } = test;
      const isAllowed = policy.decide(peer as PlainPeer, { action, attributes }).allowed;
      if (!isAllowed) tests.push(test);
    }
  }
  const denied = recording.entries.filter(({ allowed }) => !allowed).length;
  return { about, rules, unlimited, tests, missing, denied: options.includeDenied ? 0 : denied };
}

/** Callers by uid, or by unit or container where they have one. */
function callersByFact(
  entries: readonly RecordedEntry[],
  by: "uid" | "unit" | "container",
  skip: (entry: RecordedEntry, why: string) => void,
): readonly Callers[] {
  const found = new Map<string, RecordedEntry[]>();
  for (const entry of entries) {
    const { uid } = entry.caller;
    if (uid === undefined) {
      skip(entry, "the uid of its caller is ambiguous");
      continue;
    }
    const fact = by === "uid" ? undefined : entry.caller[by];
    const problem = fact === undefined ? undefined : unusable(fact, new Map());
    if (problem !== undefined) {
      skip(entry, `the ${by} of its caller: ${problem}`);
      continue;
    }
    const key = fact === undefined ? `uid ${uid}` : `${by} ${fact}`;
    const list = found.get(key) ?? [];
    found.set(key, list);
    list.push(entry);
  }
  const uids = new Set(entries.map(({ caller }) => caller.uid));
  return [...found].map(([label, entries]) => {
    const [{ caller }] = entries as [RecordedEntry];
    const fact = by === "uid" ? undefined : caller[by];
    const own = [...new Set(entries.map(({ caller }) => caller.uid!))].toSorted((a, b) => a - b);
    const ours = sharedBy(entries);
    // systemd reuses the uids of dynamic users.
    const isDynamic = fact !== undefined && by === "unit" && own.some(isDynamicUid);
    const when: Condition = {
      ...(!isDynamic && { uid: own.length === 1 ? own[0]! : own }),
      ...(fact !== undefined && { [by]: fact }),
      // Root of a container without a user namespace has uid 0, too.
      ...(own.includes(0) && fact === undefined && ours.length > 0 && { sameNamespaces: ours }),
    };
    const stranger = fact === undefined
      ? { uid: unusedUid(uids), gid: unusedUid(uids), groups: [] }
      : {
        ...peerOf(caller, {}),
        process: { [by]: by === "unit" ? "other.service" : "0".repeat(64) },
      };
    return { label, when, entries, stranger };
  });
}

const isDynamicUid = (uid: number): boolean => uid >= DYNAMIC_IDS.first && uid <= DYNAMIC_IDS.last;

/** The namespaces of the guard in which all callers were. */
function sharedBy(entries: readonly RecordedEntry[]) {
  const kinds = ["user", "pid", "mnt"] as const;
  return kinds.filter((kind) => entries.every(({ caller }) => caller.ours?.includes(kind)));
}

function unusedUid(uids: ReadonlySet<number | undefined>): number {
  let uid = 59_999;
  while (uids.has(uid)) uid--;
  return uid;
}

/** Groups callers by the named group that most of them have, then the remaining callers in the same way. */
function callersByGroup(
  entries: readonly RecordedEntry[],
  { groupName }: SuggestOptions,
  skip: (entry: RecordedEntry, why: string) => void,
): readonly Callers[] {
  const names = new Map<number, string | undefined>();
  const nameOf = (gid: number) => {
    if (!names.has(gid)) names.set(gid, groupName(gid));
    return names.get(gid);
  };
  const found: Callers[] = [];
  let left = entries;
  while (left.length > 0) {
    const uidsOf = new Map<number, Set<number | undefined>>();
    for (const { caller } of left) {
      for (const gid of groupsOf(caller)) {
        if (nameOf(gid) === undefined) continue;
        uidsOf.set(gid, (uidsOf.get(gid) ?? new Set()).add(caller.uid));
      }
    }
    const [best] = [...uidsOf].toSorted(([a, x], [b, y]) => y.size - x.size || a - b);
    if (best === undefined) {
      for (const entry of left) skip(entry, "its caller has no group with a name");
      break;
    }
    const [gid] = best;
    const isMember = ({ caller }: RecordedEntry) => groupsOf(caller).includes(gid);
    const uids = new Set(entries.map(({ caller }) => caller.uid));
    const stranger = { uid: unusedUid(uids), gid: unusedUid(uids), groups: [] };
    const group = nameOf(gid)!;
    found.push({
      ...{ label: `group ${group}`, when: { group }, stranger },
      entries: left.filter(isMember),
    });
    left = left.filter((entry) => !isMember(entry));
  }
  return found;
}

const groupsOf = (
  { gid, groups }: RecordedCaller,
): readonly number[] => [...new Set([...gid === undefined ? [] : [gid], ...groups ?? []])];

/** Returns why a rule cannot have a text; `undefined` if it can have all of them. */
function unusable(action: string, tests: Tests): string | undefined {
  const texts = [action];
  for (const test of tests.values()) {
    const values = test.kind === "values"
      ? test.values
      : [...test.within ?? [], ...test.required ?? []];
    for (const value of values) if (typeof value === "string") texts.push(value);
  }
  for (const text of texts) {
    if (text === "container:*") continue;
    if (text === "") return "one of its texts is empty";
    if (text.includes("*")) return "one of its texts contains a star, which a rule cannot express";
    if (text.length > MAX_GLOB_CHARACTERS) return "one of its texts is too long for a rule";
    if (visible(text) !== text) return "one of its texts contains invisible characters";
  }
  return undefined;
}

function ruleOf(
  { label, when }: Callers,
  { actions, tests, count }: SuggestedRule,
  names: Set<string>,
  warnings: readonly string[],
): NotedRule {
  const [first = ""] = actions;
  const owner = tests.get("owner");
  const isOwn = owner?.kind === "values" && owner.values.includes("self");
  const more = actions.length > 1 ? ` and ${actions.length - 1} more` : "";
  const what = isOwn && actions.length > 1 ? "own objects" : first.slice(0, 100) + more;
  let name = `${label}: ${what}`;
  for (let at = 2; names.has(name); at++) name = `${label}: ${what} (${at})`;
  names.add(name);
  const where = conditionOf(tests);
  const rule: RuleDocument = {
    ...{ name, when, actions: actions.length === 1 ? first : actions },
    ...(where !== undefined && { where }),
    allow: true,
  };
  const notes = [count === 1 ? "Seen once" : `Seen ${count} times`, ...warnings];
  const isList = actions.some((action) => /^(container|volume|network)\.list$/.test(action));
  if (when.uid === 0 && when.sameNamespaces === undefined) {
    notes.push("Root of a container may have this uid, too: see sameNamespaces");
  }
  if (isList && owner === undefined) {
    notes.push("It lists the objects of all users. where: { owner: self } limits it");
  }
  return { rule, notes };
}

/** The facts of a caller that a condition may test. */
function peerOf(caller: RecordedCaller, { sameNamespaces, unit, container }: Condition): TestPeer {
  const kinds = [sameNamespaces ?? []].flat();
  const process = {
    ...(unit !== undefined && { unit: caller.unit! }),
    ...(container !== undefined && { container: caller.container! }),
    ...(kinds.length > 0 &&
      { namespaces: Object.fromEntries(kinds.map((kind) => [kind, { ours: true }])) }),
  };
  const { uid, gid, groups } = caller;
  return {
    ...(uid !== undefined && { uid }),
    ...(gid !== undefined && { gid }),
    ...(groups !== undefined && { groups }),
    ...(Object.keys(process).length > 0 && { process }),
  };
}

/** The test that a recorded request is allowed. */
function testOf(
  { caller, action, attributes, about }: RecordedEntry,
  when: Condition,
): TestDocument {
  const own = {
    owner: caller.uid!,
    dangers: [],
    ...(/\bexec\b/.test(action) && { privileged: false }),
  };
  const all = about === undefined ? attributes : own;
  return {
    ...{ peer: peerOf(caller, when), action },
    ...(all !== undefined && { attributes: all }),
    expect: { allow: true },
  };
}

/** Requests that were not seen, for tests that they are denied. */
function denialsOf(
  { entries, stranger, label, when }: Callers,
  mode: Recording["mode"],
): TestDocument[] {
  const [first] = entries;
  if (first === undefined) return [];
  const expect = { deny: true } as const;
  const peer = peerOf(first.caller, when);
  const seen = testOf(first, when);
  const tests: TestDocument[] = [
    { ...seen, name: `${label}: another caller is denied`, peer: stranger, expect },
  ];
  if (mode === "http") {
    const action = "DELETE /ucred-was-never-seen";
    return [...tests, { name: `${label}: other requests are denied`, peer, action, expect }];
  }
  const create = entries.find(({ action }) => action === "container.create") ?? first;
  tests.push({
    ...{ name: `${label}: no privileged container`, peer: peerOf(create.caller, when) },
    action: "container.create",
    attributes: {
      ...(create.action === "container.create" ? create.attributes : {}),
      ...{ privileged: true, dangers: ["HostConfig.Privileged"] },
    },
    expect,
  });
  const own = entries.find(({ caller, attributes }) =>
    caller.uid !== undefined && attributes?.["owner"] === caller.uid
  );
  if (own !== undefined) {
    tests.push({
      ...{
        name: `${label}: nothing of others`,
        peer: peerOf(own.caller, when),
        action: own.action,
      },
      // Another caller by unit or container may have the same uid.
      attributes: { ...own.attributes, owner: unusedUid(new Set([own.caller.uid])) },
      expect,
    });
  }
  for (const action of ["swarm.write", "plugin.write"]) {
    const attributes = { dangers: [action] };
    tests.push({ name: `${label}: no ${action}`, peer, action, attributes, expect });
  }
  return tests;
}
