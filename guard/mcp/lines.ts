/** Reads and writes lines of a socket: MCP over streams has one JSON message on each line. */

import { Buffer } from "node:buffer";
import type { ByteReader } from "../byte_streams.ts";

const NEWLINE = 10;

const PART_BYTES = 65_536;

/** The buffer of a long line doubles, but grows by at most this many bytes at once. */
const MAX_GROWTH_BYTES = 4 << 20;

const NOTHING = Buffer.alloc(0);

/** A line is longer than the limit, or there are too many long lines. */
export class LineTooLong extends Error {}

/** Maximum bytes of the long lines of one user: one result of 64 MiB, or 16 messages of 4 MiB. */
const MAX_USER_BYTES = 64 << 20;

/** Maximum bytes of the long lines of all users. */
const MAX_BYTES = 128 << 20;

/**
 * Counts the bytes of long lines: those that have not ended, and those that wait until they are forwarded. A user
 * with many connections must not take the memory of the guard.
 */
export class LineMemory {
  #bytes = 0;
  readonly #ofUser = new Map<number, number>();

  /** Changes the bytes of a line. Returns `false`, without a change, if there is no space for them. */
  resize(uid: number, from: number, to: number): boolean {
    const bytes = this.#bytes + to - from;
    const ofUser = (this.#ofUser.get(uid) ?? 0) + to - from;
    if (to > from && (bytes > MAX_BYTES || ofUser > MAX_USER_BYTES)) return false;
    this.#bytes = bytes;
    if (ofUser > 0) this.#ofUser.set(uid, ofUser);
    else this.#ofUser.delete(uid);
    return true;
  }
}

/** Reads lines. Nothing is read before it is requested. */
export class LineReader {
  readonly #reader: ByteReader;
  readonly #maxBytes: number;
  readonly #resize: (from: number, to: number) => boolean;
  /** What follows the last line. */
  #rest: Buffer | undefined;
  /** The bytes of the last line, if it is long. */
  #held = 0;

  /**
   * @param maxBytes The longest line.
   * @param resize Changes the bytes of a long line, as {@link LineMemory.resize} does.
   */
  constructor(
    reader: ByteReader,
    maxBytes: number,
    resize: (from: number, to: number) => boolean = () => true,
  ) {
    this.#reader = reader;
    this.#maxBytes = maxBytes;
    this.#resize = resize;
  }

  /**
   * Returns the next line without its end; `undefined` at the end of the connection. The last line needs no
   * line end. The memory that the previous line has reserved is released.
   *
   * @throws {LineTooLong}
   */
  async next(): Promise<Buffer | undefined> {
    this.release();
    // One buffer instead of a list: a chunk of one byte takes 900 bytes of memory.
    let line = NOTHING;
    let length = 0;
    while (true) {
      const part = this.#rest ?? await this.#reader.some(PART_BYTES);
      this.#rest = undefined;
      if (part === undefined) return length === 0 ? undefined : line.subarray(0, length);
      const end = part.indexOf(NEWLINE);
      const own = end < 0 ? part : part.subarray(0, end);
      const before = length;
      length += own.length;
      if (length > this.#maxBytes) {
        throw new LineTooLong(`a line has more than ${this.#maxBytes} bytes`);
      }
      if (end >= 0 && end + 1 < part.length) this.#rest = part.subarray(end + 1);
      if (end >= 0 && before === 0) return own;
      if (length > line.length) {
        const more = Math.min(line.length, MAX_GROWTH_BYTES);
        const size = Math.min(Math.max(length, line.length + more), this.#maxBytes);
        this.#hold(size);
        line = Buffer.concat([line], size);
      }
      own.copy(line, before);
      if (end >= 0) return line.subarray(0, length);
    }
  }

  /** Releases the memory that the last line has reserved. */
  release(): void {
    this.#resize(this.#held, 0);
    this.#held = 0;
  }

  #hold(bytes: number): void {
    if (bytes <= PART_BYTES) return;
    if (!this.#resize(this.#held, bytes)) {
      throw new LineTooLong("there are too many long lines of this user, or of all users");
    }
    this.#held = bytes;
  }
}

/** Some programs end a line at these characters, or drop them. In JSON they occur only within strings. */
const LINE_ENDS = /[\u007f-\u009f\u2028\u2029\ufeff]/g;

/** Returns a JSON text as a line. */
export function lineOf(json: string): Buffer {
  const escaped = json.replace(
    LINE_ENDS,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
  return Buffer.from(`${escaped}\n`);
}
