/** Replies that the guard itself sends, and the calls that wait for a reply. */

import { Buffer } from "node:buffer";
import { BUS_NAME, NO_REPLY_EXPECTED } from "../../interop/dbus/bus.ts";
import { encodeHeader, encodeText, type Header, TYPE } from "../../interop/dbus/message.ts";

/** The serial of the guard's own messages. No reply refers to them. */
const OWN_SERIAL = 0xffff_ffff;

/** The names of errors of the guard. */
export const ERROR = {
  accessDenied: `${BUS_NAME}.Error.AccessDenied`,
  invalidArgs: `${BUS_NAME}.Error.InvalidArgs`,
  noOwner: `${BUS_NAME}.Error.NameHasNoOwner`,
  unknownService: `${BUS_NAME}.Error.ServiceUnknown`,
} as const;

/** Returns whether the sender of a call waits for a reply. */
export function expectsReply({ type, flags }: Header): boolean {
  return type === TYPE.call && (flags & NO_REPLY_EXPECTED) === 0;
}

/** Sender and destination of a reply of the guard, as a bus sets them. Without a bus, both are missing. */
export interface ReplyEnds {
  readonly sender?: string | undefined;
  readonly destination?: string | undefined;
}

/** Makes the error that answers a call. */
export function errorReply(
  { serial, isLittleEndian }: Pick<Header, "serial" | "isLittleEndian">,
  errorName: string,
  text: string,
  ends: ReplyEnds,
): Buffer {
  const body = encodeText(text, isLittleEndian);
  const head = { type: TYPE.error, errorName, signature: "s" };
  return reply({ serial, isLittleEndian }, head, body, ends);
}

/** Makes a return with one boolean. */
export function booleanReply(call: Header, value: boolean, ends: ReplyEnds): Buffer {
  const body = Buffer.alloc(4);
  if (value) body[call.isLittleEndian ? 0 : 3] = 1;
  return reply(call, { type: TYPE.return, signature: "b" }, body, ends);
}

function reply(
  { serial, isLittleEndian }: Pick<Header, "serial" | "isLittleEndian">,
  head: Pick<Header, "type" | "errorName" | "signature">,
  body: Buffer,
  ends: ReplyEnds,
): Buffer {
  const header = encodeHeader({
    isLittleEndian,
    ...head,
    ...ends,
    flags: NO_REPLY_EXPECTED,
    bodyLength: body.length,
    serial: OWN_SERIAL,
    replySerial: serial,
    descriptors: 0,
  });
  return Buffer.concat([header, body]);
}

/** Maximum calls that wait for a reply, for each direction of a connection. One more replaces the oldest. */
const MAX_OPEN_CALLS = 16_384;

/** Calls that wait for their reply. */
export class OpenCalls<K, T> {
  readonly #calls = new Map<K, T>();

  has(key: K): boolean {
    return this.#calls.has(key);
  }

  /** Adds a call. Returns the oldest call, if the new one replaces it. */
  add(key: K, call: T): T | undefined {
    let forgotten: T | undefined;
    if (this.#calls.size >= MAX_OPEN_CALLS) {
      const [[oldest, its]] = this.#calls as unknown as [[K, T]];
      this.#calls.delete(oldest);
      forgotten = its;
    }
    this.#calls.set(key, call);
    return forgotten;
  }

  get(key: K): T | undefined {
    return this.#calls.get(key);
  }

  /** Removes a call. */
  delete(key: K): void {
    this.#calls.delete(key);
  }

  /** Removes all calls, and returns them. */
  clear(): T[] {
    const all = [...this.#calls.values()];
    this.#calls.clear();
    return all;
  }
}
