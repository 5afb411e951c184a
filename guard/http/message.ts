/** Requests and responses: checks of their heads beyond those of llhttp, and how they are written anew. */

import { Buffer } from "node:buffer";
import { BAD_CODING, BAD_HOST, type Problem } from "../../servers/http/problem.ts";
import type { AttributeHeader } from "../../servers/http/request_attributes.ts";
import { isHost } from "../../servers/http/request_target.ts";
import { type FieldKinds, hasClose, listedIn, responseFields } from "../headers.ts";
import { type Framing, MAX_FIELDS, Parser, type RawHead } from "./parser.ts";

/** Maximum bytes of a head, as in `node:http`; in HTTP/2 those of all names and values. */
export const MAX_HEAD_BYTES = 16384;

/** A request that was parsed. */
export interface Request {
  readonly method: string;
  /** The request target, as sent. */
  readonly target: string;
  /** The header lines to forward, without those that the guard sets. */
  readonly lines: readonly string[];
  readonly framing: number | "chunked" | undefined;
  /** The protocols of an upgrade. */
  readonly upgrade: string | undefined;
  /** The value of `Expect` in lower case. */
  readonly expect: string | undefined;
  readonly isHttp10: boolean;
  /** Whether the connection closes after the response: HTTP/1.0, `Connection: close` or an upgrade. */
  isLast: boolean;
  /** The body that has arrived and was not forwarded. */
  parts: Buffer[];
  /** Whether the whole request has arrived. */
  isComplete: boolean;
  /** Bytes of the head, and of the body that arrived with it. */
  size: number;
}

/** A response that was parsed. */
export interface Response {
  readonly status: number;
  readonly reason: string;
  readonly lines: readonly string[];
  readonly hasDate: boolean;
  readonly framing: Framing;
  /** `Content-Length`, also of a response to HEAD, or of a 304. */
  readonly length: number | undefined;
  /** Whether the upstream keeps the connection open, and both sides agree on the end of the response. */
  readonly isReusable: boolean;
}

/** The header fields of a head. */
interface Fields {
  readonly lines: string[];
  readonly length: number | undefined;
  readonly isChunked: boolean;
  readonly connection: string;
  readonly upgrade: string | undefined;
  readonly expect: string | undefined;
  readonly hosts: readonly string[];
  readonly hasDate: boolean;
  /** Why the framing is not accepted. */
  readonly problem: "length" | "coding" | undefined;
}

/**
 * Reads the header fields. Their lines are written anew from names and values.
 *
 * @returns `undefined` if the spans do not cover all of the head: something would not be understood.
 */
function fieldsOf(
  { text, spans }: RawHead,
  firstEnd: number,
  kindOf: FieldKinds,
): Fields | undefined {
  const lines: string[] = [], hosts: string[] = [];
  let length: number | undefined, isChunked = false, cookieAt = -1, cookies = "";
  let connection = "", upgrade: string | undefined, expect: string | undefined, hasDate = false;
  let problem: Fields["problem"];
  let end = firstEnd;
  for (let at = 2; at < spans.length; at += 4) {
    const nameEnd = spans[at + 1]!;
    // Between a line and the next one is CRLF, and after a name a colon.
    if (spans[at] !== end + 2 || text.charCodeAt(nameEnd) !== 58) return undefined;
    const valueStart = afterSpace(text, nameEnd + 1);
    end = spans[at + 3]!;
    // llhttp reports an empty value at the next line, because the value may continue there.
    if (end <= spans[at + 2]!) end = valueStart;
    else if (spans[at + 2] !== valueStart) return undefined;
    const name = text.slice(spans[at], nameEnd);
    const value = withoutTrailingSpace(text.slice(valueStart, end));
    const kind = kindOf(name);
    switch (kind) {
      case "drop":
        continue;
      case "refuse":
        problem = "length";
        continue;
      case "connection":
        connection += connection === "" ? value : `,${value}`;
        continue;
      case "content-length":
        if (length !== undefined || !/^[0-9]{1,15}$/.test(value)) problem = "length";
        length = Number(value);
        continue;
      case "transfer-encoding":
        if (isChunked || value.toLowerCase() !== "chunked") problem = "coding";
        isChunked = true;
        continue;
      case "upgrade":
        upgrade = upgrade === undefined ? value : `${upgrade},${value}`;
        continue;
      case "expect":
        expect = value.toLowerCase();
        continue;
      case "cookie": // one line: RFC 6265, 5.4
        cookies += cookies === "" || value === "" ? value : `; ${value}`;
        if (cookieAt === -1) cookieAt = lines.push("") - 1;
        lines[cookieAt] = `${name}: ${cookies}\r\n`;
        continue;
      case "host":
        hosts.push(value);
        break;
      case "date":
        hasDate = true;
        break;
    }
    lines.push(`${name}: ${value}\r\n`);
  }
  if (end !== text.length) return undefined;
  if (isChunked && length !== undefined) problem ??= "length";
  const listed = listedIn(connection);
  const kept = listed === undefined
    ? lines
    : lines.filter((line) => !listed.has(line.slice(0, line.indexOf(":")).toLowerCase()));
  return {
    ...{ lines: kept, length, isChunked, connection, upgrade, expect, hosts, hasDate, problem },
  };
}

/** Returns the index of the first character from `at` on that is neither a space nor a tab. */
function afterSpace(text: string, at: number): number {
  let code: number;
  while ((code = text.charCodeAt(at)) === 32 || code === 9) at++;
  return at;
}

/** Removes spaces and tabs at the end. `trimEnd()` would also remove the byte A0. */
function withoutTrailingSpace(value: string): string {
  let end = value.length;
  let code: number;
  while (end > 0 && ((code = value.charCodeAt(end - 1)) === 32 || code === 9)) end--;
  return value.slice(0, end);
}

/**
 * Returns the values of a header in the lines that are forwarded; `undefined` if a server may read a header
 * with a similar name as the same one: CGI treats "_" and "-" alike.
 */
export function forwardedValues(
  { lines }: Request,
  name: AttributeHeader,
): readonly string[] | undefined {
  const values: string[] = [];
  for (const line of lines) {
    if (line.charCodeAt(name.length) !== 58) continue;
    const found = line.slice(0, name.length).toLowerCase();
    if (found.replaceAll(/[^a-z]/g, "-") !== name) continue;
    if (found !== name) return undefined;
    values.push(line.slice(name.length + 2, -2));
  }
  return values;
}

/** Parses the requests of one client. */
export class RequestParser extends Parser {
  /** The request, once its head is complete. */
  request: Request | undefined;
  /** The response if the head is refused. */
  problem: Problem | undefined;
  /** Whether the head has too many fields. There is no `request` then. */
  hasTooManyFields = false;
  readonly #kindOf: FieldKinds;
  readonly #allowsEmptyHost: boolean;

  /** @param allowsEmptyHost Whether Host may be empty: RFC 9112, 3.2. The upstream receives "localhost". */
  constructor(kindOf: FieldKinds, allowsEmptyHost = false) {
    super("request");
    this.#kindOf = kindOf;
    this.#allowsEmptyHost = allowsEmptyHost;
  }

  protected override check(head: RawHead): Framing | undefined {
    const { text, spans, isUpgrade } = head;
    if (spans.length > 4 * MAX_FIELDS + 2) {
      this.hasTooManyFields = true;
      return undefined;
    }
    const [start = 0, end = 0] = spans;
    const method = text.slice(0, start - 1);
    const firstEnd = end + " HTTP/1.x".length;
    const isHttp10 = text.charCodeAt(firstEnd - 1) === 48;
    // llhttp accepts more: two spaces, HTTP/0.9 and 2.0, RTSP.
    const isStrict = /^[A-Z-]+$/.test(method) && text.charCodeAt(start - 1) === 32 &&
      text.startsWith(isHttp10 ? " HTTP/1.0" : " HTTP/1.1", end);
    const fields = isStrict ? fieldsOf(head, firstEnd, this.#kindOf) : undefined;
    if (fields === undefined) return undefined;
    const { lines, length, isChunked, connection, upgrade, expect, hosts, problem } = fields;
    const target = text.slice(start, end);
    this.request = {
      ...{ method, target, lines, upgrade: isUpgrade ? upgrade : undefined, expect, isHttp10 },
      framing: isChunked ? "chunked" : length,
      isLast: isHttp10 || isUpgrade || hasClose(connection),
      parts: [],
      isComplete: false,
      size: 0,
    };
    if (problem === "coding" || (isChunked && isHttp10)) this.problem = BAD_CODING;
    else if (this.#allowsEmptyHost && hosts.length === 1 && hosts[0] === "") {
      lines[lines.findIndex((line) => /^host:/i.test(line))] = "Host: localhost\r\n";
    } else if (hosts.length > 1 || !hosts.every(isHost)) this.problem = BAD_HOST;
    else if (hosts.length === 0) {
      if (!isHttp10) this.problem = BAD_HOST;
      else lines.push("Host: localhost\r\n"); // the upstream receives HTTP/1.1
    }
    if (problem !== undefined || this.problem !== undefined) return undefined;
    return isChunked ? "chunked" : length ?? 0;
  }

  override reset(): void {
    super.reset();
    this.hasTooManyFields = false;
    this.request = this.problem = undefined;
  }
}

/** Characters that a reason phrase may have: RFC 9112, 4. */
const REASON = /^[\t\x20-\x7e\x80-\xff]*$/;

/** Parses the responses of one connection to the upstream. */
export class ResponseParser extends Parser {
  /** The response, once its head is complete. */
  response: Response | undefined;
  /** Whether the next response is one to HEAD. */
  isHead = false;

  constructor() {
    super("response");
  }

  protected override check(head: RawHead): Framing | undefined {
    const { text, status } = head;
    const lineEnd = text.indexOf("\r\n");
    const firstEnd = lineEnd === -1 ? text.length : lineEnd;
    const isHttp10 = text.startsWith("HTTP/1.0 ");
    const isStrict = (isHttp10 || text.startsWith("HTTP/1.1 ")) && status <= 599 &&
      text.slice(9, 12) === String(status) && (firstEnd === 12 || text.charCodeAt(12) === 32);
    if (!isStrict) {
      this.error ??= `it answers with the status line ${JSON.stringify(text.slice(0, firstEnd))}`;
      return undefined;
    }
    const fields = fieldsOf(head, firstEnd, responseFields);
    if (fields === undefined) return undefined;
    const { lines, length, isChunked, connection, hasDate, problem } = fields;
    if (problem !== undefined || (isChunked && isHttp10)) {
      this.error ??= "the length of its response is ambiguous";
      return undefined;
    }
    const hasNoBody = this.isHead || status < 200 || status === 204 || status === 304;
    const framing = hasNoBody
      ? this.isHead ? "head" : 0
      : isChunked
      ? "chunked"
      : length ?? "close";
    // Some servers send a body with a response that must have none.
    const mayHaveBody = (hasNoBody || status === 205) && (isChunked || (length ?? 0) > 0);
    const reason = text.slice(13, firstEnd);
    this.response = {
      ...{ status, hasDate, framing },
      reason: REASON.test(reason) ? reason : "",
      lines: status === 101 ? allLines(head) : lines,
      length: status < 200 || status === 204 ? undefined : length,
      isReusable: !isHttp10 && !hasClose(connection) && framing !== "close" && !mayHaveBody,
    };
    return framing;
  }

  override reset(): void {
    super.reset();
    this.response = undefined;
  }
}

/** The header lines of a 101, with `Connection` and `Upgrade`, and without framing. */
function allLines({ text, spans }: RawHead): readonly string[] {
  const lines: string[] = [];
  for (let at = 2; at < spans.length; at += 4) {
    const name = text.slice(spans[at], spans[at + 1]);
    if (/^(content-length|transfer-encoding|trailer)$/i.test(name)) continue;
    lines.push(`${name}: ${withoutTrailingSpace(text.slice(spans[at + 2], spans[at + 3]))}\r\n`);
  }
  return lines;
}

const CRLF_CRLF = Buffer.from("\r\n\r\n");

/**
 * Finds the end of a head.
 *
 * @param from Where to search; an earlier search has found nothing before.
 * @returns The length of the head without the end of its last line; −1 if the head is incomplete.
 */
export function endOfHead(bytes: Buffer, from: number): number {
  return bytes.indexOf(CRLF_CRLF, Math.max(0, from - CRLF_CRLF.length + 1));
}

/** Names that a trailer section must not have: framing, routing, and fields of the connection. RFC 9110, 6.5.1 */
const NO_TRAILER =
  /^(connection|content.(length|encoding|type|range)|host|keep-alive|proxy-connection|set-cookie|te|trailer|transfer.encoding|upgrade)$/i;

function trailerLines(trailers: readonly string[]): string {
  let text = "";
  for (let at = 0; at < trailers.length; at += 2) {
    if (NO_TRAILER.test(trailers[at]!)) continue;
    text += `${trailers[at]}: ${withoutTrailingSpace(trailers[at + 1]!)}\r\n`;
  }
  return text;
}

/** The part of a message that is written at once. */
export interface Piece {
  /** The head; "" if it was written before. */
  readonly head: string;
  readonly parts: readonly Buffer[];
  readonly isChunked: boolean;
  /** Whether the message ends. */
  readonly isEnd: boolean;
  readonly trailers?: readonly string[];
}

/** Serialises a part of a message. Adjacent data becomes one chunk. A string is in Latin-1. */
export function serialise(
  { head, parts, isChunked, isEnd, trailers = [] }: Piece,
): string | Buffer {
  let size = 0;
  for (const { length } of parts) size += length;
  const before = isChunked && size > 0 ? `${head}${size.toString(16)}\r\n` : head;
  const line = isChunked && size > 0 ? "\r\n" : "";
  const after = isChunked && isEnd ? `${line}0\r\n${trailerLines(trailers)}\r\n` : line;
  if (size === 0) return before + after;
  if (before === "" && parts.length === 1) return parts[0]!;
  const bytes = Buffer.allocUnsafe(before.length + size + after.length);
  let at = bytes.write(before, 0, "latin1");
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  bytes.write(after, at, "latin1");
  return bytes;
}
