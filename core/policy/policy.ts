/** Rules → decisions: the first rule that matches decides, and where none does the answer is no. */

import type { Peer } from "../peer.ts";
import type { CheckedRule } from "./check.ts";
import { compileCondition, type Evaluate, type Truth } from "./condition.ts";
import { explain, type Explanation } from "./explain.ts";
import { compileGlob } from "./glob.ts";
import { guardOf, IdIndex, type Positions } from "./index_of_ids.ts";
import { type FactName, type PlainPeer, Subject } from "./subject.ts";

/** What a policy says of a peer and an action. Frozen. */
export interface Decision {
  /** Whether it may. */
  readonly allowed: boolean;
  /** The rule that decided; `undefined` where none matched, which is a no. */
  readonly rule: string | undefined;
  /** What it gives: the names behind `allow`. Empty where it denies, and behind `allow: true`. */
  readonly grants: readonly string[];
  /** Facts that could not be known, and on which the answer may have hung. */
  readonly unknown: readonly FactName[];
  /** Why, in a sentence. */
  readonly reason: string;
}

/** What is decided beside who asks. */
export interface DecideOptions {
  /** What the peer wants to do, as `actions` of the rules spell it: "GET /metrics", say. */
  readonly action?: string | undefined;
}

/** Rules that decide who may do what. */
export interface Policy {
  /**
   * Decides. Asks the peer only for the facts that rules still standing need, each at most once.
   *
   * @param peer A peer, or plain data of its shape.
   */
  decide(peer: Peer | PlainPeer, options?: DecideOptions): Decision;
  /** Whether some action could be allowed, for a server's accept: `false` only if none could. */
  admits(peer: Peer | PlainPeer): boolean;
  /**
   * Decides, and tells why, rule by rule, with what came close. For people and tools, not for each
   * request: it asks for every fact of every rule up to the one that decides.
   */
  explain(peer: Peer | PlainPeer, options?: DecideOptions): Explanation;
}

interface CompiledRule {
  readonly name: string;
  readonly evaluate: Evaluate | undefined;
  readonly actions: readonly ((action: string) => boolean)[] | undefined;
  readonly grants: readonly string[] | undefined;
  readonly why: string | undefined;
}

const NO_GRANTS: readonly string[] = Object.freeze([]);
const NOTHING_UNKNOWN: readonly FactName[] = Object.freeze([]);

class MadeDecision implements Decision {
  readonly allowed: boolean;
  readonly rule: string | undefined;
  readonly grants: readonly string[];
  readonly unknown: readonly FactName[];
  readonly #why: string | undefined;
  readonly #truth: Truth;

  constructor(rule: CompiledRule | undefined, truth: Truth, unknown: readonly FactName[]) {
    this.allowed = rule?.grants !== undefined;
    this.rule = rule?.name;
    this.grants = rule?.grants ?? NO_GRANTS;
    this.unknown = unknown;
    this.#why = rule?.why;
    this.#truth = truth;
    Object.freeze(this);
  }

  get reason(): string {
    const { allowed, rule, grants, unknown } = this;
    const facts = unknown.join(", ");
    if (rule === undefined) {
      return facts === "" ? "No rule matches" : `No rule matches; unknown: ${facts}`;
    }
    if (allowed) {
      return `Rule "${rule}" allows it${grants.length > 0 ? `: ${grants.join(", ")}` : ""}`;
    }
    const because = this.#why === undefined ? "" : `: ${this.#why}`;
    return this.#truth === undefined
      ? `Rule "${rule}" denies whom it may be about${because}; unknown: ${facts}`
      : `Rule "${rule}" denies it${because}`;
  }
}

/** Compiles rules that were checked. */
export function compilePolicy(rules: readonly CheckedRule[]): Policy {
  return new CompiledPolicy(rules);
}

class CompiledPolicy implements Policy {
  readonly #checked: readonly CheckedRule[];
  readonly #rules: readonly CompiledRule[];
  readonly #byUid: IdIndex;
  readonly #byGid: IdIndex;
  readonly #byGroup: IdIndex;
  /** Rules that no id rules out. */
  readonly #others: Positions;

  constructor(rules: readonly CheckedRule[]) {
    this.#checked = rules;
    this.#rules = rules.map(compileRule);
    const guards = rules.map(({ when }) => guardOf(when));
    const index = (kind: string) =>
      new IdIndex(
        guards.flatMap((guard, position) =>
          guard?.kind === kind ? [[position, guard.ranges] as const] : []
        ),
      );
    this.#byUid = index("uid");
    this.#byGid = index("gid");
    this.#byGroup = index("group");
    this.#others = guards.flatMap((guard, position) => guard === undefined ? [position] : []);
    Object.freeze(this);
  }

  decide(peer: Peer | PlainPeer, options: DecideOptions = {}): Decision {
    return this.#decide(new Subject(peer), options);
  }

  #decide(subject: Subject, { action }: DecideOptions): Decision {
    let unknown: Set<FactName> | undefined;
    const decided = this.#walk(subject, (rule) => {
      if (rule.actions !== undefined && !isAbout(rule.actions, action)) return undefined;
      const truth = evaluate(rule, subject);
      if (truth === undefined) {
        unknown ??= new Set();
        for (const fact of subject.missing ?? []) unknown.add(fact);
      }
      const matches = truth ?? rule.grants === undefined; // unknown denies
      return matches ? new MadeDecision(rule, truth, listOf(unknown)) : undefined;
    });
    return decided ?? new MadeDecision(undefined, false, listOf(unknown));
  }

  admits(peer: Peer | PlainPeer): boolean {
    const subject = new Subject(peer);
    return this.#walk(subject, (rule) => {
      // A rule with actions, "**" even, is not about decisions without one.
      if (rule.grants === undefined && rule.actions !== undefined) return undefined;
      const truth = evaluate(rule, subject);
      if (rule.grants !== undefined) return truth === true ? true : undefined;
      return truth === false ? undefined : false;
    }) ?? false;
  }

  explain(peer: Peer | PlainPeer, options: DecideOptions = {}): Explanation {
    const subject = new Subject(peer);
    return explain(this.#checked, this.#decide(subject, options), subject, options);
  }

  /** Visits the rules that can be about the subject, in order, until one gives an answer. */
  #walk<T>(subject: Subject, visit: (rule: CompiledRule) => T | undefined): T | undefined {
    const lists = this.#candidates(subject);
    if (lists.length === 1) {
      for (const position of lists[0]!) {
        const answer = visit(this.#rules[position]!);
        if (answer !== undefined) return answer;
      }
      return undefined;
    }
    const next = lists.map(() => 0);
    for (let last = -1;;) {
      let least = Infinity;
      for (let list = 0; list < lists.length; list++) {
        const positions = lists[list]!;
        let at = next[list]!;
        while (at < positions.length && positions[at]! <= last) at++;
        next[list] = at;
        if (at < positions.length && positions[at]! < least) least = positions[at]!;
      }
      if (least === Infinity) return undefined;
      last = least;
      const answer = visit(this.#rules[last]!);
      if (answer !== undefined) return answer;
    }
  }

  #candidates(subject: Subject): Positions[] {
    const lists: Positions[] = [];
    if (this.#others.length > 0) lists.push(this.#others);
    if (this.#byUid.all.length > 0) collect(this.#byUid, subject.get("uid"), lists);
    const gid = subject.get("gid");
    if (this.#byGid.all.length > 0) collect(this.#byGid, gid, lists);
    if (this.#byGroup.all.length > 0) {
      const groups = subject.get("groups");
      if (groups === undefined || groups === null || gid === undefined || subject.lacksGroups) {
        lists.push(this.#byGroup.all);
      } else {
        collect(this.#byGroup, gid, lists);
        for (const group of groups) if (group !== gid) this.#byGroup.collect(group, lists);
      }
    }
    return lists;
  }
}

function collect(index: IdIndex, id: number | null | undefined, lists: Positions[]): void {
  if (id === undefined || id === null) lists.push(index.all);
  else index.collect(id, lists);
}

function compileRule({ name, when, actions, grants, reason }: CheckedRule): CompiledRule {
  return {
    name,
    evaluate: when && compileCondition(when),
    actions: actions?.map(compileGlob),
    grants: grants && Object.freeze([...grants]),
    why: reason,
  };
}

function isAbout(actions: readonly ((action: string) => boolean)[], action: string | undefined) {
  return action !== undefined && actions.some((test) => test(action));
}

function evaluate(rule: CompiledRule, subject: Subject): Truth {
  if (rule.evaluate === undefined) return true;
  subject.missing = undefined;
  return rule.evaluate(subject);
}

function listOf(facts: Set<FactName> | undefined): readonly FactName[] {
  return facts === undefined ? NOTHING_UNKNOWN : Object.freeze([...facts]);
}
