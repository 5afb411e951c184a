/** Replies that the guard itself sends, and the calls that wait for a reply. */

import { Buffer } from "node:buffer";
import { BUS_NAME, NO_REPLY_EXPECTED } from "../../interop/dbus/bus.ts";
import { encodeHeader, encodeText, type Header, TYPE } from "../../interop/dbus/message.ts";

/** The serial of the guard's own messages. No reply refers to them. */
const OWN_SERIAL = 0xffff_ffff;

/** The names of errors of the guard. */
export const ERROR = {
  accessDenied: `${BUS_NAME}.Error.AccessDenied`,
  limitsExceeded: `${BUS_NAME}.Error.LimitsExceeded`,
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

/** Maximum calls of one direction of a connection that wait for a reply. */
const MAX_OPEN_CALLS = 4096;

/** Maximum length of the object paths of a client's calls together. */
const MAX_OPEN_PATH_BYTES = 1 << 20;

/**
 * Calls of a client that wait for their reply. None is forgotten: the client could use its serial again, and
 * the late reply would belong to the wrong call.
 */
export class OpenCalls<T extends { readonly header: Header }> {
  readonly #calls = new Map<number, T>();
  #pathBytes = 0;

  /** Whether so many calls wait for a reply that no other one may be added. */
  get isFull(): boolean {
    return this.#calls.size >= MAX_OPEN_CALLS || this.#pathBytes >= MAX_OPEN_PATH_BYTES;
  }

  add(call: T): void {
    this.#calls.set(call.header.serial, call);
    this.#pathBytes += pathBytesOf(call);
  }

  get(serial: number): T | undefined {
    return this.#calls.get(serial);
  }

  /** Removes a call. */
  delete(serial: number): void {
    const call = this.#calls.get(serial);
    if (call === undefined) return;
    this.#calls.delete(serial);
    this.#pathBytes -= pathBytesOf(call);
  }

  /** Removes all calls, and returns them. */
  clear(): T[] {
    const all = [...this.#calls.values()];
    this.#calls.clear();
    this.#pathBytes = 0;
    return all;
  }
}

const pathBytesOf = ({ header: { path = "" } }: { readonly header: Header }) => path.length;

/**
 * Calls to a client that wait for its reply. A client may never answer some of them: beyond the limit, the
 * oldest is forgotten, and a reply to it is not forwarded.
 */
export class CallsToClient {
  readonly #keys = new Set<string>();

  add(sender: string | undefined, serial: number): void {
    if (this.#keys.size >= MAX_OPEN_CALLS) {
      const [oldest] = this.#keys;
      this.#keys.delete(oldest!);
    }
    this.#keys.add(keyOf(sender, serial));
  }

  /** Removes a call. Returns whether it was there. */
  delete(sender: string | undefined, serial: number): boolean {
    return this.#keys.delete(keyOf(sender, serial));
  }
}

const keyOf = (name: string | undefined, serial: number) => `${serial} ${name ?? ""}`;
