/** A peer, or a plain object of its shape → the facts that conditions ask for, each read once. */

import { UcredError } from "../errors.ts";
import type { AmbiguousId, Drift, Peer } from "../peer.ts";
import type { NamespaceKind, ProcessSnapshot } from "../process.ts";

/** The facts that conditions can ask for. */
export interface SubjectFacts {
  /** Effective uid. */
  readonly uid: number;
  /** Effective gid. */
  readonly gid: number;
  /** Supplementary; the primary one may be missing. */
  readonly groups: readonly number[];
  /** Security label. */
  readonly label: string;
  /** Path of the executable. */
  readonly exe: string;
  /** SHA-256 of the executable. */
  readonly exeSha256: string;
  /** systemd unit. */
  readonly unit: string;
  /** Path of the control group. */
  readonly cgroup: string;
  /** Container id. */
  readonly container: string;
  /** Of each kind of namespace, whether it is the server's too. */
  readonly namespaces: { readonly [kind in NamespaceKind]?: boolean };
  /** Whether nothing has changed since connect. */
  readonly unchanged: boolean;
}

/** The name of a fact. */
export type FactName = keyof SubjectFacts;

/**
 * A peer in plain data, for tests of a policy: a missing fact is unknown, `null` is known to be none.
 */
export interface PlainPeer {
  /** Effective uid. */
  readonly uid?: number;
  /** Effective gid. */
  readonly gid?: number;
  /** All groups, as {@link Peer.groups} has them; the gid counts in any case. */
  readonly groups?: readonly number[];
  /** Security label. */
  readonly label?: string | null;
  /** Ids that read 65534 and may stand for others, as {@link Peer.ambiguous} has it. */
  readonly ambiguous?: readonly AmbiguousId[];
  /** Whether nothing has changed since connect. */
  readonly unchanged?: boolean;
  /** Facts of its process. */
  readonly process?: {
    readonly exe?: string | null;
    readonly exeSha256?: string | null;
    readonly unit?: string | null;
    readonly cgroup?: string | null;
    readonly container?: string | null;
    /** A kind that is missing is unknown. */
    readonly namespaces?: { readonly [kind in NamespaceKind]?: { readonly ours: boolean } };
  };
}

/** Reads facts of one peer for one decision. */
export class Subject {
  readonly #peer: Peer | PlainPeer;
  /** `undefined` in the usual case that none is. */
  readonly #ambiguous: readonly AmbiguousId[] | undefined;
  #known: Map<FactName, unknown> | undefined;
  /** Facts that a condition asked for in vain, since this was last emptied. */
  missing: Set<FactName> | undefined;
  #process: ProcessSnapshot | undefined;

  constructor(peer: Peer | PlainPeer) {
    this.#peer = peer;
    const { ambiguous } = peer;
    this.#ambiguous = ambiguous?.length === 0 ? undefined : ambiguous;
  }

  /** The fact; `null` where it is known to be none, `undefined` where it is unknown. */
  get<N extends FactName>(name: N): SubjectFacts[N] | null | undefined {
    if (name === "uid" || name === "gid") return this.#id(name) as SubjectFacts[N] | undefined;
    // Of these too there is nothing to keep: they are there. The gid may be missing among them.
    if (name === "groups") return this.#peer.groups as SubjectFacts[N] | undefined;
    const known = this.#known ??= new Map();
    let value = known.get(name);
    if (value === undefined && !known.has(name)) {
      value = isPeer(this.#peer)
        ? this.#ofPeer(this.#peer, name as never)
        : ofPlain(this.#peer, name);
      known.set(name, value);
    }
    return value as SubjectFacts[N] | null | undefined;
  }

  /** Not through `facts`, which a decision by ids alone need not make. */
  #id(name: "uid" | "gid"): number | undefined {
    return this.#ambiguous?.includes(name) ? undefined : this.#peer[name];
  }

  #ofPeer(peer: Peer, name: Exclude<FactName, "uid" | "gid" | "groups">): unknown {
    switch (name) {
      case "label":
        return valueOf(peer.facts.label);
      case "unchanged":
        return isUnchanged(peer);
    }
    this.#process ??= peer.process;
    const fact = this.#process.facts[name];
    return name === "namespaces" ? oursOf(valueOf(fact) as Spaces | undefined) : valueOf(fact);
  }

  /** Whether `groups` may lack some that the peer has. */
  get lacksGroups(): boolean {
    return this.#ambiguous?.includes("groups") ?? false;
  }
}

function isPeer(peer: Peer | PlainPeer): peer is Peer {
  return "facts" in peer;
}

function valueOf(
  fact: { readonly state: string; readonly value?: unknown },
): unknown {
  return fact.state === "known" ? fact.value : fact.state === "none" ? null : undefined;
}

function isUnchanged(peer: Peer): boolean | undefined {
  let drift: readonly Drift[];
  try {
    drift = peer.drift();
  } catch (error) {
    if (error instanceof UcredError) return undefined; // it cannot be known
    throw error;
  }
  return drift.length === 0;
}

function ofPlain(peer: PlainPeer, name: FactName): unknown {
  const { label, unchanged, process } = peer;
  switch (name) {
    case "label":
      return label;
    case "unchanged":
      return unchanged;
    case "namespaces":
      return oursOf(process?.namespaces);
  }
  return process?.[name as "exe"];
}

type Spaces = { readonly [kind in NamespaceKind]?: { readonly ours: boolean } };

function oursOf(spaces: Spaces | null | undefined): SubjectFacts["namespaces"] | undefined {
  return spaces === null || spaces === undefined
    ? undefined
    : Object.fromEntries(Object.entries(spaces).map(([kind, { ours }]) => [kind, ours]));
}
