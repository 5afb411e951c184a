/** Computes which rule decides in which region. */

import { UcredError } from "../../errors.ts";
import { type Budget, BudgetExceeded } from "./budget.ts";
import type { CheckedPolicy, CheckedRule } from "../document/check.ts";
import type { IdRange } from "../decide/id_ranges.ts";
import {
  both,
  type FactKey,
  factsOf,
  type Groups,
  hasCase,
  type Ids,
  NoExample,
  type Outcome,
  type PolicyCase,
  type Region,
  regionsOf,
  sizeOf,
  TextValues,
  without,
} from "./region.ts";

/** A region that a rule matches: it decides there unless an earlier rule does. */
interface Entry {
  readonly region: Region;
  /** Position of the rule. */
  readonly rule: number;
}

/** A rule, with the actions of the vocabulary. No rule decides about another action. */
export interface AnalyzedRule extends CheckedRule {
  readonly known?: readonly string[] | undefined;
  /** The essential attributes of the vocabulary: name → actions. */
  readonly essential?: ReadonlyMap<string, readonly string[]>;
}

/** The rules of a policy, for an analysis. */
export function analyzedRules({ rules, vocabulary }: CheckedPolicy): readonly AnalyzedRule[] {
  if (vocabulary === undefined) return rules;
  const known = Object.keys(vocabulary.actions);
  const essential = new Map(
    Object.entries(vocabulary.attributes).map(([name, { essential = [] }]) => [name, essential]),
  );
  return rules.map((rule) => ({ ...rule, known, essential }));
}

/** Runs an analysis. @throws {UcredError} `ERR_UCRED_POLICY` if it exceeds its budget. */
export function withinBudget<T>(what: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    if (!(error instanceof BudgetExceeded)) throw error;
    if (error instanceof NoExample) {
      const hint = "Write conditions without self, or without other conditions on the same id";
      const message = `Cannot ${what}: no case was found for conditions with self`;
      throw new UcredError("ERR_UCRED_POLICY", message, { hint });
    }
    const { rule } = error;
    const where = rule === undefined ? "" : ` of rule ${JSON.stringify(rule)} and of earlier rules`;
    const message = `Cannot ${what}: the conditions${where} can be combined in too many ways`;
    const hint = "Write conditions with fewer any, not and globs, or split the policy";
    throw new UcredError("ERR_UCRED_POLICY", message, { hint });
  }
}

/** Numbers the outcomes of rules: rules with the same outcome have the same number. */
export class Outcomes {
  readonly #numbers = new Map<string, number>();

  /** @param rule `undefined`: no rule matches. */
  of(rule: Pick<CheckedRule, "grants"> | undefined): number {
    const outcome = outcomeOf(rule);
    const known = this.#numbers.get(outcome);
    if (known !== undefined) return known;
    this.#numbers.set(outcome, this.#numbers.size);
    return this.#numbers.size - 1;
  }
}

/** The outcome of a rule as a text: "deny", or its grants in order. */
export function outcomeOf(rule: Pick<CheckedRule, "grants"> | undefined): string {
  if (rule?.grants === undefined) return "deny";
  return JSON.stringify([...new Set(rule.grants)].sort());
}

/** Rules in order. */
export class RuleRegions {
  readonly rules: readonly AnalyzedRule[];
  /** The outcome of each rule. */
  readonly outcomes: readonly number[];
  /** The facts that some rule tests. */
  readonly facts: ReadonlySet<FactKey>;
  /** Positions, ascending, of rules that would need too many regions. Their regions are missing here. */
  readonly skipped: ReadonlySet<number>;
  readonly #entries: Entry[] = [];
  /** The position of each rule's first entry. */
  readonly #begins: number[] = [];
  /** For each entry the next one whose rule has another outcome. */
  readonly #nextOther: Uint32Array;
  /** Entries with few uids; of the others those with few gids, then those with few groups; the rest. */
  readonly #byUid = new EntriesById();
  readonly #byGid = new EntriesById();
  readonly #byGroup = new EntriesById();
  readonly #others: number[] = [];

  constructor(rules: readonly AnalyzedRule[], budget: Budget, outcomes = new Outcomes()) {
    this.rules = rules;
    this.outcomes = rules.map((rule) => outcomes.of(rule));
    this.facts = new Set(rules.flatMap(({ when, where, actions, known }) => [
      ...factsOf(when),
      ...factsOf(where),
      ...(actions === undefined && known === undefined ? [] : ["action" as const]),
    ]));
    const skipped = new Set<number>();
    const room = budget.cells / 2; // the rest is for the analyses
    for (const [position, rule] of rules.entries()) {
      this.#begins.push(this.#entries.length);
      let cells = 0;
      const isDone = budget.attempt(rules.length - position, (part) => {
        // With an unknown condition a denying rule matches, and an allowing rule does not.
        const regions = matches(rule, rule.grants === undefined ? "not false" : "true", part);
        cells = regions.reduce((sum, region) => sum + ENTRY_CELLS + sizeOf(region), 0);
        if (budget.cells - cells < room) throw new BudgetExceeded();
        for (const region of regions) this.#add({ region, rule: position });
      });
      if (isDone) budget.keep(cells);
      else skipped.add(position);
    }
    this.skipped = skipped;
    const next = new Uint32Array(this.#entries.length);
    for (let at = next.length - 1; at >= 0; at--) {
      const isSame = this.#outcomeAt(at) === this.#outcomeAt(at + 1);
      next[at] = isSame ? next[at + 1]! : at + 1;
    }
    this.#nextOther = next;
  }

  #add(entry: Entry): void {
    const at = this.#entries.push(entry) - 1;
    const uids = entry.region.get("uid") as Ids | undefined;
    const groups = entry.region.get("groups") as Groups | undefined;
    const isListed = this.#byUid.add(uids?.ranges, at) || this.#byGid.add(groups?.gid.ranges, at) ||
      this.#byGroup.add(groups?.hits[0], at);
    if (!isListed) this.#others.push(at);
  }

  #outcomeAt(at: number): number | undefined {
    const entry = this.#entries[at];
    return entry && this.outcomes[entry.rule];
  }

  /** The first skipped rule; the number of rules if there is none. */
  get firstSkipped(): number {
    const [first = this.rules.length] = this.skipped;
    return first;
  }

  /** Requires that no rule was skipped. @throws {BudgetExceeded} */
  requireAll(): void {
    const rule = this.rules[this.firstSkipped];
    if (rule !== undefined) throw Object.assign(new BudgetExceeded(), { rule: rule.name });
  }

  /** The regions that a rule matches: it decides there unless an earlier rule does. */
  regionsOf(rule: number): readonly Region[] {
    return this.#entries.slice(this.#begins[rule], this.#begins[rule + 1])
      .map(({ region }) => region);
  }

  /**
   * Divides a region by the rule that decides; `undefined` for none. The parts do not overlap. Skipped
   * rules are ignored.
   *
   * @param before Only rules before this one.
   */
  *divide(
    region: Region,
    budget: Budget,
    before = this.rules.length,
  ): Generator<readonly [part: Region, rule: number | undefined]> {
    const end = this.#begins[before] ?? this.#entries.length;
    const open: [Region, from: number, cells: number][] = [[region, 0, 0]];
    let kept = 0;
    let rule: number | undefined;
    try {
      for (let next; (next = open.pop()) !== undefined;) {
        const [region, from, cells] = next;
        budget.keep(-cells);
        kept -= cells;
        const lists = this.#listsFor(region);
        let isDecided = false;
        for (let at = firstIn(lists, from); at < end; at = firstIn(lists, at + 1)) {
          const entry = this.#entries[at]!;
          rule = entry.rule;
          const part = both(region, entry.region, budget);
          if (part === undefined) continue;
          yield [part, rule];
          for (const rest of without(region, entry.region, budget)) {
            const cells = sizeOf(rest);
            budget.keep(cells);
            kept += cells;
            open.push([rest, at + 1, cells]);
          }
          isDecided = true;
          break;
        }
        if (!isDecided) yield [region, undefined];
      }
    } catch (error) {
      if (error instanceof BudgetExceeded && rule !== undefined) {
        error.rule ??= this.rules[rule]!.name;
      }
      throw error;
    } finally {
      budget.keep(-kept);
    }
  }

  /** Yields the parts of a region that no rule before this one matches. */
  *leftOf(region: Region, budget: Budget, before: number): Generator<Region> {
    for (const [part, rule] of this.divide(region, budget, before)) {
      if (rule === undefined) yield part;
    }
  }

  /**
   * Yields the parts of a rule's region that an earlier rule with another outcome matches. The parts may
   * overlap.
   */
  *meeting(
    region: Region,
    budget: Budget,
    rule: number,
  ): Generator<readonly [part: Region, before: number]> {
    const end = this.#begins[rule]!;
    const lists = this.#listsFor(region);
    for (let at = firstIn(lists, 0); at < end;) {
      const isOther = this.#outcomeAt(at) !== this.outcomes[rule];
      if (isOther) {
        const entry = this.#entries[at]!;
        const part = both(region, entry.region, budget);
        if (part !== undefined) yield [part, entry.rule];
      }
      budget.spend(20);
      at = firstIn(lists, isOther ? at + 1 : this.#nextOther[at]!);
    }
  }

  /** The rule that decides a case. Skipped rules are ignored. */
  ruleOf(one: PolicyCase, budget: Budget): number | undefined {
    const { uid, gid, groups = [] } = one.peer;
    const lists = this.#lists(uid, gid, gid === undefined ? groups : [gid, ...groups]);
    for (let at = firstIn(lists, 0); at < this.#entries.length; at = firstIn(lists, at + 1)) {
      const { region, rule } = this.#entries[at]!;
      budget.spend(20);
      if (hasCase(region, one, budget)) return rule;
    }
    return undefined;
  }

  #listsFor(region: Region): readonly (readonly number[])[] | undefined {
    const uids = region.get("uid") as Ids | undefined;
    const groups = region.get("groups") as Groups | undefined;
    return this.#lists(uids?.single, groups?.gid.single);
  }

  /** Ascending positions of the entries that may contain these ids; `undefined`: all. */
  #lists(
    uid: number | undefined,
    gid: number | undefined,
    groups?: readonly number[],
  ): readonly (readonly number[])[] | undefined {
    if (uid === undefined && gid === undefined && groups === undefined) return undefined;
    const byGroup = groups?.map((group) => this.#byGroup.entriesOf(group)) ??
      [this.#byGroup.entriesOf(undefined)];
    return [this.#byUid.entriesOf(uid), this.#byGid.entriesOf(gid), ...byGroup, this.#others];
  }
}

/** Cells of an entry, beside its region. */
const ENTRY_CELLS = 20;

/** Sets of at most this many ids are listed by id. */
const MAX_LISTED_IDS = 16;

/** Positions of entries by id. */
class EntriesById {
  readonly #all: number[] = [];
  readonly #byId = new Map<number, number[]>();

  /** Adds an entry. Returns `false` if it has too many ids to be listed. */
  add(ranges: readonly IdRange[] | undefined, at: number): boolean {
    if (ranges === undefined || ranges.length > MAX_LISTED_IDS) return false;
    if (ranges.reduce((sum, { first, last }) => sum + last - first + 1, 0) > MAX_LISTED_IDS) {
      return false;
    }
    this.#all.push(at);
    for (const { first, last } of ranges) {
      for (let id = first; id <= last; id++) {
        const list = this.#byId.get(id);
        if (list === undefined) this.#byId.set(id, [at]);
        else list.push(at);
      }
    }
    return true;
  }

  /** @param id `undefined`: any. */
  entriesOf(id: number | undefined): readonly number[] {
    return id === undefined ? this.#all : this.#byId.get(id) ?? [];
  }
}

/** The smallest position ≥ `from` in any of the lists; `from` itself if there are no lists. */
function firstIn(lists: readonly (readonly number[])[] | undefined, from: number): number {
  if (lists === undefined) return from;
  let least = Infinity;
  for (const list of lists) {
    let [low, high] = [0, list.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (list[middle]! < from) low = middle + 1;
      else high = middle;
    }
    if (low < list.length) least = Math.min(least, list[low]!);
  }
  return least;
}

/** The regions in which a rule's condition has this outcome and its actions match. */
export function matches(
  { when, where, actions, known }: AnalyzedRule,
  outcome: Outcome,
  budget: Budget,
): readonly Region[] {
  const of = [when, where].filter((condition) => condition !== undefined);
  const regions = regionsOf({ kind: "all", of }, outcome, budget);
  const globs = [actions, known].filter((list) => list !== undefined);
  if (globs.length === 0) return regions;
  const about: Region = new Map([
    ["action", new TextValues({ in: globs, out: [] }, actions === undefined, false)],
  ]);
  return regions.flatMap((region) => both(region, about, budget) ?? []);
}
