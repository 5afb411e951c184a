/** D-Bus connections that tests control message by message, on both sides of a guard. */

import { Buffer } from "node:buffer";
import {
  encodeHeader,
  encodeText,
  FIXED_BYTES,
  type Header,
  headerLength,
  parseHeader,
  readTexts,
  TYPE,
} from "../../interop/dbus/message.ts";
import { Behind, End } from "../support/guard.ts";

export const BUS = "org.freedesktop.DBus";

/** A message that arrived. */
export interface Received extends Header {
  readonly body: Buffer;
  /** The first argument, if it is a text. */
  readonly text: string | undefined;
}

/** An authenticated connection. */
export class Wire {
  readonly end: End;
  #serial = 0;

  private constructor(end: End) {
    this.end = end;
  }

  /** Connects and authenticates as root. */
  static async open(path: string): Promise<Wire> {
    const end = await End.open(path);
    end.send("\0AUTH EXTERNAL 30\r\n");
    await end.until("\r\n");
    end.send("BEGIN\r\n");
    return new Wire(end);
  }

  /** Connects, and calls Hello. */
  static async onBus(path: string): Promise<{ wire: Wire; name: string }> {
    const wire = await Wire.open(path);
    const { text } = await wire.ask("Hello");
    return { wire, name: text! };
  }

  /** Authenticates the client of a server. */
  static async accept(end: End): Promise<{ wire: Wire; claim: string }> {
    const claim = await end.until("\r\n");
    end.send(`OK ${"0".repeat(32)}\r\n`);
    await end.until("BEGIN\r\n");
    return { wire: new Wire(end), claim: claim.trim() };
  }

  /** Sends a message, and returns its serial. */
  send(header: Partial<Header>, ...values: readonly (string | number)[]): number {
    const message = messageOf({ serial: ++this.#serial, ...header }, ...values);
    this.end.send(message.toString("latin1"));
    return header.serial ?? this.#serial;
  }

  /** Returns the next message. */
  async next(): Promise<Received> {
    const fixed = await this.end.bytes(FIXED_BYTES);
    const length = headerLength(Buffer.from(fixed, "latin1"));
    const rest = await this.end.bytes(length - FIXED_BYTES);
    const header = parseHeader(Buffer.from(fixed + rest, "latin1"));
    const body = Buffer.from(await this.end.bytes(header.bodyLength), "latin1");
    const text = header.signature.startsWith("s")
      ? readTexts(body, header.isLittleEndian, 1)[0]
      : undefined;
    return { ...header, body, text };
  }

  /** Returns the reply to a call, and drops what arrives before it. */
  async replyTo(serial: number): Promise<Received> {
    while (true) {
      const message = await this.next();
      if (message.replySerial === serial) return message;
    }
  }

  /** Calls a method of the bus, and returns the reply. */
  ask(member: string, ...values: readonly (string | number)[]): Promise<Received> {
    const head = { path: "/org/freedesktop/DBus", interface: BUS, member, destination: BUS };
    return this.replyTo(this.send(head, ...values));
  }
}

/** Makes a message with texts and 32-bit numbers. By default it is a call of Clock.Now at "/". */
export function messageOf(
  header: Partial<Header>,
  ...values: readonly (string | number)[]
): Buffer {
  const parts: Buffer[] = [];
  let length = 0;
  for (const value of values) {
    const padding = (4 - length % 4) % 4;
    const part = typeof value === "string" ? encodeText(value, true) : Buffer.alloc(4, value);
    parts.push(Buffer.alloc(padding), part);
    length += padding + part.length;
  }
  const body = Buffer.concat(parts);
  const { type = TYPE.call } = header;
  const isNamed = type === TYPE.call || type === TYPE.signal;
  const head = encodeHeader({
    isLittleEndian: true,
    type,
    flags: 0,
    serial: 1,
    ...(isNamed && { path: "/", interface: "org.example.Clock", member: "Now" }),
    bodyLength: body.length,
    signature: values.map((value) => typeof value === "string" ? "s" : "u").join(""),
    descriptors: 0,
    ...header,
  });
  return Buffer.concat([head, body]);
}

/** A server without a bus: `next()` returns its authenticated connections. */
export async function directServer(): Promise<{
  readonly path: string;
  readonly behind: Behind;
  next(): Promise<{ wire: Wire; claim: string }>;
}> {
  const behind = await Behind.start();
  return { path: behind.path, behind, next: async () => Wire.accept(await behind.next()) };
}
