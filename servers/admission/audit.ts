/** Events → lines of JSON, in a file or on stderr, that no client can forge and no server waits for. */

import { Buffer } from "node:buffer";
import { constants, fstatSync, openSync, write } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { type OptionNames, requireOptions } from "../../core/options.ts";
import { textOf } from "../../core/text.ts";
import { KeptFile } from "../../system/kept_file.ts";
import type { ServerEvent } from "./events.ts";

/** Where an audit log goes, and what is in it. */
export interface AuditOptions {
  /** A file or pipe, appended to and made with mode `0o600`; without, stderr. */
  readonly file?: string | undefined;
  /** Whether to leave out what was allowed. By default `false`. */
  readonly onlyDenied?: boolean | undefined;
  /**
   * Bytes that may wait to be written. Beyond, lines are dropped and counted; beyond half of it, all but
   * those of allowed actions. By default 1 MiB.
   */
  readonly maxWaiting?: number | undefined;
}

const AUDIT_OPTIONS: OptionNames<AuditOptions> = { file: true, onlyDenied: true, maxWaiting: true };

/** An audit log. One may serve several servers. */
export interface AuditLog {
  /** Lines that could not be written: the disk is full, or too slow. */
  readonly dropped: number;
  /** Why the last ones could not be written, or the file not be opened anew; `undefined` if they were. */
  readonly error: Error | undefined;
  /** Writes an event. Servers do that; it never throws and never waits. */
  write(event: ServerEvent): void;
  /** Opens the file anew, after it was renamed to be kept: for SIGHUP. */
  reopen(): void;
  /**
   * Resolves once fewer lines of a user wait to be written, or the log is found not to be written at all;
   * `undefined` if few wait. HTTP servers hold that user's requests meanwhile, so that a flood of requests
   * does not fill the log.
   */
  drained?(uid: number | undefined): Promise<void> | undefined;
  /** Writes what waits, for up to two seconds, and closes the file. */
  close(): Promise<void>;
}

/**
 * Makes an audit log: one line of JSON for each event.
 *
 * Whatever a client sends is escaped: a line is one event, all of it in printable characters.
 * Writing never blocks the server. If more waits than `maxWaiting`, or writing fails, lines are
 * dropped; the next line that is written reports how many, and of which users. Half of `maxWaiting` is
 * reserved for actions that were allowed: a flood of denied ones does not crowd them out.
 *
 * @throws {Error} If the file cannot be opened.
 * @throws {RangeError} If an option is out of range.
 * @throws {TypeError} If there is no option of a name.
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

/** Where lines go, and what waits to go there. */
interface Sink {
  file: KeptFile;
  lines: Line[];
  /** What was written last may be a part of a line. */
  isTorn: boolean;
  /** Bytes to be written at once. */
  readonly most: number;
}

interface Line {
  readonly bytes: Uint8Array;
  readonly uid: number | undefined;
  /** The dropped lines that it reports, if it does. */
  readonly missing?: Missing;
}

/** Dropped lines of each user; `undefined` stands for an unknown user. */
type Missing = Map<number | undefined, number>;

/** Users whose dropped lines are counted apart; those of further users are added up. */
const MAX_USERS = 256;

/** How long requests are held while nothing can be written, in ms. */
const STALLED_MS = 1000;

/** How long to wait until a pipe may take more, in ms. */
const RETRY_MS = 20;

/** How long what waits may take to be written when the log is closed, in ms. */
const CLOSE_TIMEOUT_MS = 2000;

const STDERR = 2;

class JsonLines implements AuditLog {
  dropped = 0;
  error: Error | undefined;
  readonly #file: string | undefined;
  readonly #onlyDenied: boolean;
  readonly #most: number;
  /** The last is the one that is written to; those before it are to be finished, and closed. */
  readonly #sinks: Sink[];
  /** Bytes that wait. */
  #waiting = 0;
  /** Bytes that wait, of each user. */
  readonly #waitingOf = new Map<number | undefined, number>();
  /** Dropped since a line has reported it. */
  #missing: Missing = new Map();
  /** When bytes were last written, or began to wait. */
  #wroteAt = 0;
  /** Run after each batch. */
  readonly #onWritten: (() => void)[] = [];
  #isBusy = false;
  #isClosed = false;
  readonly #onIdle: (() => void)[] = [];

  constructor({ file, onlyDenied = false, maxWaiting = 1 << 20 }: AuditOptions) {
    if (!Number.isInteger(maxWaiting) || maxWaiting < 1) {
      throw new RangeError(`maxWaiting is an integer above 0, not ${maxWaiting}`);
    }
    this.#file = file;
    this.#onlyDenied = onlyDenied;
    this.#most = maxWaiting;
    this.#sinks = [openSink(file)];
  }

  write(event: ServerEvent): void {
    if (this.#onlyDenied && isAllowed(event)) return;
    const uid = event.peer?.uid;
    const most = isAllowedAction(event) ? this.#most : this.#most / 2;
    if (this.#isClosed || this.#waiting >= most) return this.#drop(uid);
    const time = new Date().toISOString();
    if (this.#missing.size > 0) {
      const missing = this.#missing;
      this.#missing = new Map();
      this.#add({ bytes: lineOf({ time, ...droppedOf(missing) }), uid: undefined, missing });
    }
    this.#add({ bytes: lineOf({ time, ...recordOf(event) }), uid });
  }

  drained(uid: number | undefined): Promise<void> | undefined {
    if (!this.#isFlooding(uid) || this.#isStalled()) return undefined;
    return new Promise((resolve) => {
      const look = () => {
        if (!this.#isFlooding(uid) || this.#isStalled()) resolve(clearTimeout(timer));
        else this.#onWritten.push(look);
      };
      const timer = setTimeout(resolve, STALLED_MS);
      this.#onWritten.push(look);
    });
  }

  /** Whether more than an eighth of what may wait is of one user. */
  #isFlooding(uid: number | undefined): boolean {
    return (this.#waitingOf.get(uid) ?? 0) > this.#most / 8;
  }

  /** Whether nothing can be written: the reader of a pipe has stopped to read. */
  #isStalled(): boolean {
    return this.#isClosed || performance.now() - this.#wroteAt > STALLED_MS;
  }

  reopen(): void {
    if (this.#file === undefined || this.#isClosed) return;
    try {
      this.#sinks.push(openSink(this.#file)); // what waits still goes to the file that was renamed
      this.error = undefined;
    } catch (error) {
      this.error = error as Error; // it is written as before
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
    this.#miss(uid, 1);
  }

  #miss(uid: number | undefined, count: number): void {
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

  /** Counts the bytes of a line as waiting, or as no longer waiting. */
  #count({ uid, bytes: { length } }: Line, sign: 1 | -1): void {
    this.#waiting += sign * length;
    const waiting = (this.#waitingOf.get(uid) ?? 0) + sign * length;
    if (waiting > 0) this.#waitingOf.set(uid, waiting);
    else this.#waitingOf.delete(uid);
  }

  /** Writes what waits, one batch after the other. Never rejects. */
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

  /** The number to write to now. Were it closed by other code, a connection could have it by now. */
  #fdOf(sink: Sink): number {
    if (!sink.file.isOurs()) {
      if (sink.file.fd === STDERR) throw new Error("Cannot write the audit log: stderr was closed");
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
          bytes.subarray(done, done + sink.most),
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
        else for (const [user, count] of missing) this.#miss(user, count); // it was not reported
      }
    }
    for (const line of lines) this.#count(line, -1);
    for (const run of this.#onWritten.splice(0)) run();
  }
}

const NEWLINE = Buffer.from("\n");

/** How many bytes were taken; 0 if there is no room now. */
function writeTo(fd: number, bytes: Uint8Array): Promise<number> {
  return new Promise((resolve, reject) => {
    // Not process.stderr, which waits for whoever reads it: this writes beside the program.
    write(fd, bytes, 0, bytes.length, null, (error, written) => {
      if (error === null || error === undefined) resolve(written);
      else if (error.code === "EAGAIN") resolve(0);
      else reject(error);
    });
  });
}

function openSink(file: string | undefined): Sink {
  const fd = file === undefined ? openStderr() : openSync(file, FLAGS | constants.O_CREAT, 0o600);
  return {
    file: new KeptFile(fd),
    lines: [],
    isTorn: false,
    most: fstatSync(fd).isFIFO() ? PIPE_BUF : 1 << 16,
  };
}

/** A pipe that nobody reads does not hold up a write, nor does one that nobody has opened. */
const FLAGS = constants.O_WRONLY | constants.O_APPEND | constants.O_NONBLOCK;

/**
 * Anew where it can make its writers wait: Deno 2.9.5 stands still then, and to make it non-blocking
 * would do that to everybody who shares it. Files do not, and have one position with their other writers.
 * A socket, as the journal's, cannot be opened.
 */
function openStderr(): number {
  try {
    if (!fstatSync(STDERR).isFile()) return openSync("/proc/self/fd/2", FLAGS);
  } catch {
    // it is written to as it is
  }
  return STDERR;
}

/** <limits.h>: so many go into a pipe as a whole, or not at all; of a part Deno 2.9.5 does not tell. */
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
  const who = peer && {
    pid: peer.pid,
    uid: peer.uid,
    gid: peer.gid,
    ...(peer.ambiguous.length > 0 && { ambiguous: peer.ambiguous }),
  };
  const connection = "connection" in event ? event.connection : undefined;
  const head = { event: type, server, connection, peer: who };
  switch (type) {
    case "accepted":
      return { ...head, rule: event.decision.rule };
    case "refused": {
      const { why, decision, error } = event;
      return { ...head, why, reason: decision?.reason ?? error?.message };
    }
    case "decided": {
      const { action, decision: { allowed, rule, grants, reason } } = event;
      return { ...head, action: cut(action), allowed, rule, grants, reason };
    }
    case "closed":
      return { ...head, milliseconds: Math.round(event.milliseconds), why: event.why };
    case "failed":
      return { ...head, error: cut(textOf(event.error)) };
  }
}

const MAX_FIELD_CHARACTERS = 1024;

/** A client may ask for something very long. */
export function cut(text: string): string {
  return text.length > MAX_FIELD_CHARACTERS
    ? `${text.slice(0, MAX_FIELD_CHARACTERS)}… (${text.length} characters)`
    : text;
}

/** What JSON leaves as it is although it is not seen, can end a line, or turns its direction around. */
const UNPRINTABLE = /[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu;

function lineOf(record: object): Uint8Array {
  const text = JSON.stringify(record).replace(UNPRINTABLE, (character) => {
    let escaped = "";
    for (let at = 0; at < character.length; at++) {
      escaped += `\\u${character.charCodeAt(at).toString(16).padStart(4, "0")}`;
    }
    return escaped;
  });
  return Buffer.from(`${text}\n`);
}
