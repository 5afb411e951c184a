/**
 * Regions are sets of cases: a peer, an action and attributes. For example, a rule matches a region.
 *
 * A region is the product of one set for each fact: uids, groups with the gid, texts, truth values. Such
 * sets can be intersected and subtracted exactly, unknown facts included, and each has an example unless it
 * is empty.
 */

import type { NamespaceKind } from "../../process.ts";
import { type Budget, BudgetExceeded } from "./budget.ts";
import { readAttribute } from "../decide/attributes.ts";
import type {
  AttributeTest,
  CheckedCondition,
  CheckedFact,
  TextField,
} from "../decide/condition.ts";
import type { Attributes } from "../decide/decision.ts";
import { hasId, type IdRange, intersect, join, others } from "../decide/id_ranges.ts";
import { findText, hasText, type Texts } from "./text_sets.ts";
import type { AttributeFact, PlainPeer } from "../decide/subject.ts";

/** A set of values of one fact. The methods take sets of the same class. */
interface Values<S> {
  /** The cost of reading or storing the set: its ranges or globs. */
  readonly size: number;
  /** The intersection. */
  and(other: S, budget: Budget): S;
  /** The difference, as sets that do not overlap; some may be empty. */
  without(other: S, budget: Budget): readonly S[];
  /** The known values of the set. */
  known(budget: Budget): S;
  isEmpty(budget: Budget): boolean;
  /** Whether the value of the case is in the set. */
  has(one: PolicyCase, fact: FactKey, budget: Budget): boolean;
}

const EVERY_ID: readonly IdRange[] = others([]);

/** A set of ids or numbers, possibly with "unknown". */
abstract class RangeSet {
  readonly ranges: readonly IdRange[];
  /** Whether the set contains the unknown value. */
  readonly unknown: boolean;

  constructor(ranges: readonly IdRange[], unknown: boolean) {
    this.ranges = ranges;
    this.unknown = unknown;
  }

  get size(): number {
    return 1 + this.ranges.length;
  }

  isEmpty(): boolean {
    return this.ranges.length === 0 && !this.unknown;
  }
}

/** A set of uids. */
export class Ids extends RangeSet implements Values<Ids> {
  and(other: Ids, budget: Budget): Ids {
    if (other === ALL_IDS) return this;
    if (this === ALL_IDS) return other;
    const { ranges, unknown } = other;
    budget.spend(this.ranges.length + ranges.length);
    return new Ids(intersect(this.ranges, ranges), this.unknown && unknown);
  }

  without({ ranges, unknown }: Ids, budget: Budget): readonly Ids[] {
    budget.spend(this.ranges.length + ranges.length);
    return [new Ids(intersect(this.ranges, others(ranges)), this.unknown && !unknown)];
  }

  known(): Ids {
    return new Ids(this.ranges, false);
  }

  has(one: PolicyCase, fact: FactKey): boolean {
    return this.hasId(fact === "uid" ? one.peer.uid : attributeIn(one, fact) as number | undefined);
  }

  /** @param id `undefined`: unknown. */
  hasId(id: number | undefined): boolean {
    return id === undefined ? this.unknown : hasId(this.ranges, id);
  }

  /** The only id in the set, if it has no other and the unknown id is not in it. */
  get single(): number | undefined {
    const [range, more] = this.ranges;
    const isSingle = !this.unknown && more === undefined && range?.first === range?.last;
    return isSingle ? range?.first : undefined;
  }

  /** An id, preferably 1000, the first uid of a person. `undefined`: unknown. */
  example(): number | undefined {
    return hasId(this.ranges, 1000) ? 1000 : this.ranges[0]?.first;
  }
}

const ALL_IDS = new Ids(EVERY_ID, true);

/**
 * A set of pairs of a gid and a list of groups. A known gid is always in the list. If the list may be
 * incomplete (ambiguous or unknown), only the gid is certain.
 */
export class Groups implements Values<Groups> {
  readonly gid: Ids;
  /** Whether the set contains complete lists, and lists that may be incomplete. */
  readonly whole: boolean;
  readonly partial: boolean;
  /** The list has at least one group of each of these sets. */
  readonly hits: readonly (readonly IdRange[])[];
  /** The list has no group of this set. */
  readonly avoids: readonly IdRange[];

  /** A limit that is missing admits every value. */
  constructor(
    { gid = ALL_IDS, whole = true, partial = true, hits = [], avoids = [] }: Partial<
      Pick<Groups, "gid" | "whole" | "partial" | "hits" | "avoids">
    >,
  ) {
    this.gid = gid;
    this.whole = whole;
    this.partial = partial;
    this.hits = hits;
    this.avoids = avoids;
  }

  get size(): number {
    const inHits = this.hits.reduce((sum, { length }) => sum + 1 + length, 0);
    return 1 + this.gid.size + inHits + this.avoids.length;
  }

  and(other: Groups, budget: Budget): Groups {
    const { gid, whole, partial, hits, avoids } = other;
    budget.spend(50 + this.hits.length + hits.length);
    if (this.avoids.length > 0 && avoids.length > 0) {
      budget.spend(10 * (this.avoids.length + avoids.length)); // join() sorts them
    }
    return new Groups({
      gid: this.gid.and(gid, budget),
      whole: this.whole && whole,
      partial: this.partial && partial,
      hits: this.hits.concat(hits),
      avoids: join(this.avoids, avoids),
    });
  }

  without({ gid, whole, partial, hits, avoids }: Groups, budget: Budget): readonly Groups[] {
    const rest: Groups[] = [];
    let left: Groups = new Groups(this); // the intersection with the limits so far
    const cut = (outside: readonly Groups[], inside: Groups) => {
      rest.push(...outside.map((part) => left.and(part, budget)));
      left = left.and(inside, budget);
    };
    if (gid !== ALL_IDS) {
      cut(ALL_IDS.without(gid, budget).map((gid) => new Groups({ gid })), new Groups({ gid }));
    }
    if (!whole || !partial) {
      cut([new Groups({ whole: !whole, partial: !partial })], new Groups({ whole, partial }));
    }
    for (const hit of hits) cut([new Groups({ avoids: hit })], new Groups({ hits: [hit] }));
    if (avoids.length > 0) cut([new Groups({ hits: [avoids] })], new Groups({ avoids }));
    return rest;
  }

  known(budget: Budget): Groups {
    return this.and(KNOWN_GROUPS, budget);
  }

  isEmpty(budget: Budget): boolean {
    return this.example(budget) === undefined;
  }

  has({ peer }: PolicyCase, _fact: FactKey, budget: Budget): boolean {
    const { gid, groups, ambiguous = [] } = peer;
    const isWhole = groups !== undefined && !ambiguous.includes("groups");
    if (!this.gid.hasId(gid) || !(isWhole ? this.whole : this.partial)) return false;
    const certain = [
      ...(isWhole ? groups : []),
      ...(gid === undefined ? [] : [gid]),
    ];
    budget.spend((2 + this.hits.length) * certain.length);
    return this.hits.every((hit) => certain.some((group) => hasId(hit, group))) &&
      !certain.some((group) => hasId(this.avoids, group));
  }

  /** A gid and a list; `undefined` if the set is empty. */
  example(budget: Budget): Pick<PlainPeer, "gid" | "groups" | "ambiguous"> | undefined {
    const { hits, avoids } = this;
    budget.spend(50 + 4 * (this.size + hits.length * (hits.length + avoids.length)));
    return this.whole && this.#wholeList() || this.partial && this.#partialList() || undefined;
  }

  #wholeList(): Pick<PlainPeer, "gid" | "groups"> | undefined {
    const open = others(this.avoids);
    const gids = intersect(this.gid.ranges, open);
    const wants = this.hits.map((hit) => intersect(hit, open));
    if (wants.some((want) => want.length === 0)) return undefined;
    const gid = (wants[0] && intersect(gids, wants[0])[0]?.first) ?? new Ids(gids, false).example();
    if (gid === undefined && !this.gid.unknown) return undefined;
    const groups = new Set(gid === undefined ? [] : [gid]);
    for (const want of wants) {
      if (![...groups].some((group) => hasId(want, group))) groups.add(want[0]!.first);
    }
    return { ...(gid !== undefined && { gid }), groups: [...groups].sort((a, b) => a - b) };
  }

  #partialList(): Pick<PlainPeer, "gid" | "groups" | "ambiguous"> | undefined {
    let gids = intersect(this.gid.ranges, others(this.avoids));
    for (const hit of this.hits) gids = intersect(gids, hit);
    const gid = new Ids(gids, false).example();
    if (gid !== undefined) return { gid, groups: [gid], ambiguous: ["groups"] };
    return this.gid.unknown && this.hits.length === 0 ? {} : undefined;
  }
}

const ALL_GROUPS = new Groups({});
const KNOWN_GROUPS = new Groups({ gid: ALL_IDS.known(), partial: false });

/** A set of texts, possibly with "none" and "unknown". */
export class TextValues implements Values<TextValues> {
  readonly texts: Texts | undefined;
  /** Whether the set contains "known to be none". */
  readonly none: boolean;
  readonly unknown: boolean;
  /** Whether `texts` is empty; `undefined` until it is computed. */
  #hasNoText: boolean | undefined;

  constructor(texts: Texts | undefined, none: boolean, unknown: boolean) {
    this.texts = texts;
    this.none = none;
    this.unknown = unknown;
  }

  get size(): number {
    return 1 + (this.texts === undefined ? 0 : this.texts.in.length + this.texts.out.length);
  }

  and(other: TextValues, budget: Budget): TextValues {
    const { texts, none, unknown } = other;
    budget.spend(10 + this.size + other.size);
    const both = this.texts && texts && {
      in: this.texts.in.concat(texts.in),
      out: this.texts.out.concat(texts.out),
    };
    return new TextValues(both, this.none && none, this.unknown && unknown);
  }

  without({ texts, none, unknown }: TextValues, budget: Budget): readonly TextValues[] {
    const rest = [
      new TextValues(
        texts === undefined ? this.texts : undefined,
        this.none && !none,
        this.unknown && !unknown,
      ),
    ];
    if (this.texts === undefined || texts === undefined) return rest;
    let left = new TextValues(this.texts, false, false);
    const only = (set: Texts) => new TextValues(set, false, false);
    for (const globs of texts.in) {
      rest.push(left.and(only({ in: [], out: globs }), budget));
      left = left.and(only({ in: [globs], out: [] }), budget);
    }
    if (texts.out.length > 0) rest.push(left.and(only({ in: [texts.out], out: [] }), budget));
    return rest;
  }

  known(): TextValues {
    return new TextValues(this.texts, this.none, false);
  }

  isEmpty(budget: Budget): boolean {
    if (this.none || this.unknown || this.texts === undefined) return !this.none && !this.unknown;
    return this.#hasNoText ??= findText(this.texts, budget) === undefined;
  }

  has(one: PolicyCase, fact: FactKey, budget: Budget): boolean {
    const text = textIn(one, fact);
    if (text === undefined) return this.unknown;
    if (text === null) return this.none;
    return this.texts !== undefined && hasText(this.texts, text, budget);
  }

  /** A text, `null` for none, `undefined` for unknown. */
  example(budget: Budget, beginning = ""): string | null | undefined {
    if (this.texts !== undefined) {
      const { in: wanted, out } = this.texts;
      const text = findText({ in: [...wanted, [`${beginning}**`]], out }, budget) ??
        findText(this.texts, budget);
      if (text !== undefined) return text;
    }
    return this.none ? null : undefined;
  }
}

/** A set of the values true, false and unknown. */
export class Truths implements Values<Truths> {
  readonly bits: number;

  constructor(bits: number) {
    this.bits = bits;
  }

  get size(): number {
    return 1;
  }

  and({ bits }: Truths): Truths {
    return new Truths(this.bits & bits);
  }

  without({ bits }: Truths): readonly Truths[] {
    return [new Truths(this.bits & ~bits)];
  }

  known(): Truths {
    return this.and(new Truths(YES | NO));
  }

  isEmpty(): boolean {
    return this.bits === 0;
  }

  has(one: PolicyCase, fact: FactKey): boolean {
    const truth = truthIn(one, fact);
    return (this.bits & (truth === undefined ? UNKNOWN : truth ? YES : NO)) !== 0;
  }

  /** The set of one known value. */
  static of(truth: boolean): Truths {
    return new Truths(truth ? YES : NO);
  }

  /** The only known value in the set, if unknown is not in it. */
  get single(): boolean | undefined {
    return this.bits === YES ? true : this.bits === NO ? false : undefined;
  }

  /** Whether the set contains both true and false. */
  isOpen(): boolean {
    return (this.bits & (YES | NO)) === (YES | NO);
  }

  example(): boolean | undefined {
    return (this.bits & YES) !== 0 ? true : (this.bits & NO) !== 0 ? false : undefined;
  }
}

/** A set of numbers, possibly with "unknown". Every finite double is a number. */
export class Numbers extends RangeSet implements Values<Numbers> {
  and({ ranges, unknown }: Numbers, budget: Budget): Numbers {
    budget.spend(this.ranges.length + ranges.length);
    return new Numbers(intersect(this.ranges, ranges), this.unknown && unknown);
  }

  without({ ranges, unknown }: Numbers, budget: Budget): readonly Numbers[] {
    budget.spend(10 * (this.ranges.length + ranges.length));
    return [new Numbers(intersect(this.ranges, otherNumbers(ranges)), this.unknown && !unknown)];
  }

  known(): Numbers {
    return new Numbers(this.ranges, false);
  }

  has(one: PolicyCase, fact: FactKey): boolean {
    const value = attributeIn(one, fact);
    return value === undefined ? this.unknown : hasId(this.ranges, value as number);
  }

  example(): number | undefined {
    return [0, 1].find((number) => hasId(this.ranges, number)) ?? this.ranges[0]?.first;
  }
}

/** The complement of ranges of numbers. */
export function otherNumbers(ranges: readonly IdRange[]): readonly IdRange[] {
  const gaps: IdRange[] = [];
  let next = -Number.MAX_VALUE;
  for (const { first, last } of ranges) {
    if (first > next) gaps.push({ first: next, last: -nextNumber(-first) });
    next = nextNumber(last);
  }
  if (next <= Number.MAX_VALUE) gaps.push({ first: next, last: Number.MAX_VALUE });
  return gaps;
}

const DOUBLE = new Float64Array(1);
const BITS = new BigInt64Array(DOUBLE.buffer);

/** The smallest double above a number. */
function nextNumber(number: number): number {
  if (number === 0) return Number.MIN_VALUE;
  DOUBLE[0] = number;
  BITS[0]! += number > 0 ? 1n : -1n;
  return DOUBLE[0]!;
}

/** Lists of texts: every text is in one set, and each of other sets has at least one of the texts. */
interface Lists {
  readonly every: Texts;
  /** Each of these has one list of globs, in `in` or in `out`. */
  readonly some: readonly Texts[];
}

const EVERY_TEXT: Texts = { in: [], out: [] };
const NO_TEXT: Texts = { in: [[]], out: [] };
const ALL_LISTS: Lists = { every: EVERY_TEXT, some: [] };

const bothTexts = (a: Texts, b: Texts): Texts => ({
  in: a.in.concat(b.in),
  out: a.out.concat(b.out),
});

/** A set of lists of texts, possibly with "unknown". */
export class TextLists implements Values<TextLists> {
  /** `undefined`: no known list is in the set. */
  readonly lists: Lists | undefined;
  readonly unknown: boolean;
  /** Whether `lists` is empty; `undefined` until it is computed. */
  #hasNoList: boolean | undefined;

  constructor(lists: Lists | undefined, unknown: boolean) {
    this.lists = lists;
    this.unknown = unknown;
  }

  get size(): number {
    if (this.lists === undefined) return 1;
    const { every, some } = this.lists;
    return 2 + every.in.length + every.out.length + 2 * some.length;
  }

  and({ lists, unknown, size }: TextLists, budget: Budget): TextLists {
    budget.spend(20 + this.size + size);
    const both = this.lists && lists && {
      every: bothTexts(this.lists.every, lists.every),
      some: this.lists.some.concat(lists.some),
    };
    return new TextLists(both, this.unknown && unknown);
  }

  without({ lists, unknown }: TextLists, budget: Budget): readonly TextLists[] {
    const rest = [
      new TextLists(lists === undefined ? this.lists : undefined, this.unknown && !unknown),
    ];
    if (this.lists === undefined || lists === undefined) return rest;
    let left = new TextLists(this.lists, false);
    const cut = (outside: Partial<Lists>, inside: Partial<Lists>) => {
      rest.push(left.and(new TextLists({ ...ALL_LISTS, ...outside }, false), budget));
      left = left.and(new TextLists({ ...ALL_LISTS, ...inside }, false), budget);
    };
    for (const globs of lists.every.in) {
      cut({ some: [{ in: [], out: globs }] }, { every: { in: [globs], out: [] } });
    }
    const { out } = lists.every;
    if (out.length > 0) cut({ some: [{ in: [out], out: [] }] }, { every: { in: [], out } });
    for (const texts of lists.some) {
      const [globs] = texts.in;
      const others = globs !== undefined
        ? { in: [], out: globs }
        : texts.out.length > 0
        ? { in: [texts.out], out: [] }
        : NO_TEXT;
      cut({ every: others }, { some: [texts] });
    }
    return rest;
  }

  known(): TextLists {
    return new TextLists(this.lists, false);
  }

  isEmpty(budget: Budget): boolean {
    if (this.unknown) return false;
    return this.#hasNoList ??= this.example(budget) === undefined;
  }

  has(one: PolicyCase, fact: FactKey, budget: Budget): boolean {
    const list = attributeIn(one, fact) as readonly string[] | undefined;
    if (list === undefined) return this.unknown;
    if (this.lists === undefined) return false;
    const { every, some } = this.lists;
    return list.every((text) => hasText(every, text, budget)) &&
      some.every((texts) => list.some((text) => hasText(texts, text, budget)));
  }

  /** A list; `undefined` if the set has no known list. */
  example(budget: Budget): readonly string[] | undefined {
    if (this.lists === undefined) return undefined;
    const { every, some } = this.lists;
    const list = new Set<string>();
    for (const texts of some) {
      const text = findText(bothTexts(every, texts), budget);
      if (text === undefined) return undefined;
      list.add(text);
    }
    return [...list];
  }
}

const YES = 1;
const NO = 2;
const UNKNOWN = 4;

/** The names of facts in regions. The gid belongs to the groups. */
export type FactKey =
  | "uid"
  | "groups"
  | "action"
  | "unchanged"
  | TextField
  | `namespace ${NamespaceKind}`
  | AttributeKey;

/** "boolean attributes.secret". An attribute of type id has two keys: its value, and whether it is `self`. */
export type AttributeKey = `${AttributeTest["type"]} ${AttributeFact}`;

type AnyValues = Ids | Groups | TextValues | Truths | Numbers | TextLists;

/** Prefix of the keys of namespaces. */
const NAMESPACE = "namespace ";

/** The values of each fact in the region. A missing fact may have any value. */
export type Region = ReadonlyMap<FactKey, AnyValues>;

/** All peers and all actions. */
export const EVERYTHING: Region = new Map();

/** The region in which one fact has these values. */
const only = (fact: FactKey, values: AnyValues): Region => new Map([[fact, values]]);

/** Steps to make a region, beside those for its values. */
const REGION_STEPS = 100;

/** Cells of a region: a map and its values. */
export function sizeOf(region: Region): number {
  return [...region.values()].reduce((sum, { size }) => sum + 6 + size, 40);
}

/** The intersection of two regions; `undefined` if it is empty. */
export function both(a: Region, b: Region, budget: Budget): Region | undefined {
  budget.spend(REGION_STEPS);
  if (a.size === 0) return b;
  const shared: [FactKey, AnyValues][] = [];
  for (const [fact, values] of b) {
    const mine = a.get(fact);
    const common = mine === undefined ? values : mine.and(values as never, budget);
    if (mine !== undefined && common.isEmpty(budget)) return undefined;
    shared.push([fact, common]);
  }
  return shared.length === 0 ? a : new Map([...a, ...shared]);
}

/** The difference of two regions, as regions that do not overlap. */
export function without(a: Region, b: Region, budget: Budget): readonly Region[] {
  const rest: Region[] = [];
  const left = new Map(a);
  for (const [fact, values] of b) {
    const mine = left.get(fact) ?? everything(fact);
    for (const outside of mine.without(values as never, budget)) {
      budget.spend(REGION_STEPS);
      if (!outside.isEmpty(budget)) rest.push(new Map(left).set(fact, outside));
    }
    const inside = mine.and(values as never, budget);
    if (inside.isEmpty(budget)) return [a];
    left.set(fact, inside);
  }
  return rest;
}

/** The set of all values of a fact. */
function everything(fact: FactKey): AnyValues {
  if (fact === "uid") return ALL_IDS;
  if (fact === "groups") return ALL_GROUPS;
  if (fact === "action") return ANY_ACTION;
  if (fact === "unchanged" || fact.startsWith(NAMESPACE)) return new Truths(YES | NO | UNKNOWN);
  switch (attributeOf(fact)?.type) {
    case "boolean":
    case "self":
      return new Truths(YES | NO | UNKNOWN);
    case "number":
      return new Numbers(otherNumbers([]), true);
    case "id":
      return ALL_IDS;
    case "texts":
      return new TextLists(ALL_LISTS, true);
  }
  return ANY_TEXT;
}

/** The attribute of a key; `undefined` for facts of the peer and the action. */
export function attributeOf(fact: FactKey): {
  readonly type: AttributeTest["type"];
  readonly name: string;
  readonly parameter: string | undefined;
} | undefined {
  if (!fact.includes(" attributes.")) return undefined; // most facts
  const [, type, name, parameter] = /^([a-z]+) attributes\.([^.]+)(?:\.([^]*))?$/.exec(fact) ?? [];
  return name === undefined ? undefined : { type: type as AttributeTest["type"], name, parameter };
}

/** The value of an attribute in a case; `undefined` if it is unknown. */
function attributeIn({ attributes }: PolicyCase, fact: FactKey): unknown {
  const { type, name, parameter } = attributeOf(fact)!;
  return readAttribute(attributes, {
    name,
    type: parameter !== undefined ? "parameters" : type === "self" ? "id" : type,
    parameter,
  });
}

/** The truth of a fact in a case; `undefined` if it is unknown. */
function truthIn(one: PolicyCase, fact: FactKey): boolean | undefined {
  const { uid, unchanged, process } = one.peer;
  switch (attributeOf(fact)?.type) {
    case "boolean":
      return attributeIn(one, fact) as boolean | undefined;
    case "self": {
      const id = attributeIn(one, fact);
      return id === undefined || uid === undefined ? undefined : id === uid;
    }
  }
  return fact === "unchanged"
    ? unchanged
    : process?.namespaces?.[fact.slice(NAMESPACE.length) as NamespaceKind]?.ours;
}

const ANY_TEXT = new TextValues({ in: [], out: [] }, true, true);
const ANY_ACTION = new TextValues({ in: [], out: [] }, true, false);

/** The part of a region in which these facts are known. */
export function whereKnown(region: Region, facts: Iterable<FactKey>, budget: Budget): Region {
  budget.spend(REGION_STEPS);
  const known = new Map(region);
  for (const fact of facts) known.set(fact, (region.get(fact) ?? everything(fact)).known(budget));
  return known;
}

/** Whether a region is empty. */
export function isEmpty(region: Region, budget: Budget): boolean {
  return [...region.values()].some((values) => values.isEmpty(budget));
}

/** A peer, an action and attributes. */
export interface PolicyCase {
  /** A missing fact is unknown. */
  readonly peer: PlainPeer;
  /** `undefined`: a decision without an action. */
  readonly action: string | undefined;
  /** The attributes of the request. A missing attribute is unknown. */
  readonly attributes?: Attributes;
}

/** Thrown if no case of a region was found, because conditions with `self` depend on each other. */
export class NoExample extends BudgetExceeded {}

/** Whether a case is in a region. */
export function hasCase(region: Region, one: PolicyCase, budget: Budget): boolean {
  budget.spend(10);
  for (const [fact, values] of region) if (!values.has(one, fact, budget)) return false;
  return true;
}

function textIn(one: PolicyCase, fact: FactKey): string | null | undefined {
  const { peer, action } = one;
  if (fact === "action") return action ?? null;
  if (attributeOf(fact) !== undefined) return attributeIn(one, fact) as string | null | undefined;
  return fact === "label" ? peer.label : peer.process?.[fact as Exclude<TextField, "label">];
}

/**
 * Returns a case in a region that is not empty. These facts get a value even if any value would do.
 *
 * @throws {NoExample} If conditions with `self` allow no such case.
 */
export function exampleIn(region: Region, facts: Iterable<FactKey>, budget: Budget): PolicyCase {
  const attributes = new Map<string, unknown>();
  const parameters = new Map<string, Map<string, unknown>>();
  const uid = new Ids(uidsIn(region), false).example();
  const selves = [...region].filter(([fact]) => attributeOf(fact)?.type === "self");
  // Whether an id is the uid is known only if both are.
  const needed = selves.flatMap(([fact, values]): FactKey[] =>
    (values as Truths).example() === undefined
      ? []
      : ["uid", `id attributes.${attributeOf(fact)!.name}`]
  );
  const process: { [field: string]: unknown } = {};
  const namespaces: { [kind: string]: { ours: boolean } } = {};
  const peer: { [field: string]: unknown } = {};
  let action: string | undefined;
  for (const fact of new Set([...region.keys(), ...facts, ...needed])) {
    const values = region.get(fact) ?? everything(fact);
    const attribute = attributeOf(fact);
    if (attribute !== undefined) {
      const { type, name, parameter } = attribute;
      if (type === "self") continue;
      const value = values instanceof Ids
        ? idBeside(values, region.get(`self attributes.${name}`) as Truths | undefined, uid)
        : (values as Exclude<AnyValues, Groups | Ids>).example(budget);
      if (parameter === undefined) attributes.set(name, value);
      else {
        const known = parameters.get(name) ?? new Map<string, unknown>();
        parameters.set(name, known.set(parameter, value ?? null)); // null is not a list: unknown
      }
    } else if (values instanceof Ids) {
      if (uid !== undefined) peer["uid"] = uid;
    } else if (values instanceof Groups) {
      Object.assign(peer, values.example(budget));
    } else if (values instanceof Truths) {
      const truth = values.example();
      if (truth === undefined) continue;
      if (fact === "unchanged") peer[fact] = truth;
      else namespaces[fact.slice(NAMESPACE.length)] = { ours: truth };
    } else {
      const isPath = fact === "exe" || fact === "cgroup";
      const text = (values as TextValues).example(budget, isPath ? "/" : "");
      if (fact === "action") action = text ?? undefined;
      else if (text !== undefined) (fact === "label" ? peer : process)[fact] = text;
    }
  }
  if (Object.keys(namespaces).length > 0) process["namespaces"] = namespaces;
  if (Object.keys(process).length > 0) peer["process"] = process;
  for (const [name, known] of parameters) attributes.set(name, Object.fromEntries(known));
  const known = [...attributes].filter(([, value]) => value !== undefined);
  const example: PolicyCase = {
    ...{ peer: peer as PlainPeer, action },
    ...(known.length > 0 && { attributes: Object.fromEntries(known) }),
  };
  if (selves.length > 0 && !hasCase(region, example, budget)) throw new NoExample();
  return example;
}

/** The uids of a region, limited by its conditions with `self`. */
export function uidsIn(region: Region): readonly IdRange[] {
  let uids = (region.get("uid") as Ids | undefined ?? ALL_IDS).ranges;
  for (const [fact, values] of region) {
    const attribute = attributeOf(fact);
    if (attribute?.type !== "self") continue;
    const { ranges, single } = region.get(`id attributes.${attribute.name}`) as Ids | undefined ??
      ALL_IDS;
    const isSelf = (values as Truths).single;
    if (isSelf === true) uids = intersect(uids, ranges);
    else if (isSelf === false && single !== undefined) {
      uids = intersect(uids, others([{ first: single, last: single }]));
    }
  }
  return uids;
}

/** Returns an id of a set. If a condition with `self` is known, the id is the peer's uid, or another one. */
function idBeside(
  ids: Ids,
  self: Truths | undefined,
  uid: number | undefined,
): number | undefined {
  if (uid === undefined || self?.single === undefined) return ids.example();
  const one = [{ first: uid, last: uid }];
  return new Ids(intersect(ids.ranges, self.single ? one : others(one)), false).example();
}

/** The outcomes of a condition that a region is computed for. */
export type Outcome = "true" | "false" | "not true" | "not false";

const OPPOSITE: { readonly [outcome in Outcome]: Outcome } = {
  "true": "false",
  "false": "true",
  "not true": "not false",
  "not false": "not true",
};

/** The regions in which a condition has this outcome. They may overlap. */
export function regionsOf(
  condition: CheckedCondition,
  outcome: Outcome,
  budget: Budget,
): readonly Region[] {
  switch (condition.kind) {
    case "not":
      return regionsOf(condition.of, OPPOSITE[outcome], budget);
    case "all":
    case "any": {
      const each = condition.of.map((part) => regionsOf(part, outcome, budget));
      const isHolding = outcome === "true" || outcome === "not false";
      if ((condition.kind === "all") === isHolding) {
        return each.reduce(product(budget), [EVERYTHING]);
      }
      budget.spend(each.reduce((sum, { length }) => sum + length, each.length));
      return each.flat();
    }
  }
  return regionsOfFact(condition, outcome).filter((region) => {
    budget.spend(REGION_STEPS + sizeOf(region));
    budget.keep(sizeOf(region));
    return !isEmpty(region, budget);
  });
}

/** The intersections of each pair of regions. */
const product = (budget: Budget) => (some: readonly Region[], others: readonly Region[]) =>
  some.flatMap((a) =>
    others.flatMap((b) => {
      const common = both(a, b, budget);
      if (common !== undefined && common !== b) budget.keep(sizeOf(common));
      return common ?? [];
    })
  );

function regionsOfFact(condition: CheckedFact, outcome: Outcome): readonly Region[] {
  const isHolding = outcome === "true" || outcome === "not false";
  const unknown = outcome.startsWith("not ");
  switch (condition.kind) {
    case "uid":
    case "gid": {
      const ids = new Ids(isHolding ? condition.ranges : others(condition.ranges), unknown);
      return [
        condition.kind === "uid" ? only("uid", ids) : only("groups", new Groups({ gid: ids })),
      ];
    }
    case "group":
      return regionsOfGroup(condition.ranges, outcome);
    case "unchanged":
      return [
        only(
          "unchanged",
          new Truths((condition.value === isHolding ? YES : NO) | (unknown ? UNKNOWN : 0)),
        ),
      ];
    case "sameNamespaces": {
      const bits = (isHolding ? YES : NO) | (unknown ? UNKNOWN : 0);
      const each = condition.kinds.map((kind) => [`namespace ${kind}`, new Truths(bits)] as const);
      return isHolding ? [new Map(each)] : each.map(([fact, truths]) => only(fact, truths));
    }
  }
  if ("test" in condition) {
    const { kind, test } = condition;
    return [only(`${test.type} ${kind}`, valuesOfTest(test, isHolding, unknown))];
  }
  const { kind, globs } = condition;
  return [
    only(
      kind,
      isHolding
        ? new TextValues({ in: [globs], out: [] }, false, unknown)
        : new TextValues({ in: [], out: globs }, true, unknown),
    ),
  ];
}

/** The values of an attribute for which a test holds, or does not. */
function valuesOfTest(test: AttributeTest, isHolding: boolean, unknown: boolean): AnyValues {
  switch (test.type) {
    case "boolean":
      return new Truths((test.value === isHolding ? YES : NO) | (unknown ? UNKNOWN : 0));
    case "self":
      return new Truths((isHolding ? YES : NO) | (unknown ? UNKNOWN : 0));
    case "number":
      return new Numbers(isHolding ? test.ranges : otherNumbers(test.ranges), unknown);
    case "id":
      return new Ids(isHolding ? test.ranges : others(test.ranges), unknown);
    case "text":
      return isHolding
        ? new TextValues({ in: [test.globs], out: [] }, false, unknown)
        : new TextValues({ in: [], out: test.globs }, true, unknown);
  }
  const matching = { in: [test.globs], out: [] };
  const otherTexts = { in: [], out: test.globs };
  const lists = test.quantifier === "every"
    ? isHolding ? { every: matching } : { some: [otherTexts] }
    : isHolding
    ? { some: [matching] }
    : { every: otherTexts };
  return new TextLists({ ...ALL_LISTS, ...lists }, unknown);
}

function regionsOfGroup(ranges: readonly IdRange[], outcome: Outcome): readonly Region[] {
  const lists = (limits: ConstructorParameters<typeof Groups>[0]) =>
    only("groups", new Groups(limits));
  switch (outcome) {
    case "true":
      return [lists({ hits: [ranges] })];
    case "not true":
      return [lists({ avoids: ranges })];
    case "false":
      return [lists({ gid: ALL_IDS.known(), partial: false, avoids: ranges })];
    case "not false":
      return [
        lists({ hits: [ranges] }),
        lists({ whole: false, avoids: ranges }),
        lists({ gid: new Ids([], true), avoids: ranges }),
      ];
  }
}

/** The facts that a condition tests. */
export function factsOf(condition: CheckedCondition | undefined): readonly FactKey[] {
  if (condition === undefined) return [];
  switch (condition.kind) {
    case "not":
      return factsOf(condition.of);
    case "all":
    case "any":
      return condition.of.flatMap(factsOf);
    case "gid":
    case "group":
      return ["groups"];
    case "sameNamespaces":
      return condition.kinds.map((kind): FactKey => `namespace ${kind}`);
  }
  if (!("test" in condition)) return [condition.kind];
  const { kind, test } = condition;
  // Whether the id is the uid depends on both, so an example needs all three.
  return test.type === "self" ? [`id ${kind}`, `self ${kind}`, "uid"] : [`${test.type} ${kind}`];
}
