/** Finds doubtful rules: rules that never decide, that allow every peer, or that a peer can evade. */

import { type OptionNames, requireOptions } from "../../options.ts";
import { textOf } from "../../text.ts";
import { attributesIn } from "../decide/attributes.ts";
import { compileGlob } from "../decide/glob.ts";
import type { DocumentPath } from "../document/problems.ts";
import type { Named, NamedKind } from "../document/types.ts";
import { Budget, BudgetExceeded } from "./budget.ts";
import type { Finding, ReportFinding } from "./findings.ts";
import { cutOff, lintCgroup, lintConditions } from "./lint_conditions.ts";
import { type Policy, type PolicyContext, sourceOf } from "../policy.ts";
import { type AnalyzedRule, analyzedRules, matches, RuleRegions } from "./reach.ts";
import {
  attributeOf,
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
   * Whether the socket has an abstract name, to which containers that share the network namespace can
   * connect. Default: `false`.
   */
  readonly abstractSocket?: boolean | undefined;
}

const LINT_OPTIONS: OptionNames<LintOptions> = { abstractSocket: true };

/**
 * Finds doubtful rules: rules that never decide, that allow every peer, or that a peer can evade.
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
  return lintRules(analyzedRules(checked), {
    ...options,
    named: checked.named,
    namesakes: namesakesBy(context.resolve),
    where: context.where,
  });
}

/** What {@link lintRules} needs beside the rules. */
export interface LintContext extends LintOptions {
  /** The names that were resolved. */
  readonly named: readonly Named[];
  /** Returns the other accounts that have the same id. */
  readonly namesakes: (named: Named) => readonly string[];
  /** Path in the document → "file:line:column". */
  readonly where: ((path: DocumentPath) => string) | undefined;
}

/**
 * Finds doubtful rules. Exact: a rule is reported to never decide if and only if it never decides. A rule
 * whose analysis exceeds the budget is reported as `unsettled`.
 */
export function lintRules(
  rules: readonly AnalyzedRule[],
  context: LintContext,
  budget: Budget = new Budget(),
): readonly Finding[] {
  const { abstractSocket = false, where } = context;
  const reach = new RuleRegions(rules, budget);
  const checks = [
    ...[lintReach, lintWidened, lintEveryone, lintCgroup],
    ...(abstractSocket ? [lintContainer] : []),
  ];
  const namesOf = sameIds(context);
  return rules.flatMap((rule, position) => {
    const findings: Finding[] = [];
    const report: ReportFinding = (
      kind,
      level,
      message,
      { example, path = ["rules", position] } = {},
    ) => {
      const found = { kind, level, rule: rule.name, message, example, path };
      findings.push({ ...found, where: where?.(path) });
    };
    const isSettled = checks.map((check) =>
      budget.attempt(
        rules.length - position,
        (part) => check({ reach, position, rule, budget: part }, report),
      )
    );
    if (isSettled.includes(false)) {
      const message = `Rule "${rule.name}" was not analysed completely: its conditions and those ` +
        "of earlier rules can be combined in too many ways";
      report("unsettled", "warning", message);
    }
    lintConditions(rule, report);
    lintAttributes(rule, report);
    lintNames(namesOf(position), report);
    return findings;
  });
}

/** Checks that a rule which allows by attributes tests the essential ones. */
function lintAttributes(
  { name, actions, where, grants, essential = new Map() }: AnalyzedRule,
  report: ReportFinding,
): void {
  if (grants === undefined || where === undefined) return;
  const tested = new Set(attributesIn(where).map(({ name }) => name));
  const globs = actions?.map(compileGlob);
  for (const [attribute, needing] of essential) {
    const action = needing.find((action) => globs?.some((glob) => glob(action)) ?? true);
    if (action === undefined || tested.has(attribute)) continue;
    const message = `Rule "${name}" allows ${JSON.stringify(action)} by attributes without ` +
      `"${attribute}": it allows every field that it does not test`;
    report("untested", "warning", message);
  }
}

interface RuleToCheck {
  readonly reach: RuleRegions;
  readonly position: number;
  readonly rule: AnalyzedRule;
  readonly budget: Budget;
}

/** Checks whether the rule ever decides, and whether earlier rules decide some of its cases differently. */
function lintReach({ reach, position, rule, budget }: RuleToCheck, report: ReportFinding): void {
  const { facts, rules } = reach;
  const known = matches(rule, "true", budget).map((region) => whereKnown(region, facts, budget))
    .filter((region) => !isEmpty(region, budget));
  if (known.length === 0) {
    const example = rule.grants === undefined ? unknownCase(position, reach, budget) : undefined;
    if (example === undefined) {
      report("contradiction", "error", `No peer can meet the conditions of rule "${rule.name}"`);
    } else {
      const message = `Rule "${rule.name}" decides only if facts are unknown: ` +
        "no peer with known facts can meet its conditions";
      report("only-unknown", "warning", message, { example });
    }
    return;
  }
  if (reach.skipped.has(position)) throw new BudgetExceeded();
  const example = exampleIn(known[0]!, facts, budget);
  const isDecided = known.some((region) => decidedIn(region, facts, position, reach, budget));
  // Rules whose regions were not computed can only reduce the cases of this rule.
  const mayLeaveLess = reach.firstSkipped < position;
  if (!isDecided) {
    const decides = mayLeaveLess ? undefined : reach.ruleOf(example, budget);
    const earlier = decides === undefined
      ? ""
      : `. For example, rule "${rules[decides]!.name}" decides for ${inShort(example)}`;
    const unknown = unknownCase(position, reach, budget);
    if (unknown !== undefined) {
      const message = `Rule "${rule.name}" decides only if facts are unknown: ` +
        `earlier rules decide for every peer with known facts that it matches${earlier}`;
      report("only-unknown", "warning", message, { example: unknown });
      return;
    }
    report(
      "never",
      "error",
      `Rule "${rule.name}" never decides: earlier rules decide for every peer that it matches${earlier}`,
      { example },
    );
    return;
  }
  if (mayLeaveLess) throw new BudgetExceeded();
  for (const region of known) {
    for (const [part, before] of reach.meeting(region, budget, position)) {
      const example = decidedIn(part, facts, before, reach, budget);
      if (example === undefined) continue;
      const message = `The earlier rule "${rules[before]!.name}" decides differently for some ` +
        `peers that rule "${rule.name}" matches, for example ${inShort(example)}`;
      report("shadowed", "note", message, { example });
      return;
    }
  }
}

/** Returns a case with unknown facts that a rule decides. */
function unknownCase(position: number, reach: RuleRegions, budget: Budget): PolicyCase | undefined {
  if (reach.skipped.has(position)) throw new BudgetExceeded();
  for (const region of reach.regionsOf(position)) {
    const example = decidedIn(region, [], position, reach, budget);
    if (example === undefined) continue;
    if (reach.firstSkipped < position) throw new BudgetExceeded();
    return example;
  }
  return undefined;
}

/** Returns a case in a region of a rule that no earlier rule decides. */
function decidedIn(
  region: Region,
  facts: Iterable<FactKey>,
  rule: number,
  reach: RuleRegions,
  budget: Budget,
): PolicyCase | undefined {
  const example = exampleIn(region, facts, budget);
  if (reach.ruleOf(example, budget) === rule) return example; // the cheapest check
  for (const left of reach.leftOf(region, budget, rule)) return exampleIn(left, facts, budget);
  return undefined;
}

/**
 * Finds an allowing rule that is an exception to a later, wider rule with more grants. If a fact of the
 * exception is unknown, the exception does not match, and the wider rule does.
 */
function lintWidened({ reach, position, rule, budget }: RuleToCheck, report: ReportFinding): void {
  const { grants = [], when, where } = rule;
  // Grants are names without an order: only a longer list of them certainly gives more.
  const givesMore = (others: readonly string[] | undefined) =>
    others !== undefined && grants.every((grant) => others.includes(grant)) &&
    others.some((grant) => !grants.includes(grant));
  const facts = [...factsOf(when), ...factsOf(where)]
    .filter((fact) => fact !== "uid" && fact !== "groups");
  if (grants.length === 0 || facts.length === 0) return;
  if (!reach.rules.some((other, at) => at > position && givesMore(other.grants))) return;
  for (const region of matches(rule, "true", budget)) {
    const known = whereKnown(region, reach.facts, budget);
    if (isEmpty(known, budget)) continue;
    const met = exampleIn(known, reach.facts, budget);
    if (reach.ruleOf(met, budget) !== position) continue;
    const example = withoutFacts(met, facts);
    const wider = reach.ruleOf(example, budget);
    if (reach.firstSkipped <= (wider ?? Infinity)) throw new BudgetExceeded();
    const other = wider === undefined ? undefined : reach.rules[wider]!;
    if (other === undefined || !givesMore(other.grants)) continue;
    if (!isWithin(known, matches(other, "true", budget), budget)) continue;
    const names = facts.map((fact) =>
      attributeOf(fact) === undefined
        ? fact.replace(/^namespace .*/, "sameNamespaces")
        : fact.replace(/^[a-z]+ attributes\./, "")
    );
    const message =
      `If ${
        [...new Set(names)].join(" or ")
      } is unknown, rule "${rule.name}" does not match, and ` +
      `rule "${other.name}" gives more, for example to ${inShort(example)}: add a condition to ` +
      `"${other.name}" that excludes the peers of "${rule.name}"`;
    report("widened", "warning", message, { example });
    return;
  }
}

/** Whether a region is within the union of others. */
function isWithin(region: Region, others: readonly Region[], budget: Budget): boolean {
  let left: readonly Region[] = [region];
  for (const other of others) left = left.flatMap((part) => without(part, other, budget));
  return left.length === 0;
}

/** Returns the same case with these facts unknown. */
function withoutFacts(
  { peer, action, attributes = {} }: PolicyCase,
  facts: readonly FactKey[],
): PolicyCase {
  const names = facts.map((fact) => attributeOf(fact)?.name);
  const known = Object.entries(attributes).filter(([name]) => !names.includes(name));
  const leave = (of: object = {}, prefix = "") =>
    Object.entries(of).filter(([name]) => !facts.includes(`${prefix}${name}` as FactKey));
  const namespaces = Object.fromEntries(leave(peer.process?.namespaces, "namespace "));
  const process = { ...Object.fromEntries(leave(peer.process)), namespaces };
  return {
    peer: { ...Object.fromEntries(leave(peer)), ...(peer.process && { process }) },
    action,
    ...(known.length > 0 && { attributes: Object.fromEntries(known) }),
  };
}

/** Finds an allowing rule that matches every peer. */
function lintEveryone({ reach, rule, budget }: RuleToCheck, report: ReportFinding): void {
  const { grants, when, name, actions } = rule;
  if (grants === undefined) return;
  const everyone = whereKnown(EVERYTHING, reach.facts, budget);
  const isMissed = matches({ ...rule, actions: undefined }, "not true", budget)
    .some((region) => both(region, everyone, budget) !== undefined);
  if (isMissed) return;
  const what = actions === undefined ? "everything" : cutOff(actions.join(", "));
  const why = when === undefined ? "it has no condition" : "every peer meets its conditions";
  report("everyone", "warning", `Rule "${name}" allows ${what} to every peer: ${why}`);
}

/** Root in a container that shares only our user and network namespaces. */
const CONTAINER_ROOT: Region = new Map<FactKey, Ids | Truths>([
  ["uid", new Ids([{ first: 0, last: 0 }], false)],
  ["namespace user", Truths.of(true)],
  ["namespace net", Truths.of(true)],
  ...(["pid", "mnt", "ipc", "uts", "cgroup"] as const).map((kind) =>
    [`namespace ${kind}`, Truths.of(false)] as const
  ),
]);

/** Finds an allowing rule that root in a container matches, which can connect to an abstract socket. */
function lintContainer(
  { reach, rule, position, budget }: RuleToCheck,
  report: ReportFinding,
): void {
  if (rule.grants === undefined) return;
  if (reach.firstSkipped <= position) throw new BudgetExceeded();
  for (const region of reach.regionsOf(position)) {
    const inside = both(region, CONTAINER_ROOT, budget);
    const example = inside && decidedIn(inside, [], position, reach, budget);
    if (example === undefined) continue;
    const message = `Rule "${rule.name}" also allows uid 0 of containers that share the network ` +
      "and user namespace, and can connect to an abstract socket: add sameNamespaces: [pid, mnt]";
    report("container", "warning", message, { example });
    return;
  }
}

/** A message lists at most this many names. */
const MAX_NAMES_SHOWN = 5;

/** Returns for each rule the account names in it, with all names that have the same id. */
function sameIds({ named, namesakes }: LintContext): (rule: number) => readonly SameId[] {
  const keyOf = ({ kind, id }: Named) => `${kind} ${id}`;
  const namesOf = new Map<string, Set<string>>();
  for (const one of named) {
    const names = namesOf.get(keyOf(one)) ?? new Set();
    namesOf.set(keyOf(one), names.add(one.name));
  }
  const lookedUp = new Set<ReadonlySet<string>>();
  const failures = new Map<NamedKind, { readonly one: Named; readonly why: string }>();
  const byRule = new Map<unknown, SameId[]>();
  for (const one of named) {
    const names = namesOf.get(keyOf(one))!;
    if (!lookedUp.has(names) && !failures.has(one.kind)) {
      try {
        for (const other of namesakes(one)) names.add(other);
      } catch (error) {
        failures.set(one.kind, { one, why: textOf(error) });
      }
    }
    lookedUp.add(names);
    const list = byRule.get(one.path[1]) ?? [];
    const failed = failures.get(one.kind);
    list.push({ one, names, failed: failed?.one === one ? failed.why : undefined });
    byRule.set(one.path[1], list);
  }
  return (rule) => byRule.get(rule) ?? [];
}

interface SameId {
  readonly one: Named;
  /** All names of the id. */
  readonly names: ReadonlySet<string>;
  /** Why the system's names could not be looked up. Reported once for each kind. */
  readonly failed: string | undefined;
}

/** Returns a function that finds all names with the id of a name. Each name is looked up once. */
function namesakesBy(resolve: PolicyContext["resolve"]): LintContext["namesakes"] {
  if (resolve === undefined) return () => [];
  const namesById = new Map<NamedKind, ReadonlyMap<number, readonly string[]>>();
  return ({ kind, id }) => {
    let byId = namesById.get(kind);
    if (byId === undefined) {
      byId = allNames(kind, resolve);
      namesById.set(kind, byId);
    }
    return byId.get(id) ?? [];
  };
}

function allNames(
  kind: NamedKind,
  resolve: NonNullable<PolicyContext["resolve"]>,
): ReadonlyMap<number, readonly string[]> {
  const byId = new Map<number, string[]>();
  for (const name of new Set(resolve.names(kind))) {
    const id = kind === "user" ? resolve.uid(name) : resolve.gid(name);
    if (id === undefined) continue;
    const names = byId.get(id);
    if (names === undefined) byId.set(id, [name]);
    else names.push(name);
  }
  return byId;
}

/** Finds names whose id also has other names. */
function lintNames(same: readonly SameId[], report: ReportFinding): void {
  for (const { one: { kind, name, id, path }, names, failed } of same) {
    if (failed !== undefined) {
      const message = `Cannot check whether other ${kind}s have the same id: ${cutOff(failed)}`;
      report("same-id", "note", message, { path });
    }
    const others: string[] = [];
    for (const other of names) {
      if (other !== name && others.length < MAX_NAMES_SHOWN) others.push(other);
    }
    if (others.length === 0) continue;
    const list = others.map((other) => JSON.stringify(other)).join(", ");
    const what = kind === "user" ? "uid" : "gid";
    const message = `The ${kind} ${JSON.stringify(name)} has the same ${what} as ${list}, ${id}: ` +
      "the kernel does not distinguish them";
    report("same-id", "warning", message, { path });
  }
}

/** Writes a case in one line: `{"uid":1000} "GET /x"`. */
function inShort({ peer, action, attributes }: PolicyCase): string {
  return cutOff(JSON.stringify(peer)) +
    (action === undefined ? "" : ` ${JSON.stringify(cutOff(action))}`) +
    (attributes === undefined ? "" : ` ${cutOff(JSON.stringify(attributes))}`);
}
