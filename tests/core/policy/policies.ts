/** Random small policies and peers, and a naive evaluator to compare with. */

import assert from "node:assert/strict";
import fc from "../../support/properties.ts";
import { checkPolicy } from "../../../core/policy/document/check.ts";
import type {
  Condition,
  PolicyDocument,
  RuleDocument,
} from "../../../core/policy/document/types.ts";
import { compilePolicy, type RulePolicy } from "../../../core/policy/policy.ts";
import type { PlainPeer } from "../../../core/policy/decide/subject.ts";
import { cases, soak } from "../../support/suite.ts";

export const USERS: { readonly [name: string]: number } = { root: 0, ada: 1, ben: 5 };
export const GROUPS: { readonly [name: string]: number } = {
  wheel: 0,
  docker: 3,
  users: 6,
  none: 65534,
};
export const OWN_UID = 2;

export const resolve = {
  uid: (name: string) => USERS[name],
  gid: (name: string) => GROUPS[name],
  ownUid: () => OWN_UID,
  names: (kind: "user" | "group") => Object.keys(kind === "user" ? USERS : GROUPS),
};

/** Makes a policy of rules that are right. */
export function compile(...rules: readonly RuleDocument[]): RulePolicy {
  const result = checkPolicy({ version: 1, rules }, resolve);
  assert.ok("checked" in result, "problems" in result ? JSON.stringify(result.problems) : "");
  return compilePolicy(result.checked);
}

// The naive evaluator: every rule, every condition, straight from the document.

/** `undefined`: unknown. */
export type Truth = boolean | undefined;

export const not = (truth: Truth): Truth => truth === undefined ? undefined : !truth;
export const all = (truths: readonly Truth[]): Truth =>
  truths.includes(false) ? false : truths.includes(undefined) ? undefined : true;
export const any = (truths: readonly Truth[]): Truth => not(all(truths.map(not)));
export const list = <T>(value: T | readonly T[]): readonly T[] =>
  Array.isArray(value) ? value : [value as T];

function inRange(range: number | string, id: number | undefined): Truth {
  if (id === undefined) return undefined;
  const [first, last = first] = String(range).split("-").map(Number) as [number, number?];
  return id >= first && id <= last;
}

/** Globs by way of regular expressions, unlike the library. */
export function globMatches(glob: string, text: string | null | undefined): Truth {
  if (text === undefined) return undefined;
  if (text === null) return false;
  const source = glob.replaceAll(
    /\*\*+|[^*]|\*/g,
    (part) =>
      part === "*"
        ? "[^/]*"
        : part.startsWith("*")
        ? "[^]*"
        : part.replace(/[\\^$.+?()[\]{}|/]/, "\\$&"),
  );
  return new RegExp(`^(?:${source})$`, "u").test(text);
}

/** "a//&b (enforce)" → profiles and mode, as the kernel writes AppArmor's labels. */
function labelMatches(glob: string, label: string | null | undefined, keepsOut: boolean): Truth {
  const whole = globMatches(glob, label);
  if (whole !== false || label === null || label === undefined) return whole;
  const split = (text: string) => /^([^]+)( \([^()]*\))$/.exec(text) ?? ["", text, ""];
  const [, wanted, wantedMode] = split(glob) as [string, string, string];
  const [, stack, mode] = split(label) as [string, string, string];
  if (wantedMode === "" ? mode.includes("/") : mode !== wantedMode) return false;
  // Each profile in the stack, with its children, from wherever a glob's stars may begin.
  const parts = keepsOut ? stack.split("//&").map((_, at, all) => all.slice(at).join("//&")) : [];
  return globMatches(wanted, stack)! ||
    parts.some((part) =>
      Array.from({ length: part.length + 1 }, (_, at) => part.slice(0, at)).some((start) =>
        (start === part || part.startsWith("//", start.length)) && globMatches(wanted, start)
      )
    );
}

/** @param keepsOut Whether a peer that meets it is kept out. */
export function holds(condition: Condition, peer: PlainPeer, keepsOut = false): Truth {
  const { groups, process, ambiguous = [] } = peer;
  const uid = ambiguous.includes("uid") ? undefined : peer.uid;
  const gid = ambiguous.includes("gid") ? undefined : peer.gid;
  const isPartial = groups === undefined || ambiguous.includes("groups");
  const group = (id: number): Truth =>
    gid === id || groups?.includes(id) && !isPartial ||
    (isPartial || gid === undefined ? undefined : false);
  return all(
    Object.entries(condition).map(([field, value]): Truth => {
      switch (field) {
        case "uid":
          return any(list(value as string).map((range) => inRange(range, uid)));
        case "gid":
          return any(list(value as string).map((range) => inRange(range, gid)));
        case "user":
          return any(list(value as string).map((name) => inRange(USERS[name]!, uid)));
        case "group":
          return any(list(value as string).map((name) => group(GROUPS[name]!)));
        case "sameUser":
          return uid === undefined ? undefined : (uid === OWN_UID) === value;
        case "unchanged":
          return peer.unchanged === undefined ? undefined : peer.unchanged === value;
        case "sameNamespaces":
          return all(list(value as "user").map((kind) => process?.namespaces?.[kind]?.ours));
        case "any":
          return any((value as Condition[]).map((each) => holds(each, peer, keepsOut)));
        case "all":
          return all((value as Condition[]).map((each) => holds(each, peer, keepsOut)));
        case "not":
          return not(holds(value as Condition, peer, !keepsOut));
        case "label":
          return any(list(value as string).map((glob) => labelMatches(glob, peer.label, keepsOut)));
      }
      const text = process?.[field as "exe"];
      return any(list(value as string).map((glob) => globMatches(glob, text)));
    }),
  );
}

export function decideNaively(
  { rules }: PolicyDocument,
  peer: PlainPeer,
  action: string | undefined,
) {
  for (const { name, when, actions, allow, deny } of rules) {
    const about = actions === undefined ||
      (action !== undefined && list(actions).some((glob) => globMatches(glob, action)));
    if (!about) continue;
    const truth = when === undefined ? true : holds(when, peer, deny !== undefined);
    if (deny !== undefined && truth !== false) return { allowed: false, rule: name, grants: [] };
    if (allow !== undefined && truth === true) {
      return { allowed: true, rule: name, grants: allow === true ? [] : list(allow) };
    }
  }
  return { allowed: false, rule: undefined, grants: [] };
}

// Small worlds, so that rules and peers meet.

/** Where ids have no number, and the last one. */
const farId = fc.constantFrom(65533, 65534, 65535, 2 ** 32 - 2);
const id = fc.oneof({ weight: 9, arbitrary: fc.nat(41) }, { weight: 2, arbitrary: farId });
/** Wide ones that touch each other. */
const edge = fc.constantFrom(0, 20, 41, 65534, 2 ** 32 - 1);
const someOf = <T>(value: fc.Arbitrary<T>) =>
  fc.oneof(value, fc.array(value, { minLength: 1, maxLength: 3 }));
const range = fc.oneof(
  id,
  id.map(String),
  fc.tuple(id, id).map(([a, b]) => `${Math.min(a, b)}-${Math.max(a, b)}`),
  fc.uniqueArray(edge, { minLength: 2, maxLength: 2 })
    .map(([a, b]) => `${Math.min(a!, b!)}-${Math.max(a!, b!) - 1}`),
);
export const glob = fc.array(fc.constantFrom("a", "b", "/", "*", "**"), {
  minLength: 1,
  maxLength: 5,
})
  .map((parts) => parts.join(""));
export const text = fc.array(fc.constantFrom("a", "b", "/"), { maxLength: 5 }).map((parts) =>
  parts.join("")
);
/** Labels and globs for them, of AppArmor and others. */
const label = fc.tuple(
  fc.array(fc.constantFrom("a", "b", "//", "//&", "*", "**"), { minLength: 1, maxLength: 4 }),
  fc.constantFrom("", "", " (enforce)", " (kill)"),
).map(([parts, mode]) => `${parts.join("")}${mode}`);
const kind = fc.constantFrom("user", "pid", "net");
const sha256 = fc.constantFrom("0".repeat(64), "a".repeat(64));

function conditionOf(depth: number): fc.Arbitrary<Condition> {
  const inner = depth > 0 ? conditionOf(depth - 1) : undefined;
  const several = inner && fc.array(inner, { minLength: 1, maxLength: 3 });
  const fields: { readonly [name: string]: fc.Arbitrary<unknown> } = {
    uid: someOf(range),
    gid: someOf(range),
    user: someOf(fc.constantFrom(...Object.keys(USERS))),
    group: someOf(fc.constantFrom(...Object.keys(GROUPS))),
    sameUser: fc.boolean(),
    exe: someOf(glob),
    exeSha256: someOf(sha256),
    unit: someOf(glob),
    cgroup: someOf(glob),
    container: someOf(glob),
    label: someOf(label),
    sameNamespaces: someOf(kind),
    unchanged: fc.boolean(),
    ...(several && inner && { any: several, all: several, not: inner }),
  };
  // Most often one or two fields, as people write them. Only the chosen fields are generated: to generate
  // all of them, at each depth, takes most of the time of a property test.
  return fc.shuffledSubarray(Object.keys(fields), { minLength: 1, maxLength: 3 })
    .chain((names) =>
      fc.record(Object.fromEntries(names.map((name) => [name, fields[name]!])))
    ) as fc.Arbitrary<Condition>;
}

export const condition = conditionOf(2);

export const rules = fc.array(
  fc.record({
    when: fc.option(condition, { nil: undefined }),
    actions: fc.option(someOf(glob), { nil: undefined }),
    effect: fc.oneof(
      fc.constantFrom({ allow: true as const }, { deny: true as const }, { deny: "No" }),
      fc.record({ allow: someOf(fc.constantFrom("read", "write")) }),
    ),
  }),
  { maxLength: 12 },
).map((all) =>
  all.map(({ when, actions, effect }, index): RuleDocument => ({
    name: `rule ${index}`,
    ...(when && { when }),
    ...(actions && { actions }),
    ...effect,
  }))
);

const fact = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: null });
export const peer = fc.record({
  uid: id,
  gid: id,
  groups: fc.array(fc.constantFrom(0, 3, 6, 9, 65534), { maxLength: 3 }),
  ambiguous: fc.constantFrom([], [], [], ["uid"], ["gid"], ["groups"], ["uid", "groups"]),
  label: fact(label),
  unchanged: fc.boolean(),
  process: fc.record({
    exe: fact(text),
    exeSha256: fact(sha256),
    unit: fact(text),
    cgroup: fact(text),
    container: fact(text),
    namespaces: fc.dictionary(kind, fc.record({ ours: fc.boolean() })),
  }, { requiredKeys: [] }),
}, { requiredKeys: [] }) as fc.Arbitrary<PlainPeer>;

/** How often a property is tried. */
export const RUNS = { numRuns: cases(soak(500, 1000)) };
