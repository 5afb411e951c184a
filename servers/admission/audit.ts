/**
 * Audit log: writes events as JSON lines to a file or stderr, escaped so that clients cannot forge records,
 * and without blocking the server.
 */

import { Buffer } from "node:buffer";
import { closeSync, constants, fstatSync, openSync, readSync, write } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { type OptionNames, requireOptions } from "../../core/options.ts";
import type { Peer } from "../../core/peer.ts";
import { textOf } from "../../core/text.ts";
import { KeptFile } from "../../system/kept_file.ts";
import type { ServerEvent } from "./events.ts";

/** Options of {@link auditLog}. */
export interface AuditOptions {
  /** The file or FIFO to append to, created with mode `0o600`. By default stderr. */
  readonly file?: string | undefined;
  /** Whether to omit events of allowed connections and actions. By default `false`. */
  readonly onlyDenied?: boolean | undefined;
  /**
   * Maximum bytes that may wait to be written. Beyond it, lines are dropped and counted; beyond half of it,
   * only lines of allowed actions are kept. By default 1 MiB.
   */
  readonly maxWaiting?: number | undefined;
}

const AUDIT_OPTIONS: OptionNames<AuditOptions> = { file: true, onlyDenied: true, maxWaiting: true };

/** An audit log. Several servers may share one. */
export interface AuditLog {
  /** Lines that were dropped because the disk is full or too slow. */
  readonly dropped: number;
  /** The error of the last write or `reopen()`; `undefined` if it succeeded. */
  readonly error: Error | undefined;
  /** Writes an event. Called by servers. Never throws and never blocks. */
  write(event: ServerEvent): void;
  /** Reopens the file after log rotation has renamed it. Call it on SIGHUP. */
  reopen(): void;
  /**
   * Returns a promise that resolves once fewer lines of a user wait to be written, or once the log has
   * stalled; `undefined` if few lines wait. HTTP servers delay the requests of that user meanwhile, so that
   * one user cannot fill the log.
   */
  drained?(uid: number | undefined): Promise<void> | undefined;
  /** Writes the waiting lines, for at most two seconds, and closes the file. */
  close(): Promise<void>;
}

/**
 * Creates an audit log, which writes each event as one line of JSON.
 *
 * Text from clients is escaped: each event is exactly one line of printable characters. Writing never
 * blocks the server. Lines are dropped if more than `maxWaiting` bytes wait, or if writing fails. The next
 * line that is written reports how many were dropped, by user. Half of `maxWaiting` is reserved for allowed
 * actions, so that a flood of denied requests does not displace them.
 *
 * @throws {Error} If the file cannot be opened.
 * @throws {RangeError} If an option is out of range.
 * @throws {TypeError} If an option is unknown.
 *
 * @example Log to a file
 * ```ts
 * import { auditLog } from "ucred/audit";
 * import { createServer } from "ucred/net";
 *
 * const audit = auditLog({ file: "audit.log" });
 * const server = createServer({ audit }, (socket) => void socket.end("welcome\n"));
 * server.listen("app.sock");
 * ```
 */
export function auditLog(options: AuditOptions = {}): AuditLog {
  requireOptions("auditLog()", options, AUDIT_OPTIONS);
  return new JsonLines(options);
}

/** An open file, and the lines that wait to be written to it. */
interface Sink {
  file: KeptFile;
  lines: Line[];
  /** Whether the file may end in a partial line: the last write failed, or the file did so when it was opened. */
  isTorn: boolean;
  /** Maximum bytes of one write. */
  readonly maxWriteBytes: number;
}

interface Line {
  readonly bytes: Uint8Array;
  readonly uid: number | undefined;
  /** The dropped lines that this line reports, if it is a "dropped" record. */
  readonly missing?: Missing;
}

/** Number of dropped lines by uid; `undefined` stands for an unknown user. */
type Missing = Map<number | undefined, number>;

/** Maximum users that are counted separately; further users are counted together. */
const MAX_USERS = 256;

/** How long `drained()` delays requests while nothing can be written. */
const STALLED_MS = 1000;

/** How long to wait before the next write to a full pipe. */
const RETRY_MS = 20;

/** How long `close()` waits for the waiting lines to be written. */
const CLOSE_TIMEOUT_MS = 2000;

const STDERR = 2;

class JsonLines implements AuditLog {
  dropped = 0;
  error: Error | undefined;
  readonly #file: string | undefined;
  readonly #onlyDenied: boolean;
  readonly #maxWaiting: number;
  /** New lines are added to the last sink. Each other sink is closed when its lines are written. */
  readonly #sinks: Sink[];
  /** Bytes that wait to be written. */
  #waiting = 0;
  /** Bytes that wait to be written, by uid. */
  readonly #waitingOf = new Map<number | undefined, number>();
  /** Lines dropped since the last "dropped" record. */
  #missing: Missing = new Map();
  /** The time of the last successful write, or of the first line added to an empty queue. */
  #wroteAt = 0;
  /** Callbacks that run after each batch. */
  readonly #onWritten: (() => void)[] = [];
  #isBusy = false;
  #isClosed = false;
  readonly #onIdle: (() => void)[] = [];

  constructor({ file, onlyDenied = false, maxWaiting = 1 << 20 }: AuditOptions) {
    if (!Number.isInteger(maxWaiting) || maxWaiting < 1) {
      throw new RangeError(`maxWaiting must be an integer above 0, not ${maxWaiting}`);
    }
    this.#file = file;
    this.#onlyDenied = onlyDenied;
    this.#maxWaiting = maxWaiting;
    this.#sinks = [openSink(file)];
  }

  write(event: ServerEvent): void {
    if (this.#onlyDenied && isAllowed(event)) return;
    const uid = event.peer?.uid;
    const limit = isAllowedAction(event) ? this.#maxWaiting : this.#maxWaiting / 2;
    if (this.#isClosed || this.#waiting >= limit) return this.#drop(uid);
    const time = new Date().toISOString();
    if (this.#missing.size > 0) {
      const missing = this.#missing;
      this.#missing = new Map();
      this.#add({ bytes: jsonLine({ time, ...droppedOf(missing) }), uid: undefined, missing });
    }
    this.#add({ bytes: jsonLine({ time, ...recordOf(event) }), uid });
  }

  drained(uid: number | undefined): Promise<void> | undefined {
    if (!this.#isFlooding(uid) || this.#isStalled()) return undefined;
    return new Promise((resolve) => {
      const check = () => {
        if (!this.#isFlooding(uid) || this.#isStalled()) resolve(clearTimeout(timer));
        else this.#onWritten.push(check);
      };
      const timer = setTimeout(resolve, STALLED_MS);
      this.#onWritten.push(check);
    });
  }

  /** Returns whether one user's lines fill more than an eighth of the queue. */
  #isFlooding(uid: number | undefined): boolean {
    return (this.#waitingOf.get(uid) ?? 0) > this.#maxWaiting / 8;
  }

  /** Returns whether writing has stalled, for example because the reader of a pipe has stopped. */
  #isStalled(): boolean {
    return this.#isClosed || performance.now() - this.#wroteAt > STALLED_MS;
  }

  reopen(): void {
    if (this.#file === undefined || this.#isClosed) return;
    try {
      this.#sinks.push(openSink(this.#file)); // waiting lines still go to the renamed file
      this.error = undefined;
    } catch (error) {
      this.error = error as Error; // the old file stays in use
    }
    void this.#flush();
  }

  async close(): Promise<void> {
    if (!this.#isClosed) {
      this.#isClosed = true;
      void this.#flush();
    }
    if (!this.#isBusy) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, CLOSE_TIMEOUT_MS);
      this.#onIdle.push(() => resolve(clearTimeout(timer)));
    });
  }

  #drop(uid: number | undefined): void {
    this.dropped++;
    this.#countMissing(uid, 1);
  }

  #countMissing(uid: number | undefined, count: number): void {
    const missing = this.#missing;
    const user = missing.has(uid) || missing.size < MAX_USERS ? uid : undefined;
    missing.set(user, (missing.get(user) ?? 0) + count);
  }

  #add(line: Line): void {
    if (this.#waiting === 0) this.#wroteAt = performance.now();
    this.#sinks.at(-1)!.lines.push(line);
    this.#count(line, 1);
    void this.#flush();
  }

  /** Adds the bytes of a line to the waiting bytes, or subtracts them. */
  #count({ uid, bytes: { length } }: Line, sign: 1 | -1): void {
    this.#waiting += sign * length;
    const waiting = (this.#waitingOf.get(uid) ?? 0) + sign * length;
    if (waiting > 0) this.#waitingOf.set(uid, waiting);
    else this.#waitingOf.delete(uid);
  }

  /** Writes the waiting lines, batch by batch. Never rejects. */
  async #flush(): Promise<void> {
    if (this.#isBusy) return;
    this.#isBusy = true;
    for (;;) {
      const sink = this.#sinks[0]!;
      if (sink.lines.length > 0) {
        await this.#writeAll(sink, sink.lines.splice(0));
        continue;
      }
      const isLast = this.#sinks.length === 1;
      if (isLast && !this.#isClosed) break;
      if (sink.file.fd !== STDERR) sink.file.close();
      if (isLast) break;
      this.#sinks.shift();
    }
    this.#isBusy = false;
    for (const run of this.#onIdle.splice(0)) run();
  }

  /**
   * Returns the descriptor to write to. It is verified first: if other code has closed it, the number may
   * belong to a connection now.
   */
  #fdOf(sink: Sink): number {
    if (!sink.file.isOurs()) {
      if (sink.file.fd === STDERR) throw new Error("Cannot write the audit log: stderr is closed");
      sink.file = openSink(this.#file).file;
    }
    return sink.file.fd;
  }

  async #writeAll(sink: Sink, lines: readonly Line[]): Promise<void> {
    const bytes = Buffer.concat(lines.map((line) => line.bytes));
    let done = 0;
    try {
      if (sink.isTorn) await writeTo(this.#fdOf(sink), NEWLINE);
      sink.isTorn = false;
      while (done < bytes.length) {
        const written = await writeTo(
          this.#fdOf(sink),
          bytes.subarray(done, done + sink.maxWriteBytes),
        );
        if (written === 0) await sleep(RETRY_MS, undefined, { ref: false });
        else this.#wroteAt = performance.now();
        done += written;
      }
      this.error = undefined;
    } catch (error) {
      this.error = error as Error;
      sink.isTorn = true;
      let end = 0;
      for (const { bytes: { length }, uid, missing } of lines) {
        end += length;
        if (end <= done) continue;
        if (missing === undefined) this.#drop(uid);
        else for (const [user, count] of missing) this.#countMissing(user, count); // the "dropped" record was lost, so its counts are added again
      }
    }
    for (const line of lines) this.#count(line, -1);
    for (const run of this.#onWritten.splice(0)) run();
  }
}

const NEWLINE = Buffer.from("\n");

/** Writes bytes. Resolves to the number written; 0 if a pipe is full. */
function writeTo(fd: number, bytes: Uint8Array): Promise<number> {
  return new Promise((resolve, reject) => {
    // fs.write() does not block the event loop; process.stderr can block on a slow reader.
    write(fd, bytes, 0, bytes.length, null, (error, written) => {
      if (error === null || error === undefined) resolve(written);
      else if (error.code === "EAGAIN") resolve(0);
      else reject(error);
    });
  });
}

function openSink(file: string | undefined): Sink {
  const fd = file === undefined ? openStderr() : openSync(file, FLAGS | constants.O_CREAT, 0o600);
  const kept = new KeptFile(fd);
  try {
    const stats = fstatSync(fd);
    return {
      file: kept,
      lines: [],
      isTorn: file !== undefined && stats.isFile() && endsInPartialLine(file, stats.size),
      maxWriteBytes: stats.isFIFO() ? PIPE_BUF : 1 << 16,
    };
  } catch (error) {
    if (fd !== STDERR) kept.close();
    throw error;
  }
}

/**
 * Returns whether the last line of a file is incomplete, as after a crash of its writer: the next line would be
 * appended to it. A file that cannot be read may end in such a line.
 */
function endsInPartialLine(file: string, size: number): boolean {
  if (size === 0) return false;
  try {
    const fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const last = Buffer.alloc(1);
      return readSync(fd, last, 0, 1, size - 1) !== 1 || !last.equals(NEWLINE);
    } finally {
      closeSync(fd);
    }
  } catch {
    return true;
  }
}

/** O_NONBLOCK: opening a FIFO without a reader, or writing to a full one, must not block the server. */
const FLAGS = constants.O_WRONLY | constants.O_APPEND | constants.O_NONBLOCK;

/**
 * Reopens stderr if it is a pipe or tty. A blocking write stalls Deno 2.9.5, and setting O_NONBLOCK on the
 * shared descriptor would affect other processes. Regular files keep the shared offset. Sockets (journald)
 * cannot be reopened.
 */
function openStderr(): number {
  try {
    if (!fstatSync(STDERR).isFile()) return openSync("/proc/self/fd/2", FLAGS);
  } catch {
    // fall back to the shared descriptor
  }
  return STDERR;
}

/** PIPE_BUF, <limits.h>: writes up to this size are atomic. Deno 2.9.5 does not report partial writes. */
const PIPE_BUF = 4096;

function isAllowed(event: ServerEvent): boolean {
  return event.type === "accepted" || event.type === "closed" ||
    (event.type === "decided" && event.decision.allowed);
}

function isAllowedAction(event: ServerEvent): boolean {
  return event.type === "decided" && event.decision.allowed;
}

function droppedOf(missing: Missing): object {
  const users = [...missing].map(([uid, count]) => ({ uid, count }));
  const count = users.reduce((sum, user) => sum + user.count, 0);
  return { event: "dropped", count, users };
}

function recordOf(event: ServerEvent): object {
  const { type, server, peer } = event;
  const peerRecord = peer && {
    pid: peer.pid,
    uid: peer.uid,
    gid: peer.gid,
    ...(peer.ambiguous.length > 0 && { ambiguous: peer.ambiguous }),
    ...(isFake(peer) && { source: "test" }),
  };
  const connection = "connection" in event ? event.connection : undefined;
  const head = { event: type, server, connection, peer: peerRecord };
  switch (type) {
    case "accepted":
      return { ...head, rule: event.decision.rule };
    case "refused": {
      const { why, decision, error } = event;
      return { ...head, why, reason: decision?.reason ?? error?.message };
    }
    case "decided": {
      const { action, attributes, decision: { allowed, rule, grants, reason } } = event;
      return { ...head, action: truncate(action), attributes, allowed, rule, grants, reason };
    }
    case "closed":
      return { ...head, milliseconds: Math.round(event.milliseconds), why: event.why };
    case "failed":
      return { ...head, error: truncate(textOf(event.error)) };
  }
}

/** Whether a test made this peer. The uid of such a peer is always known. */
function isFake({ facts }: Partial<Peer>): boolean {
  const uid = facts?.uid; // an event of other code may have a peer that is plain data
  return uid?.state === "known" && uid.source === "test";
}

const MAX_FIELD_CHARACTERS = 1024;

/** Shortens text that a client chose. */
export function truncate(text: string): string {
  return text.length > MAX_FIELD_CHARACTERS
    ? `${text.slice(0, MAX_FIELD_CHARACTERS)}… (${text.length} characters)`
    : text;
}

/**
 * Characters that JSON leaves unescaped although they are invisible, end a line, or change the text
 * direction.
 */
const UNPRINTABLE = /[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu;

/** Returns a record as one line of JSON, with unprintable characters escaped. */
export function jsonLine(record: object): Uint8Array {
  const text = JSON.stringify(record).replace(UNPRINTABLE, (character) => {
    let escaped = "";
    for (let at = 0; at < character.length; at++) {
      escaped += `\\u${character.charCodeAt(at).toString(16).padStart(4, "0")}`;
    }
    return escaped;
  });
  return Buffer.from(`${text}\n`);
}
