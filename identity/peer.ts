/** The implementation of `Peer`, with facts that were captured and facts that are read on demand. */

import type { System } from "../adapters/select.ts";
import type { Credentials } from "../core/credentials.ts";
import { UcredError } from "../core/errors.ts";
import { type Fact, type FactSource, known, none, unknown, valueOf } from "../core/facts.ts";
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
import type { ProcessSnapshot } from "../core/process.ts";
import { groupName, userName } from "../system/accounts.ts";
import { signalOf } from "./process/exit_signal.ts";
import { withGid } from "./groups.ts";
import { INSPECT, type InspectArguments, inspectAs } from "../core/console.ts";
import { keyOf } from "./process/key.ts";
import { ambiguity, NEVER } from "../system/overflow_ids.ts";
import { Pin } from "./process/pidfd.ts";
import { type Pinned, readGroupsNow, snapshotOf } from "./process/snapshot.ts";

/** The facts that the kernel reports about a peer. */
export interface Capture {
  readonly credentials: Credentials;
  readonly groups: Fact<readonly number[]>;
  readonly label: Fact<string>;
  /** `undefined` if the caller did not request a pin. */
  readonly pinned: Pinned | undefined;
  /** Where the ids were read. */
  readonly source: FactSource;
  /** Why the source does not report the pid, which is then `undefined`. */
  readonly noPid?: UcredError | undefined;
  /** Why the source does not report the gid, which is then 2³²−1. */
  readonly noGid?: UcredError | undefined;
}

/**
 * Maximum number of group names that are looked up: a peer may have 65536 groups, at up to 40 µs
 * each.
 */
const MAX_GROUP_NAMES = 1024;

/** Closes pins of garbage-collected peers that were never closed. */
const forgotten = new FinalizationRegistry<Pin>((pin) => pin.release(true));

/** A peer with facts from the kernel. */
abstract class AnyPeer implements Peer {
  readonly pid: number | undefined;
  readonly uid: number;
  readonly gid: number;
  readonly ambiguous: readonly AmbiguousId[];
  readonly #system: System;
  readonly #capture: Capture;
  #facts: PeerFacts | undefined;
  #closed = false;

  constructor(system: System, capture: Capture) {
    const { credentials: { pid, uid, gid }, pinned } = capture;
    this.#system = system;
    this.#capture = capture;
    this.pid = pid;
    this.uid = uid;
    this.gid = gid;
    this.ambiguous = ambiguousIds(system, uid, gid, capture);
    if (pinned instanceof Pin) forgotten.register(this, pinned.retain(), this);
  }

  abstract get groups(): readonly number[] | undefined;
  abstract get label(): string | undefined;

  get facts(): PeerFacts {
    return this.#facts ??= factsOf(this.#system, this.#capture, this.ambiguous);
  }

  get user(): string | undefined {
    return valueOf(this.facts.user);
  }

  get groupNames(): readonly (string | null)[] | undefined {
    return valueOf(this.facts.groupNames);
  }

  get pinned(): PinKind | undefined {
    return valueOf(this.facts.pinned);
  }

  get process(): ProcessSnapshot {
    const { pinned = notPinned() } = this.#capture;
    return snapshotOf(
      pinned instanceof Pin && !this.#isOpen(pinned) ? pinned.whyClosed() : pinned,
      this,
    );
  }

  get alive(): boolean | undefined {
    const { pinned } = this.#capture;
    if (pinned instanceof Pin) {
      try {
        return this.#isOpen(pinned) ? pinned.isAlive() : undefined;
      } catch (error) {
        if (pinned.isStolen) return undefined;
        throw error;
      }
    }
    return pinned?.code === "ERR_UCRED_PEER_GONE" ? false : undefined;
  }

  get signal(): AbortSignal | undefined {
    const { pinned } = this.#capture;
    if (pinned instanceof Pin) {
      if (pinned.signal !== undefined) return pinned.signal;
      if (this.#isOpen(pinned)) return signalOf(pinned);
      return pinned.isStolen ? AbortSignal.abort(pinned.whyClosed()) : undefined;
    }
    return pinned?.code === "ERR_UCRED_PEER_GONE" ? AbortSignal.abort(pinned) : undefined;
  }

  get key(): string | undefined {
    return valueOf(this.facts.key);
  }

  live(): LiveCredentials | EndedProcess {
    const pin = this.#pin();
    if (pin === undefined || !pin.isAlive()) return ENDED;
    try {
      const { ids, source } = pin.readIds();
      const all = { uid: ids.euid, gid: ids.egid, ...ids };
      const ambiguous = ambiguousNames(this.#system, all);
      return Object.freeze({ alive: true, ...all, ambiguous, source });
    } catch (error) {
      if (error instanceof UcredError && error.code === "ERR_UCRED_PEER_GONE") return ENDED;
      throw error;
    }
  }

  drift(): readonly CredentialDrift[] {
    const pin = this.#pin();
    if (pin === undefined || !pin.isAlive()) return ENDED_DRIFT;
    const { groups: then, noGid } = this.#capture;
    if (noGid !== undefined) throw noGid;
    if (this.ambiguous.length > 0) throw unmapped("the peer's ids");
    if (then.state === "unknown") throw then.reason;
    try {
      const ids = this.live();
      if (!ids.alive) return ENDED_DRIFT;
      const groups = withGid(readGroupsNow(pin), ids.gid);
      const groupsNow = known(groups, "kernel@now");
      if (ambiguousIds(this.#system, ids.uid, ids.gid, { groups: groupsNow }).length > 0) {
        throw unmapped("the peer's current ids");
      }
      const drift: CredentialDrift[] = [];
      if (ids.uid !== this.uid) drift.push({ fact: "uid", then: this.uid, now: ids.uid });
      if (ids.gid !== this.gid) drift.push({ fact: "gid", then: this.gid, now: ids.gid });
      const before = valueOf(then) ?? [];
      if (groups.length !== before.length || groups.some((group, at) => group !== before[at])) {
        drift.push({ fact: "groups", then: before, now: groups });
      }
      return drift;
    } catch (error) {
      if (error instanceof UcredError && error.code === "ERR_UCRED_PEER_GONE") return ENDED_DRIFT;
      throw error;
    }
  }

  close(): void {
    const { pinned } = this.#capture;
    if (this.#closed || !(pinned instanceof Pin)) return;
    this.#closed = true;
    forgotten.unregister(this);
    pinned.release();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  toJSON(): PeerJSON {
    return peerJSON(this);
  }

  [INSPECT](...call: InspectArguments): string {
    return inspectAs("Peer", this.toJSON(), call);
  }

  #isOpen(pin: Pin): boolean {
    return !this.#closed && !pin.closed;
  }

  /** Returns the pin; `undefined` if the process had ended before it could be pinned. */
  #pin(): Pin | undefined {
    const { pinned } = this.#capture;
    if (pinned instanceof Pin) {
      if (this.#isOpen(pinned)) return pinned;
      throw pinned.whyClosed();
    }
    const reason = pinned ?? notPinned();
    if (reason.code === "ERR_UCRED_PEER_GONE") return undefined;
    throw reason;
  }
}

/** A peer that was identified with all facts from the kernel. */
export class CapturedPeer extends AnyPeer {
  override readonly groups: readonly number[] | undefined;
  override readonly label: string | undefined;

  constructor(system: System, capture: Capture) {
    super(system, capture);
    this.groups = valueOf(capture.groups);
    this.label = valueOf(capture.label);
    Object.freeze(this);
  }
}

/** A capture whose groups and label are read when they are first requested. */
export interface CaptureOnDemand extends Capture {
  /** Stops reading facts. Facts that were not read are unknown from then on. */
  end(): void;
}

/** A peer whose groups and label are read on demand. */
export class AcceptedPeer extends AnyPeer {
  readonly #capture: CaptureOnDemand;

  constructor(system: System, capture: CaptureOnDemand) {
    super(system, capture);
    this.#capture = capture;
    Object.freeze(this);
  }

  /** Stops reading a peer's facts on demand, so that the peer no longer refers to its connection. */
  static endReading(peer: Peer): void {
    if (#capture in peer) peer.#capture.end();
  }

  get groups(): readonly number[] | undefined {
    return valueOf(this.#capture.groups);
  }

  get label(): string | undefined {
    return valueOf(this.#capture.label);
  }
}

const ENDED: EndedProcess = Object.freeze({ alive: false });
const ENDED_DRIFT: readonly CredentialDrift[] = Object.freeze([
  Object.freeze({ fact: "alive", then: true, now: false }),
]);

/** The name of an id in {@link LiveCredentials}. */
type IdName = LiveCredentials["ambiguous"][number];

/** Returns the names of ids that are ambiguous. */
function ambiguousNames(
  system: System,
  ids: { readonly [name in IdName]: number },
): readonly IdName[] {
  const names = Object.keys(ids) as IdName[];
  const [isUid, isGid] = [ambiguity(system, "uid"), ambiguity(system, "gid")];
  const isUnsure = (name: IdName) => (name.endsWith("uid") ? isUid : isGid)(ids[name]);
  return Object.freeze(names.filter(isUnsure));
}

const NONE: readonly AmbiguousId[] = Object.freeze([]);

function ambiguousIds(
  system: System,
  uid: number,
  gid: number,
  capture: Pick<Capture, "groups" | "noGid">,
): readonly AmbiguousId[] {
  const ambiguous: AmbiguousId[] = [];
  if (ambiguity(system, "uid")(uid)) ambiguous.push("uid");
  const isGid = ambiguity(system, "gid");
  if (isGid(gid) || capture.noGid !== undefined) ambiguous.push("gid");
  // The groups may be read on demand: they are read here only where one of them can be ambiguous.
  if (isGid !== NEVER && valueOf(capture.groups)?.some(isGid)) ambiguous.push("groups");
  return ambiguous.length === 0 ? NONE : Object.freeze(ambiguous);
}

function factsOf(system: System, capture: Capture, ambiguous: readonly AmbiguousId[]): PeerFacts {
  const { credentials: { pid, uid, gid }, pinned, source, noPid, noGid } = capture;
  let user: Fact<string> | undefined;
  let groupNames: PeerFacts["groupNames"] | undefined;
  let key: Fact<string> | undefined;
  return Object.freeze({
    pid: noPid ? unknown(noPid) : pid === undefined ? none(source) : known(pid, source),
    uid: ambiguous.includes("uid") ? unknown(unmapped(`uid ${uid}`)) : known(uid, source),
    gid: ambiguous.includes("gid") ? unknown(noGid ?? unmapped(`gid ${gid}`)) : known(gid, source),
    get groups() {
      return ambiguous.includes("groups") ? unknown(unmapped("some groups")) : capture.groups;
    },
    get label() {
      return capture.label;
    },
    get user() {
      return user ??= ambiguous.includes("uid")
        ? unknown(unmapped(`uid ${uid}`))
        : userName(system, uid);
    },
    get groupNames() {
      return groupNames ??= namesOf(system, capture.groups);
    },
    pinned: pinned === undefined
      ? none(source)
      : pinned instanceof Pin
      ? known(pinned.kind, pinned.kind === "connect" ? source : "kernel@now")
      : unknown(pinned),
    get key() {
      if (key?.state !== "known") key = keyOf(pinned ?? notPinned()); // the reason for a failure may be temporary
      return key;
    },
  });
}

/** Looks up group names. An ambiguous gid gets no name, since it may stand for another group. */
function namesOf(system: System, groups: Fact<readonly number[]>): PeerFacts["groupNames"] {
  if (groups.state !== "known") return groups;
  if (groups.value.length > MAX_GROUP_NAMES) {
    const message = `Cannot look up group names: more than ${MAX_GROUP_NAMES} groups`;
    const hint = "Decide by the numbers in groups, which are complete";
    return unknown(new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint }));
  }
  const names: (string | null)[] = [];
  const isGid = ambiguity(system, "gid");
  for (const gid of groups.value) {
    const name = isGid(gid) ? undefined : groupName(system, gid);
    if (name?.state === "unknown") return name;
    names.push(name?.state === "known" ? name.value : null);
  }
  return known(Object.freeze(names), "accounts@now");
}

function unmapped(what: string): UcredError {
  const message =
    `Cannot determine ${what}: all ids outside our user namespace read as the overflow id`;
  const hint = "Run the server outside the container, or map the peer's id into it";
  return new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint });
}

function notPinned(): UcredError {
  const message = "Cannot read the peer's process: it is not pinned";
  const hint = "Call identify(socket, { pin: true }) in the accept handler";
  return new UcredError("ERR_UCRED_NOT_PINNED", message, { hint });
}
