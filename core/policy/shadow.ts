/** Shadow mode: evaluates a candidate policy beside the active one, and counts the differences. */

import { type OptionNames, requireOptions } from "../options.ts";
import type { Peer } from "../peer.ts";
import type { Attributes, DecideOptions, Decision } from "./decide/decision.ts";
import { fieldOf, type PlainPeer } from "./decide/subject.ts";
import { ForwardingPolicy } from "./forward.ts";
import type { Policy } from "./policy.ts";

/** Differing decisions of one pair of rules. */
export interface ShadowDifference {
  /** The rule that decided; `undefined` if no rule matched. */
  readonly active: string | undefined;
  /** The rule of the candidate; `undefined` if no rule matched. */
  readonly candidate: string | undefined;
  /** Whether the active policy allowed it. */
  readonly wasAllowed: boolean;
  /** Whether the candidate would allow it. If both allow, their grants differ. */
  readonly wouldBeAllowed: boolean;
  /** Number of decisions. */
  readonly count: number;
  /** The first of them. */
  readonly first: ShadowCase;
}

/** One decision in which two policies differed. */
export interface ShadowCase {
  /** The peer's uid, if known. */
  readonly uid: number | undefined;
  /** The action. */
  readonly action: string | undefined;
  /** The attributes, as the caller passed them. */
  readonly attributes: Attributes | undefined;
  /** The decision of the active policy. */
  readonly active: Decision;
  /** The decision of the candidate. */
  readonly candidate: Decision;
}

/** The active policy, with counts of how a candidate differs. */
export interface ShadowedPolicy extends Policy {
  /** The active policy. */
  readonly current: Policy;
  /** Number of decisions. */
  readonly decisions: number;
  /** Number of decisions in which the candidate differed, in the answer or in grants. */
  readonly differing: number;
  /**
   * How often only the candidate admitted a peer (`admits()`). Servers drop such a connection before its
   * first request, so no decision shows what the candidate would allow.
   */
  readonly wouldAdmit: number;
  /** How often only the active policy admitted a peer. */
  readonly wouldRefuse: number;
  /** How often the candidate threw, or `onDifference` threw or rejected. */
  readonly failed: number;
  /** The differences by pair of rules, most frequent first: at most a thousand pairs. */
  readonly differences: readonly ShadowDifference[];
}

/** Options of {@link shadowPolicy}. */
export interface ShadowOptions {
  /**
   * Called for each difference, after the decision. Exceptions and rejections are counted in `failed`.
   */
  readonly onDifference?: ((difference: ShadowCase) => void | Promise<void>) | undefined;
}

const SHADOW_OPTIONS: OptionNames<ShadowOptions> = { onDifference: true };

/**
 * Tries a policy out: the active policy makes each decision, and the candidate is evaluated as well. Each
 * decision costs a second one; facts that both policies test are read twice.
 *
 * @throws {TypeError} If an option is unknown.
 *
 * @example Count the decisions that a stricter policy would change
 * ```ts
 * import { definePolicy } from "ucred";
 * import { shadowPolicy } from "ucred/policy";
 *
 * const rules = (uid: string) => [{ name: "people", when: { uid }, allow: true }] as const;
 * const active = definePolicy({ version: 1, rules: rules("1000-1999") });
 * const policy = shadowPolicy(active, definePolicy({ version: 1, rules: rules("1000-1499") }));
 * for (const uid of [1000, 1600, 1700]) policy.decide({ uid });
 * console.log(policy.decisions, policy.differing); // 3 2
 * ```
 */
export function shadowPolicy(
  active: Policy,
  candidate: Policy,
  options: ShadowOptions = {},
): ShadowedPolicy {
  requireOptions("shadowPolicy()", options, SHADOW_OPTIONS);
  return new Shadow(active, candidate, options);
}

/** Differences of further pairs are only counted. */
const MAX_PAIRS = 1000;

class Shadow extends ForwardingPolicy<Policy> implements ShadowedPolicy {
  decisions = 0;
  differing = 0;
  wouldAdmit = 0;
  wouldRefuse = 0;
  failed = 0;
  /** The active policy. */
  readonly current: Policy;
  readonly #candidate: Policy;
  readonly #options: ShadowOptions;
  readonly #pairs = new Map<string, ShadowDifference>();

  constructor(active: Policy, candidate: Policy, options: ShadowOptions) {
    super();
    this.current = active;
    this.#candidate = candidate;
    this.#options = options;
  }

  override get consulted(): readonly Policy[] {
    return [this.current, this.#candidate];
  }

  override get needsPin(): boolean {
    return this.current.needsPin || this.#candidate.needsPin;
  }

  get differences(): readonly ShadowDifference[] {
    return [...this.#pairs.values()].sort((a, b) => b.count - a.count);
  }

  override decide(peer: Peer | PlainPeer, options: DecideOptions = {}): Decision {
    const active = this.current.decide(peer, options);
    this.decisions++;
    try {
      this.#compare(active, peer, options);
    } catch {
      this.failed++; // the candidate never affects the decision
    }
    return active;
  }

  override admits(peer: Peer | PlainPeer): boolean {
    const active = this.current.admits(peer);
    try {
      const candidate = this.#candidate.admits(peer);
      if (candidate && !active) this.wouldAdmit++;
      if (active && !candidate) this.wouldRefuse++;
    } catch {
      this.failed++;
    }
    return active;
  }

  #compare(active: Decision, peer: Peer | PlainPeer, options: DecideOptions): void {
    const candidate = this.#candidate.decide(peer, options);
    if (active.allowed === candidate.allowed && isSame(active.grants, candidate.grants)) return;
    this.differing++;
    const uid = fieldOf(peer, "uid");
    const action = fieldOf(options, "action");
    const attributes = fieldOf(options, "attributes");
    const difference: ShadowCase = Object.freeze({ uid, action, attributes, active, candidate });
    const [wasAllowed, wouldBeAllowed] = [active.allowed, candidate.allowed];
    const [from, to] = [active.rule ?? null, candidate.rule ?? null];
    const key = JSON.stringify([from, to, wasAllowed, wouldBeAllowed]); // rules of a watched policy change
    const pair = this.#pairs.get(key);
    if (pair !== undefined || this.#pairs.size < MAX_PAIRS) {
      this.#pairs.set(key, {
        ...{ active: active.rule, candidate: candidate.rule, wasAllowed, wouldBeAllowed },
        first: pair?.first ?? difference,
        count: (pair?.count ?? 0) + 1,
      });
    }
    const returned: unknown = fieldOf(this.#options, "onDifference")?.(difference);
    // An unhandled rejection would end the process.
    if (returned !== undefined) Promise.resolve(returned).catch(() => this.failed++);
  }
}

function isSame(a: readonly string[], b: readonly string[]): boolean {
  const [left, right] = [new Set(a), new Set(b)];
  return left.size === right.size && a.every((grant) => right.has(grant));
}
