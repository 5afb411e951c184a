/** Peers with facts that a test has chosen. */

import { INSPECT, type InspectArguments, inspectAs } from "../core/console.ts";
import { isId, NO_ID } from "../core/credentials.ts";
import { UcredError } from "../core/errors.ts";
import { type Fact, known, none, unknown, valueOf } from "../core/facts.ts";
import { type OptionNames, requireOptions } from "../core/options.ts";
import type {
  AmbiguousId,
  CredentialDrift,
  EndedProcess,
  LiveCredentials,
  Peer,
  PeerFacts,
  PeerJSON,
  PinKind,
} from "../core/peer.ts";
import { peerJSON } from "../core/peer_json.ts";
import type { ProcessFacts, ProcessJSON, ProcessSnapshot, ProcessValues } from "../core/process.ts";

/** The ids of a fake peer, which {@link FakePeer.change} changes. */
export interface FakeIds {
  /** Effective user id, 0 to 2³²−2. */
  readonly uid?: number | undefined;
  /** Effective group id, 0 to 2³²−2. */
  readonly gid?: number | undefined;
  /** Supplementary groups. The gid is added. */
  readonly groups?: readonly number[] | undefined;
}

/** Facts of a fake process. A missing fact is unknown, and `null` means that there is none. */
export type FakeProcess = {
  readonly [name in keyof ProcessValues]?: ProcessValues[name] | null | undefined;
};

/** Facts of a fake peer. A missing fact is unknown, and `null` means that there is none. */
export interface FakeFacts extends FakeIds {
  /** Effective user id, 0 to 2³²−2. */
  readonly uid: number;
  /** Process id. `null`: the process has none in our pid namespace. */
  readonly pid?: number | null | undefined;
  /** Security label. */
  readonly label?: string | null | undefined;
  /** Name of the account with this uid. */
  readonly user?: string | null | undefined;
  /** Gid → name. Other groups of the peer have no name. */
  readonly groupNames?: { readonly [gid: number]: string } | undefined;
  /** Facts of the process. */
  readonly process?: FakeProcess | undefined;
}

/** A peer of a test. Its facts have the source `test`. */
export interface FakePeer extends Peer {
  /** Ends the process: `alive` becomes `false`, and `signal` aborts at once. */
  end(): void;
  /**
   * Changes the current ids of the process, which `live()` and `drift()` read. The other ids stay the same.
   * The credentials as of connect do not change.
   *
   * @throws {RangeError} If an id is not an integer from 0 to 2³²−2.
   * @throws {TypeError} If there is another property.
   */
  change(ids: FakeIds): void;
}

const ID_NAMES: OptionNames<FakeIds> = { uid: true, gid: true, groups: true };

const FACT_NAMES: OptionNames<FakeFacts> = {
  ...ID_NAMES,
  pid: true,
  label: true,
  user: true,
  groupNames: true,
  process: true,
};

const PROCESS_NAMES: OptionNames<FakeProcess> = {
  exe: true,
  exeDeleted: true,
  exeSha256: true,
  comm: true,
  cmdline: true,
  startTime: true,
  cgroup: true,
  slice: true,
  unit: true,
  userUnit: true,
  container: true,
  userContainer: true,
  session: true,
  auditUid: true,
  auditSession: true,
  capabilities: true,
  noNewPrivs: true,
  seccomp: true,
  namespaces: true,
};

type ProcessName = keyof ProcessValues;

const PROCESS_FACTS = Object.keys(PROCESS_NAMES) as readonly ProcessName[];

/** Facts that plain data omits unless they were read before, as for a real process. */
const ONLY_IF_READ: ReadonlySet<ProcessName> = new Set(["exeSha256", "cmdline"]);

/**
 * Makes a peer for tests, without a socket and without a process. It is pinned, and every fact that is not
 * given is unknown, so that a policy that tests it denies.
 *
 * Without `gid`, the gid is unknown: it reads as 2³²−1 and is `ambiguous`, like that of a peer on a message
 * bus. `drift()` throws if `gid` or `groups` are not given.
 *
 * @param facts The facts. They are copied.
 * @throws {RangeError} If an id is not an integer from 0 to 2³²−2, or the pid is not positive.
 * @throws {TypeError} If a fact does not exist.
 *
 * @example A user whose process then ends
 * ```ts
 * import { fakePeer } from "ucred/testing";
 *
 * const peer = fakePeer({ uid: 1000, gid: 1000, groups: [27], process: { exe: "/usr/bin/curl" } });
 * console.log(peer.groups, peer.process.exe); // [ 27, 1000 ] /usr/bin/curl
 * console.log(peer.facts.user.state, peer.process.facts.unit.state); // unknown unknown
 * peer.end();
 * console.log(peer.alive, peer.process.facts.exe.state); // false unknown
 * ```
 */
export function fakePeer(facts: FakeFacts): FakePeer {
  requireOptions("fakePeer()", facts, FACT_NAMES);
  const { pid, uid, gid, groups, label, user, groupNames, process = {} } = facts;
  requireOptions("The process of fakePeer()", process, PROCESS_NAMES);
  if (!isId(uid)) throw notAnId("uid", uid);
  requireIds({ gid, groups });
  if (typeof pid === "number" && !(Number.isInteger(pid) && pid > 0 && pid < 2 ** 31)) {
    throw new RangeError(`pid must be an integer from 1 to 2147483647, not ${pid}`);
  }
  const ids = { uid, gid, groups: allGroups(groups, gid) };
  const copy = { pid, label, user, groupNames: groupNames && { ...groupNames } };
  return new TestPeer(copy, ids, new TestProcess(ids, { ...process }), true);
}

/**
 * Returns the peer of another connection of the same process.
 *
 * @throws {TypeError} If the peer does not come from {@link fakePeer}.
 */
export function peerOfConnection(peer: FakePeer, isPinned: boolean): Peer {
  if (TestPeer.isOne(peer)) return peer.connect(isPinned);
  throw new TypeError("asUser() requires a peer of fakePeer()");
}

/** The ids of a process, with its gid in the groups. `undefined`: not given. */
interface Ids {
  readonly uid: number;
  readonly gid: number | undefined;
  readonly groups: readonly number[] | undefined;
}

function requireIds({ uid, gid, groups }: FakeIds): void {
  if (uid !== undefined && !isId(uid)) throw notAnId("uid", uid);
  if (gid !== undefined && !isId(gid)) throw notAnId("gid", gid);
  if (groups !== undefined && !Array.isArray(groups)) {
    throw new TypeError("groups must be an array");
  }
  for (const group of groups ?? []) if (!isId(group)) throw notAnId("each group", group);
}

function notAnId(name: string, value: unknown): RangeError {
  return new RangeError(`${name} must be an integer from 0 to 4294967294, not ${String(value)}`);
}

function allGroups(
  groups: readonly number[] | undefined,
  gid: number | undefined,
): readonly number[] | undefined {
  if (groups === undefined) return undefined;
  const all = new Set(gid === undefined ? groups : [...groups, gid]);
  return Object.freeze([...all].sort((one, other) => one - other));
}

/** A process that exists only in a test. All peers of its connections share it. */
class TestProcess {
  static #count = 0;
  readonly values: FakeProcess;
  readonly key = `test-${++TestProcess.#count}`;
  isAlive = true;
  ids: Ids;
  /** Aborted when the process ends. */
  readonly watches = new Set<AbortController>();

  constructor(ids: Ids, values: FakeProcess) {
    this.ids = ids;
    this.values = values;
  }

  end(): void {
    this.isAlive = false;
    for (const watch of this.watches) watch.abort(gone());
    this.watches.clear();
  }

  change(ids: FakeIds): void {
    requireOptions("change()", ids, ID_NAMES);
    requireIds(ids);
    const { uid = this.ids.uid, gid = this.ids.gid, groups = this.ids.groups } = ids;
    // The list contains the gid. With another gid, the previous one is no longer a group of the process
    // unless the list is given.
    const others = ids.groups ??
      groups?.filter((group) => gid === this.ids.gid || group !== this.ids.gid);
    this.ids = { uid, gid, groups: allGroups(others, gid) };
  }
}

/** Facts that do not change. */
type FixedFacts = Pick<FakeFacts, "pid" | "label" | "user" | "groupNames">;

class TestPeer implements FakePeer {
  readonly pid: number | undefined;
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[] | undefined;
  readonly label: string | undefined;
  readonly user: string | undefined;
  readonly groupNames: readonly (string | null)[] | undefined;
  readonly ambiguous: readonly AmbiguousId[];
  readonly facts: PeerFacts;
  readonly pinned: PinKind | undefined;
  readonly #fixed: FixedFacts;
  readonly #ids: Ids;
  readonly #process: TestProcess;
  #watch: AbortController | undefined;
  #isClosed = false;

  static isOne(peer: unknown): peer is TestPeer {
    return typeof peer === "object" && peer !== null && #process in peer;
  }

  constructor(fixed: FixedFacts, ids: Ids, process: TestProcess, isPinned: boolean) {
    const { uid, gid, groups } = ids;
    const { groupNames: names } = fixed;
    this.#fixed = fixed;
    this.#ids = ids;
    this.#process = process;
    const groupsFact = factOf("groups", groups);
    this.facts = Object.freeze({
      pid: factOf("pid", fixed.pid),
      uid: known(uid, "test"),
      gid: factOf("gid", gid),
      groups: groupsFact,
      label: factOf("label", fixed.label),
      user: factOf("user", fixed.user),
      groupNames: groupsFact.state !== "known" || names === undefined
        ? unset("groupNames")
        : known(Object.freeze(groupsFact.value.map((group) => names[group] ?? null)), "test"),
      pinned: isPinned ? known<PinKind>("connect", "test") : none("test"),
      key: isPinned ? known(process.key, "test") : unknown(notPinned()),
    });
    this.pid = valueOf(this.facts.pid);
    this.uid = uid;
    this.gid = gid ?? NO_ID;
    this.groups = groups;
    this.label = valueOf(this.facts.label);
    this.user = valueOf(this.facts.user);
    this.groupNames = valueOf(this.facts.groupNames);
    this.ambiguous = Object.freeze(gid === undefined ? ["gid"] : []);
    this.pinned = valueOf(this.facts.pinned);
    Object.freeze(this);
  }

  /** Returns the peer of another connection of this process. */
  connect(isPinned: boolean): TestPeer {
    return new TestPeer(this.#fixed, this.#ids, this.#process, isPinned);
  }

  get process(): ProcessSnapshot {
    return snapshotOf(this.#process.values, this.#whyUnreadable());
  }

  get alive(): boolean | undefined {
    return this.#isOpen ? this.#process.isAlive : undefined;
  }

  get signal(): AbortSignal | undefined {
    if (this.#watch !== undefined) return this.#watch.signal;
    if (!this.#isOpen) return undefined;
    this.#watch = new AbortController();
    if (this.#process.isAlive) this.#process.watches.add(this.#watch);
    else this.#watch.abort(gone());
    return this.#watch.signal;
  }

  get key(): string | undefined {
    return valueOf(this.facts.key);
  }

  live(): LiveCredentials | EndedProcess {
    this.#requireOpen();
    if (!this.#process.isAlive) return { alive: false };
    const { uid, gid } = this.#process.ids;
    if (gid === undefined) throw unsetError("gid");
    const uids = { uid, ruid: uid, euid: uid, suid: uid, fsuid: uid };
    const gids = { gid, rgid: gid, egid: gid, sgid: gid, fsgid: gid };
    return { alive: true, ...uids, ...gids, ambiguous: [], source: "test" };
  }

  drift(): readonly CredentialDrift[] {
    this.#requireOpen();
    if (!this.#process.isAlive) return [{ fact: "alive", then: true, now: false }];
    const [then, now] = [this.#ids, this.#process.ids];
    if (then.gid === undefined || now.gid === undefined) throw unsetError("gid");
    if (then.groups === undefined || now.groups === undefined) throw unsetError("groups");
    const drift: CredentialDrift[] = [];
    if (then.uid !== now.uid) drift.push({ fact: "uid", then: then.uid, now: now.uid });
    if (then.gid !== now.gid) drift.push({ fact: "gid", then: then.gid, now: now.gid });
    if (then.groups.join() !== now.groups.join()) {
      drift.push({ fact: "groups", then: then.groups, now: now.groups });
    }
    return drift;
  }

  close(): void {
    this.#isClosed = true;
    if (this.#watch !== undefined) this.#process.watches.delete(this.#watch);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  end(): void {
    this.#process.end();
  }

  change(ids: FakeIds): void {
    this.#process.change(ids);
  }

  toJSON(): PeerJSON {
    return { ...peerJSON(this), source: "test" };
  }

  [INSPECT](...call: InspectArguments): string {
    return inspectAs("FakePeer", this.toJSON(), call);
  }

  get #isOpen(): boolean {
    return this.pinned !== undefined && !this.#isClosed;
  }

  #requireOpen(): void {
    if (this.pinned === undefined) throw notPinned();
    if (this.#isClosed) throw closed();
  }

  /** Returns why the facts of the process are unknown; `undefined` if they can be read. */
  #whyUnreadable(): UcredError | undefined {
    if (this.pinned === undefined) return notPinned();
    if (this.#isClosed) return closed();
    return this.#process.isAlive ? undefined : gone();
  }
}

function snapshotOf(values: FakeProcess, why: UcredError | undefined): ProcessSnapshot {
  const read = new Set<ProcessName>();
  const facts: { [name: string]: Fact<unknown> } = {};
  const snapshot: object = {};
  const get = (name: ProcessName): Fact<unknown> => {
    read.add(name);
    return why === undefined ? factOf<unknown>(name, values[name]) : unknown(why);
  };
  for (const name of PROCESS_FACTS) {
    Object.defineProperty(facts, name, { get: () => get(name), enumerable: true });
    Object.defineProperty(snapshot, name, { get: () => valueOf(get(name)), enumerable: true });
  }
  const toJSON = (): ProcessJSON => {
    const known: { [name: string]: unknown } = {};
    const reasons: { [name: string]: string } = {};
    for (const name of PROCESS_FACTS) {
      if (ONLY_IF_READ.has(name) && !read.has(name)) continue;
      const fact = get(name);
      if (fact.state === "known") known[name] = fact.value;
      if (fact.state === "unknown") reasons[name] = fact.reason.message;
    }
    return { ...known, ...(Object.keys(reasons).length > 0 && { unknown: reasons }) };
  };
  Object.defineProperties(snapshot, {
    facts: { value: Object.freeze(facts) as ProcessFacts },
    toJSON: { value: toJSON },
    [INSPECT]: { value: (...call: InspectArguments) => inspectAs("Process", toJSON(), call) },
  });
  return Object.freeze(snapshot) as ProcessSnapshot;
}

function factOf<T>(name: string, value: T | null | undefined): Fact<T> {
  if (value === undefined) return unset(name);
  return value === null ? none("test") : known(value, "test");
}

const unset = (name: string): Fact<never> => unknown(unsetError(name));

function unsetError(name: string): UcredError {
  const message = `Cannot read the peer's ${name}: the fake peer does not set it`;
  return new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint: `Pass ${name} to fakePeer()` });
}

function notPinned(): UcredError {
  const message = "Cannot read the peer's process: it is not pinned";
  const hint = "Pass pin: true to the server";
  return new UcredError("ERR_UCRED_NOT_PINNED", message, { hint });
}

function closed(): UcredError {
  const message = "Cannot read the peer's process: the peer was closed";
  const hint = "Read facts of the process before close()";
  return new UcredError("ERR_UCRED_NO_FD", message, { hint });
}

function gone(): UcredError {
  const message = "Cannot read the peer's process: the process has ended";
  const hint = "Decide by its credentials as of connect, or reject the peer";
  return new UcredError("ERR_UCRED_PEER_GONE", message, { hint });
}
