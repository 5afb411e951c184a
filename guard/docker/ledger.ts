/**
 * The file of `--state`: which user owns which container and exec, across restarts of the guard.
 *
 * Each line is one JSON object. Lines are appended in one write each, so that a guard that is killed leaves at
 * most one incomplete line, the last one. The file is rewritten beside itself and renamed.
 */

import { Buffer } from "node:buffer";
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readFileSync,
  renameSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { dirname, resolve } from "node:path";
import { isId } from "../../core/credentials.ts";
import { unsafeFileReason } from "../../core/ownership.ts";
import { isObject } from "../../core/policy/document/shape.ts";
import { textOf } from "../../core/text.ts";
import { fileError } from "../../interop/file_error.ts";
import { tryLock } from "../../system/file_lock.ts";
import { KeptFile } from "../../system/kept_file.ts";
import { ownershipOf, pathSteps } from "../../system/path_owners.ts";
import { hasOwnGroupOnly, isTrusted } from "../../system/trusted_owner.ts";
import { BoundedMap } from "./bounded_map.ts";
import { isFullId } from "./full_id.ts";

/** An exec instance in the file. */
export interface OwnedExec {
  /** The full id of its container. */
  readonly container: string;
  /** The uid of the user that has prepared the exec. */
  readonly uid: number;
}

/** Maximum obsolete lines, such as those of removed containers. With more, the file is rewritten. */
const MAX_STALE_LINES = 10_000;

/** Maximum length of a file that is read. */
const MAX_FILE_BYTES = 64 << 20;

const HEADER = `${JSON.stringify({ state: 1 })}\n`;
const { O_WRONLY, O_RDONLY, O_APPEND, O_CREAT, O_EXCL, O_NOFOLLOW, O_NONBLOCK } = constants;

/** The owners of containers and execs, in memory and in a file. */
export class Ledger {
  readonly containers = new BoundedMap<number>();
  readonly execs = new BoundedMap<OwnedExec>();
  readonly #path: string;
  readonly #report: (line: string) => void;
  readonly #lock: KeptFile;
  #lines = 0;
  #bytes = 0;
  #isBroken = false;

  /**
   * Opens the file, or creates it.
   *
   * @throws {UcredError} `ERR_UCRED_POLICY` with file and line if it cannot be read or trusted, or if another
   * guard uses it.
   */
  constructor(file: string, report: (line: string) => void) {
    this.#path = resolve(file);
    this.#report = report;
    this.#requireSafeFolder();
    this.#lock = lockOf(`${this.#path}.lock`, (why) => this.#error(why));
    try {
      if (existsSync(this.#path)) this.#read();
      this.#rewrite();
    } catch (error) {
      this.#lock.close();
      throw error;
    }
  }

  /** The number of entries. */
  get size(): number {
    return this.containers.size + this.execs.size;
  }

  /** Adds a container that a user has created. */
  addContainer(id: string, uid: number): void {
    this.containers.set(id, uid);
    this.#append({ container: id, uid });
  }

  /** Adds an exec that a user has prepared. */
  addExec(id: string, exec: OwnedExec): void {
    this.execs.set(id, exec);
    this.#append({ exec: id, ...exec });
  }

  /** Removes a container and its execs. */
  remove(container: string): void {
    if (this.containers.get(container) === undefined) return;
    this.#forget(container);
    this.#append({ removed: container });
  }

  /** Stops writing, and releases the lock. */
  close(): void {
    this.#isBroken = true;
    this.#lock.close();
  }

  #forget(container: string): void {
    this.containers.delete(container);
    for (const [id, exec] of this.execs.entries()) {
      if (exec.container === container) this.execs.delete(id);
    }
  }

  #error(why: string, line?: number) {
    const hint = "Restore the file, or move it away: existing execs then have no owner";
    return fileError("use the state of the guard", this.#path, why, { line }, hint);
  }

  /** Requires that only root and our own user can replace the file. */
  #requireSafeFolder(): void {
    const folder = dirname(this.#path);
    try {
      for (const { path, file } of pathSteps(folder)) {
        if (!file.isDirectory()) continue; // a link is only as safe as its folder, which is checked
        const entry = ownershipOf(file);
        const why = unsafeFileReason(entry, isTrusted, () => hasOwnGroupOnly(path, entry));
        if (why !== undefined) throw this.#error(`its folder ${path} ${why}`);
      }
    } catch (error) {
      throw error instanceof Error && "syscall" in error && !("hint" in error)
        ? this.#error(textOf(error))
        : error;
    }
  }

  #read(): void {
    let bytes: Uint8Array;
    try {
      const fd = openSync(this.#path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
      try {
        const file = fstatSync(fd);
        if (!file.isFile()) throw this.#error("it is not a regular file");
        if (!isTrusted(file.uid)) throw this.#error(`it belongs to uid ${file.uid}`);
        if ((file.mode & 0o077) !== 0) throw this.#error("other users may read or write it");
        if (file.size > MAX_FILE_BYTES) throw this.#error(`it has ${file.size} bytes`);
        bytes = readFileSync(fd);
      } finally {
        closeSync(fd);
      }
    } catch (error) {
      throw error instanceof Error && "hint" in error ? error : this.#error(textOf(error));
    }
    const end = bytes.lastIndexOf(10) + 1;
    if (end < bytes.length) {
      this.#report(`${this.#path}: its last line is incomplete, and is removed`);
    }
    let text: string;
    try {
      text = new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(0, end));
    } catch {
      throw this.#error("it is not in UTF-8");
    }
    for (const [index, line] of text.split("\n").slice(0, -1).entries()) {
      if (index === 0 && `${line}\n` === HEADER) continue;
      if (index === 0) throw this.#error("it is not a state of a guard", 1);
      const problem = this.#take(line);
      if (problem !== undefined) throw this.#error(problem, index + 1);
    }
    // A file is renamed only after its header was written, so the guard has not written an empty one.
    if (end === 0) throw this.#error("it is empty", 1);
  }

  /** Adds the entry of a line. Returns the problem if the line is wrong. */
  #take(line: string): string | undefined {
    let record: unknown;
    try {
      record = JSON.parse(line);
    } catch {
      return "it is not JSON";
    }
    if (!isObject(record)) return "it is not a JSON object";
    const { container, exec, removed, uid } = record;
    const names = Object.keys(record).toSorted().join();
    if (names === "removed" && isFullId(removed)) {
      this.#forget(removed);
      return undefined;
    }
    if (!isFullId(container) || typeof uid !== "number" || !isId(uid)) {
      return "it has no full id of a container and uid";
    }
    if (names === "container,uid") {
      const known = this.containers.get(container);
      if (known !== undefined && known !== uid) return "the container has two owners";
      this.containers.set(container, uid);
      return undefined;
    }
    if (names === "container,exec,uid" && isFullId(exec)) {
      if (this.execs.get(exec) !== undefined) return "the exec has two owners";
      this.execs.set(exec, { container, uid });
      return undefined;
    }
    return "it has unknown fields";
  }

  /** Writes a new file with all entries, and replaces the old one. */
  #rewrite(): void {
    const lines = [
      HEADER,
      ...[...this.containers.entries()].map(([container, uid]) => lineOf({ container, uid })),
      ...[...this.execs.entries()].map(([exec, of]) => lineOf({ exec, ...of })),
    ];
    const bytes = Buffer.from(lines.join(""));
    const next = `${this.#path}.new`;
    try {
      if (existsSync(next)) unlinkSync(next); // of a guard that was killed; we have the lock
      const fd = openSync(next, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
      try {
        for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done);
        fsyncSync(fd);
      } finally {
        closeSync(fd);
      }
      renameSync(next, this.#path);
      const folder = openSync(dirname(this.#path), O_RDONLY);
      try {
        fsyncSync(folder);
      } finally {
        closeSync(folder);
      }
    } catch (error) {
      throw this.#error(textOf(error));
    }
    this.#lines = lines.length;
    this.#bytes = bytes.length;
  }

  /** Appends a line. If that fails, reports the reason once; entries then stay only in memory. */
  #append(record: object): void {
    if (this.#isBroken) return;
    const bytes = Buffer.from(lineOf(record));
    try {
      if (this.#lines > this.size + MAX_STALE_LINES) return this.#rewrite();
      // The file is opened for each line: a descriptor that is kept could be closed by other code.
      const fd = openSync(this.#path, O_WRONLY | O_APPEND | O_NOFOLLOW);
      try {
        const written = writeSync(fd, bytes);
        if (written !== bytes.length) {
          ftruncateSync(fd, this.#bytes);
          throw new Error("the file system is full");
        }
      } finally {
        closeSync(fd);
      }
      this.#lines++;
      this.#bytes += bytes.length;
    } catch (error) {
      this.#isBroken = true;
      const what = "new owners are not saved, until the guard is restarted";
      this.#report(`${this.#path}: ${what}: ${textOf(error)}`);
    }
  }
}

const lineOf = (record: object): string => `${JSON.stringify(record)}\n`;

/** Locks a file beside the state, because the state itself is replaced. */
function lockOf(path: string, error: (why: string) => Error): KeptFile {
  let file: KeptFile;
  try {
    file = new KeptFile(openSync(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o600));
  } catch (cause) {
    throw error(textOf(cause));
  }
  if (tryLock(file.fd)) return file;
  file.close();
  throw error("another guard uses it");
}
