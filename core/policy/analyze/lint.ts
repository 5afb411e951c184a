/** What is doubtful about a policy: rules that never decide, that let everybody in, that can be fooled. */

import { type OptionNames, requireOptions } from "../../options.ts";
import { textOf } from "../../text.ts";
import type { CheckedRule } from "../document/check.ts";
import type { DocumentPath } from "../document/problems.ts";
import type { Named, NamedKind } from "../document/types.ts";
import { Budget, BudgetExceeded } from "./budget.ts";
import type { Finding, Say } from "./findings.ts";
import { cutOff, lintCgroup, lintConditions } from "./lint_conditions.ts";
import { type Policy, sourceOf } from "../policy.ts";
import { matches, RuleRegions } from "./reach.ts";
import {
  both,
  EVERYTHING,
  exampleIn,
  type FactKey,
  factsOf,
  Ids,
  isEmpty,
  type PolicyCase,
  type Region,
  Truths,
  whereKnown,
  without,
} from "./region.ts";

/** Options of {@link lint}. */
export interface LintOptions {
  /**
   * Whether the socket's name is abstract: containers that share the network namespace reach it. By
   * default `false`.
   */
  readonly abstractSocket?: boolean | undefined;
}

const LINT_OPTIONS: OptionNames<LintOptions> = { abstractSocket: true };

/**
 * Finds doubtful rules: rules that never decide, that admit everybody, or that a peer can evade.
 *
 * "Never" is a proof, and each example is a case that `decide()` confirms. A rule whose conditions can be
 * combined in too many ways is reported as `unsettled`.
 *
 * @throws {TypeError} If the policy is not one of `definePolicy()`, `parsePolicy()` or `loadPolicy()`, or
 * an option is unknown.
 *
 * @example Find a rule that never decides
 * ```ts
 * import { definePolicy } from "ucred";
 * import { lint } from "ucred/policy";
 *
 * const policy = definePolicy({
 *   version: 1,
 *   rules: [
 *     { name: "people", when: { uid: "1000-1999" }, allow: "read" },
 *     { name: "intern", when: { uid: 1500 }, allow: "read" },
 *   ],
 * });
 * console.log(lint(policy).map(({ kind, rule }) => `${kind} ${rule}`).join()); // never intern
 * ```
 */
export function lint(policy: Policy, options: LintOptions = {}): readonly Finding[] {
  requireOptions("lint()", options, LINT_OPTIONS);
  const { checked, context } = sourceOf(policy, "lint()");
  return lintRules(checked.rules, {
    ...options,
    named: checked.named,
    namesakes: context.namesakes ?? (() => []),
    where: context.where,
  });
}

/** What {@link lintRules} needs beside the rules. */
export interface LintContext extends LintOptions {
  /** The names that were resolved. */
  readonly named: readonly Named[];
  /** Other accounts with the same id as a name has. */
  readonly namesakes: (named: Named) => readonly string[];
  /** Path in the document → "file:line:column". */
  readonly where: ((path: DocumentPath) => string) | undefined;
}

/**
 * Finds what is doubtful. Exact: a rule that is said never to decide does not, and the other way. What
 * was not found out within the budget is said to be so, rule by rule.
 */
export function lintRules(
  rules: readonly CheckedRule[],
  context: LintContext,
  budget: Budget = new Budget(),
): readonly Finding[] {
  const { abstractSocket = false, where } = context;
  const reach = new RuleRegions(rules, budget);
  const looks = [
    ...[lintReach, lintWidened, lintEveryone, lintCgroup],
    ...(abstractSocket ? [lintContainer] : []),
  ];
  const namesOf = sameIds(context);
  return rules.flatMap((rule, position) => {
    const findings: Finding[] = [];
    const say: Say = (kind, level, message, { example, path = ["rules", position] } = {}) => {
      const found = { kind, level, rule: rule.name, message, example, path };
      findings.push({ ...found, where: where?.(path) });
    };
    const isSettled = looks.map((look) =>
      budget.ask(
        rules.length - position,
        (part) => look({ reach, position, rule, budget: part }, say),
      )
    );
    if (isSettled.includes(false)) {
      const message = `Not all was found out about rule "${rule.name}": its conditions and those ` +
        "of rules before it can be combined in too many ways";
      say("unsettled", "warning", message);
    }
    lintConditions(rule, say);
    lintNames(namesOf(position), say);
    return findings;
  });
}

interface Look {
  readonly reach: RuleRegions;
  readonly position: number;
  readonly rule: CheckedRule;
  readonly budget: Budget;
}

/** Whether the rule ever decides, and which earlier rule takes some of its cases. */
function lintReach({ reach, position, rule, budget }: Look, say: Say): void {
  const { facts, rules } = reach;
  const known = matches(rule, "true", budget).map((region) => whereKnown(region, facts, budget))
    .filter((region) => !isEmpty(region, budget));
  if (known.length === 0) {
    const example = rule.grants === undefined ? unknownCase(position, reach, budget) : undefined;
    if (example === undefined) {
      say("contradiction", "error", `Nobody can meet the conditions of rule "${rule.name}"`);
    } else {
      const message = `Rule "${rule.name}" decides only where facts are unknown: ` +
        "nobody of whom all is known can meet its conditions";
      say("only-unknown", "warning", message, { example });
    }
    return;
  }
  if (reach.open.has(position)) throw new BudgetExceeded();
  const example = exampleIn(known[0]!, facts, budget);
  const isDecided = known.some((region) => decidedIn(region, facts, position, reach, budget));
  // Rules of which there are no regions may take more, and never give anything back.
  const mayTakeMore = reach.firstOpen < position;
  if (!isDecided) {
    const decides = mayTakeMore ? undefined : reach.ruleOf(example, budget);
    const taken = decides === undefined
      ? "Earlier rules do"
      : `Rule "${rules[decides]!.name}" decides for ${inShort(example)}, and so on`;
    const unknown = unknownCase(position, reach, budget);
    if (unknown !== undefined) {
      const message = `Rule "${rule.name}" decides only where facts are unknown: ` +
        `whom it is about, earlier rules decide for. ${taken}`;
      say("only-unknown", "warning", message, { example: unknown });
      return;
    }
    say("never", "error", `Rule "${rule.name}" never decides. ${taken}`, { example });
    return;
  }
  if (mayTakeMore) throw new BudgetExceeded();
  for (const region of known) {
    for (const [part, before] of reach.meeting(region, budget, position)) {
      const example = decidedIn(part, facts, before, reach, budget);
      if (example === undefined) continue;
      const message = `Of those whom rule "${rule.name}" is about, the earlier rule ` +
        `"${rules[before]!.name}" decides for some, and says otherwise: ${inShort(example)}`;
      say("shadowed", "note", message, { example });
      return;
    }
  }
}

/** A case that a rule decides, if it is one with facts that are unknown. */
function unknownCase(position: number, reach: RuleRegions, budget: Budget): PolicyCase | undefined {
  if (reach.open.has(position)) throw new BudgetExceeded();
  for (const region of reach.regionsOf(position)) {
    const example = decidedIn(region, [], position, reach, budget);
    if (example === undefined) continue;
    if (reach.firstOpen < position) throw new BudgetExceeded();
    return example;
  }
  return undefined;
}

/** A case in a region of a rule that no rule before it decides. */
function decidedIn(
  region: Region,
  facts: Iterable<FactKey>,
  rule: number,
  reach: RuleRegions,
  budget: Budget,
): PolicyCase | undefined {
  const example = exampleIn(region, facts, budget);
  if (reach.ruleOf(example, budget) === rule) return example; // this costs least
  for (const left of reach.leftOf(region, budget, rule)) return exampleIn(left, facts, budget);
  return undefined;
}

/**
 * An allowing rule that is an exception to a wider one behind it, and gives less: where one of its facts
 * is unknown it does not match, and the wider one does.
 */
function lintWidened({ reach, position, rule, budget }: Look, say: Say): void {
  const { grants = [], when } = rule;
  // Which of two names gives more is not known here: only a list that has more than the other does.
  const givesMore = (others: readonly string[] | undefined) =>
    others !== undefined && grants.every((grant) => others.includes(grant)) &&
    others.some((grant) => !grants.includes(grant));
  const facts = factsOf(when).filter((fact) => fact !== "uid" && fact !== "groups");
  if (grants.length === 0 || facts.length === 0) return;
  if (!reach.rules.some((other, at) => at > position && givesMore(other.grants))) return;
  for (const region of matches(rule, "true", budget)) {
    const known = whereKnown(region, reach.facts, budget);
    if (isEmpty(known, budget)) continue;
    const met = exampleIn(known, reach.facts, budget);
    if (reach.ruleOf(met, budget) !== position) continue;
    const example = withoutFacts(met, facts);
    const wider = reach.ruleOf(example, budget);
    if (reach.firstOpen <= (wider ?? Infinity)) throw new BudgetExceeded();
    const other = wider === undefined ? undefined : reach.rules[wider]!;
    if (other === undefined || !givesMore(other.grants)) continue;
    if (!isWithin(known, matches(other, "true", budget), budget)) continue;
    const names = facts.map((fact) => fact.replace(/^namespace .*/, "sameNamespaces"));
    const message =
      `Where ${[...new Set(names)].join(" or ")} is unknown, rule "${rule.name}" does ` +
      `not match, and rule "${other.name}" gives more: ${
        inShort(example)
      }. Make "${other.name}" ask ` +
      "for what tells the two apart";
    say("widened", "warning", message, { example });
    return;
  }
}

/** Whether a region lies within the union of others. */
function isWithin(region: Region, others: readonly Region[], budget: Budget): boolean {
  let left: readonly Region[] = [region];
  for (const other of others) left = left.flatMap((part) => without(part, other, budget));
  return left.length === 0;
}

/** The same case, in which these facts are unknown. */
function withoutFacts({ peer, action }: PolicyCase, facts: readonly FactKey[]): PolicyCase {
  const leave = (of: object = {}, prefix = "") =>
    Object.entries(of).filter(([name]) => !facts.includes(`${prefix}${name}` as FactKey));
  const namespaces = Object.fromEntries(leave(peer.process?.namespaces, "namespace "));
  const process = { ...Object.fromEntries(leave(peer.process)), namespaces };
  return { peer: { ...Object.fromEntries(leave(peer)), ...(peer.process && { process }) }, action };
}

/** An allowing rule whose conditions everybody meets. */
function lintEveryone({ reach, rule, budget }: Look, say: Say): void {
  const { grants, when, name, actions } = rule;
  if (grants === undefined) return;
  const everybody = whereKnown(EVERYTHING, reach.facts, budget);
  const isMissed = matches({ ...rule, actions: undefined }, "not true", budget)
    .some((region) => both(region, everybody, budget) !== undefined);
  if (isMissed) return;
  const what = actions === undefined ? "everything" : cutOff(actions.join(", "));
  const why = when === undefined ? "it has no condition" : "everybody meets its conditions";
  say("everyone", "warning", `Rule "${name}" allows ${what} to everybody: ${why}`);
}

/** Root of a container that shares our user and network namespace, and nothing else. */
const CONTAINER_ROOT: Region = new Map<FactKey, Ids | Truths>([
  ["uid", new Ids([{ first: 0, last: 0 }], false)],
  ["namespace user", Truths.of(true)],
  ["namespace net", Truths.of(true)],
  ...(["pid", "mnt", "ipc", "uts", "cgroup"] as const).map((kind) =>
    [`namespace ${kind}`, Truths.of(false)] as const
  ),
]);

/** An allowing rule that lets in a container's root through an abstract socket. */
function lintContainer({ reach, rule, position, budget }: Look, say: Say): void {
  if (rule.grants === undefined) return;
  if (reach.firstOpen <= position) throw new BudgetExceeded();
  for (const region of reach.regionsOf(position)) {
    const inside = both(region, CONTAINER_ROOT, budget);
    const example = inside && decidedIn(inside, [], position, reach, budget);
    if (example === undefined) continue;
    const message = `Rule "${rule.name}" lets in uid 0 of containers that share the network and ` +
      "user namespace, which reach an abstract socket: add sameNamespaces: [pid, mnt]";
    say("container", "warning", message, { example });
    return;
  }
}

/** So many names are told. */
const MAX_NAMES_SHOWN = 5;

/** For each rule, the names in it, with all names that their ids have. */
function sameIds({ named, namesakes }: LintContext): (rule: number) => readonly SameId[] {
  const keyOf = ({ kind, id }: Named) => `${kind} ${id}`;
  const namesOf = new Map<string, Set<string>>();
  for (const one of named) {
    const names = namesOf.get(keyOf(one)) ?? new Set();
    namesOf.set(keyOf(one), names.add(one.name));
  }
  const asked = new Set<ReadonlySet<string>>();
  const unasked = new Map<NamedKind, { readonly one: Named; readonly why: string }>();
  const byRule = new Map<unknown, SameId[]>();
  for (const one of named) {
    const names = namesOf.get(keyOf(one))!;
    if (!asked.has(names) && !unasked.has(one.kind)) {
      try {
        for (const other of namesakes(one)) names.add(other);
      } catch (error) {
        unasked.set(one.kind, { one, why: textOf(error) });
      }
    }
    asked.add(names);
    const list = byRule.get(one.path[1]) ?? [];
    const failed = unasked.get(one.kind);
    list.push({ one, names, failed: failed?.one === one ? failed.why : undefined });
    byRule.set(one.path[1], list);
  }
  return (rule) => byRule.get(rule) ?? [];
}

interface SameId {
  readonly one: Named;
  /** All names of the id. */
  readonly names: ReadonlySet<string>;
  /** Why the system's names could not be looked up; told once for each kind. */
  readonly failed: string | undefined;
}

/** Names that stand for an id which has other names too. */
function lintNames(same: readonly SameId[], say: Say): void {
  for (const { one: { kind, name, id, path }, names, failed } of same) {
    if (failed !== undefined) {
      const message = `Whether other ${kind}s have the id of one in the policy could not be ` +
        `checked: ${cutOff(failed)}`;
      say("same-id", "note", message, { path });
    }
    const others: string[] = [];
    for (const other of names) {
      if (other !== name && others.length < MAX_NAMES_SHOWN) others.push(other);
    }
    if (others.length === 0) continue;
    const list = others.map((other) => JSON.stringify(other)).join(", ");
    const what = kind === "user" ? "uid" : "gid";
    const message =
      `The ${kind} ${JSON.stringify(name)} has the ${what} of ${list} as well, ${id}: ` +
      "the kernel does not tell them apart";
    say("same-id", "warning", message, { path });
  }
}

/** A case in one line: `{"uid":1000} "GET /x"`. */
function inShort({ peer, action }: PolicyCase): string {
  return cutOff(JSON.stringify(peer)) +
    (action === undefined ? "" : ` ${JSON.stringify(cutOff(action))}`);
}
