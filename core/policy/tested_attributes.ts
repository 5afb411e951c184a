/** The attributes of a request that policies test, in the form in which logs have them. */

import { type AttributeName, attributesIn, keyOf, readAttribute } from "./decide/attributes.ts";
import type { Attributes, Decision } from "./decide/decision.ts";
import type { CheckedPolicy } from "./document/check.ts";
import { ForwardingPolicy } from "./forward.ts";
import { findSource, type Policy } from "./policy.ts";

/**
 * A value in a log: texts are shortened. Of an attribute that the vocabulary marks as `secret` there is
 * only the number of its texts.
 */
export type LoggedValue = boolean | number | string | null | readonly string[];

/** Attributes of a request by name: "privileged", "query.limit". */
export interface LoggedAttributes {
  /** The value of an attribute. */
  readonly [name: string]: LoggedValue;
}

/** Further attributes are omitted. */
const MAX_ATTRIBUTES = 32;

/** Maximum texts of a list in a log. Further ones are omitted. */
export const MAX_LOGGED_TEXTS = 16;

/** Maximum length of a text in a log. */
export const MAX_LOGGED_CHARACTERS = 256;

/** Characters of all texts together; the texts after them are shortened to nothing. */
const MAX_CHARACTERS = 2048;

interface TestedAttribute extends AttributeName {
  /** The name in logs. */
  readonly key: string;
  readonly isSecret: boolean;
}

/** Name of a rule → the attributes that it tests; `undefined` → those that any rule tests. */
type TestedByRule = ReadonlyMap<string | undefined, readonly TestedAttribute[]>;

const known = new WeakMap<CheckedPolicy, TestedByRule>();

/**
 * Returns the attributes that the deciding rule tested, or those that any rule tests if no rule matched.
 * Unknown attributes are omitted. Never throws.
 *
 * @returns `undefined` if there are none, or if the policy is not made of rules.
 */
export function testedAttributes(
  policy: Policy,
  { rule }: Decision,
  attributes: Attributes,
): LoggedAttributes | undefined {
  let current = policy;
  while (current instanceof ForwardingPolicy) current = current.current;
  const checked = findSource(current)?.checked;
  if (checked === undefined) return undefined;
  let byRule = known.get(checked);
  if (byRule === undefined) known.set(checked, byRule = testedBy(checked));
  const logged: { [name: string]: LoggedValue } = {};
  const room = { characters: MAX_CHARACTERS };
  let count = 0;
  for (const tested of byRule.get(rule) ?? []) {
    const value = loggedValue(attributes, tested, room);
    if (value === undefined) continue;
    logged[tested.key] = value;
    if (++count === MAX_ATTRIBUTES) break;
  }
  return count === 0 ? undefined : logged;
}

/**
 * Whether a policy may test attributes of a vocabulary. `true` for a policy that is not made of rules, because
 * it may pass them on to one that is.
 */
export function mayTest(policy: Policy, vocabulary: string): boolean {
  if (policy instanceof ForwardingPolicy) {
    return policy.consulted.some((each) => mayTest(each, vocabulary));
  }
  const source = findSource(policy);
  return source === undefined || source.checked.vocabulary?.name === vocabulary;
}

function testedBy({ rules, vocabulary }: CheckedPolicy): TestedByRule {
  const all = new Map<string, TestedAttribute>();
  const byRule = new Map<string | undefined, readonly TestedAttribute[]>();
  for (const { name: rule, where } of rules) {
    const ofRule = new Map<string, TestedAttribute>();
    for (const tested of attributesIn(where)) {
      const { type, secret = false } = vocabulary!.attributes[tested.name]!;
      const key = keyOf(tested);
      ofRule.set(key, { ...tested, key, type, isSecret: secret });
    }
    byRule.set(rule, [...ofRule.values()]);
    for (const [key, tested] of ofRule) all.set(key, tested);
  }
  byRule.set(undefined, [...all.values()]);
  return byRule;
}

function loggedValue(
  attributes: Attributes,
  tested: TestedAttribute,
  room: { characters: number },
): LoggedValue | undefined {
  let value: unknown;
  try {
    value = readAttribute(attributes, tested);
  } catch {
    // A getter or a proxy threw.
  }
  if (typeof value === "boolean" || typeof value === "number" || value === null) return value;
  const texts = Array.isArray(value) ? value as string[] : undefined;
  if (texts === undefined && typeof value !== "string") return undefined;
  if (tested.isSecret) return texts?.length ?? 1;
  if (texts === undefined) return shortened(value as string, room);
  const first = texts.slice(0, MAX_LOGGED_TEXTS).map((text) => shortened(text, room));
  const omitted = texts.length - first.length;
  return omitted === 0 ? first : [...first, `… (${omitted} more)`];
}

function shortened(text: string, room: { characters: number }): string {
  const most = Math.min(MAX_LOGGED_CHARACTERS, room.characters);
  room.characters -= Math.min(text.length, most);
  return text.length > most ? `${text.slice(0, most)}… (${text.length} characters)` : text;
}
