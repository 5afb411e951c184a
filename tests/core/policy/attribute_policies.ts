/** A vocabulary, random policies and requests about it, and a naive evaluator to compare with. */

import assert from "node:assert/strict";
import fc from "../../support/properties.ts";
import type { Attributes } from "../../../core/policy/decide/decision.ts";
import type { PlainPeer } from "../../../core/policy/decide/subject.ts";
import { checkPolicy, type PolicyVocabulary } from "../../../core/policy/document/check.ts";
import type {
  AttributeCondition,
  RuleDocument,
  TestDocument,
} from "../../../core/policy/document/types.ts";
import { defineVocabulary, type Vocabulary } from "../../../core/policy/document/vocabulary.ts";
import { compilePolicy, type RulePolicy } from "../../../core/policy/policy.ts";
import { all, any, globMatches, holds, list, not, resolve, type Truth } from "./policies.ts";

/** A vocabulary with an attribute of each type. */
export const STORE: Vocabulary = defineVocabulary({
  name: "store",
  actions: { read: "Reads.", write: "Writes.", copy: "Copies." },
  attributes: {
    secret: { type: "boolean", description: "Whether it is secret." },
    size: { type: "number", description: "Its size." },
    name: { type: "text", description: "Its name." },
    tags: { type: "texts", description: "Its tags." },
    owner: { type: "id", description: "The uid of its owner." },
    labels: { type: "parameters", description: "Its labels." },
    target: { type: "text", description: "The name of the copy.", actions: ["copy"] },
  },
});

export const ACTIONS = ["read", "write", "copy", "other", undefined] as const;

/** A copy of {@link STORE}. Policies about the same vocabulary share compiled conditions. */
export function storeCopy(): Vocabulary {
  const { name, actions, attributes } = STORE;
  return defineVocabulary({ name, actions, attributes });
}

/** Makes a policy about {@link STORE}. */
export function attributePolicy(
  rules: readonly RuleDocument[],
  tests: readonly TestDocument[] = [],
  store: Vocabulary = STORE,
): RulePolicy {
  const vocabularies = [store as Vocabulary & PolicyVocabulary];
  const result = checkPolicy({ version: 1, about: "store", rules, tests }, {
    ...resolve,
    vocabularies,
  });
  assert.ok("checked" in result, "problems" in result ? JSON.stringify(result.problems) : "");
  return compilePolicy(result.checked);
}

const inRange = (range: unknown, value: number): boolean => {
  if (typeof range === "number") return value === range;
  const [first, last = first] = String(range).split("-").map(Number) as [number, number?];
  return value >= first && value <= last;
};

const isId = (value: unknown): value is number =>
  typeof value === "number" && Number.isInteger(value) && value >= 0 && value < 2 ** 32 - 1;

/** Whether a condition on a list holds. */
function listHolds(condition: object, texts: unknown): Truth {
  if (!Array.isArray(texts) || !texts.every((text) => typeof text === "string")) return undefined;
  const matches = (globs: string | string[]) => (text: string) =>
    list(globs).some((glob) => globMatches(glob, text));
  return Object.entries(condition).every(([name, globs]) => {
    switch (name) {
      case "every":
        return texts.every(matches(globs));
      case "some":
        return texts.some(matches(globs));
      case "none":
        return !texts.some(matches(globs));
    }
    return (texts.length === 0) === globs;
  });
}

/** Whether a condition on attributes holds. */
export function attributesHold(
  where: AttributeCondition,
  attributes: Attributes,
  peer: PlainPeer,
): Truth {
  const uid = peer.ambiguous?.includes("uid") ? undefined : peer.uid;
  return all(
    Object.entries(where).map(([name, wanted]): Truth => {
      const value = Object.hasOwn(attributes, name) ? attributes[name] : undefined;
      switch (name) {
        case "any":
          return any(
            (wanted as AttributeCondition[]).map((each) => attributesHold(each, attributes, peer)),
          );
        case "all":
          return all(
            (wanted as AttributeCondition[]).map((each) => attributesHold(each, attributes, peer)),
          );
        case "not":
          return not(attributesHold(wanted as AttributeCondition, attributes, peer));
        case "secret":
          return typeof value === "boolean" ? value === wanted : undefined;
        case "size":
          if (typeof value !== "number" || !Number.isFinite(value)) return undefined;
          return list(wanted).some((range) => inRange(range, value));
        case "owner":
          if (!isId(value)) return undefined;
          return any(
            list(wanted).map((range) =>
              range === "self"
                ? (uid === undefined ? undefined : uid === value)
                : inRange(range, value)
            ),
          );
        case "tags":
          return listHolds(wanted as object, value);
        case "labels": {
          if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
          return all(
            Object.entries(wanted as object).map(([label, condition]) =>
              listHolds(condition, Object.hasOwn(value, label) ? value[label as never] : [])
            ),
          );
        }
      }
      if (typeof value !== "string" && value !== null) return undefined;
      return any(list(wanted as string).map((glob) => globMatches(glob, value)));
    }),
  );
}

/** Decides by looking at each rule. */
export function decideByAttributes(
  rules: readonly RuleDocument[],
  peer: PlainPeer,
  action: string | undefined,
  attributes: Attributes = {},
) {
  const none = { allowed: false, rule: undefined, grants: [] };
  if (action === "other") return none;
  for (const { name, when, where, actions, allow, deny } of rules) {
    const about = actions === undefined ||
      (action !== undefined && list(actions).some((glob) => globMatches(glob, action)));
    if (!about) continue;
    const truth = all([
      when === undefined || holds(when, peer, deny !== undefined),
      where === undefined || attributesHold(where, attributes, peer),
    ]);
    if (deny !== undefined && truth !== false) return { ...none, rule: name };
    if (allow !== undefined && truth === true) {
      return { allowed: true, rule: name, grants: allow === true ? [] : list(allow) };
    }
  }
  return none;
}

// Small worlds, so that conditions and attributes meet.

const glob = fc.constantFrom("a", "b", "a*", "*", "**", "a/**", "**b");
const someOf = <T>(value: fc.Arbitrary<T>) =>
  fc.oneof(value, fc.array(value, { minLength: 1, maxLength: 3 }));
const textsCondition = fc.record({
  every: someOf(glob),
  some: someOf(glob),
  none: someOf(glob),
  empty: fc.boolean(),
}, { requiredKeys: [] }).filter((each) => Object.keys(each).length > 0);
const label = fc.constantFrom("x", "y");
const leaf: fc.Arbitrary<AttributeCondition> = fc.oneof(
  fc.boolean().map((secret) => ({ secret })),
  someOf(fc.constantFrom<number | string>(0, 1, 2.5, "0-2", "2-9")).map((size) => ({ size })),
  someOf(glob).map((name) => ({ name })),
  textsCondition.map((tags) => ({ tags })),
  someOf(fc.constantFrom<number | string>("self", 0, 1, "1-5", "self")).map((owner) => ({ owner })),
  fc.dictionary(label, textsCondition, { minKeys: 1, maxKeys: 2 })
    .map((labels): AttributeCondition => ({ labels: { ...labels } })),
);

function conditionOf(depth: number): fc.Arbitrary<AttributeCondition> {
  if (depth === 0) return leaf;
  const inner = conditionOf(depth - 1);
  const several = fc.array(inner, { minLength: 1, maxLength: 3 });
  return fc.oneof(
    { weight: 3, arbitrary: leaf },
    fc.tuple(leaf, leaf).map(([a, b]): AttributeCondition => ({ ...a, ...b })),
    several.map((any): AttributeCondition => ({ any })),
    several.map((all): AttributeCondition => ({ all })),
    inner.map((not): AttributeCondition => ({ not })),
  );
}

const when = fc.constantFrom(
  ...[{ uid: 1 }, { uid: "0-1" }, { gid: 3 }, { not: { uid: 5 } }, { unit: "a" }],
);

/** Rules of policies about {@link STORE}. */
export const attributeRules: fc.Arbitrary<RuleDocument[]> = fc.array(
  fc.record({
    when: fc.option(when, { nil: undefined }),
    where: fc.option(conditionOf(2), { nil: undefined, freq: 5 }),
    actions: fc.option(fc.constantFrom("read", "*", ["write", "c*"]), { nil: undefined }),
    effect: fc.constantFrom<Pick<RuleDocument, "allow" | "deny">[]>(
      ...[{ allow: true as const }, { allow: ["r", "w"] }, { allow: "r" }, { deny: "No" }],
    ),
  }),
  { maxLength: 4 },
).map((rules) =>
  rules.map(({ when, where, actions, effect }, at): RuleDocument => ({
    name: `rule ${at}`,
    ...(when && { when }),
    ...(where && { where }),
    ...(actions !== undefined && { actions }),
    ...effect,
  }))
);

const word = fc.constantFrom("a", "b", "aa", "ab", "a/b", "c", "");
const texts = fc.array(word, { maxLength: 3 });
const wrong = fc.constantFrom<unknown>(null, undefined, "a", 5, NaN, [], {}, [1], { x: "a" }, true);
const or = <T>(right: fc.Arbitrary<T>) =>
  fc.oneof({ weight: 6, arbitrary: right as fc.Arbitrary<unknown> }, {
    weight: 1,
    arbitrary: wrong,
  });

/** Attributes, some of which are missing or have another type. */
export const anyAttributes: fc.Arbitrary<Attributes> = fc.record({
  secret: or(fc.boolean()),
  size: or(fc.constantFrom(0, 1, 2, 2.5, 9, 10, -1)),
  name: or(fc.oneof(word, fc.constant(null))),
  tags: or(texts),
  owner: or(fc.constantFrom(0, 1, 3, 5, 7)),
  labels: or(fc.dictionary(label, or(texts) as fc.Arbitrary<string[]>, { maxKeys: 2 })),
}, { requiredKeys: [] });

/** Peers of requests. */
export const peerOfRequest: fc.Arbitrary<PlainPeer> = fc.record({
  uid: fc.constantFrom(0, 1, 3, 5),
  gid: fc.constantFrom(3, 4),
  groups: fc.constant([]),
  ambiguous: fc.constantFrom([], [], ["uid"]),
  process: fc.record({ unit: fc.constantFrom("a", "b", null) }, { requiredKeys: [] }),
}, { requiredKeys: [] }) as fc.Arbitrary<PlainPeer>;
