/** llhttp, the parser of both directions. None of its lenient modes is ever set. */

import { Buffer } from "node:buffer";
import { LLHTTP_WASM } from "./llhttp_wasm.ts";

/** The functions of llhttp's WebAssembly build that are used: include/llhttp.h. */
interface Llhttp {
  readonly memory: WebAssembly.Memory;
  _initialize(): void;
  malloc(size: number): number;
  llhttp_alloc(type: number): number;
  llhttp_free(parser: number): void;
  llhttp_reset(parser: number): void;
  llhttp_execute(parser: number, data: number, length: number): number;
  llhttp_finish(parser: number): number;
  llhttp_get_error_pos(parser: number): number;
  llhttp_get_error_reason(parser: number): number;
}

/** `llhttp_type_t`. */
const TYPES = { request: 1, response: 2 } as const;

/** Values of `llhttp_errno_t` that are no error. */
const OK = 0, PAUSED = 21;

/** Results of `on_headers_complete`. */
const CONTINUE = 0, SKIP_BODY = 1, REFUSE = -1;

/**
 * How the end of a body is found: by its length, by its last chunk, or by the end of the connection.
 * "head" is the response to a HEAD request: its headers are those of a response with a body.
 */
export type Framing = number | "chunked" | "close" | "head";

/** Bytes that one call of `llhttp_execute()` receives. A head must fit. */
const INPUT_BYTES = 65536;

/** Maximum header fields of a request, and trailer fields of a message. Apache and HAProxy allow as many. */
export const MAX_FIELDS = 100;

/** Maximum bytes of a message's trailer section. */
const MAX_TRAILER_BYTES = 16384;

/**
 * Bytes of a chunked body that are neither data nor trailers: this many, and 16 for each byte of data.
 * Without this limit, chunk extensions could make a message without data endless.
 */
const MAX_CHUNK_OVERHEAD_BYTES = 16384;

const EMPTY = Buffer.alloc(0);

let llhttp: Llhttp | undefined;
/** Address of llhttp's input. */
let inputAt = 0;
let input: Uint8Array = new Uint8Array(0);
/** The parser that llhttp runs for. */
let current: Parser;

function load(): Llhttp {
  const onSpan = (run: (at: number, length: number) => void) => {
    return (_parser: number, at: number, length: number) => {
      run(at - inputAt, length);
      return OK;
    };
  };
  const env = {
    wasm_on_message_begin: () => OK,
    wasm_on_url: onSpan((at, length) => current.onTarget(at, length)),
    wasm_on_status: () => OK,
    wasm_on_header_field: onSpan((at, length) => current.onField(at, length)),
    wasm_on_header_value: onSpan((at, length) => current.onValue(at, length)),
    wasm_on_headers_complete: (_parser: number, status: number, upgrade: number) =>
      current.onHeadersComplete(status, upgrade === 1),
    wasm_on_body: onSpan((at, length) => current.onBody(at, length)),
    wasm_on_message_complete: () => {
      current.isComplete = true;
      return PAUSED;
    },
  };
  const module = new WebAssembly.Module(Buffer.from(LLHTTP_WASM, "base64"));
  const found = new WebAssembly.Instance(module, { env }).exports as unknown as Llhttp;
  found._initialize();
  inputAt = found.malloc(INPUT_BYTES);
  return found;
}

/** A head as llhttp has divided it. */
export interface RawHead {
  /** The head in Latin-1, up to its empty line. */
  readonly text: string;
  /** Start and end of the request target, or 0 and 0, then those of each field's name and value. */
  readonly spans: readonly number[];
  /** 0 for a request. */
  readonly status: number;
  /** Whether another protocol follows the message. */
  readonly isUpgrade: boolean;
}

/** Parses one message after the other. */
export abstract class Parser {
  /** Whether the message has ended. */
  isComplete = false;
  /** The data of the body that the last call found: views of its bytes. */
  parts: Buffer[] = [];
  /** Names and values of the trailer section in turns. */
  trailers: string[] = [];
  /** Why the message is malformed. Nothing can be parsed after it. */
  error: string | undefined;
  readonly #llhttp: Llhttp;
  readonly #pointer: number;
  #bytes: Buffer = EMPTY;
  #headLength = 0;
  #hasHead = false;
  #framing: Framing = 0;
  #spans: number[] = [0, 0];
  /** Bytes of the body with its chunk heads and trailers, and of its data. */
  #length = 0;
  #dataLength = 0;
  #trailerLength = 0;
  #isClosed = false;

  constructor(type: keyof typeof TYPES) {
    this.#llhttp = llhttp ??= load();
    this.#pointer = this.#llhttp.llhttp_alloc(TYPES[type]);
  }

  /** Checks a head. Returns the framing of its body; `undefined` if the message must not be forwarded. */
  protected abstract check(head: RawHead): Framing | undefined;

  /**
   * Parses a message from its start.
   *
   * @param bytes A whole head and possibly more.
   * @param headLength The length of the head without its empty line.
   * @returns How many bytes belong to the message; meaningless if `error` is set.
   */
  parseHead(bytes: Buffer, headLength: number): number {
    this.#headLength = headLength;
    return this.#execute(bytes);
  }

  /** Parses further bytes of a message whose head is complete. Returns like {@link parseHead}. */
  parseBody(bytes: Buffer): number {
    return this.#execute(bytes);
  }

  /** Checks the start of an incomplete head: whether it can become one. */
  canStart(bytes: Buffer): boolean {
    this.#headLength = bytes.length;
    this.#execute(bytes);
    const isValid = this.error === undefined;
    this.reset();
    return isValid;
  }

  /** Ends a message at the end of the connection. Sets either `isComplete` or `error`. */
  finish(): void {
    this.parts = [];
    current = this;
    const code = this.#llhttp.llhttp_finish(this.#pointer);
    if (this.isComplete && this.error === undefined) return;
    this.error ??= code === OK ? "the message is incomplete" : this.#reason();
  }

  /** Prepares for the next message. */
  reset(): void {
    this.#llhttp.llhttp_reset(this.#pointer);
    this.#hasHead = this.isComplete = false;
    this.#spans = [0, 0];
    this.parts = [];
    if (this.trailers.length > 0) this.trailers = [];
    this.error = undefined;
    this.#length = this.#dataLength = this.#trailerLength = 0;
  }

  /** Frees the parser's memory. It must not be used any more. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#llhttp.llhttp_free(this.#pointer);
  }

  #execute(bytes: Buffer): number {
    if (this.#isClosed) throw new Error("the parser is closed");
    this.parts = [];
    let done = 0;
    do {
      const rest = bytes.length - done;
      const part = rest <= INPUT_BYTES && done === 0
        ? bytes
        : bytes.subarray(done, done + INPUT_BYTES);
      // When the memory of WebAssembly grows, views of it are detached: their length is 0.
      if (input.length === 0) {
        input = new Uint8Array(this.#llhttp.memory.buffer, inputAt, INPUT_BYTES);
      }
      input.set(part);
      current = this;
      this.#bytes = part;
      const code = this.#llhttp.llhttp_execute(this.#pointer, inputAt, part.length);
      if (code === OK) done += part.length;
      else if (code === PAUSED) {
        done += this.#llhttp.llhttp_get_error_pos(this.#pointer) - inputAt;
        break;
      } else {
        this.error ??= this.#reason();
        break;
      }
    } while (done < bytes.length);
    this.#bytes = EMPTY;
    this.#length += done;
    if (this.#hasHead) this.#checkBody();
    return done;
  }

  /** Compares what llhttp has found with our own reading of the head, and limits everything but data. */
  #checkBody(): void {
    const length = this.#framing === "head" ? 0 : this.#framing;
    if (typeof length === "number") {
      const isWrong = this.isComplete ? this.#dataLength !== length : this.#dataLength >= length;
      if (isWrong) this.error ??= "the length of the body is ambiguous";
    } else {
      const overhead = this.#length - this.#headLength - this.#dataLength;
      if (overhead > MAX_CHUNK_OVERHEAD_BYTES + 16 * this.#dataLength) {
        this.error ??= "the chunk extensions are too long";
      }
    }
  }

  #reason(): string {
    const { memory } = this.#llhttp;
    const bytes = new Uint8Array(
      memory.buffer,
      this.#llhttp.llhttp_get_error_reason(this.#pointer),
    );
    return Buffer.from(bytes.subarray(0, bytes.indexOf(0))).toString("latin1");
  }

  // llhttp's callbacks.

  onTarget(at: number, length: number): void {
    this.#extend(0, at, length);
  }

  onField(at: number, length: number): void {
    if (this.#hasHead) return this.#onTrailer(0, at, length);
    const spans = this.#spans;
    const last = spans.length - 4;
    if (spans[last + 1] === at && spans[last + 2] === -1) {
      this.#extend(last, at, length);
    } else spans.push(at, at + length, -1, -1);
  }

  onValue(at: number, length: number): void {
    if (this.#hasHead) return this.#onTrailer(1, at, length);
    this.#extend(this.#spans.length - 2, at, length);
  }

  /** Sets a span, or adds to it. llhttp may report a span in adjacent parts. */
  #extend(index: number, at: number, length: number): void {
    const spans = this.#spans;
    if (spans[index]! > 0 && spans[index + 1] !== at) {
      this.error ??= "a part of the head is missing";
    }
    if (spans[index]! <= 0) spans[index] = at;
    spans[index + 1] = at + length;
  }

  onHeadersComplete(status: number, isUpgrade: boolean): number {
    if (this.error !== undefined) return REFUSE;
    const text = this.#bytes.toString("latin1", 0, this.#headLength);
    const framing = this.check({ text, spans: this.#spans, status, isUpgrade });
    if (framing === undefined) {
      this.error ??= "the head is malformed";
      return REFUSE;
    }
    this.#hasHead = true;
    this.#framing = framing;
    return framing === "head" ? SKIP_BODY : CONTINUE;
  }

  onBody(at: number, length: number): void {
    this.#dataLength += length;
    this.parts.push(this.#bytes.subarray(at, at + length));
  }

  #onTrailer(part: 0 | 1, at: number, length: number): void {
    const { trailers } = this;
    const text = this.#bytes.toString("latin1", at, at + length);
    if (trailers.length % 2 === part) trailers.push(text);
    else trailers[trailers.length - 1] += text; // the rest of a part that the last bytes began
    this.#trailerLength += length;
    if (trailers.length > 2 * MAX_FIELDS) this.error ??= "there are too many trailers";
    if (this.#trailerLength > MAX_TRAILER_BYTES) this.error ??= "the trailers are too long";
  }
}
