/** What is doubtful about a policy: rules that never decide, that let everybody in, that can be fooled. */

import { Budget, OutOfBudget } from "./budget.ts";
import type { CheckedRule, DocumentPath, Named } from "./check.ts";
import type { Checked } from "./condition.ts";
import { hasId, type IdRange } from "./ids.ts";
import { matches, Reach } from "./reach.ts";
import {
  both,
  EVERYTHING,
  exampleIn,
  type FactKey,
  Ids,
  isEmpty,
  type PolicyCase,
  type Region,
  Truths,
  whereKnown,
} from "./region.ts";
import { OVERFLOW_ID } from "./subject.ts";

/**
 * What a finding is about.
 *
 * - `contradiction`: nobody can meet the conditions.
 * - `never`: the rule decides nothing, since earlier rules do.
 * - `only-unknown`: it decides only where facts are unknown.
 * - `shadowed`: an earlier rule that says otherwise decides for some whom it is about.
 * - `everyone`: an allowing rule whose conditions everybody meets.
 * - `forgeable`: it rests on what other processes of the same user can take on.
 * - `container`: it lets in uid 0 of containers that see the socket.
 * - `overflow`: it names 65534.
 * - `same-id`: two names stand for one id.
 * - `unsettled`: it could not be found out in reasonable time.
 */
export type FindingKind =
  | "contradiction"
  | "never"
  | "only-unknown"
  | "shadowed"
  | "everyone"
  | "forgeable"
  | "container"
  | "overflow"
  | "same-id"
  | "unsettled";

/** Something doubtful about a policy. */
export interface Finding {
  /** What it is about. */
  readonly kind: FindingKind;
  /** `error`: surely a mistake. `warning`: probably. `note`: to be known. */
  readonly level: "error" | "warning" | "note";
  /** The rule's name. */
  readonly rule: string;
  /** A sentence or two for a person. */
  readonly message: string;
  /** A case that shows it, where there is one. */
  readonly example: PolicyCase | undefined;
  /** Where it stands in the document. */
  readonly path: DocumentPath;
  /** Where it stands in the file, "file:line:column"; `undefined` for a policy that is from none. */
  readonly where: string | undefined;
}

/** What the policy is for. */
export interface LintOptions {
  /**
   * Whether the socket's name is abstract: containers that share the network namespace reach it. By
   * default `false`.
   */
  readonly abstractSocket?: boolean | undefined;
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
  const reach = new Reach(rules, budget);
  const looks = [lintReach, lintEveryone, ...(abstractSocket ? [lintContainer] : [])];
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
    lintExe(rule, say);
    lintOverflow(rule, say);
    lintNames(namesOf(position), say);
    return findings;
  });
}

interface Look {
  readonly reach: Reach;
  readonly position: number;
  readonly rule: CheckedRule;
  readonly budget: Budget;
}

type Say = (
  kind: FindingKind,
  level: Finding["level"],
  message: string,
  more?: { readonly example?: PolicyCase | undefined; readonly path?: DocumentPath },
) => void;

/** Whether the rule ever decides, and which earlier rule takes some of its cases. */
function lintReach({ reach, position, rule, budget }: Look, say: Say): void {
  const { facts, rules } = reach;
  const known = matches(rule, "true", budget).map((region) => whereKnown(region, facts, budget))
    .filter((region) => !isEmpty(region, budget));
  if (known.length === 0) {
    say("contradiction", "error", `Nobody can meet the conditions of rule "${rule.name}"`);
    return;
  }
  if (reach.open.has(position)) throw new OutOfBudget();
  const example = exampleIn(known[0]!, facts, budget);
  const isDecided = known.some((region) => decidedIn(region, facts, position, reach, budget));
  // Rules of which there are no regions may take more, and never give anything back.
  const mayTakeMore = reach.firstOpen < position;
  if (!isDecided) {
    const decides = mayTakeMore ? undefined : reach.ruleOf(example, budget);
    const taken = decides === undefined
      ? "Earlier rules do"
      : `Rule "${rules[decides]!.name}" decides for ${inShort(example)}, and so on`;
    for (const region of reach.regionsOf(position)) {
      const example = decidedIn(region, [], position, reach, budget);
      if (example === undefined) continue;
      if (mayTakeMore) throw new OutOfBudget();
      const message = `Rule "${rule.name}" decides only where facts are unknown: ` +
        `whom it is about, earlier rules decide for. ${taken}`;
      say("only-unknown", "warning", message, { example });
      return;
    }
    say("never", "error", `Rule "${rule.name}" never decides. ${taken}`, { example });
    return;
  }
  if (mayTakeMore) throw new OutOfBudget();
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

/** A case in a region of a rule that no rule before it decides. */
function decidedIn(
  region: Region,
  facts: Iterable<FactKey>,
  rule: number,
  reach: Reach,
  budget: Budget,
): PolicyCase | undefined {
  const example = exampleIn(region, facts, budget);
  if (reach.ruleOf(example, budget) === rule) return example; // this costs least
  for (const left of reach.leftOf(region, budget, rule)) return exampleIn(left, facts, budget);
  return undefined;
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
  if (reach.firstOpen <= position) throw new OutOfBudget();
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

/** Rules that rest on which program it is. */
function lintExe({ name, when, grants }: CheckedRule, say: Say): void {
  const facts = when === undefined ? [] : partsOf(when);
  if (!facts.some(({ kind }) => kind === "exe" || kind === "exeSha256")) return;
  if (grants === undefined) {
    const message = `Rule "${name}" denies by the program: whom it is about can run a copy of it ` +
      "that has another name or another byte";
    say("forgeable", "warning", message);
    return;
  }
  const asksWho = facts.some(({ kind }) => ["uid", "gid", "group"].includes(kind));
  const message = `Rule "${name}" allows by the program: whoever has the same uid can make that ` +
    "program run other code" + (asksWho ? "" : ", and the rule asks for no uid or group");
  say("forgeable", asksWho ? "note" : "warning", message);
}

/** Rules on the id that stands for all that have none here. */
function lintOverflow({ name, when }: CheckedRule, say: Say): void {
  const has = (ranges: readonly IdRange[]) => hasId(ranges, OVERFLOW_ID);
  for (const fact of when === undefined ? [] : partsOf(when)) {
    if (!("ranges" in fact) || !has(fact.ranges)) continue;
    const isAlone = fact.ranges.some(({ first, last }) => first === last && first === OVERFLOW_ID);
    const message =
      `Rule "${name}" is about ${OVERFLOW_ID}: in a user namespace every id without ` +
      "a number there reads so, and the rule is then unknown; elsewhere unrelated programs share it";
    say("overflow", isAlone ? "warning" : "note", message);
    return;
  }
}

/** So many names are told. */
const MOST_NAMES = 5;

/** For each rule, the names in it, with all names that their ids have. */
function sameIds({ named, namesakes }: LintContext): (rule: number) => readonly SameId[] {
  const keyOf = ({ kind, id }: Named) => `${kind} ${id}`;
  const namesOf = new Map<string, Set<string>>();
  for (const one of named) {
    const names = namesOf.get(keyOf(one)) ?? new Set();
    namesOf.set(keyOf(one), names.add(one.name));
  }
  const asked = new Set<ReadonlySet<string>>();
  const byRule = new Map<unknown, SameId[]>();
  for (const one of named) {
    const names = namesOf.get(keyOf(one))!;
    if (!asked.has(names)) { for (const other of namesakes(one)) names.add(other); }
    asked.add(names);
    const list = byRule.get(one.path[1]) ?? [];
    list.push({ one, names });
    byRule.set(one.path[1], list);
  }
  return (rule) => byRule.get(rule) ?? [];
}

interface SameId {
  readonly one: Named;
  /** All names of the id. */
  readonly names: ReadonlySet<string>;
}

/** Names that stand for an id which has other names too. */
function lintNames(same: readonly SameId[], say: Say): void {
  for (const { one: { kind, name, id, path }, names } of same) {
    const others: string[] = [];
    for (const other of names) {
      if (other !== name && others.length < MOST_NAMES) others.push(other);
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

/** The conditions on single facts. */
function partsOf(condition: Checked): readonly Exclude<Checked, { readonly of: unknown }>[] {
  switch (condition.kind) {
    case "not":
      return partsOf(condition.of);
    case "all":
    case "any":
      return condition.of.flatMap(partsOf);
  }
  return [condition];
}

/** A case in one line: `{"uid":1000} "GET /x"`. */
function inShort({ peer, action }: PolicyCase): string {
  return cutOff(JSON.stringify(peer)) +
    (action === undefined ? "" : ` ${JSON.stringify(cutOff(action))}`);
}

/** In characters, of what is quoted in a message. */
const LONGEST = 300;

function cutOff(text: string): string {
  return text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
}
