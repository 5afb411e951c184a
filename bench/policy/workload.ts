/** What is decided: rules about ids, and peers that meet the first, some, the last or none of them. */

/** One rule, as every contender is told it; the name of a user or group as its id. */
export interface Rule {
  readonly name: string;
  readonly kind: "uid" | "gid" | "user" | "group";
  readonly id: number;
  readonly allows: boolean;
}

/** Who asks: what a kernel tells of a peer. */
export interface Ids {
  readonly uid: number;
  readonly gid: number;
  /** Supplementary groups and the gid, ascending. */
  readonly groups: readonly number[];
}

export interface Workload {
  /** In order. Those that deny come first: then also languages that know no order decide the same. */
  readonly rules: readonly Rule[];
  readonly peers: readonly Ids[];
}

/** How many peers ask in turn. */
export const PEERS = 1024;

/** Peers come by so many: they meet rules of the first tenth, of the middle one, of the last one; none. */
export const KINDS_OF_PEERS = 4;

/** Of the rules this part denies. */
const DENYING = 1 / 5;

/** Supplementary groups of a peer, beside the gid. */
const GROUPS = 6;

const KINDS = ["uid", "gid", "user", "group"] as const;

/** The same rules and peers each time. */
export function workload(count: number): Workload {
  const random = randomFrom(count);
  const below = (end: number) => Math.floor(random() * end);
  // Local accounts, and those that sssd numbers.
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
  const ofNobody = Array.from({ length: 4 * PEERS }, freshId);
  const stranger = () => ofNobody[below(ofNobody.length)]!;
  const tenth = count / 10;
  const peers = Array.from({ length: PEERS }, (_, index): Ids => {
    let [uid, gid] = [stranger(), stranger()];
    const groups = Array.from({ length: GROUPS }, stranger);
    const meet = ({ kind, id }: Rule): void => {
      if (kind === "uid" || kind === "user") uid = id;
      else if (kind === "gid" || random() < 0.5) gid = id; // a primary group is one, too
      else groups[0] = id;
    };
    const first = [0, (count - tenth) / 2, count - tenth][index % KINDS_OF_PEERS];
    if (first !== undefined) {
      const position = Math.floor(first) + below(tenth);
      if (random() < 0.25) meet(rules[position + below(count - position)]!); // a later one as well
      meet(rules[position]!);
    }
    return { uid, gid, groups: [...new Set([gid, ...groups])].sort((a, b) => a - b) };
  });
  return { rules, peers };
}

/** The first rule that a peer meets, by looking at one after the other. */
export function firstMet(rules: readonly Rule[], { uid, gid, groups }: Ids): Rule | undefined {
  return rules.find(({ kind, id }) => {
    if (kind === "group") return groups.includes(id);
    return id === (kind === "gid" ? gid : uid);
  });
}

/** mulberry32: numbers from 0 to 1 that are the same for the same seed. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
