/** Events → lines of JSON, in a file or on stderr, that no client can forge and no server waits for. */

import { createWriteStream } from "node:fs";
import { type ServerEvent, textOf } from "./events.ts";

/** Where an audit log goes, and what is in it. */
export interface AuditOptions {
  /** A file, appended to and made with mode `0o600`; without, stderr. */
  readonly file?: string | undefined;
  /** Whether to leave out what was allowed. By default `false`. */
  readonly onlyDenied?: boolean | undefined;
  /** Bytes that may wait to be written; beyond, lines are dropped and counted. By default 1 MiB. */
  readonly maxWaiting?: number | undefined;
}

/** An audit log. One may serve several servers. */
export interface AuditLog {
  /** Lines that could not be written: the disk is full, or too slow. */
  readonly dropped: number;
  /** What keeps the file from being written; `undefined` if nothing does. */
  readonly error: Error | undefined;
  /** Writes an event. Servers do that; it never throws and never waits. */
  write(event: ServerEvent): void;
  /** Opens the file anew, after it was renamed to be kept: for SIGHUP. */
  reopen(): void;
  /** Writes what waits, and closes the file. */
  close(): Promise<void>;
}

/**
 * Makes an audit log: one line of JSON for each event.
 *
 * Whatever a client sends is escaped: a line is one event, all of it in printable characters.
 * Writing never blocks the server. If more waits than `maxWaiting`, lines are dropped; the next line
 * that is written says how many.
 *
 * @example Log to a file
 * ```ts
 * import { auditLog, createServer } from "ucred/net";
 *
 * const audit = auditLog({ file: "audit.log" });
 * const server = createServer({ audit }, (socket) => void socket.end("welcome\n"));
 * server.listen("app.sock");
 * ```
 */
export function auditLog(options: AuditOptions = {}): AuditLog {
  return new JsonLines(options);
}

type Sink = ReturnType<typeof createWriteStream>;

class JsonLines implements AuditLog {
  dropped = 0;
  error: Error | undefined;
  readonly #file: string | undefined;
  readonly #onlyDenied: boolean;
  readonly #most: number;
  #sink: Sink;
  /** Dropped since the last line. */
  #missing = 0;

  constructor({ file, onlyDenied = false, maxWaiting = 1 << 20 }: AuditOptions) {
    if (!Number.isInteger(maxWaiting) || maxWaiting < 1) {
      throw new RangeError(`maxWaiting is an integer above 0, not ${maxWaiting}`);
    }
    this.#file = file;
    this.#onlyDenied = onlyDenied;
    this.#most = maxWaiting;
    this.#sink = this.#open();
  }

  write(event: ServerEvent): void {
    if (this.#onlyDenied && isAllowed(event)) return;
    if (this.#sink.destroyed || this.#sink.writableLength > this.#most) {
      this.dropped++;
      this.#missing++;
      return;
    }
    const time = new Date().toISOString();
    if (this.#missing > 0) {
      this.#sink.write(lineOf({ time, event: "dropped", count: this.#missing }));
      this.#missing = 0;
    }
    this.#sink.write(lineOf({ time, ...recordOf(event) }));
  }

  reopen(): void {
    if (this.#file === undefined) return;
    this.#sink.end(); // what waits still goes to the file that was renamed
    this.#sink = this.#open();
  }

  close(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#sink.destroyed) return resolve();
      this.#sink.end(() => resolve());
    });
  }

  #open(): Sink {
    // Not process.stderr, which waits for whoever reads it: a stream writes beside the program.
    const sink = this.#file === undefined
      ? createWriteStream("/dev/stderr", { fd: 2, autoClose: false })
      : createWriteStream(this.#file, { flags: "a", mode: 0o600 });
    this.error = undefined;
    return sink.on("error", (error) => {
      if (sink === this.#sink) this.error = error;
    });
  }
}

function isAllowed(event: ServerEvent): boolean {
  return event.type === "accepted" || event.type === "closed" ||
    (event.type === "decided" && event.decision.allowed);
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

const LONGEST = 1024;

/** A client may ask for something very long. */
function cut(text: string): string {
  return text.length > LONGEST ? `${text.slice(0, LONGEST)}… (${text.length} characters)` : text;
}

/** What JSON leaves as it is although it can end a line or turn its direction around. */
const UNPRINTABLE = /[\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

function lineOf(record: object): string {
  const text = JSON.stringify(record);
  const escaped = text.replace(
    UNPRINTABLE,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
  return `${escaped}\n`;
}
