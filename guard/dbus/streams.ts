/** Reads and forwards D-Bus messages. */

import { Buffer } from "node:buffer";
import {
  FIXED_BYTES,
  type Header,
  headerLength,
  MalformedMessage,
  messageLengths,
  parseHeader,
} from "../../interop/dbus/message.ts";
import { type ByteReader, Ended, type MessageWriter } from "../byte_streams.ts";

const MAX_PART_BYTES = 65_536;

/** Reads the next header; `undefined` at the end of the connection. */
export async function readHeader(reader: ByteReader): Promise<Header | undefined> {
  const fixed = await reader.exactly(FIXED_BYTES);
  if (fixed === undefined) return undefined;
  const rest = await reader.exactly(headerLength(fixed) - FIXED_BYTES);
  if (rest === undefined) throw new Ended("the connection ended within a header");
  return parseHeader(Buffer.concat([fixed, rest]));
}

/**
 * Reads the next header of the upstream. Drops messages that this parser rejects: buses forward some of them,
 * and if they ended the connection, a client of the bus could end those of all others.
 *
 * @param onDropped Called with the reason.
 * @throws {MalformedMessage} If the length of a message is not known.
 */
export async function readUpstreamHeader(
  reader: ByteReader,
  onDropped: (reason: MalformedMessage) => void,
): Promise<Header | undefined> {
  while (true) {
    const fixed = await reader.exactly(FIXED_BYTES);
    if (fixed === undefined) return undefined;
    const { header, body } = messageLengths(fixed);
    let left = header - FIXED_BYTES;
    try {
      headerLength(fixed); // throws if the header is longer than the parser allows
      const rest = await reader.exactly(left);
      if (rest === undefined) throw new Ended("the connection ended within a header");
      left = 0;
      return parseHeader(Buffer.concat([fixed, rest]));
    } catch (error) {
      if (!(error instanceof MalformedMessage)) throw error;
      onDropped(error);
      await skip(reader, left + body);
    }
  }
}

/** Reads a whole body. */
export async function readBody(reader: ByteReader, length: number): Promise<Buffer> {
  const body = await reader.exactly(length);
  if (body === undefined) throw new Ended("the connection ended within a body");
  return body;
}

/** Reads and discards a body. */
export async function skip(reader: ByteReader, length: number): Promise<void> {
  for (let left = length; left > 0;) left -= (await part(reader, left)).length;
}

async function part(reader: ByteReader, left: number): Promise<Buffer> {
  const bytes = await reader.some(Math.min(left, MAX_PART_BYTES));
  if (bytes === undefined) throw new Ended("the connection ended within a body");
  return bytes;
}

/** Writes a message. A body that was not read is copied in parts. */
export async function forward(
  head: Buffer,
  body: Buffer | undefined,
  length: number,
  reader: ByteReader,
  writer: MessageWriter,
): Promise<void> {
  writer.begin(head.length + length);
  if (body !== undefined) return await writer.write(Buffer.concat([head, body]));
  await writer.write(head);
  for (let left = length; left > 0;) {
    const bytes = await part(reader, left);
    left -= bytes.length;
    await writer.write(bytes);
  }
}
