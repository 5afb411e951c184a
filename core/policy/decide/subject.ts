/** Reads the facts of a peer, or of plain data of its shape, for one decision: each fact at most once. */

import { UcredError } from "../../errors.ts";
import type { Fact } from "../../facts.ts";
import type { AmbiguousId, CredentialDrift, Peer } from "../../peer.ts";
import { NAMESPACE_KINDS, type NamespaceKind, type ProcessSnapshot } from "../../process.ts";
import { isId } from "../../credentials.ts";

/** The name of a fact that conditions test. */
export type FactName =
  | "uid"
  | "gid"
  | "groups"
  | "label"
  | "exe"
  | "exeSha256"
  | "unit"
  | "cgroup"
  | "container"
  | "namespaces"
  | "unchanged"
  | AttributeFact;

/** The name of an attribute of the request: "attributes.privileged". */
export type AttributeFact = `attributes.${string}`;

/** The value of each fact. */
interface SubjectFacts extends Record<Exclude<FactName, AttributeFact>, unknown> {
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
  /** For each kind of namespace, whether the server is in the same one. */
  readonly namespaces: { readonly [kind in NamespaceKind]?: boolean };
  /** Whether nothing has changed since connect. */
  readonly unchanged: boolean;
}

/**
 * A peer as plain data, for tests of a policy: a missing fact is unknown, `null` means that there is none.
 */
export interface PlainPeer {
  /** Effective uid. */
  readonly uid?: number;
  /** Effective gid. */
  readonly gid?: number;
  /** All groups, as in {@link Peer.groups}; the gid always counts. */
  readonly groups?: readonly number[];
  /** Security label. */
  readonly label?: string | null;
  /** Ids that may stand for others, as in {@link Peer.ambiguous}. Ambiguous groups match no rule. */
  readonly ambiguous?: readonly AmbiguousId[];
  /** Whether nothing has changed since connect. */
  readonly unchanged?: boolean;
  /** Facts of the process. */
  readonly process?: {
    readonly exe?: string | null;
    readonly exeSha256?: string | null;
    readonly unit?: string | null;
    readonly cgroup?: string | null;
    readonly container?: string | null;
    /** A missing kind is unknown. */
    readonly namespaces?: { readonly [kind in NamespaceKind]?: { readonly ours: boolean } };
  };
}

/** Facts with ids as value. */
export type IdFact = "uid" | "gid" | "groups";

/** Reads facts of one peer for one decision. A value of another type is unknown. */
export class Subject {
  readonly #peer: Peer | PlainPeer;
  /** `undefined` in the usual case that no id is ambiguous. */
  readonly #ambiguous: readonly AmbiguousId[] | undefined;
  #uid: number | undefined = UNREAD;
  #gid: number | undefined = UNREAD;
  #groups: readonly number[] | undefined;
  /** `undefined` until the groups are read. */
  #hasAllGroups: boolean | undefined;
  #known: Map<FactName | "process", unknown> | undefined;
  /** Why `unchanged` is unknown. */
  #driftError: UcredError | undefined;
  /** Unknown facts that conditions have tested since this was last cleared. */
  missing: Set<FactName> | undefined;
  /** The attributes of the request, from the caller. */
  attributes: unknown;
  /** The first attribute that has been read, and its value. Most rules test only one. */
  attributeNumber = -1;
  attributeValue: unknown;
  /** Further attributes that have been read. */
  attributeValues: unknown[] | undefined;

  constructor(peer: Peer | PlainPeer) {
    this.#peer = isPrototypePolluted() && !isPeer(peer) ? withoutPollution(peer) : peer;
    const { ambiguous } = this.#peer;
    if ((ambiguous ?? NONE).length !== 0) {
      this.#ambiguous = Array.isArray(ambiguous) ? ambiguous : EVERY_ID;
    }
  }

  /** Effective uid; `undefined` if unknown. */
  get uid(): number | undefined {
    if (this.#uid === UNREAD) this.#uid = this.#id("uid", this.#peer.uid);
    return this.#uid;
  }

  /** Effective gid; `undefined` if unknown. */
  get gid(): number | undefined {
    if (this.#gid === UNREAD) this.#gid = this.#id("gid", this.#peer.gid);
    return this.#gid;
  }

  /** Whether all groups include the gid, so that an unknown gid cannot be another group. */
  get groupsIncludeGid(): boolean {
    return isPeer(this.#peer);
  }

  /** Groups that the peer certainly has. The gid may be missing. */
  get groups(): readonly number[] {
    if (this.#hasAllGroups === undefined) this.#readGroups();
    return this.#groups!;
  }

  /** Whether `groups` and the gid are all groups of the peer. */
  get hasAllGroups(): boolean {
    if (this.#hasAllGroups === undefined) this.#readGroups();
    return this.#hasAllGroups!;
  }

  /** Any other fact; `null` if there is none, `undefined` if unknown. */
  get<N extends OtherFact>(name: N): SubjectFacts[N] | null | undefined {
    return this.#once(name, () => this.#read(name)) as SubjectFacts[N] | null | undefined;
  }

  /** Returns why a fact is unknown, if the peer reports it. Call it after a condition has tested the fact. */
  reasonOf(name: FactName): string | undefined {
    const peer = this.#peer;
    if (!isPeer(peer)) return undefined;
    if (name === "unchanged") return this.#driftError?.message;
    const isOfPeer = name === "label" || isIdFact(name);
    const facts = isOfPeer
      ? peer.facts
      : (this.#known?.get("process") as ProcessSnapshot | undefined)?.facts;
    const fact = (facts as { readonly [name: string]: Fact<unknown> | undefined } | undefined)
      ?.[name];
    return fact?.state === "unknown" ? fact.reason.message : undefined;
  }

  /** Reads an id without `peer.facts`, which a decision by ids alone need not create. */
  #id(name: "uid" | "gid", id: number | undefined): number | undefined {
    return isId(id) && !this.#ambiguous?.includes(name) ? id : undefined;
  }

  #readGroups(): void {
    const { groups } = this.#peer;
    const list: readonly unknown[] = Array.isArray(groups) ? groups : [undefined];
    const isAmbiguous = this.#ambiguous?.includes("groups") === true;
    this.#hasAllGroups = areIds(list) && !isAmbiguous;
    // No member of an ambiguous list counts: each may be the overflow id of an unmapped group.
    this.#groups = this.#hasAllGroups ? groups : isAmbiguous ? NO_GROUPS : list.filter(isId);
  }

  #read(name: OtherFact): unknown {
    const peer = this.#peer;
    switch (name) {
      case "label":
        return textField(isPeer(peer) ? valueOf(peer.facts.label) : peer.label);
      case "unchanged": {
        const unchanged = isPeer(peer) ? this.#isUnchanged(peer) : peer.unchanged;
        return typeof unchanged === "boolean" ? unchanged : undefined;
      }
    }
    const process = this.#once("process", () => peer.process);
    const value = isPeer(peer)
      ? valueOf((process as ProcessSnapshot).facts[name])
      : fieldOf((process ?? {}) as NonNullable<PlainPeer["process"]>, name);
    return name === "namespaces" ? oursOf(value) : textField(value);
  }

  #isUnchanged(peer: Peer): boolean | undefined {
    let drift: readonly CredentialDrift[];
    try {
      drift = peer.drift();
    } catch (error) {
      if (!(error instanceof UcredError)) throw error;
      this.#driftError = error;
      return undefined;
    }
    return drift.length === 0;
  }

  #once(name: OtherFact | "process", read: () => unknown): unknown {
    const known = this.#known ??= new Map();
    let value = known.get(name);
    if (value === undefined && !known.has(name)) known.set(name, value = read());
    return value;
  }
}

/** Facts without ids. */
type OtherFact = Exclude<FactName, AmbiguousId | AttributeFact>;

/** Marks an id that has not been read. */
const UNREAD = -1;

const NONE: readonly AmbiguousId[] = [];
const EVERY_ID: readonly AmbiguousId[] = ["uid", "gid", "groups"];

const NO_GROUPS: readonly number[] = [];

/** The default overflow id, which unmapped ids read as. <linux/highuid.h> */
export const OVERFLOW_ID = 65534;

function areIds(groups: readonly unknown[]): boolean {
  for (const group of groups) if (!isId(group)) return false; // holes too
  return true;
}

/**
 * Returns an own field, or one of the object's class. A field that was added to `Object.prototype` does not
 * count: it must not add facts to a peer.
 */
export function fieldOf<T extends object, K extends keyof T>(of: T, name: K): T[K] | undefined {
  return name in Object.prototype && !has(of, name) ? undefined : of[name];
}

/** The object from which every object inherits. */
const INHERITED = Object.prototype as PlainPeer;

/** Whether fields of plain peers were added to `Object.prototype`. Written out: each decision calls it. */
function isPrototypePolluted(): boolean {
  return INHERITED.uid !== undefined || INHERITED.gid !== undefined ||
    INHERITED.groups !== undefined || INHERITED.ambiguous !== undefined ||
    INHERITED.label !== undefined || INHERITED.unchanged !== undefined ||
    INHERITED.process !== undefined;
}

/** Copies a plain peer without the fields that were added to `Object.prototype`. */
function withoutPollution(peer: PlainPeer): PlainPeer {
  const copy: { -readonly [field in keyof PlainPeer]: unknown } = Object.create(null);
  for (const name of PLAIN_FIELDS) copy[name] = fieldOf(peer, name);
  return copy as PlainPeer;
}

const PLAIN_FIELDS = [
  "uid",
  "gid",
  "groups",
  "label",
  "ambiguous",
  "unchanged",
  "process",
] as const;

/** Whether a field is an own one, or one of the object's class. */
function has(of: object, name: PropertyKey): boolean {
  for (let at: object | null = of; at !== null; at = Object.getPrototypeOf(at)) {
    if (at === Object.prototype) return false;
    if (Object.hasOwn(at, name)) return true;
  }
  return false;
}

function isPeer(peer: Peer | PlainPeer): peer is Peer {
  return "facts" in peer && (!("facts" in Object.prototype) || has(peer, "facts"));
}

function isIdFact(name: FactName): name is IdFact {
  return name === "uid" || name === "gid" || name === "groups";
}

function valueOf(
  fact: { readonly state: string; readonly value?: unknown },
): unknown {
  return fact.state === "known" ? fact.value : fact.state === "none" ? null : undefined;
}

function textField(value: unknown): string | null | undefined {
  return typeof value === "string" || value === null ? value : undefined;
}

function oursOf(spaces: unknown): SubjectFacts["namespaces"] | undefined {
  if (typeof spaces !== "object" || spaces === null) return undefined;
  const ours: { [kind in NamespaceKind]?: boolean } = Object.create(null);
  for (const kind of NAMESPACE_KINDS) {
    const space = fieldOf(spaces as { readonly [kind in NamespaceKind]?: object | null }, kind);
    const value = fieldOf((space ?? {}) as { readonly ours?: unknown }, "ours");
    if (typeof value === "boolean") ours[kind] = value;
  }
  return ours;
}
