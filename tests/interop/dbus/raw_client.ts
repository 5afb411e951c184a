/** A client of a bus that sends messages with any header, as any user. Node alone changes its ids. */

import { Buffer } from "node:buffer";
import { connect, type Socket } from "node:net";
import process from "node:process";
import type { Ids } from "../../support/peers.ts";

/** Types of messages. */
export const TYPES = { call: 1, return: 2, error: 3, signal: 4 } as const;
export type Type = keyof typeof TYPES;

/** Name → code and signature. */
const FIELDS = {
  path: [1, "o"],
  interface: [2, "s"],
  member: [3, "s"],
  error: [4, "s"],
  replySerial: [5, "u"],
  destination: [6, "s"],
  sender: [7, "s"],
  signature: [8, "g"],
} as const;
export type Field = keyof typeof FIELDS;

/** The fields of a header; `null` is the same as a missing one. */
export type Header = { readonly [name in Field]?: string | number | null | undefined };

/** A message that was received. */
export interface Received {
  readonly type: Type;
  readonly serial: number;
  readonly header: Header;
  /** The first argument, if it is a text. */
  readonly text: string;
}

const padding = (length: number, to: number) => Buffer.alloc((to - length % to) % to);

function textBytes(text: string): Buffer {
  const size = Buffer.alloc(4);
  size.writeUInt32LE(Buffer.byteLength(text));
  return Buffer.concat([size, Buffer.from(`${text}\0`)]);
}

/** The bytes of a message. `body` has texts and numbers, each with its signature. */
function bytesOf(
  type: Type,
  flags: number,
  serial: number,
  header: Header,
  body: readonly (string | number)[],
): Buffer {
  let fields = Buffer.alloc(0);
  const all: Header = body.length === 0 ? header : {
    ...header,
    signature: body.map((each) => typeof each === "string" ? "s" : "u").join(""),
  };
  for (const [name, value] of Object.entries(all)) {
    if (value === null || value === undefined) continue;
    const [code, signature] = FIELDS[name as Field];
    const start = Buffer.concat([
      fields,
      padding(fields.length, 8),
      Buffer.from([code, 1, signature.charCodeAt(0), 0]),
    ]);
    fields = Buffer.concat([start, valueBytes(value, signature)]); // aligned: 8 + 4 bytes
  }
  let content = Buffer.alloc(0);
  for (const each of body) {
    content = Buffer.concat([content, padding(content.length, 4), valueBytes(each, "s")]);
  }
  const start = Buffer.alloc(16);
  start.set([108, TYPES[type], flags, 1]);
  start.writeUInt32LE(content.length, 4);
  start.writeUInt32LE(serial, 8);
  start.writeUInt32LE(fields.length, 12);
  return Buffer.concat([start, fields, padding(fields.length, 8), content]);
}

function valueBytes(value: string | number, signature: "o" | "s" | "u" | "g"): Buffer {
  if (typeof value === "number") {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    return bytes;
  }
  if (signature === "g") return Buffer.from(`${String.fromCharCode(value.length)}${value}\0`);
  return textBytes(value);
}

/** Reads a message; `undefined` if not all of its bytes are there. */
function parse(bytes: Buffer): { readonly message: Received; readonly size: number } | undefined {
  if (bytes.length < 16) return undefined;
  const fieldsEnd = 16 + bytes.readUInt32LE(12);
  const bodyStart = Math.ceil(fieldsEnd / 8) * 8;
  const size = bodyStart + bytes.readUInt32LE(4);
  if (bytes.length < size) return undefined;
  const header: { [name in Field]?: string | number } = {};
  for (let at = 16; at < fieldsEnd;) {
    at = Math.ceil(at / 8) * 8;
    const [name, [, signature]] = Object.entries(FIELDS).find(([, [code]]) => code === bytes[at])!;
    at += 4;
    if (signature === "u") header[name as Field] = bytes.readUInt32LE(at), at += 4;
    else {
      const length = signature === "g" ? bytes[at]! : bytes.readUInt32LE(at);
      at += signature === "g" ? 1 : 4;
      header[name as Field] = bytes.toString("utf8", at, at + length);
      at += length + 1;
    }
  }
  const isText = String(header.signature ?? "").startsWith("s");
  const text = isText
    ? bytes.toString("utf8", bodyStart + 4, bodyStart + 4 + bytes.readUInt32LE(bodyStart))
    : "";
  const type = Object.entries(TYPES).find(([, code]) => code === bytes[1])![0] as Type;
  return { message: { type, serial: bytes.readUInt32LE(8), header, text }, size };
}

/** Connects a socket as another user. */
function connectAs(path: string, { uid, gid, groups }: Ids): Socket {
  const ours = { groups: process.getgroups!(), gid: process.getegid!() };
  process.setgroups!([...groups]);
  process.setegid!(gid);
  process.seteuid!(uid);
  try {
    return connect(path); // the kernel records the ids in this call
  } finally {
    process.seteuid!(0);
    process.setegid!(ours.gid);
    process.setgroups!(ours.groups);
  }
}

/** A connection to a bus. */
export class RawClient {
  readonly ids: Ids;
  /** The unique name. */
  name = "";
  /** What arrived, but replies to {@link call}. */
  received: Received[] = [];
  readonly #socket: Socket;
  readonly #calls = new Map<number, (reply: Received) => void>();
  #buffer = Buffer.alloc(0);
  #serial = 0;

  private constructor(socket: Socket, ids: Ids) {
    this.#socket = socket;
    this.ids = ids;
  }

  /** Connects, authenticates and registers. Resolves to `undefined` if the bus hangs up. */
  static async connect(path: string, ids: Ids): Promise<RawClient | undefined> {
    const socket = connectAs(path, ids);
    socket.on("error", () => {});
    const client = new RawClient(socket, ids);
    socket.write(`\0AUTH EXTERNAL ${Buffer.from(String(ids.uid)).toString("hex")}\r\n`);
    const line = await new Promise<string>((resolve) => {
      socket.once("data", (bytes) => resolve(bytes.toString()));
      socket.once("close", () => resolve(""));
    });
    if (!line.startsWith("OK ")) {
      socket.destroy();
      return undefined;
    }
    socket.write("BEGIN\r\n");
    socket.on("data", (bytes: Buffer) => client.#read(bytes));
    const closed = new Promise<undefined>((resolve) =>
      socket.once("close", () => resolve(undefined))
    );
    const hello = await Promise.race([client.bus("Hello"), closed]);
    if (hello === undefined) return undefined;
    client.name = hello.text;
    return client;
  }

  #read(bytes: Buffer): void {
    this.#buffer = Buffer.concat([this.#buffer, bytes]);
    for (let found = parse(this.#buffer); found !== undefined; found = parse(this.#buffer)) {
      this.#buffer = this.#buffer.subarray(found.size);
      const { message } = found;
      const waiting = this.#calls.get(Number(message.header.replySerial ?? 0));
      if (waiting === undefined || message.header.sender !== BUS) this.received.push(message);
      else waiting(message);
    }
  }

  /** Sends a message, and returns its serial. */
  send(type: Type, header: Header, flags = 0, ...body: readonly (string | number)[]): number {
    const serial = ++this.#serial;
    this.#socket.write(bytesOf(type, flags, serial, header, body));
    return serial;
  }

  /** Calls a method of the bus. */
  bus(member: string, ...body: readonly (string | number)[]): Promise<Received> {
    const header = { path: "/org/freedesktop/DBus", interface: BUS, member, destination: BUS };
    const serial = this.send("call", header, 0, ...body);
    return new Promise((resolve) => this.#calls.set(serial, resolve))
      .then((reply) => {
        this.#calls.delete(serial);
        return reply as Received;
      });
  }

  end(): void {
    this.#socket.destroy();
  }
}

export const BUS = "org.freedesktop.DBus";
