/** Reads exact numbers of bytes from a socket, and writes whole messages to one, with backpressure. */

import { Buffer } from "node:buffer";
import type { Socket } from "node:net";
import { GrownBytes } from "../core/grown_bytes.ts";

/** A connection ended within a message, or before the expected bytes. */
export class Ended extends Error {}

/** Reads from a socket. Nothing is read before it is requested. */
export class ByteReader {
  readonly #socket: Socket;
  #pending: Buffer = Buffer.alloc(0);
  #isOver = false;
  #wake: (() => void) | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    const end = () => {
      this.#isOver = true;
      this.#wake?.();
    };
    socket.on("end", end).on("close", end).on("readable", () => this.#wake?.());
    if (socket.destroyed) end();
  }

  /** Puts bytes back: they are read next. */
  unread(bytes: Uint8Array): void {
    this.#pending = Buffer.concat([bytes, this.#pending]);
  }

  /** Returns the next bytes, at most `most`; `undefined` at the end. */
  async some(most: number): Promise<Buffer | undefined> {
    while (this.#pending.length === 0) {
      if (!await this.#more()) return undefined;
    }
    const part = this.#pending.subarray(0, most);
    this.#pending = this.#pending.subarray(most);
    return part;
  }

  /**
   * Returns exactly `count` bytes; `undefined` at the end.
   *
   * @throws {Ended} If the connection ends after a part of them.
   */
  async exactly(count: number): Promise<Buffer | undefined> {
    const bytes = new GrownBytes();
    while (bytes.length < count) {
      const part = await this.some(count - bytes.length);
      if (part?.length === count) return part;
      if (part !== undefined) bytes.add(part);
      else if (bytes.length === 0) return undefined;
      else throw new Ended("the connection ended within a message");
    }
    const { buffer, byteOffset, byteLength } = bytes.all();
    return Buffer.from(buffer, byteOffset, byteLength);
  }

  /** Waits for bytes, when none are pending. Returns false at the end. */
  async #more(): Promise<boolean> {
    while (true) {
      const chunk = this.#socket.read() as Buffer | null;
      if (chunk !== null) {
        this.#pending = chunk;
        return true;
      }
      if (this.#isOver) return false;
      await new Promise<void>((resolve) => this.#wake = resolve);
      this.#wake = undefined;
    }
  }
}

/** Bytes of the guard's own messages that may wait for the end of a forwarded one. */
const MAX_WAITING_BYTES = 65_536;

/** Writes messages to a socket: forwarded ones in parts, and the guard's own ones between them. */
export class MessageWriter {
  readonly #socket: Socket;
  /** Bytes of the current message that were not written yet. */
  #missing = 0;
  readonly #waiting: Buffer[] = [];
  #waitingBytes = 0;
  #wake: (() => void)[] = [];

  constructor(socket: Socket) {
    this.#socket = socket;
    const wake = () => this.#wakeAll();
    socket.on("drain", wake).on("close", wake);
  }

  /** Begins a message of `length` bytes, which {@link write} completes. */
  begin(length: number): void {
    this.#missing = length;
  }

  /** Writes a part of the current message, and waits while the socket's buffer is full. */
  async write(part: Buffer): Promise<void> {
    if (part.length > this.#missing) {
      throw new RangeError("A message has more bytes than announced");
    }
    this.#missing -= part.length;
    let isFull = !this.#send(part);
    if (this.#missing === 0 && this.#waiting.length > 0) {
      isFull = !this.#send(Buffer.concat(this.#waiting.splice(0)));
      this.#waitingBytes = 0;
      this.#wakeAll();
    }
    if (isFull) await this.#until(() => !this.#socket.writableNeedDrain);
  }

  /** Writes a message of the guard after the current one. Blocks only while many bytes are unwritten. */
  async insert(message: Buffer): Promise<void> {
    if (this.#missing > 0) {
      this.#waiting.push(message);
      this.#waitingBytes += message.length;
      return await this.#until(() => this.#waitingBytes < MAX_WAITING_BYTES);
    }
    if (!this.#send(message)) await this.#until(() => !this.#socket.writableNeedDrain);
  }

  #send(bytes: Buffer): boolean {
    return !this.#socket.writable || this.#socket.write(bytes);
  }

  async #until(condition: () => boolean): Promise<void> {
    while (!condition() && this.#socket.writable) {
      await new Promise<void>((resolve) => this.#wake.push(resolve));
    }
  }

  #wakeAll(): void {
    for (const wake of this.#wake.splice(0)) wake();
  }
}
