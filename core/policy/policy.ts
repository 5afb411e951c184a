/** Compiles rules into a policy: the first rule that matches decides; without a match the peer is denied. */

import { type OptionNames, requireOptions } from "../options.ts";
import type { Peer } from "../peer.ts";
import { explain, type Explanation } from "./analyze/explain.ts";
import { Candidates, RuleBucket } from "./decide/candidates.ts";
import { compileCondition, type Evaluate, needsPin, type Truth } from "./decide/condition.ts";
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
import type { CheckedPolicy, CheckedRule, Resolve } from "./document/check.ts";
import type { DocumentPath } from "./document/problems.ts";

const DECIDE_OPTIONS: OptionNames<DecideOptions> = { action: true, attributes: true };
const NO_OPTIONS: DecideOptions = Object.freeze({});

/** Decides what a peer may do. Servers take any object of this shape. */
export interface Policy {
  /** Whether some rule reads facts that only a pinned peer has: `exe`, `unit`, namespaces and so on. */
  readonly needsPin: boolean;
  /**
   * Decides whether the peer may do `options.action`.
   *
   * Reads only the facts that can still change the decision, each at most once per decision.
   *
   * With `about` in the policy, an action that the vocabulary does not have is denied.
   *
   * @param peer A peer, or plain data of its shape.
   * @throws {TypeError} If the action is not a string, or an option is unknown.
   */
  decide(peer: Peer | PlainPeer, options?: DecideOptions): Decision;
  /** Whether the policy could allow at least one action: servers drop the connection if not. */
  admits(peer: Peer | PlainPeer): boolean;
  /**
   * Explains the decision rule by rule. For people and tools: it reads every fact of every rule up to
   * the one that decides.
   */
  readonly explain?:
    | ((peer: Peer | PlainPeer, options?: DecideOptions) => Explanation)
    | undefined;
}

/** A policy made of rules: it can be explained, and analysed by the functions of `ucred/policy`. */
export interface RulePolicy extends Policy {
  /**
   * Explains the decision rule by rule. For people and tools: it reads every fact of every rule up to
   * the one that decides.
   */
  explain(peer: Peer | PlainPeer, options?: DecideOptions): Explanation;
}

/** What the analyses of a policy need beside its checked rules. */
export interface PolicyContext {
  /** Resolves names, to find accounts that share an id. */
  readonly resolve?: Pick<Resolve, "uid" | "gid" | "names"> | undefined;
  /** Path in the document → "file:line:column". */
  readonly where?: ((path: DocumentPath) => string) | undefined;
}

/** Compiles a checked document. */
export function compilePolicy(checked: CheckedPolicy, context: PolicyContext = {}): RulePolicy {
  return new CompiledPolicy(checked, context);
}

/**
 * Returns the rules that a policy was compiled from, for an analysis.
 *
 * @param caller The analysis, for the message: "lint()".
 * @throws {TypeError} If the policy does not come from {@link compilePolicy}.
 */
export function sourceOf(policy: Policy, caller: string): PolicySource {
  const source = CompiledPolicy.sourceOf(policy);
  if (source !== undefined) return source;
  throw new TypeError(
    `${caller} takes a policy of definePolicy(), parsePolicy() or loadPolicy(); ` +
      "of a watched or shadowed policy, pass `current`",
  );
}

/** Like {@link sourceOf}; `undefined` if the policy does not come from {@link compilePolicy}. */
export const findSource = (policy: Policy): PolicySource | undefined =>
  CompiledPolicy.sourceOf(policy);

/** The rules that a policy was compiled from. */
export interface PolicySource {
  readonly checked: CheckedPolicy;
  readonly context: PolicyContext;
}

class CompiledPolicy implements RulePolicy {
  readonly needsPin: boolean;

  static sourceOf(policy: Policy): PolicySource | undefined {
    if (!(#checked in policy)) return undefined;
    return { checked: policy.#checked, context: policy.#context };
  }

  readonly #checked: CheckedPolicy;
  readonly #context: PolicyContext;
  readonly #rules: readonly CompiledRule[];
  /** The decision of each rule if no fact is unknown; the last one: no rule matches. */
  readonly #decisions: readonly Decision[];
  readonly #byUid: IdIndex;
  readonly #byGid: IdIndex;
  readonly #byGroup: IdIndex;
  /** Rules that the id indexes cannot exclude. */
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
          const isMet = !this.#rules[position]!.isAboutRequest &&
            areIdConditionsAlone(rules[position]!.when);
          return [{ position, ranges, isMet }];
        }),
        end,
      );
    this.#byUid = index("uid");
    this.#byGid = index("gid");
    this.#byGroup = index("group");
    this.#others = new RuleBucket(end);
    for (const [position, { when }] of rules.entries()) {
      if (guards[position] !== undefined) continue;
      this.#others.add(position, when === undefined && !this.#rules[position]!.isAboutRequest);
    }
    Object.freeze(this);
  }

  decide(peer: Peer | PlainPeer, options: DecideOptions = NO_OPTIONS): Decision {
    // Checking the names of the options would double the time of a decision (measured). A decision
    // with an action needs no check: a misspelled option cannot replace the action.
    if (options.action === undefined && options !== NO_OPTIONS) {
      requireOptions("decide()", options, DECIDE_OPTIONS);
    }
    return this.#decide(new Subject(peer), options);
  }

  #decide(subject: Subject, options: DecideOptions): Decision {
    const isGiven = (Object.prototype as DecideOptions).action !== undefined; // for every object
    const action = isGiven ? fieldOf(options, "action") : options.action;
    if (action !== undefined && typeof action !== "string") {
      throw new TypeError("action is a text, or undefined");
    }
    const { vocabulary } = this.#checked;
    if (vocabulary !== undefined) {
      const refusal = vocabulary.refusalOf(action);
      if (refusal !== undefined) return refusal;
      subject.attributes = fieldOf(options, "attributes");
    }
    const candidates = this.#candidates(subject);
    const { first } = candidates;
    let unknown: Set<FactName> | undefined;
    for (let position = candidates.next(); position < first; position = candidates.next()) {
      const rule = this.#rules[position]!;
      if (rule.actions !== undefined && !isAbout(rule.actions, action)) continue;
      const truth = evaluate(rule.evaluate, subject);
      if (truth === undefined) {
        unknown ??= new Set();
        for (const fact of subject.missing ?? []) unknown.add(fact);
      }
      const matches = truth ?? rule.grants === undefined; // unknown denies
      if (matches) return this.#decision(position, truth, unknown);
    }
    return this.#decision(first, true, unknown);
  }

  /** The decision of the rule at a position; behind the last rule: no rule matches. */
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
      // A rule with actions, even "**", never matches a decision without an action, and a condition on
      // attributes may hold or not.
      if (rule.grants === undefined && rule.isAboutRequest) continue;
      const truth = evaluate(rule.evaluatePeer, subject);
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
    return explain(this.#checked, this.#decide(subject, options), subject, action);
  }

  #candidates(subject: Subject): Candidates {
    const candidates = new Candidates(this.#others);
    if (this.#byUid.all.length > 0) collect(this.#byUid, subject.uid, candidates);
    if (this.#byGid.all.length > 0) collect(this.#byGid, subject.gid, candidates);
    if (this.#byGroup.all.length > 0) {
      const { gid } = subject;
      if (gid === undefined || !subject.hasAllGroups) candidates.addUndecided(this.#byGroup.all);
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
  if (id === undefined) candidates.addUndecided(index.all);
  else index.collect(id, candidates);
}

function compileRule({ name, when, where, actions, grants, reason }: CheckedRule): CompiledRule {
  // An allowing rule matches if it is true, a denying one unless it is false.
  const evaluatePeer = when && compileCondition(when, grants !== undefined);
  return {
    name,
    evaluate: where === undefined
      ? evaluatePeer
      : compileCondition({ kind: "all", of: when ? [when, where] : [where] }, grants !== undefined),
    evaluatePeer,
    isAboutRequest: (actions ?? where) !== undefined,
    actions: actions?.map(compileGlob),
    grants,
    why: reason,
  };
}

function isAbout(actions: readonly ((action: string) => boolean)[], action: string | undefined) {
  return action !== undefined && actions.some((test) => test(action));
}

function evaluate(condition: Evaluate | undefined, subject: Subject): Truth {
  if (condition === undefined) return true;
  subject.missing = undefined;
  return condition(subject);
}
