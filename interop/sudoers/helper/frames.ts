/** The protocol between a privileged helper and its clients: frames of type, length and content. */

import { Buffer } from "node:buffer";

/** Types of frames, one byte each. */
export const FRAME = {
  /** Client: the command, as JSON. It is the first frame, and there is one. */
  request: 1,
  /** Client: bytes for stdin. The client waits for `accepted` before it sends more. */
  stdin: 2,
  /** Client: stdin ends. */
  stdinEnd: 3,
  /** Client: the name of a signal for the command. */
  signal: 4,
  /** Client: the new size of its terminal, as JSON. */
  resize: 5,
  /** Helper: the command was started. Without this frame, no command has run. */
  started: 16,
  /** Helper: the last `stdin` frame was written to the command. */
  accepted: 17,
  /** Helper: bytes of stdout, or of the terminal. */
  stdout: 18,
  /** Helper: bytes of stderr. */
  stderr: 19,
  /** Helper: the exit status, as JSON; the last frame. */
  exit: 20,
  /** Helper: the reason why the command does not run, as text; the last frame. */
  refused: 21,
} as const;

/** Maximum size of the content of a frame. */
export const MAX_FRAME_BYTES = 65_536;

/** Type (1 byte) and length (4 bytes, big-endian). */
const HEADER_BYTES = 5;

/** One frame. */
export interface Frame {
  readonly type: number;
  readonly content: Buffer;
}

/** Encodes a frame. */
export function encodeFrame(type: number, content: string | Uint8Array = ""): Buffer {
  const bytes = typeof content === "string" ? Buffer.from(content) : content;
  if (bytes.length > MAX_FRAME_BYTES) throw new RangeError("the frame is too large");
  const frame = Buffer.allocUnsafe(HEADER_BYTES + bytes.length);
  frame[0] = type;
  frame.writeUInt32BE(bytes.length, 1);
  frame.set(bytes, HEADER_BYTES);
  return frame;
}

/** Splits bytes into parts that fit into frames. */
export function* frameParts(bytes: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += MAX_FRAME_BYTES) {
    yield bytes.subarray(at, at + MAX_FRAME_BYTES);
  }
}

/** Decodes a stream of frames. It holds at most one incomplete frame and the last chunk. */
export class FrameDecoder {
  #rest: Buffer = Buffer.alloc(0);

  /** @throws {RangeError} If a frame is too large. */
  *decode(chunk: Buffer): Generator<Frame> {
    let rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    while (rest.length >= HEADER_BYTES) {
      const length = rest.readUInt32BE(1);
      if (length > MAX_FRAME_BYTES) throw new RangeError("the frame is too large");
      const end = HEADER_BYTES + length;
      if (rest.length < end) break;
      yield { type: rest[0]!, content: rest.subarray(HEADER_BYTES, end) };
      rest = rest.subarray(end);
    }
    this.#rest = rest;
  }
}
