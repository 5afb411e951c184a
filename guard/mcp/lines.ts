/** Reads and writes lines of a socket: MCP over streams has one JSON message on each line. */

import { Buffer } from "node:buffer";
import type { ByteReader } from "../byte_streams.ts";

const NEWLINE = 10;

const PART_BYTES = 65_536;

const NOTHING = Buffer.alloc(0);

/** A line is longer than the limit. */
export class LineTooLong extends Error {}

/** Reads lines. Nothing is read before it is requested. */
export class LineReader {
  readonly #reader: ByteReader;
  readonly #maxBytes: number;
  /** What follows the last line. */
  #rest: Buffer | undefined;

  /** @param maxBytes The longest line. */
  constructor(reader: ByteReader, maxBytes: number) {
    this.#reader = reader;
    this.#maxBytes = maxBytes;
  }

  /**
   * Returns the next line without its end; `undefined` at the end of the connection. The last line needs no
   * line end.
   *
   * @throws {LineTooLong}
   */
  async next(): Promise<Buffer | undefined> {
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
      if (length > line.length) line = Buffer.concat([line], Math.max(length, 2 * line.length));
      own.copy(line, before);
      if (end >= 0) return line.subarray(0, length);
    }
  }
}

/** Characters that end a line for some programs. In JSON they occur only within strings. */
const LINE_ENDS = /[\u007f-\u009f\u2028\u2029\ufeff]/g;

/** Returns a JSON text as a line. */
export function lineOf(json: string): Buffer {
  const escaped = json.replace(
    LINE_ENDS,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
  return Buffer.from(`${escaped}\n`);
}
