/** Records what each client of a guard does, for `ucred policy suggest`. */

import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  writeSync,
} from "node:fs";
import type { Peer } from "../core/peer.ts";
import { NAMESPACE_KINDS } from "../core/process.ts";
import { textOf } from "../core/text.ts";
import { fileError } from "../interop/file_error.ts";
import {
  headerOf,
  type LearnedRequest,
  readRecording,
  type RecordedCaller,
  type RecordedMode,
} from "../interop/recording.ts";
import { jsonLine } from "../servers/admission/audit.ts";
import { isTrusted } from "../system/trusted_owner.ts";

/** Maximum different requests, of all callers. Further ones are not recorded. */
const MAX_ENTRIES = 10_000;

/** Maximum different requests of one user, so that one user cannot fill the recording. */
const MAX_ENTRIES_PER_USER = 2000;

/** Maximum length of the attributes of one request, as JSON. Longer ones are not recorded. */
const MAX_ATTRIBUTES_CHARACTERS = 8192;

/** Maximum length of the file. Beyond it, nothing is recorded. */
const MAX_FILE_BYTES = 64 << 20;

/** A recorded request, and how often it was seen since the guard started. */
interface Seen {
  /** Its number, from 1. */
  readonly entry: number;
  count: number;
}

/**
 * Appends each new request to a file, and at the end how often each request was seen.
 * Requests of one caller with the same action and attributes are one entry.
 */
export class Recorder {
  readonly #file: string;
  readonly #report: (line: string) => void;
  readonly #seen = new Map<string, Seen>();
  readonly #entriesOf = new Map<number | undefined, number>();
  readonly #callers = new WeakMap<Peer, RecordedCaller>();
  #bytes: number;
  #hasFailed = false;

  /** @throws {UcredError} `ERR_UCRED_POLICY` if the file exists and is no recording of this mode. */
  constructor(file: string, mode: RecordedMode, report: (line: string) => void) {
    this.#file = file;
    this.#report = report;
    const bytes = existsSync(file) ? readOwn(file) : Buffer.alloc(0);
    if (bytes.length === 0) {
      this.#bytes = 0;
      const isWritten = this.#append(headerOf(mode));
      if (!isWritten) throw new Error(`Cannot write ${file}`);
      return;
    }
    const recording = readRecording(bytes, file);
    if (recording.mode !== mode) {
      throw new TypeError(`learn: ${file} is a recording of mode "${recording.mode}"`);
    }
    this.#bytes = recording.bytes;
    if (recording.bytes < bytes.length) this.#truncate(recording.bytes);
    for (
      const [index, { caller, action, attributes, about, allowed }] of recording.entries.entries()
    ) {
      const key = keyOf({ caller, action, attributes, about, allowed });
      this.#seen.set(key, { entry: index + 1, count: 0 });
      this.#countOf(caller.uid);
    }
  }

  /** Records a request. Never throws: the first failure is reported. */
  record(peer: Peer, request: LearnedRequest): void {
    try {
      this.#add(peer, request);
    } catch (error) {
      this.#fail(textOf(error)); // a recording must not change what happens to a request
    }
  }

  #add(peer: Peer, request: LearnedRequest): void {
    const { action, about, allowed } = request;
    let { attributes } = request;
    let caller = this.#callers.get(peer);
    if (caller === undefined) this.#callers.set(peer, caller = callerOf(peer));
    const isLong = attributes !== undefined &&
      JSON.stringify(attributes).length > MAX_ATTRIBUTES_CHARACTERS;
    if (isLong) attributes = undefined;
    const entry = { caller, action, attributes, about: isLong ? "long" as const : about, allowed };
    const key = keyOf(entry);
    const seen = this.#seen.get(key);
    if (seen !== undefined) return void seen.count++;
    if (this.#seen.size >= MAX_ENTRIES) {
      return this.#fail(`it has ${MAX_ENTRIES} different requests, which is the maximum`);
    }
    if ((this.#entriesOf.get(caller.uid) ?? 0) >= MAX_ENTRIES_PER_USER) {
      const whose = `of uid ${caller.uid ?? "?"}`;
      return this.#fail(
        `it has ${MAX_ENTRIES_PER_USER} different requests ${whose}, which is the maximum`,
      );
    }
    if (!this.#append({ time: new Date().toISOString(), ...entry })) return;
    this.#seen.set(key, { entry: this.#seen.size + 1, count: 0 });
    this.#countOf(caller.uid);
  }

  #countOf(uid: number | undefined): void {
    this.#entriesOf.set(uid, (this.#entriesOf.get(uid) ?? 0) + 1);
  }

  /** Appends how often the requests were seen. */
  close(): void {
    for (const seen of this.#seen.values()) {
      const { entry, count } = seen;
      if (count === 0) continue;
      if (!this.#append({ entry, count })) return;
      seen.count = 0;
    }
  }

  /** Appends a line. Returns whether it was written. */
  #append(record: object): boolean {
    const line = jsonLine(record);
    if (this.#bytes + line.length > MAX_FILE_BYTES) {
      this.#fail(`it has ${MAX_FILE_BYTES} bytes, which is the maximum`);
      return false;
    }
    // The file is opened for each line: a descriptor that is kept could be closed by other code.
    const { O_WRONLY, O_APPEND, O_CREAT } = constants;
    try {
      const fd = openOwn(this.#file, O_WRONLY | O_APPEND | O_CREAT);
      try {
        for (let done = 0; done < line.length;) done += writeSync(fd, line, done);
      } finally {
        closeSync(fd);
      }
    } catch (error) {
      this.#fail(textOf(error));
      return false;
    }
    this.#bytes += line.length;
    return true;
  }

  #truncate(bytes: number): void {
    const fd = openOwn(this.#file, constants.O_WRONLY);
    try {
      ftruncateSync(fd, bytes);
    } finally {
      closeSync(fd);
    }
  }

  #fail(why: string): void {
    if (this.#hasFailed) return;
    this.#hasFailed = true;
    this.#report(`requests are missing in the recording ${this.#file}: ${why}`);
  }
}

function readOwn(file: string): Buffer {
  const fd = openOwn(file, constants.O_RDONLY);
  try {
    return readFileSync(fd);
  } finally {
    closeSync(fd);
  }
}

/**
 * Opens a regular file that only root and our own user can write, and returns its descriptor. A FIFO does not
 * block the guard: O_NONBLOCK.
 */
function openOwn(file: string, flags: number): number {
  const fd = openSync(file, flags | constants.O_NOFOLLOW | constants.O_NONBLOCK, 0o600);
  try {
    const stats = fstatSync(fd);
    const refused = (why: string) => fileError("continue the recording", file, why, {});
    if (!stats.isFile()) throw refused("it is not a regular file");
    if (!isTrusted(stats.uid) || (stats.mode & 0o022) !== 0) {
      throw refused("other users may have written it");
    }
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** Returns a hash by which equal entries are found. */
function keyOf({ caller, action, attributes, about, allowed }: {
  readonly caller: RecordedCaller;
} & LearnedRequest): string {
  const sorted = attributes &&
    Object.entries(attributes).toSorted(([a], [b]) => a < b ? -1 : a > b ? 1 : 0);
  const { uid, gid, groups, unit, container, ours } = caller;
  const who = [uid, gid, groups, unit, container, ours];
  const text = JSON.stringify([who, action, sorted, about, allowed]);
  return createHash("sha256").update(text).digest("base64");
}

/** Returns the facts about a peer. Its process is read once for each connection. */
function callerOf(peer: Peer): RecordedCaller {
  const { uid, gid, groups, ambiguous } = peer;
  const { unit, container, namespaces } = peer.process.facts;
  const areGroupsKnown = groups !== undefined && !ambiguous.includes("groups");
  return {
    ...(!ambiguous.includes("uid") && { uid }),
    ...(!ambiguous.includes("gid") && { gid }),
    ...(areGroupsKnown && { groups: [...groups] }),
    ...(unit.state === "known" && { unit: unit.value }),
    ...(container.state === "known" && { container: container.value }),
    ...(namespaces.state === "known" &&
      { ours: NAMESPACE_KINDS.filter((kind) => namespaces.value[kind].ours) }),
  };
}
