/** Header fields of HTTP/2: what is required of them beyond the checks of the runtime, and how they are forwarded. */

import type { Decision } from "../../core/policy/decide/decision.ts";
import { BAD_HOST, type Problem } from "../../servers/http/problem.ts";
import type { HeaderValues } from "../../servers/http/request_attributes.ts";
import { isHost } from "../../servers/http/request_target.ts";
import {
  decisionFields,
  type FieldKinds,
  type IdentityFields,
  responseFields,
} from "../headers.ts";
import { type DetailedAnswer, MALFORMED, NO_TUNNEL, TOO_LONG, TOO_MANY } from "../http/answers.ts";
import { MAX_HEAD_BYTES } from "../http/message.ts";
import { MAX_FIELDS } from "../http/parser.ts";

/** Header fields as `node:http2` sends them. A repeated field has an array. */
export interface Fields {
  [name: string]: string | string[];
}

/** The header section of a request. */
export interface RequestHead {
  readonly method: string;
  readonly path: string;
  readonly authority: string;
  /** The fields to forward, without pseudo-headers. */
  readonly fields: Fields;
  /** The value of `expect` in lower case. */
  readonly expect: string | undefined;
}

/** A request that is refused before the policy decides. */
export interface RefusedHead {
  readonly answer: DetailedAnswer | Problem;
  /** The method and path for the audit log, and the reason; `undefined` if they are malformed too. */
  readonly audit: { readonly action: string; readonly reason: string } | undefined;
}

/** A token in lower case: RFC 9113, 8.2.1. */
const NAME = /^[!#$%&'*+.^_`|~0-9a-z-]+$/;

/** A field value without surrounding whitespace: RFC 9113, 8.2.1. */
const VALUE = /^(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?$/;

/** Fields that a message of HTTP/2 must not have: RFC 9113, 8.2.2. The last is that of an upgrade. */
const CONNECTION_SPECIFIC = new Set([
  "connection",
  "http2-settings",
  "keep-alive",
  "proxy-connection",
  "transfer-encoding",
  "upgrade",
]);

const PSEUDO_HEADERS = new Set([":method", ":scheme", ":authority", ":path"]);

/** A header section in parts; `undefined` if it is malformed. */
interface Section {
  readonly pseudo: ReadonlyMap<string, string>;
  readonly fields: readonly (readonly [name: string, value: string])[];
}

/** @param raw Names and values in turns. */
function sectionOf(raw: readonly string[]): Section | undefined {
  const pseudo = new Map<string, string>();
  const fields: (readonly [string, string])[] = [];
  for (let at = 0; at < raw.length; at += 2) {
    const name = raw[at]!, value = raw[at + 1]!;
    if (!VALUE.test(value)) return undefined;
    if (name.startsWith(":")) {
      if (fields.length > 0 || pseudo.has(name)) return undefined;
      pseudo.set(name, value);
    } else if (!NAME.test(name) || CONNECTION_SPECIFIC.has(name)) return undefined;
    else fields.push([name, value]);
  }
  return { pseudo, fields };
}

function sizeOf(raw: readonly string[]): number {
  return raw.reduce((size, text) => size + text.length, 0);
}

function add(fields: Fields, name: string, value: string): void {
  const present = fields[name];
  if (present === undefined) fields[name] = value;
  else if (typeof present === "string") fields[name] = [present, value];
  else present.push(value);
}

const newFields = (): Fields => Object.create(null);

const malformed: RefusedHead = { answer: MALFORMED, audit: undefined };

/**
 * Checks the header section of a request.
 *
 * @param raw Names and values in turns, as received.
 */
export function requestHead(
  raw: readonly string[],
  kindOf: FieldKinds,
): RequestHead | RefusedHead {
  const section = sectionOf(raw);
  if (section === undefined) return malformed;
  const { pseudo } = section;
  const method = pseudo.get(":method") ?? "";
  if (method === "CONNECT") {
    const action = `CONNECT ${pseudo.get(":authority") ?? ""}`;
    return { answer: NO_TUNNEL, audit: { action, reason: "CONNECT is not supported" } };
  }
  const scheme = pseudo.get(":scheme") ?? "";
  const path = pseudo.get(":path") ?? "";
  const isPath = path.startsWith("/") || (path === "*" && method === "OPTIONS");
  const isKnown = [...pseudo.keys()].every((name) => PSEUDO_HEADERS.has(name));
  if (!isKnown || !isPath || (scheme !== "http" && scheme !== "https")) return malformed;
  const tooLarge = sizeOf(raw) > MAX_HEAD_BYTES
    ? TOO_LONG
    : section.fields.length > MAX_FIELDS
    ? TOO_MANY
    : undefined;
  if (tooLarge !== undefined) {
    const action = `${method} ${path.slice(0, 200)}`;
    return { answer: tooLarge, audit: { action, reason: tooLarge.detail } };
  }

  const fields = newFields();
  let expect: string | undefined;
  const hosts = pseudo.has(":authority") ? [pseudo.get(":authority")!] : [];
  for (const [name, value] of section.fields) {
    if (name === "te") {
      if (value !== "trailers") return malformed;
      fields["te"] = value;
      continue;
    }
    if (name === "trailer") {
      add(fields, name, value);
      continue;
    }
    switch (kindOf(name)) {
      case "drop":
        break;
      case "forward":
      case "cookie":
        add(fields, name, value);
        break;
      case "content-length":
        if (name in fields || !/^\d{1,15}$/.test(value)) return malformed;
        fields[name] = value;
        break;
      case "expect":
        if (expect !== undefined) return malformed;
        expect = value.toLowerCase();
        break;
      case "host":
        hosts.push(value);
        break;
      default: // names like those of framing fields
        return malformed;
    }
  }
  const authority = hosts[0];
  if (authority === undefined || !hosts.every((host) => host === authority) || !isHost(authority)) {
    const audit = { action: `${method} ${path}`, reason: BAD_HOST.detail };
    return { answer: BAD_HOST, audit };
  }
  return { method, path, authority, fields, expect };
}

/**
 * The header section that the upstream receives. Its scheme is that of the connection, because an upstream may
 * trust "https" like `X-Forwarded-Proto`.
 *
 * @param path The path on which the policy decided.
 */
export function forwardedHead(
  { method, authority, fields }: RequestHead,
  path: string,
  identity: IdentityFields,
  decision: Decision,
): Fields {
  const head = newFields();
  Object.assign(head, {
    ":method": method,
    ":scheme": "http",
    ":authority": authority,
    ":path": path,
  }, fields);
  for (const [name, value] of [...identity, ...decisionFields(decision)]) {
    head[name.toLowerCase()] = value;
  }
  return head;
}

/** The values of headers that attributes are read from, as the upstream receives them. */
export function valuesIn({ authority, fields }: RequestHead): HeaderValues {
  return (name) => {
    if (name === "host") return [authority];
    const alike = Object.keys(fields).filter((key) => key.replaceAll(/[^a-z]/g, "-") === name);
    return alike.every((key) => key === name) ? alike.flatMap((key) => fields[key]!) : undefined;
  };
}

/** A response's header section. */
export interface ResponseHead {
  readonly status: number;
  /** The fields to forward, and `:status`. */
  readonly fields: Fields;
}

/** Checks the header section of a response. Returns `undefined` if it is malformed. */
export function responseHead(raw: readonly string[]): ResponseHead | undefined {
  const section = sectionOf(raw);
  if (section === undefined || sizeOf(raw) > MAX_HEAD_BYTES) return undefined;
  const status = section.pseudo.get(":status") ?? "";
  if (section.pseudo.size !== 1 || !/^[2-5]\d\d$/.test(status)) return undefined;
  const fields = newFields();
  for (const [name, value] of section.fields) {
    const kind = responseFields(name);
    if (kind === "refuse") return undefined;
    if (kind === "content-length" && (name in fields || !/^\d{1,15}$/.test(value))) {
      return undefined;
    }
    add(fields, name, value);
  }
  fields[":status"] = status;
  return { status: Number(status), fields };
}

/** Names that a trailer section must not have, beside those of framing: RFC 9110, 6.5.1. */
const NO_TRAILER = new Set(["host", "content-encoding", "content-type", "content-range", "te"]);

/**
 * The trailer section to forward; `undefined` if it is malformed.
 *
 * @param kindOf The kinds of fields in this direction: identity headers must not arrive as trailers either.
 */
export function trailersOf(
  raw: readonly string[],
  kindOf: FieldKinds,
): Fields | undefined {
  const section = sectionOf(raw);
  if (section === undefined || section.pseudo.size > 0 || sizeOf(raw) > MAX_HEAD_BYTES) {
    return undefined;
  }
  const fields = newFields();
  for (const [name, value] of section.fields) {
    const kind = kindOf(name);
    if (kind === "refuse" || kind === "content-length") return undefined;
    if (kind !== "drop" && !NO_TRAILER.has(name)) add(fields, name, value);
  }
  return fields;
}

/** Whether a request or response is one of gRPC. */
export function isGrpc({ "content-type": type }: Fields): boolean {
  return typeof type === "string" && /^application\/grpc(?:[+;]|$)/.test(type);
}

/** HTTP status → gRPC status; see doc/statuscodes.md of gRPC. */
const GRPC_STATUS: { readonly [status: number]: number } = {
  400: 13, // INTERNAL
  403: 7, // PERMISSION_DENIED
  408: 4, // DEADLINE_EXCEEDED
  414: 8, // RESOURCE_EXHAUSTED
  431: 8,
  501: 12, // UNIMPLEMENTED
  502: 14, // UNAVAILABLE
};

/** UNKNOWN. */
const GRPC_UNKNOWN = 2;

/** The status of a gRPC call that the guard answers. It is sent as header or as trailer. */
export function grpcStatus({ status, detail }: DetailedAnswer | Problem): Fields {
  return {
    "grpc-status": String(GRPC_STATUS[status] ?? GRPC_UNKNOWN),
    "grpc-message": percentEncoded(detail),
  };
}

/** Encodes a message as in gRPC's PROTOCOL-HTTP2.md: printable ASCII but "%" stays. */
function percentEncoded(text: string): string {
  return Array.from(new TextEncoder().encode(text), (byte) => {
    const isPlain = byte >= 0x20 && byte <= 0x7e && byte !== 0x25;
    return isPlain
      ? String.fromCharCode(byte)
      : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }).join("");
}
