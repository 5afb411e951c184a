/** The workload: rules about ids, and peers that match an early rule, a middle one, a late one, or none. */

/** One rule, in a form that every contender converts to its own. Users and groups have ids for names. */
export interface Rule {
  readonly name: string;
  readonly kind: "uid" | "gid" | "user" | "group";
  readonly id: number;
  readonly allows: boolean;
}

/** The credentials of a peer. */
export interface Ids {
  readonly uid: number;
  readonly gid: number;
  /** Supplementary groups and the gid, ascending. */
  readonly groups: readonly number[];
}

export interface Workload {
  /** In order. Rules that deny are first, so that engines without an order decide the same. */
  readonly rules: readonly Rule[];
  readonly peers: readonly Ids[];
}

/** Number of peers. */
export const PEERS = 1024;

/** Peers alternate: a match in the first tenth of the rules, in the middle one, in the last one, no match. */
export const KINDS_OF_PEERS = 4;

/** Share of the rules that deny. */
const DENYING = 1 / 5;

/** Number of supplementary groups of a peer, without the gid. */
const GROUPS = 6;

const KINDS = ["uid", "gid", "user", "group"] as const;

/** Generates rules and peers, the same for the same count. */
export function workload(count: number): Workload {
  const random = randomFrom(count);
  const below = (end: number) => Math.floor(random() * end);
  // Ids of local accounts, and ids from the range of sssd.
  const anyId = () => below(4) > 0 ? 1000 + below(59_000) : 200_000 + below(2_000_000_000);
  const used = new Set<number>();
  const freshId = (): number => {
    for (;;) {
      const id = anyId();
      if (!used.has(id)) return used.add(id), id;
    }
  };
  const rules = Array.from({ length: count }, (_, position): Rule => {
    const kind = KINDS[position % KINDS.length]!;
    const id = freshId();
    return { name: `${position}: ${kind} ${id}`, kind, id, allows: position >= count * DENYING };
  });
  const unusedIds = Array.from({ length: 4 * PEERS }, freshId);
  const stranger = () => unusedIds[below(unusedIds.length)]!;
  const tenth = count / 10;
  const peers = Array.from({ length: PEERS }, (_, index): Ids => {
    let [uid, gid] = [stranger(), stranger()];
    const groups = Array.from({ length: GROUPS }, stranger);
    const match = ({ kind, id }: Rule): void => {
      if (kind === "uid" || kind === "user") uid = id;
      else if (kind === "gid" || random() < 0.5) gid = id; // the primary group is a group, too
      else groups[0] = id;
    };
    const first = [0, (count - tenth) / 2, count - tenth][index % KINDS_OF_PEERS];
    if (first !== undefined) {
      const position = Math.floor(first) + below(tenth);
      if (random() < 0.25) match(rules[position + below(count - position)]!); // it also matches a later rule
      match(rules[position]!);
    }
    return { uid, gid, groups: [...new Set([gid, ...groups])].sort((a, b) => a - b) };
  });
  return { rules, peers };
}

/** The first rule that a peer matches, by a search rule by rule. */
export function firstMatch(rules: readonly Rule[], { uid, gid, groups }: Ids): Rule | undefined {
  return rules.find(({ kind, id }) => {
    if (kind === "group") return groups.includes(id);
    return id === (kind === "gid" ? gid : uid);
  });
}

/** mulberry32: pseudo-random numbers from 0 to 1, the same for the same seed. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
