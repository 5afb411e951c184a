/** A candidate policy beside the active one: it decides nothing, and its differences are counted. */

import { type OptionNames, requireOptions } from "../options.ts";
import type { Peer } from "../peer.ts";
import type { DecideOptions, Decision } from "./decide/decision.ts";
import { fieldOf, type PlainPeer } from "./decide/subject.ts";
import { ForwardingPolicy } from "./forward.ts";
import type { Policy } from "./policy.ts";

/** Decisions in which two policies differed alike, of one pair of rules. */
export interface ShadowDifference {
  /** The rule that decided; `undefined`: none matched. */
  readonly active: string | undefined;
  /** The rule that would have. */
  readonly candidate: string | undefined;
  /** Whether it was allowed. */
  readonly wasAllowed: boolean;
  /** Whether the candidate would have allowed it. Where both do, they give other grants. */
  readonly wouldBeAllowed: boolean;
  /** How many decisions. */
  readonly count: number;
  /** The first of them. */
  readonly first: ShadowCase;
}

/** One decision in which two policies differed. */
export interface ShadowCase {
  /** The uid of who asked, if known. */
  readonly uid: number | undefined;
  /** For what. */
  readonly action: string | undefined;
  /** What was decided. */
  readonly active: Decision;
  /** What the candidate would have decided. */
  readonly candidate: Decision;
}

/** The active policy, with a candidate beside it. */
export interface ShadowedPolicy extends Policy {
  /** The active policy. */
  readonly current: Policy;
  /** Decisions so far. */
  readonly decisions: number;
  /** Those in which the candidate differed: in yes or no, or in grants. */
  readonly differing: number;
  /**
   * How often the candidate would have let a peer in (`admits()`) that the active policy did not: a
   * server refuses such a peer before it asks for anything, so no decision tells what it would have
   * been allowed.
   */
  readonly wouldAdmit: number;
  /** How often only the active policy let a peer in. */
  readonly wouldRefuse: number;
  /** How often the candidate threw, or `onDifference` threw or rejected. */
  readonly failed: number;
  /** Which decisions differed, by pair of rules, most often first: the first thousand pairs. */
  readonly differences: readonly ShadowDifference[];
}

/** What to do with differences. */
export interface ShadowOptions {
  /**
   * Called for each, after the decision was made; it cannot change it. What it throws, or rejects
   * with, is counted.
   */
  readonly onDifference?: ((difference: ShadowCase) => void | Promise<void>) | undefined;
}

const SHADOW_OPTIONS: OptionNames<ShadowOptions> = { onDifference: true };

/**
 * Tries a policy out: each decision is the active policy's, and the candidate is asked too. It costs
 * a second decision, and reads facts of the peer again that both ask for.
 *
 * @throws {TypeError} If there is no option of a name.
 *
 * @example Count whom a stricter policy would refuse
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

/** Of more pairs of rules only the number of differences is kept. */
const MAX_PAIRS = 1000;

class Shadow extends ForwardingPolicy<Policy> implements ShadowedPolicy {
  decisions = 0;
  differing = 0;
  wouldAdmit = 0;
  wouldRefuse = 0;
  failed = 0;
  /** The active one. */
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
      this.failed++; // nothing that the candidate does counts
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
    const difference: ShadowCase = Object.freeze({ uid, action, active, candidate });
    const [wasAllowed, wouldBeAllowed] = [active.allowed, candidate.allowed];
    const [from, to] = [active.rule ?? null, candidate.rule ?? null];
    const key = JSON.stringify([from, to, wasAllowed, wouldBeAllowed]); // a watched one's rules change
    const pair = this.#pairs.get(key);
    if (pair !== undefined || this.#pairs.size < MAX_PAIRS) {
      this.#pairs.set(key, {
        ...{ active: active.rule, candidate: candidate.rule, wasAllowed, wouldBeAllowed },
        first: pair?.first ?? difference,
        count: (pair?.count ?? 0) + 1,
      });
    }
    const told: unknown = fieldOf(this.#options, "onDifference")?.(difference);
    // A rejection that nobody handles would end the process.
    if (told !== undefined) Promise.resolve(told).catch(() => this.failed++);
  }
}

function isSame(a: readonly string[], b: readonly string[]): boolean {
  const [left, right] = [new Set(a), new Set(b)];
  return left.size === right.size && a.every((grant) => right.has(grant));
}
