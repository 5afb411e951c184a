/**
 * The headers of D-Bus messages: parsed strictly, and written in one form. Bodies are not parsed, except
 * for texts.
 *
 * The parsers of npm's client libraries accept what dbus-daemon rejects, such as fields that appear twice
 * and padding that is not zero. A program that decides about messages must read them as the recipient does.
 *
 * @see {@link https://dbus.freedesktop.org/doc/dbus-specification.html D-Bus specification}
 */

import { Buffer } from "node:buffer";
import { isUniqueName, isWellKnownName } from "./bus.ts";

/** The types of messages. */
export const TYPE = { call: 1, return: 2, error: 3, signal: 4 } as const;

/** The flags that the specification defines: no reply expected, no auto start, interactive authorization. */
const KNOWN_FLAGS = 0b111;

const VERSION = 1;

/** Length of the fixed part of a header, up to and including the length of the array of fields. */
export const FIXED_BYTES = 16;

/** Maximum length of a message: 128 MiB. */
const MAX_MESSAGE_BYTES = 1 << 27;

/**
 * Maximum length of the field array. The specification permits 64 MiB, of which only the path and unknown
 * fields could use more than 2 KiB.
 */
const MAX_FIELDS_BYTES = 1 << 16;

const MAX_NAME_BYTES = 255;
const MAX_SIGNATURE_BYTES = 255;
const MAX_ARRAY_DEPTH = 32;
const MAX_STRUCT_DEPTH = 32;

const LITTLE_ENDIAN = 0x6c; // "l"
const BIG_ENDIAN = 0x42; // "B"

/** A message's header. */
export interface Header {
  readonly isLittleEndian: boolean;
  /** One of {@link TYPE}. */
  readonly type: number;
  /** Known flags only. */
  readonly flags: number;
  /** Length of the body in bytes. */
  readonly bodyLength: number;
  /** Above 0. */
  readonly serial: number;
  readonly path?: string | undefined;
  readonly interface?: string | undefined;
  readonly member?: string | undefined;
  readonly errorName?: string | undefined;
  /** Above 0. */
  readonly replySerial?: number | undefined;
  readonly destination?: string | undefined;
  readonly sender?: string | undefined;
  /** "" for an empty body. */
  readonly signature: string;
  /** Number of file descriptors. */
  readonly descriptors: number;
}

/** A message violates the specification, or a limit. */
export class MalformedMessage extends Error {}

const INTERFACE = /^[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+$/;
const MEMBER = /^[A-Za-z_]\w*$/;
const PATH = /^\/(?:\w+(?:\/\w+)*)?$/;
const LOCAL_INTERFACE = "org.freedesktop.DBus.Local";
const LOCAL_PATH = "/org/freedesktop/DBus/Local";

/** Returns whether a text is the name of an interface or of an error. */
const isInterface = (text: string) => text.length <= MAX_NAME_BYTES && INTERFACE.test(text);
const isBusName = (text: string) => isUniqueName(text) || isWellKnownName(text);

/** A field of the header: its key, its type, and the check of its value. */
interface Field {
  readonly key: keyof Header;
  readonly type: "o" | "s" | "u" | "g";
  readonly isValid: (value: never) => boolean;
}

const isText = (isValid: (text: string) => boolean) => isValid;

/** Fields by code, 1 to 9. */
const FIELDS: readonly (Field | undefined)[] = [
  undefined,
  { key: "path", type: "o", isValid: isText((text) => PATH.test(text) && text !== LOCAL_PATH) },
  {
    key: "interface",
    type: "s",
    isValid: isText((text) => isInterface(text) && text !== LOCAL_INTERFACE),
  },
  {
    key: "member",
    type: "s",
    isValid: isText((text) => text.length <= MAX_NAME_BYTES && MEMBER.test(text)),
  },
  { key: "errorName", type: "s", isValid: isText(isInterface) },
  { key: "replySerial", type: "u", isValid: (value: number) => value !== 0 },
  { key: "destination", type: "s", isValid: isText(isBusName) },
  { key: "sender", type: "s", isValid: isText(isBusName) },
  { key: "signature", type: "g", isValid: isText(isSignature) },
  { key: "descriptors", type: "u", isValid: () => true },
];

/** The fields that each type of message must have. */
const FIELDS_OF: { readonly [type: number]: readonly (keyof Header)[] } = {
  [TYPE.call]: ["path", "member"],
  [TYPE.return]: ["replySerial"],
  [TYPE.error]: ["errorName", "replySerial"],
  [TYPE.signal]: ["path", "interface", "member"],
};

const COMMON_FIELDS: readonly (keyof Header)[] = [
  ...["destination", "sender", "signature", "descriptors"] as const,
];

const align = (at: number, to: number) => Math.ceil(at / to) * to;

/**
 * Returns the length of a header with its padding, of which the first {@link FIXED_BYTES} are given.
 *
 * @throws {MalformedMessage} If it starts no message, or one that is too long.
 */
export function headerLength(fixed: Uint8Array): number {
  const { header } = messageLengths(fixed);
  if (header > align(FIXED_BYTES + MAX_FIELDS_BYTES, 8)) {
    throw new MalformedMessage("the header is too long");
  }
  return header;
}

/**
 * Returns the lengths of a header with its padding, of which the first {@link FIXED_BYTES} are given, and of
 * the body. The header may be longer than {@link parseHeader} accepts.
 *
 * @throws {MalformedMessage} If it starts no message, or one that is too long.
 */
export function messageLengths(fixed: Uint8Array): {
  readonly header: number;
  readonly body: number;
} {
  const isLittleEndian = fixed[0] === LITTLE_ENDIAN;
  if (!isLittleEndian && fixed[0] !== BIG_ENDIAN) throw new MalformedMessage("unknown byte order");
  if (fixed[3] !== VERSION) throw new MalformedMessage("unknown protocol version");
  const view = viewOf(fixed);
  const header = align(FIXED_BYTES + view.getUint32(12, isLittleEndian), 8);
  const body = view.getUint32(4, isLittleEndian);
  if (header + body > MAX_MESSAGE_BYTES) throw new MalformedMessage("the message is too long");
  return { header, body };
}

/**
 * Parses a header.
 *
 * @param bytes The header, from its first byte to the end of its padding.
 * @throws {MalformedMessage} If it violates the specification: a field that is missing, unknown, of another
 * type or there twice, a malformed name, padding that is not zero, a zero serial. Unknown flags are dropped,
 * and fields that the type of the message does not have.
 */
export function parseHeader(bytes: Uint8Array): Header {
  if (bytes.length < FIXED_BYTES || headerLength(bytes) !== bytes.length) {
    throw new MalformedMessage("the header is incomplete");
  }
  const isLittleEndian = bytes[0] === LITTLE_ENDIAN;
  const view = viewOf(bytes);
  const type = bytes[1]!;
  const own = FIELDS_OF[type];
  if (own === undefined) throw new MalformedMessage("unknown message type");
  const serial = view.getUint32(8, isLittleEndian);
  if (serial === 0) throw new MalformedMessage("the serial is 0");
  const fields = new FieldReader(bytes, view, isLittleEndian).read();
  const missing = own.find((key) => !fields.has(key));
  if (missing !== undefined) throw new MalformedMessage(`the field ${missing} is missing`);
  const bodyLength = view.getUint32(4, isLittleEndian);
  const header: { -readonly [key in keyof Header]: unknown } = {
    isLittleEndian,
    type,
    flags: bytes[2]! & KNOWN_FLAGS,
    bodyLength,
    serial,
    signature: "",
    descriptors: 0,
  };
  for (const [key, value] of fields) {
    if (hasField(type, key)) header[key] = value;
  }
  if ((header.signature === "") !== (bodyLength === 0)) {
    throw new MalformedMessage("the signature does not fit the length of the body");
  }
  return header as Header;
}

/** Returns whether messages of a type have a field. */
function hasField(type: number, key: keyof Header): boolean {
  return FIELDS_OF[type]!.includes(key) || COMMON_FIELDS.includes(key) ||
    (type === TYPE.call && key === "interface");
}

/** Reads the array of fields. */
class FieldReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #isLittleEndian: boolean;
  #at = FIXED_BYTES;
  #end: number;

  constructor(bytes: Uint8Array, view: DataView, isLittleEndian: boolean) {
    this.#bytes = bytes;
    this.#view = view;
    this.#isLittleEndian = isLittleEndian;
    this.#end = FIXED_BYTES + view.getUint32(12, isLittleEndian);
  }

  read(): Map<keyof Header, string | number> {
    const found = new Map<keyof Header, string | number>();
    while (this.#at < this.#end) {
      this.#align(8);
      const field = FIELDS[this.#byte()];
      if (field === undefined) throw new MalformedMessage("unknown header field");
      const { key, type, isValid } = field;
      if (this.#byte() !== 1 || this.#byte() !== type.charCodeAt(0) || this.#byte() !== 0) {
        throw new MalformedMessage(`the field ${key} has another type`);
      }
      const value = this.#value(type);
      if (!isValid(value as never)) throw new MalformedMessage(`malformed ${key}`);
      if (found.has(key)) throw new MalformedMessage(`the field ${key} appears twice`);
      found.set(key, value);
    }
    this.#end = this.#bytes.length;
    this.#align(8);
    return found;
  }

  #value(type: Field["type"]): string | number {
    if (type === "g") return this.#text(this.#byte());
    const number = this.#number();
    return type === "u" ? number : this.#text(number);
  }

  #take(length: number): number {
    const from = this.#at;
    if (length > this.#end - from) throw new MalformedMessage("a header field is incomplete");
    this.#at += length;
    return from;
  }

  #byte(): number {
    return this.#bytes[this.#take(1)]!;
  }

  /** Reads a number. It is aligned: the four bytes before it follow a boundary of eight bytes. */
  #number(): number {
    return this.#view.getUint32(this.#take(4), this.#isLittleEndian);
  }

  /** Reads as Latin-1: names of D-Bus have ASCII characters only, and the checks reject all others. */
  #text(length: number): string {
    const from = this.#take(length);
    if (this.#byte() !== 0) throw new MalformedMessage("a text does not end with NUL");
    return String.fromCharCode(...this.#bytes.subarray(from, from + length));
  }

  #align(to: number): void {
    const end = align(this.#at, to);
    while (this.#at < end) {
      if (this.#byte() !== 0) throw new MalformedMessage("padding is not zero");
    }
  }
}

const BASIC = "ybnqiuxtdsogh";

/** Returns whether a text is a signature of complete types, within the limits on its depth. */
export function isSignature(text: string): boolean {
  if (text.length > MAX_SIGNATURE_BYTES) return false;
  let at = 0;
  const isType = (arrays: number, structs: number): boolean => {
    const type = text[at++];
    if (type === undefined) return false;
    if (type === "v" || BASIC.includes(type)) return true;
    if (type === "(") return structs < MAX_STRUCT_DEPTH && isStruct(arrays, structs + 1);
    if (type !== "a" || arrays >= MAX_ARRAY_DEPTH) return false;
    if (text[at] !== "{") return isType(arrays + 1, structs);
    at++;
    // libdbus counts a dictionary entry as a structure.
    return structs < MAX_STRUCT_DEPTH && text[at] !== undefined && BASIC.includes(text[at++]!) &&
      isType(arrays + 1, structs + 1) && text[at++] === "}";
  };
  const isStruct = (arrays: number, structs: number): boolean => {
    do {
      if (!isType(arrays, structs)) return false;
    } while (text[at] !== ")");
    at++;
    return true;
  };
  while (at < text.length) {
    if (!isType(0, 0)) return false;
  }
  return true;
}

/**
 * Writes a header, with the padding after it. Fields appear once, in the order of their codes, and only
 * those that the type of the message has.
 */
export function encodeHeader(header: Header): Buffer {
  const { isLittleEndian, type, flags, bodyLength, serial } = header;
  const present = FIELDS.flatMap((field, code) => {
    const value = field === undefined
      ? undefined
      : header[field.key] as string | number | undefined;
    const isAbsent = value === undefined || value === "" ||
      (field!.key === "descriptors" && value === 0) || !hasField(type, field!.key);
    return isAbsent ? [] : [{ code, type: field!.type, value }];
  });
  let size = FIXED_BYTES;
  for (const { value } of present) {
    size = align(size, 8) + 12 + (typeof value === "string" ? value.length : 0);
  }
  const bytes = Buffer.alloc(align(size, 8));
  const view = viewOf(bytes);
  bytes[0] = isLittleEndian ? LITTLE_ENDIAN : BIG_ENDIAN;
  bytes[1] = type;
  bytes[2] = flags;
  bytes[3] = VERSION;
  view.setUint32(4, bodyLength, isLittleEndian);
  view.setUint32(8, serial, isLittleEndian);
  let at = FIXED_BYTES;
  for (const { code, type, value } of present) {
    at = align(at, 8);
    bytes[at] = code;
    bytes[at + 1] = 1;
    bytes[at + 2] = type.charCodeAt(0);
    at += 4;
    if (typeof value === "number") {
      view.setUint32(at, value, isLittleEndian);
      at += 4;
      continue;
    }
    if (type === "g") bytes[at++] = value.length;
    else {
      view.setUint32(at, value.length, isLittleEndian);
      at += 4;
    }
    at += bytes.write(value, at, "latin1") + 1;
  }
  view.setUint32(12, at - FIXED_BYTES, isLittleEndian);
  return bytes.subarray(0, align(at, 8));
}

/**
 * Reads the first `count` texts of a body whose signature starts with that many "s".
 *
 * @throws {MalformedMessage} If the body does not have them.
 */
export function readTexts(
  body: Uint8Array,
  isLittleEndian: boolean,
  count: number,
): readonly string[] {
  const reader = new TextReader(body, isLittleEndian);
  return Array.from({ length: count }, () => reader.text());
}

/**
 * Reads a body with the signature "as".
 *
 * @throws {MalformedMessage} If the body is another one.
 */
export function readTextArray(body: Uint8Array, isLittleEndian: boolean): readonly string[] {
  const reader = new TextReader(body, isLittleEndian);
  if (reader.number() !== body.length - 4) {
    throw new MalformedMessage("the array has another length");
  }
  const texts: string[] = [];
  while (!reader.isDone) texts.push(reader.text());
  return texts;
}

const TEXT = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

class TextReader {
  readonly #body: Uint8Array;
  readonly #isLittleEndian: boolean;
  #at = 0;

  constructor(body: Uint8Array, isLittleEndian: boolean) {
    this.#body = body;
    this.#isLittleEndian = isLittleEndian;
  }

  get isDone(): boolean {
    return this.#at === this.#body.length;
  }

  number(): number {
    const from = align(this.#at, 4);
    if (from + 4 > this.#body.length) throw new MalformedMessage("the body is incomplete");
    this.#at = from + 4;
    return viewOf(this.#body).getUint32(from, this.#isLittleEndian);
  }

  text(): string {
    const length = this.number();
    const end = this.#at + length;
    if (this.#body[end] !== 0) throw new MalformedMessage("a text is incomplete");
    const bytes = this.#body.subarray(this.#at, end);
    this.#at = end + 1;
    try {
      if (!bytes.includes(0)) return TEXT.decode(bytes);
    } catch {
      // not UTF-8
    }
    throw new MalformedMessage("a text has other characters than those of UTF-8, or NUL");
  }
}

/** Writes a body of one text: the signature "s". */
export function encodeText(text: string, isLittleEndian: boolean): Buffer {
  const bytes = Buffer.from(text.replaceAll("\0", ""));
  const body = Buffer.alloc(4 + bytes.length + 1);
  viewOf(body).setUint32(0, bytes.length, isLittleEndian);
  bytes.copy(body, 4);
  return body;
}

/** Writes a body of one array of texts: the signature "as". */
export function encodeTextArray(texts: readonly string[], isLittleEndian: boolean): Buffer {
  const parts: Buffer[] = [Buffer.alloc(4)];
  let length = 4;
  for (const text of texts) {
    const padding = align(length, 4) - length;
    const part = encodeText(text, isLittleEndian);
    parts.push(Buffer.alloc(padding), part);
    length += padding + part.length;
  }
  const body = Buffer.concat(parts);
  viewOf(body).setUint32(0, length - 4, isLittleEndian);
  return body;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
