/** Rules → decisions: the first rule that matches decides, and where none does the answer is no. */

import { type OptionNames, requireOptions } from "../options.ts";
import type { Peer } from "../peer.ts";
import { type Counterexample, difference } from "./analyze/difference.ts";
import { explain, type Explanation } from "./analyze/explain.ts";
import type { Finding } from "./analyze/findings.ts";
import { LINT_OPTIONS, type LintOptions, lintRules } from "./analyze/lint.ts";
import { runTests, type TestReport } from "./analyze/run_tests.ts";
import { type Who, whoCan } from "./analyze/who.ts";
import { Candidates, RuleBucket } from "./decide/candidates.ts";
import { compileCondition, needsPin, type Truth } from "./decide/condition.ts";
import {
  type CompiledRule,
  type DecideOptions,
  type Decision,
  DecisionRecord,
  NOTHING_UNKNOWN,
} from "./decide/decision.ts";
import { compileGlob } from "./decide/glob.ts";
import {
  areIdConditionsAlone,
  type IdCondition,
  idConditionsOf,
  IdIndex,
} from "./decide/id_index.ts";
import { type FactName, fieldOf, type PlainPeer, Subject } from "./decide/subject.ts";
import type { CheckedPolicy, CheckedRule } from "./document/check.ts";
import type { DocumentPath } from "./document/problems.ts";
import type { Named } from "./document/types.ts";

const DECIDE_OPTIONS: OptionNames<DecideOptions> = { action: true };
const NO_OPTIONS: DecideOptions = Object.freeze({});

/** Rules that decide who may do what. */
export interface Policy {
  /** Whether some rule asks for facts that only a pinned peer has: exe, unit, namespaces and so on. */
  readonly needsPin: boolean;
  /**
   * Decides. Asks the peer only for the facts that rules still standing need, each at most once, and
   * anew for each decision.
   *
   * @param peer A peer, or plain data of its shape.
   * @throws {TypeError} If the action is not a text, or an option has another name.
   */
  decide(peer: Peer | PlainPeer, options?: DecideOptions): Decision;
  /** Whether some action could be allowed, for a server's accept: `false` only if none could. */
  admits(peer: Peer | PlainPeer): boolean;
  /**
   * Decides, and tells why, rule by rule, with what came close. For people and tools, not for each
   * request: it asks for every fact of every rule up to the one that decides.
   */
  explain(peer: Peer | PlainPeer, options?: DecideOptions): Explanation;
  /**
   * Finds what is doubtful: rules that never decide, that let everybody in, that can be fooled. Exact
   * where it says so: "never" is a proof, and an example is one. Rules whose conditions can be combined
   * in too many ways are `unsettled`.
   */
  lint(options?: LintOptions): readonly Finding[];
  /**
   * Who can do something: all of them, as sets of ids and what else must be so.
   *
   * @param action What; without, who is allowed where no action is told.
   * @throws {UcredError} `ERR_UCRED_POLICY` if the conditions can be combined in too many ways.
   */
  who(action?: string): Who;
  /** Runs the document's tests, and tells which rules none of them is decided by. */
  test(): TestReport;
}

/** What a policy needs beside its checked rules. */
export interface PolicyContext {
  /** Other accounts with the same id as a name has. */
  readonly namesakes?: (named: Named) => readonly string[];
  /** Path in the document → "file:line:column". */
  readonly where?: ((path: DocumentPath) => string) | undefined;
}

/** Compiles a document that was checked. */
export function compilePolicy(checked: CheckedPolicy, context: PolicyContext = {}): Policy {
  return new CompiledPolicy(checked, context);
}

/**
 * A case that two policies decide otherwise; `undefined` where there is none: then the second may take
 * the place of the first. Exact, unknown facts included. Reasons and names of rules do not count.
 *
 * @throws {UcredError} `ERR_UCRED_POLICY` if the conditions can be combined in too many ways.
 * @throws {TypeError} If one of them is not of `definePolicy()`, `parsePolicy()` or `loadPolicy()`: of a
 * policy that is watched or shadowed, give its `current`.
 */
export function equivalent(before: Policy, after: Policy): Counterexample | undefined {
  return CompiledPolicy.compare(before, after);
}

class CompiledPolicy implements Policy {
  readonly needsPin: boolean;
  static compare(before: Policy, after: Policy): Counterexample | undefined {
    if (!(before instanceof CompiledPolicy) || !(after instanceof CompiledPolicy)) {
      throw new TypeError(
        "equivalent() compares policies of definePolicy() or parsePolicy(); of one that is watched or shadowed give its `current`",
      );
    }
    const found = difference(before.#checked.rules, after.#checked.rules);
    if (found === undefined) return undefined;
    const [first, second] = [before, after].map((policy) =>
      policy.decide(found.peer, { action: found.action })
    );
    return { ...found, before: first!, after: second! };
  }

  readonly #checked: CheckedPolicy;
  readonly #context: PolicyContext;
  readonly #rules: readonly CompiledRule[];
  /** What each rule decides where nothing is unknown, and then, what is decided where none matches. */
  readonly #decisions: readonly Decision[];
  readonly #byUid: IdIndex;
  readonly #byGid: IdIndex;
  readonly #byGroup: IdIndex;
  /** Rules that no id rules out. */
  readonly #others: RuleBucket;

  constructor(checked: CheckedPolicy, context: PolicyContext) {
    const { rules } = checked;
    this.needsPin = rules.some(({ when }) => needsPin(when));
    this.#checked = checked;
    this.#context = context;
    this.#rules = rules.map(compileRule);
    this.#decisions = [...this.#rules, undefined].map((rule) =>
      new DecisionRecord(rule, true, NOTHING_UNKNOWN)
    );
    const end = rules.length;
    const guards = rules.map(({ when }) => idConditionsOf(when));
    const index = (kind: IdCondition["kind"]) =>
      new IdIndex(
        guards.flatMap((all = [], position) => {
          const ranges = all.filter((guard) => guard.kind === kind).flatMap(({ ranges }) => ranges);
          if (ranges.length === 0) return [];
          const { when, actions } = rules[position]!;
          return [{ position, ranges, isMet: actions === undefined && areIdConditionsAlone(when) }];
        }),
        end,
      );
    this.#byUid = index("uid");
    this.#byGid = index("gid");
    this.#byGroup = index("group");
    this.#others = new RuleBucket(end);
    for (const [position, { when, actions }] of rules.entries()) {
      if (guards[position] !== undefined) continue;
      this.#others.add(position, when === undefined && actions === undefined);
    }
    Object.freeze(this);
  }

  decide(peer: Peer | PlainPeer, options: DecideOptions = NO_OPTIONS): Decision {
    // With an action there is nothing that a misspelled option could stand for, and each request is
    // decided: to look at the names of all options would double the time of a decision (measured).
    if (options.action === undefined && options !== NO_OPTIONS) {
      requireOptions("decide()", options, DECIDE_OPTIONS);
    }
    return this.#decide(new Subject(peer), options);
  }

  #decide(subject: Subject, options: DecideOptions): Decision {
    const isGiven = (Object.prototype as DecideOptions).action !== undefined; // to all objects
    const action = isGiven ? fieldOf(options, "action") : options.action;
    if (action !== undefined && typeof action !== "string") {
      throw new TypeError("action is a text, or undefined"); // which no rule would be about
    }
    const candidates = this.#candidates(subject);
    const { first } = candidates;
    let unknown: Set<FactName> | undefined;
    for (let position = candidates.next(); position < first; position = candidates.next()) {
      const rule = this.#rules[position]!;
      if (rule.actions !== undefined && !isAbout(rule.actions, action)) continue;
      const truth = evaluate(rule, subject);
      if (truth === undefined) {
        unknown ??= new Set();
        for (const fact of subject.missing ?? []) unknown.add(fact);
      }
      const matches = truth ?? rule.grants === undefined; // unknown denies
      if (matches) return this.#decision(position, truth, unknown);
    }
    return this.#decision(first, true, unknown);
  }

  /** What is decided at a position; one behind the last rule: that none matches. */
  #decision(position: number, truth: Truth, unknown: Set<FactName> | undefined): Decision {
    return unknown === undefined
      ? this.#decisions[position]!
      : new DecisionRecord(this.#rules[position], truth, Object.freeze([...unknown]));
  }

  admits(peer: Peer | PlainPeer): boolean {
    const subject = new Subject(peer);
    const candidates = this.#candidates(subject);
    const { first } = candidates;
    for (let position = candidates.next(); position < first; position = candidates.next()) {
      const rule = this.#rules[position]!;
      // A rule with actions, "**" even, is not about decisions without one.
      if (rule.grants === undefined && rule.actions !== undefined) continue;
      const truth = evaluate(rule, subject);
      if (rule.grants === undefined ? truth !== false : truth === true) {
        return rule.grants !== undefined;
      }
    }
    return this.#decisions[first]!.allowed;
  }

  explain(peer: Peer | PlainPeer, options: DecideOptions = {}): Explanation {
    requireOptions("explain()", options, DECIDE_OPTIONS);
    const subject = new Subject(peer);
    const action = fieldOf(options, "action");
    return explain(this.#checked.rules, this.#decide(subject, { action }), subject, action);
  }

  lint(options: LintOptions = {}): readonly Finding[] {
    requireOptions("lint()", options, LINT_OPTIONS);
    return lintRules(this.#checked.rules, {
      ...options,
      named: this.#checked.named,
      namesakes: this.#context.namesakes ?? (() => []),
      where: this.#context.where,
    });
  }

  who(action?: string): Who {
    return whoCan(this.#checked.rules, action);
  }

  test(): TestReport {
    return runTests(
      this.#checked,
      this.#context.where,
      (peer, options) => this.decide(peer, options),
    );
  }

  #candidates(subject: Subject): Candidates {
    const candidates = new Candidates(this.#others);
    if (this.#byUid.all.length > 0) collect(this.#byUid, subject.uid, candidates);
    if (this.#byGid.all.length > 0) collect(this.#byGid, subject.gid, candidates);
    if (this.#byGroup.all.length > 0) {
      const { gid } = subject;
      if (gid === undefined || !subject.hasAllGroups) candidates.ask(this.#byGroup.all);
      else {
        this.#byGroup.collect(gid, candidates);
        for (const group of subject.groups) {
          if (group !== gid) this.#byGroup.collect(group, candidates);
        }
      }
    }
    return candidates;
  }
}

function collect(index: IdIndex, id: number | undefined, candidates: Candidates): void {
  if (id === undefined) candidates.ask(index.all);
  else index.collect(id, candidates);
}

function compileRule({ name, when, actions, grants, reason }: CheckedRule): CompiledRule {
  return {
    name,
    // An allowing rule matches if it is true, a denying one unless it is false.
    evaluate: when && compileCondition(when, grants !== undefined),
    actions: actions?.map(compileGlob),
    grants,
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
