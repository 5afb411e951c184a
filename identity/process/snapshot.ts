/**
 * Reads facts about a pinned process on demand. After each read, the process is checked to be the pinned
 * one.
 */

import { nodeCrypto } from "../../adapters/builtins.ts";
import { type CgroupPlace, placeOf } from "../../core/cgroup.ts";
import { UcredError } from "../../core/errors.ts";
import { type Fact, known, none, unknown, valueOf } from "../../core/facts.ts";
import {
  type Namespace,
  NAMESPACE_KINDS,
  type Namespaces,
  type ProcessFacts,
  type ProcessJSON,
  type ProcessSnapshot,
  type ProcessValues,
} from "../../core/process.ts";
import {
  type CgroupPaths,
  parseAuditId,
  parseCapabilities,
  parseCgroup,
  parseCmdline,
  parseExe,
  parseGroups,
  parseNamespace,
  parseNoNewPrivs,
  parseSeccomp,
  parseStartTime,
  parseStatus,
} from "../../ffi/proc.ts";
import { OwnedDescriptor } from "../../system/owned_descriptor.ts";
import { syscallError, unexpectedAnswer } from "../../system/syscall_error.ts";
import { openFile, readLink } from "../../system/proc_files.ts";
import { INSPECT, type InspectArguments, inspectAs } from "../../core/console.ts";
import { mapsEvery } from "../../system/overflow_ids.ts";
import type { Pin } from "./pidfd.ts";

/** Maximum size of an executable that is hashed. */
const MAX_EXE_BYTES = 512 << 20;

/** The source of facts: a pin, or the reason why there is none. */
export type Pinned = Pin | UcredError;

type Name = keyof ProcessValues;

/** Sources that several facts share; each is read once. */
interface Sources {
  readonly exe: { readonly path: string; readonly deleted: boolean };
  readonly status: ReadonlyMap<string, string>;
  readonly cgroup: CgroupPaths;
  readonly place: CgroupPlace;
}

/** The source of one snapshot. */
class Reader {
  readonly pin: Pin;
  /** The peer that owns the pin; the reference keeps it from being collected. */
  readonly holder: object;
  readonly #sources = new Map<keyof Sources, unknown>();

  constructor(pin: Pin, holder: object) {
    this.pin = pin;
    this.holder = holder;
  }

  get<K extends keyof Sources>(name: K): Sources[K] {
    if (!this.#sources.has(name)) this.#sources.set(name, SOURCES[name](this));
    return this.#sources.get(name) as Sources[K];
  }
}

const SOURCES: { readonly [K in keyof Sources]: (from: Reader) => Sources[K] } = {
  exe: ({ pin }) => parseExe(pin.readLink("exe", "read the peer's executable")),
  status: ({ pin }) => parseStatus(pin.read("status", "read the peer's status")),
  cgroup: ({ pin }) => {
    const what = "read the peer's control group";
    return requireParsed(parseCgroup(pin.readRunning("cgroup", what)), what);
  },
  place: (from) => {
    const { system, calls } = from.pin;
    const path = from.get("cgroup"); // without /proc this throws
    // In another namespace paths are relative to it, and a container's root chooses the names.
    const namespace = readLink(system, calls, "/proc/self/ns/cgroup");
    if (typeof namespace === "number") {
      throw syscallError(system, "read our cgroup namespace", "readlink", -namespace);
    }
    const place = namespace === INITIAL_CGROUP_NAMESPACE ? inCgroups(path) : undefined;
    if (place !== undefined) return place;
    const message = "Cannot determine the peer's unit: we are not in the host's cgroup namespace";
    const hint = "Run the server in the host's cgroup namespace";
    throw new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint });
  },
};

/** PROC_CGROUP_INIT_INO, <linux/proc_ns.h> */
const INITIAL_CGROUP_NAMESPACE = "cgroup:[4026531835]";

/** Reads each fact: its value, `null` if it is known to be none, or an error. */
const READERS: { readonly [N in Name]: (from: Reader) => ProcessValues[N] | null } = {
  exe: (from) => from.get("exe").path,
  exeDeleted: (from) => from.get("exe").deleted,
  exeSha256: hashExe,
  comm: ({ pin }) => pin.read("comm", "read the peer's name").replace(/\n$/, ""),
  cmdline: ({ pin }) => {
    const text = pin.readRunning("cmdline", "read the peer's arguments");
    return text === "" ? null : parseCmdline(text);
  },
  startTime: ({ pin }) => readStartTime(pin),
  cgroup: (from) => from.get("cgroup").path,
  slice: (from) => from.get("place").slice,
  unit: (from) => from.get("place").unit,
  userUnit: (from) => from.get("place").userUnit,
  container: (from) => requireKnown(from.get("place").container),
  userContainer: (from) => requireKnown(from.get("place").userContainer),
  session: (from) => from.get("place").session,
  auditUid: ({ pin }) => auditId(pin, "loginuid", "read the peer's audit uid"),
  auditSession: ({ pin }) => auditId(pin, "sessionid", "read the peer's audit session"),
  capabilities: (from) =>
    requireParsed(parseCapabilities(from.get("status")), "read the peer's capabilities"),
  noNewPrivs: (from) => requireParsed(parseNoNewPrivs(from.get("status")), "read no_new_privs"),
  seccomp: (from) => requireParsed(parseSeccomp(from.get("status")), "read the seccomp mode"),
  namespaces: readNamespaces,
};

/**
 * Facts that plain data omits unless they were read before. The first reads a whole file, and the
 * second may hold secrets.
 */
const ONLY_IF_READ: ReadonlySet<Name> = new Set(["exeSha256", "cmdline"]);

const NAMES = Object.keys(READERS) as readonly Name[];

function requireParsed<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw unexpectedAnswer(what, "read", "unexpected data");
  return value;
}

function auditId(pin: Pin, file: string, what: string): number | null {
  const id = requireParsed(parseAuditId(pin.read(file, what)), what);
  if (id !== null || file !== "loginuid" || mapsEvery(pin.system, "uid")) return id;
  const message = `Cannot ${what}: our user namespace may not map the login uid`;
  const hint = "Run the server outside the container";
  throw new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint });
}

const inCgroups = ({ path, others }: CgroupPaths) => placeOf(path, others);

function requireKnown(container: string | null | undefined): string | null {
  if (container !== undefined) return container;
  const message =
    "Cannot determine whether the peer is in a container: its control groups do not show it";
  const hint = "Decide by the unit, the control group or sameNamespaces";
  throw new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint });
}

/** Reads the current supplementary groups. */
export function readGroupsNow(pin: Pin): readonly number[] {
  const what = "read the peer's current groups";
  return requireParsed(parseGroups(parseStatus(pin.read("status", what))), what);
}

/** Reads the time from boot to the process's start, in ms. */
export function readStartTime(pin: Pin): number {
  const what = "read the peer's start time";
  return requireParsed(parseStartTime(pin.read("stat", what)), what);
}

function readNamespaces({ pin }: Reader): Namespaces {
  const { system, calls } = pin;
  const what = "read the peer's namespaces";
  const found = pin.verified(what, "readlink", (folder) => {
    const namespaces: { [kind: string]: Namespace } = {};
    for (const kind of NAMESPACE_KINDS) {
      const theirs = readLink(system, calls, `${folder}ns/${kind}`);
      if (typeof theirs === "number") return theirs;
      const ours = readLink(system, calls, `/proc/self/ns/${kind}`);
      if (typeof ours === "number") return ours;
      const id = requireParsed(parseNamespace(theirs), what);
      namespaces[kind] = Object.freeze({ id, ours: theirs === ours });
    }
    return Object.freeze(namespaces);
  });
  return found as Namespaces;
}

/** Hashes the file that is running, even after its path was replaced. */
function hashExe({ pin }: Reader): string {
  const { system, calls } = pin;
  const what = "read the peer's executable";
  let file: OwnedDescriptor | undefined;
  try {
    pin.verified(what, "open", (folder) => {
      const fd = openFile(system, calls, `${folder}exe`);
      if (fd < 0) return fd;
      file = new OwnedDescriptor(system, calls, fd, what);
      return undefined;
    });
    const { createHash } = nodeCrypto();
    const hash = createHash("sha256");
    const chunk = system.libc.memory(1 << 18);
    for (let total = 0;;) {
      const length = calls.read(file!.use(what), chunk);
      if (length < 0) throw syscallError(system, what, "read", -length);
      if (length === 0) {
        file!.use(what); // proves that this file was read
        return hash.digest("hex");
      }
      if ((total += length) > MAX_EXE_BYTES) {
        const hint = "Decide by another fact: no executable of this size is hashed";
        const message = `Cannot ${what}: it is longer than ${MAX_EXE_BYTES} bytes`;
        throw new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint });
      }
      hash.update(chunk.bytes.subarray(0, length));
    }
  } finally {
    file?.close();
  }
}

/**
 * Creates a snapshot that has read nothing yet.
 *
 * @param holder The peer, which must not be collected before its snapshot.
 */
export function snapshotOf(pinned: Pinned, holder: object): ProcessSnapshot {
  return new Snapshot(pinned, holder) as Snapshot & ProcessSnapshot;
}

/** The implementation of {@link ProcessSnapshot}. */
class Snapshot {
  // A getter for each fact, defined once for all snapshots: defining own properties took five times
  // as long as a readlink.
  static {
    for (const name of NAMES) {
      Object.defineProperty(this.prototype, name, {
        get(this: Snapshot) {
          return valueOf(this.#fact(name));
        },
      });
    }
  }

  readonly #from: Reader | UcredError;
  readonly #read = new Map<Name, Fact<unknown>>();
  #facts: ProcessFacts | undefined;

  constructor(pinned: Pinned, holder: object) {
    this.#from = pinned instanceof UcredError ? pinned : new Reader(pinned, holder);
    Object.freeze(this);
  }

  get facts(): ProcessFacts {
    const getters = NAMES.map((name) => [name, { get: () => this.#fact(name), enumerable: true }]);
    return this.#facts ??= Object.freeze(Object.create(null, Object.fromEntries(getters)));
  }

  /** Reads a fact once. */
  #fact(name: Name): Fact<unknown> {
    let fact = this.#read.get(name);
    if (fact === undefined) this.#read.set(name, fact = readFact(this.#from, name));
    return fact;
  }

  toJSON(): ProcessJSON {
    const json: { [name: string]: unknown } = {};
    const reasons: { [name: string]: string } = {};
    for (const name of NAMES) {
      if (ONLY_IF_READ.has(name) && !this.#read.has(name)) continue;
      const fact = this.#fact(name);
      if (fact.state === "known") json[name] = fact.value;
      if (fact.state === "unknown") reasons[name] = fact.reason.message;
    }
    return { ...json, ...(Object.keys(reasons).length > 0 && { unknown: reasons }) };
  }

  [INSPECT](...call: InspectArguments): string {
    return inspectAs("Process", this.toJSON(), call);
  }
}

function readFact(from: Reader | UcredError, name: Name): Fact<unknown> {
  if (from instanceof UcredError) return unknown(from);
  try {
    const value = READERS[name](from);
    return value === null ? none("procfs@now") : known(value, "procfs@now");
  } catch (error) {
    if (error instanceof UcredError) return unknown(error);
    throw error;
  }
}
