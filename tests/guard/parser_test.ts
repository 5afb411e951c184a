/**
 * Tests of the guard's parser: it accepts each message that RFC 9112 permits, reads it as it is, and refuses
 * each head that another parser may divide in another way.
 */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { test } from "node:test";
import fc from "../support/properties.ts";
import { requestFields } from "../../guard/headers.ts";
import {
  endOfHead,
  forwardedValues,
  RequestParser,
  ResponseParser,
  serialise,
} from "../../guard/http/message.ts";
import { type Framing, Parser, type RawHead } from "../../guard/http/parser.ts";
import { soak } from "../support/suite.ts";

const RUNS = soak(300, 20_000);

const characters = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, index) => String.fromCharCode(from + index));
const visible = [...characters(0x21, 0x7e), ...characters(0x80, 0xff)];
const name = fc.string({
  unit: fc.constantFrom(..."!#$%&'*+.^`|~0123456789abcXYZ-"),
  minLength: 1,
  maxLength: 12,
}).map((text) => `T${text}`);
/** A field value without the space around it: RFC 9110, 5.5. */
const value = fc.string({ unit: fc.constantFrom(...visible, " ", "\t"), maxLength: 20 })
  .map((text) => text.replaceAll(/^[ \t]+|[ \t]+$/g, ""));
const space = fc.constantFrom("", " ", "\t", "  ", " \t ");
const fields = fc.array(fc.record({ name, before: space, value, after: space }), { maxLength: 8 });

interface Field {
  readonly name: string;
  readonly before: string;
  readonly value: string;
  readonly after: string;
}

/** Parses a head that has no body. Returns the header lines that the parser found. */
function parse(parser: RequestParser | ResponseParser, first: string, sent: readonly Field[]) {
  const lines = sent.map((each) => `${each.name}:${each.before}${each.value}${each.after}\r\n`);
  const head = `${first}\r\n${lines.join("")}`;
  const bytes = Buffer.from(`${head}\r\n`, "latin1");
  try {
    assert.equal(parser.parseHead(bytes, head.length - 2), bytes.length, String(parser.error));
    assert.equal(parser.error, undefined);
    assert.equal(parser.isComplete, true);
  } finally {
    parser.close();
  }
  const message = parser instanceof RequestParser ? parser.request : parser.response;
  return message!.lines;
}

const asWritten = (sent: readonly Field[]) =>
  sent.map(({ name, value }) => `${name}: ${value}\r\n`);

test("RequestParser accepts each valid header field, empty values included", () => {
  const host = { name: "Host", before: " ", value: "x", after: "" };
  fc.assert(
    fc.property(fields, (sent) => {
      const all = [host, ...sent];
      const parser = new RequestParser(requestFields(new Set()));
      assert.deepEqual(parse(parser, "GET / HTTP/1.1", all), asWritten(all));
    }),
    { numRuns: RUNS },
  );
});

test("ResponseParser accepts each valid header field, empty values included", () => {
  const reasons = fc.constantFrom("", "OK", "Not  Found", "\xe9");
  const length = { name: "Content-Length", before: " ", value: "0", after: "" };
  fc.assert(
    fc.property(fields, reasons, (sent, reason) => {
      const lines = parse(new ResponseParser(), `HTTP/1.1 200 ${reason}`, [...sent, length]);
      assert.deepEqual(lines, asWritten(sent));
    }),
    { numRuns: RUNS },
  );
});

const bytesOf = (text: string) => Buffer.from(text, "latin1");

/** Divides a head, up to its empty line, as a parser would that accepts anything. */
function divided(text: string, status: number, isUpgrade: boolean): RawHead {
  const [first = "", ...lines] = text.split("\r\n");
  const spans = status === 0 ? [first.indexOf(" ") + 1, first.lastIndexOf(" ")] : [0, 0];
  let at = first.length + 2;
  for (const line of lines) {
    const colon = line.indexOf(":");
    const start = at + colon + 1 + /^[ \t]*/.exec(line.slice(colon + 1))![0].length;
    spans.push(at, at + colon, start, at + line.length);
    at += line.length + 2;
  }
  return { text, spans, status, isUpgrade };
}

/** Our own checks without those of llhttp before them. */
class RequestChecks extends RequestParser {
  readonly framing: Framing | undefined;

  constructor(head: RawHead, allowsEmptyHost = false) {
    super(requestFields(new Set()), allowsEmptyHost);
    this.framing = this.check(head);
    this.close();
  }
}

class ResponseChecks extends ResponseParser {
  readonly framing: Framing | undefined;

  constructor(head: RawHead, isHead = false) {
    super();
    this.isHead = isHead;
    this.framing = this.check(head);
    this.close();
  }
}

const GET = "GET /a HTTP/1.1\r\nHost: x";

/** Heads that llhttp refuses too, or may accept in another version. The status is 400 or 501. */
const REFUSED: readonly (readonly [head: string, status: 400 | 501])[] = [
  ...["get", "Get", "G_T", "", "GET\t"].map((method) =>
    [`${method} /a HTTP/1.1\r\nHost: x`, 400] as const
  ),
  ...["HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "HTTP/1.11", "http/1.1", "RTSP/1.0", "XHTTP/1.0"].map((
    version,
  ) => [`GET /a ${version}\r\nHost: x`, 400] as const),
  ...["-1", "+5", "5 5", "0x5", "5,5", "5.0", "", "1234567890123456", "5\n", "x5", "5x"].map((
    value,
  ) => [`${GET}\r\nContent-Length: ${value}`, 400] as const),
  [`${GET}\r\nContent-Length: 5\r\nContent-Length: 5`, 400],
  [`${GET}\r\nContent-Length: 0\r\nContent-Length: 0`, 400],
  [`${GET}\r\nContent_Length: 5`, 400],
  [`${GET}\r\nTransfer.Encoding: chunked`, 400],
  [`${GET}\r\nTransfer-Encoding: chunked\r\nContent-Length: 5`, 400],
  [`${GET}\r\nContent-Length: 0\r\nTransfer-Encoding: chunked`, 400],
  [`${GET}\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked`, 501],
  ...["gzip, chunked", "identity", "xchunked", "chunked, identity", "", "chunked;a"].map((value) =>
    [`${GET}\r\nTransfer-Encoding: ${value}`, 501] as const
  ),
  [`${GET}\r\nTransfer-Encoding: gzip\r\nContent-Length: 5`, 501],
  ["GET /a HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked", 501],
  ["GET /a HTTP/1.1", 400],
  ["GET /a HTTP/1.1\r\nHost:", 400],
  ["GET /a HTTP/1.0\r\nHost: ", 400],
  ["GET /a HTTP/1.1\r\nHost: x/y", 400],
  ["GET /a HTTP/1.1\r\nHost: x\r\nHost: x", 400],
  ["GET /a HTTP/1.0\r\nHost: x\r\nHost: y", 400],
];

test("RequestParser refuses ambiguous heads, also those that llhttp accepts", () => {
  for (const [head, status] of REFUSED) {
    const { framing, problem } = new RequestChecks(divided(head, 0, false));
    assert.deepEqual([framing, problem?.status ?? 400], [undefined, status], JSON.stringify(head));
    const parser = new RequestParser(requestFields(new Set()));
    parser.parseHead(bytesOf(`${head}\r\n\r\n`), head.length);
    assert.notEqual(parser.error, undefined, JSON.stringify(head));
    parser.close();
  }
});

test("RequestParser refuses a head that its parts do not cover", () => {
  const text = "GET /a HTTP/1.1\r\nHost: x\r\nA:b \r\nC:  d";
  const whole = divided(text, 0, false);
  assert.equal(new RequestChecks(whole).framing, 0);
  for (let index = 2; index < whole.spans.length; index++) {
    for (const change of [-1, 1]) {
      const spans = whole.spans.map((each, at) => at === index ? each + change : each);
      const { framing } = new RequestChecks({ ...whole, spans });
      assert.equal(framing, undefined, `${index} ${change}`);
    }
  }
  const others = [`${text}\r\n`, `${text}\r\nX: y`, `${text} `, text.slice(0, -1)];
  for (const other of [...others, text.replace("GET ", "GET\t"), text.replace("A:", "A ")]) {
    assert.equal(new RequestChecks({ ...whole, text: other }).framing, undefined, other);
  }
  assert.equal(new RequestChecks({ ...whole, spans: whole.spans.slice(0, -4) }).framing, undefined);
});

const REQUEST = {
  ...{ method: "GET", target: "/a", lines: ["Host: x\r\n"], framing: undefined },
  ...{ upgrade: undefined, expect: undefined, isHttp10: false, isLast: false },
  ...{ parts: [], isComplete: false, size: 0 },
};
const LOCAL = ["Host: localhost\r\n"];

/** Heads after the request line, and the properties of the request that differ from `REQUEST`. */
const REQUESTS: readonly (readonly [lines: string, expected: Partial<typeof REQUEST> | object])[] =
  [
    ["Host: x", {}],
    ["host: x:80", { lines: ["host: x:80\r\n"] }],
    ["Host: x\r\nContent-Length: 0", { framing: 0 }],
    ["Host: x\r\ncontent-length:\t007 ", { framing: 7 }],
    ["Host: x\r\nContent-Length: 123456789012345", { framing: 123456789012345 }],
    ["Host: x\r\nTRANSFER-encoding: CHUNKED", { framing: "chunked" }],
    ["Host: x\r\nConnection: Close", { isLast: true }],
    ["Host: x\r\nA: 1\r\nConnection: a\r\nB: 2\r\nConnection: close", {
      ...{ lines: ["Host: x\r\n", "B: 2\r\n"], isLast: true },
    }],
    ["Host: x\r\nConnection: host, x-ucred-uid, X:, a\r\nX: 1\r\nA: 2\r\nAA: 3", {
      lines: ["Host: x\r\n", "X: 1\r\n", "AA: 3\r\n"],
    }],
    ["Host: x\r\nUpgrade: tcp", {}],
    ["Host: x\r\nKeep-Alive: 5\r\nTE: trailers\r\nTrailer: X\r\nProxy-Connection: close", {}],
    ["X-Ucred-Uid: 0\r\nHost: x\r\nX_Ucred_Gid: 0\r\nX-Forwarded-For: y", {}],
    ["Host: x\r\nExpect: 100-Continue", { expect: "100-continue" }],
    ["Host: x\r\nCookie: a=1\r\nX: 1\r\ncookie: b=2\r\nCookie: c", {
      lines: ["Host: x\r\n", "Cookie: a=1; b=2; c\r\n", "X: 1\r\n"],
    }],
    ["A: 1\r\nHost: x\r\nCookie: a", { lines: ["A: 1\r\n", "Host: x\r\n", "Cookie: a\r\n"] }],
    ["Host: x\r\nCookie: \r\nCookie: a\r\nCookie:", { lines: ["Host: x\r\n", "Cookie: a\r\n"] }],
    ["Host: x\r\nDate: y", { lines: ["Host: x\r\n", "Date: y\r\n"] }],
  ];

/** Parses a message that arrives at once. Returns the parser, which is closed. */
function parsed<T extends Parser>(parser: T, text: string, bodyText = ""): T {
  const head = bytesOf(`${text}\r\n\r\n${bodyText}`);
  parser.parseHead(head, text.length);
  parser.close();
  return parser;
}

function requestOf(text: string, isUpgrade = false) {
  const { request, framing } = new RequestChecks(divided(text, 0, isUpgrade));
  return [{ ...request }, framing];
}

test("RequestParser reads the fields of a head", () => {
  for (const [lines, expected] of REQUESTS) {
    const whole: typeof REQUEST = { ...REQUEST, ...expected };
    const read = requestOf(`GET /a HTTP/1.1\r\n${lines}`);
    assert.deepEqual(read, [whole, whole.framing ?? 0], lines);
  }
  const one = requestOf("M-SEARCH http://x/?y HTTP/1.0\r\nA: b");
  const first = { method: "M-SEARCH", target: "http://x/?y", isHttp10: true, isLast: true };
  assert.deepEqual(one, [{ ...REQUEST, ...first, lines: ["A: b\r\n", ...LOCAL] }, 0]);
  const two = requestOf("GET /a HTTP/1.1\r\nUpgrade: a\r\nHost: x\r\nUpgrade: b/1", true);
  assert.deepEqual(two, [{ ...REQUEST, upgrade: "a,b/1", isLast: true }, 0]);
  for (const upgrade of ["a", undefined]) {
    const lines = `${upgrade === undefined ? "" : "Connection: Upgrade\r\n"}Upgrade: a`;
    const parser = new RequestParser(requestFields(new Set()));
    const { request } = parsed(parser, `${GET}\r\n${lines}`);
    assert.deepEqual([request!.upgrade, request!.isLast], [upgrade, upgrade !== undefined], lines);
  }
});

test("RequestParser replaces an empty Host only if it is the only one, and if this is enabled", () => {
  const linesOf = (lines: string, version = "1.1") => {
    const head = divided(`GET /a HTTP/${version}${lines}`, 0, false);
    const { framing, request } = new RequestChecks(head, true);
    return framing === undefined ? undefined : request!.lines;
  };
  assert.deepEqual(linesOf("\r\nA-Host: y\r\nHOST:"), ["A-Host: y\r\n", ...LOCAL]);
  assert.deepEqual(linesOf("\r\nHost: \r\nA: y", "1.0"), [...LOCAL, "A: y\r\n"]);
  assert.deepEqual(linesOf("\r\nHost: x"), ["Host: x\r\n"]);
  assert.equal(linesOf(""), undefined);
  assert.equal(linesOf("\r\nHost:\r\nHost:"), undefined);
  assert.equal(linesOf("\r\nHost:\r\nHost: x"), undefined);
  assert.equal(linesOf("\r\nHost: x/y"), undefined);
  assert.equal(linesOf("\r\nHost:\r\nContent-Length: 1\r\nContent-Length: 1"), undefined);
});

test("RequestParser accepts 100 fields, and forgets the one before", () => {
  const parser = new RequestParser(requestFields(new Set()));
  assert.equal(parser.hasTooManyFields, false);
  const parse = (fields: number) => {
    parser.reset();
    const head = `${GET}${"\r\nA: b".repeat(fields - 1)}`;
    parser.parseHead(bytesOf(`${head}\r\n\r\n`), head.length);
    return [parser.hasTooManyFields, parser.request?.lines.length, parser.error];
  };
  assert.deepEqual(parse(100), [false, 100, undefined]);
  assert.deepEqual(parse(101), [true, undefined, "the head is malformed"]);
  assert.deepEqual(parse(2), [false, 2, undefined]);
  parser.parseHead(bytesOf("x"), 1);
  parser.reset();
  assert.equal(parser.request, undefined);
  const bad = "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: x, chunked";
  parser.parseHead(bytesOf(`${bad}\r\n\r\n`), bad.length);
  assert.equal(parser.problem?.status, 501);
  parser.reset();
  assert.deepEqual([parser.problem, parser.request, parser.error], [
    undefined,
    undefined,
    undefined,
  ]);
  parser.close();
});

test("forwardedValues() returns all values of a header, and none if another name is like it", () => {
  const valuesOf = (lines: string) => {
    const { request } = new RequestChecks(divided(`${GET}${lines}`, 0, false));
    return forwardedValues(request!, "content-type");
  };
  assert.deepEqual(valuesOf(""), []);
  assert.deepEqual(valuesOf("\r\nCONTENT-type: a\r\nX: 1\r\nContent-Type:b"), ["a", "b"]);
  assert.deepEqual(valuesOf("\r\nContent-Type-X: a\r\nX-Content-Type: b\r\nContent-Typo: c"), []);
  assert.deepEqual(valuesOf("\r\nContent-Encoding: a"), []);
  assert.equal(valuesOf("\r\nContent-Type: a\r\nContent_Type: b"), undefined);
  assert.equal(valuesOf("\r\ncontent.type: b"), undefined);
});

const OK = "HTTP/1.1 200 OK";

test("ResponseParser refuses ambiguous heads, also those that llhttp accepts", () => {
  const refused: readonly (readonly [head: string, status: number])[] = [
    ...["HTTP/1.2", "HTTP/2.0", "HTTP/0.9", "http/1.1", "HTTP/1.1 ", " HTTP/1.1", "HTTP/1.10"].map((
      version,
    ) => [`${version} 200 OK`, 200] as const),
    ["HTTP/1.1 099 Low", 99],
    ["HTTP/1.1 600 High", 600],
    ["HTTP/1.1 2000 OK", 200],
    ["HTTP/1.1 200OK", 200],
    ["HTTP/1.1 200\tOK", 200],
    ["HTTP/1.1 200 OK", 204],
    ["HTTP/1.1 0200 OK", 200],
    [`${OK}\r\nContent-Length: 5\r\nContent-Length: 5`, 200],
    [`${OK}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked`, 200],
    [`${OK}\r\nContent_Length: 5`, 200],
    [`${OK}\r\nTransfer-Encoding: gzip, chunked`, 200],
    ["HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked", 200],
  ];
  for (const [head, status] of refused) {
    const { framing, response, error } = new ResponseChecks(divided(head, status, false));
    assert.deepEqual([framing, response], [undefined, undefined], head);
    const why = head.includes("\r\n")
      ? "the length of its response is ambiguous"
      : `it answers with the status line "${head.replace("\t", "\\t")}"`;
    assert.equal(error, why);
  }
  const head = divided(`${OK}\r\nA: b`, 200, false);
  assert.equal(new ResponseChecks({ ...head, text: `${head.text}c` }).framing, undefined);
});

/** Status line and lines, whether to HEAD, then framing, `length`, and whether the connection is kept. */
const RESPONSES: readonly (readonly [
  head: string,
  isHead: boolean,
  framing: Framing,
  length: number | undefined,
  isReusable: boolean,
])[] = [
  ["HTTP/1.1 200", false, "close", undefined, false],
  ["HTTP/1.1 599 x", false, "close", undefined, false],
  ["HTTP/1.1 200 OK\r\nContent-Length: 5", false, 5, 5, true],
  ["HTTP/1.1 200 OK\r\nContent-Length: 0", false, 0, 0, true],
  ["HTTP/1.0 200 OK\r\nContent-Length: 5", false, 5, 5, false],
  ["HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: Close", false, 5, 5, false],
  ["HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive", false, 5, 5, true],
  ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", false, "chunked", undefined, true],
  ["HTTP/1.1 205 R\r\nContent-Length: 0", false, 0, 0, true],
  ["HTTP/1.1 205 R\r\nContent-Length: 5", false, 5, 5, false],
  ["HTTP/1.1 205 R\r\nTransfer-Encoding: chunked", false, "chunked", undefined, false],
  ["HTTP/1.1 204 N", false, 0, undefined, true],
  ["HTTP/1.1 204 N\r\nContent-Length: 0", false, 0, undefined, true],
  ["HTTP/1.1 204 N\r\nContent-Length: 5", false, 0, undefined, false],
  ["HTTP/1.1 304 N\r\nContent-Length: 5", false, 0, 5, false],
  ["HTTP/1.1 304 N\r\nTransfer-Encoding: chunked", false, 0, undefined, false],
  ["HTTP/1.1 200 OK", true, "head", undefined, true],
  ["HTTP/1.1 200 OK\r\nContent-Length: 5", true, "head", 5, false],
  ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", true, "head", undefined, false],
  ["HTTP/1.1 304 N", true, "head", undefined, true],
  ["HTTP/1.1 100 C\r\nContent-Length: 5", false, 0, undefined, false],
  ["HTTP/1.1 199 C", false, 0, undefined, true],
];

test("ResponseParser finds the end of each response, and when its connection can be kept", () => {
  for (const [head, isHead, framing, length, isReusable] of RESPONSES) {
    const status = Number(head.slice(9, 12));
    const checks = new ResponseChecks(divided(head, status, false), isHead);
    const { response } = checks;
    assert.deepEqual(
      [checks.framing, response!.framing, response!.length, response!.isReusable, response!.status],
      [framing, framing, length, isReusable, status],
      head,
    );
  }
});

test("ResponseParser reads reason and fields, and all of them of a 101", () => {
  const lines = "Date: x\r\nConnection: Upgrade, A\r\nUpgrade: tcp \r\nA: 1\r\nKeep-Alive: 5";
  const of = (first: string, more = "") => {
    const head = divided(`${first}\r\n${lines}${more}`, Number(first.slice(9, 12)), false);
    const { lines: found, reason, hasDate } = new ResponseChecks(head).response!;
    return [reason, hasDate, found];
  };
  assert.deepEqual(of("HTTP/1.1 200 A b"), ["A b", true, ["Date: x\r\n"]]);
  assert.deepEqual(of("HTTP/1.1 200 A\x7fb")[0], "");
  assert.deepEqual(of("HTTP/1.1 200")[0], "");
  const framing = "\r\nContent-Length: 0\r\ntrailer: X\r\nX-Trailer: 1\r\nTrailers: 2";
  const all = ["Date: x", "Connection: Upgrade, A", "Upgrade: tcp", "A: 1", "Keep-Alive: 5"];
  const kept = [...all, "X-Trailer: 1", "Trailers: 2"].map((line) => `${line}\r\n`);
  assert.deepEqual(of("HTTP/1.1 101 Up", framing), ["Up", true, kept]);
  const parser = new ResponseParser();
  parser.parseHead(bytesOf(`${OK}\r\n\r\n`), OK.length);
  assert.deepEqual([parser.response!.status, parser.response!.framing], [200, "close"]);
  parser.reset();
  assert.equal(parser.response, undefined);
  parser.parseHead(bytesOf("HTTP/1.1 204 N\r\n\r\n"), "HTTP/1.1 204 N".length);
  assert.deepEqual([parser.response!.status, parser.error], [204, undefined]);
  parser.close();
  const without = new ResponseChecks(divided(`${OK}\r\nA: 1`, 200, false)).response!;
  assert.deepEqual([without.hasDate, without.lines], [false, ["A: 1\r\n"]]);
});

/** A parser that believes what a test says about the framing. */
class Believing extends Parser {
  seen: RawHead | undefined;
  readonly #framing: Framing | undefined;

  constructor(framing: Framing | undefined, type: "request" | "response" = "response") {
    super(type);
    this.#framing = framing;
  }

  protected override check(head: RawHead): Framing | undefined {
    this.seen = { ...head, spans: [...head.spans] };
    return this.#framing;
  }
}

test("Parser compares the body that llhttp finds with our own reading of the head", () => {
  const errorOf = (framing: Framing | undefined, lines: string, bodyText: string) =>
    parsed(new Believing(framing), `${OK}\r\n${lines}`, bodyText).error;
  const [length, chunked] = ["Content-Length: 5", "Transfer-Encoding: chunked"];
  assert.equal(errorOf(5, length, "hello"), undefined);
  assert.equal(errorOf(5, length, "hell"), undefined);
  assert.equal(errorOf("chunked", chunked, "5\r\nhello\r\n0\r\n\r\n"), undefined);
  assert.equal(errorOf(0, "Content-Length: 0", ""), undefined);
  assert.equal(errorOf("head", length, ""), undefined);
  const ambiguous = "the length of the body is ambiguous";
  assert.equal(errorOf(4, length, "hello"), ambiguous);
  assert.equal(errorOf(6, length, "hello"), ambiguous);
  assert.equal(errorOf(5, "Content-Length: 6", "hello"), ambiguous, "it does not end there");
  assert.equal(errorOf(4, "Content-Length: 6", "hello"), ambiguous);
  assert.equal(errorOf(0, length, ""), ambiguous);
  assert.equal(errorOf(5, chunked, "5\r\nhello\r\n"), ambiguous);
  assert.equal(errorOf(0, "A: b", "x"), ambiguous, "a body up to the end of the connection");
  assert.equal(errorOf(undefined, length, "hello"), "the head is malformed");
  const parser = new Believing("head");
  parser.onBody(0, 5);
  assert.equal(parsed(parser, `${OK}\r\n${length}`).error, ambiguous, "data after a head alone");
});

test("Parser limits chunk extensions by the data, and trailers by their length and number", () => {
  const head = `${OK}\r\nTransfer-Encoding: chunked`;
  const parse = (text: string) => {
    const { error, trailers } = parsed(new Believing("chunked"), head, text);
    return error ?? trailers.length;
  };
  // All but data: the empty line after the head, the lines of both chunks, and the extension.
  const around = "\r\n\r\n1;\r\n\r\n0\r\n\r\n".length;
  const most = 16384 + 16 - around;
  const extended = (length: number) => `1;${"x".repeat(length)}\r\na\r\n0\r\n\r\n`;
  assert.equal(parse(extended(most)), 0);
  assert.equal(parse(extended(most + 1)), "the chunk extensions are too long");
  const data = `4000\r\n${"d".repeat(0x4000)}\r\n0\r\n`;
  assert.equal(parse(`${data}${"A: b\r\n".repeat(100)}\r\n`), 200);
  assert.equal(parse(`${data}${"A: b\r\n".repeat(101)}\r\n`), "there are too many trailers");
  assert.equal(parse(`${data}AB: ${"x".repeat(16382)}\r\n\r\n`), 2);
  assert.equal(parse(`${data}AB: ${"x".repeat(16383)}\r\n\r\n`), "the trailers are too long");
});

test("Parser reads a body that arrives in one piece, and byte by byte", () => {
  const [numbered, chunked] = ["Content-Length: 5", "Transfer-Encoding: chunked"];
  const messages: readonly (readonly [string, Framing, string, string, readonly string[]])[] = [
    [numbered, 5, "hello", "hello", []],
    [chunked, "chunked", "2;a=b\r\nhe\r\n03\r\nllo\r\n0\r\n\r\n", "hello", []],
    [chunked, "chunked", "1\r\nx\r\n0\r\nAB: cd\r\nE:\r\nF:  g h \r\n\r\n", "x", [
      ...["AB", "cd", "E", "", "F", "g h "],
    ]],
  ];
  const next = "HTTP/1.1 200";
  for (const [line, framing, text, expected, trailers] of messages) {
    const head = `${OK}\r\n${line}`;
    const bytes = bytesOf(`${head}\r\n\r\n${text}${next}`);
    const whole = new Believing(framing);
    assert.equal(whole.parseHead(bytes, head.length), bytes.length - next.length);
    assert.deepEqual([whole.error, whole.isComplete], [undefined, true]);
    assert.equal(Buffer.concat(whole.parts).toString(), expected);
    assert.deepEqual(whole.trailers, trailers);
    // The same parser again, after reset(), and beside another one.
    whole.reset();
    assert.deepEqual([whole.isComplete, whole.parts, whole.trailers], [false, [], []]);
    const other = new Believing(framing);
    const found = [whole, other].map((each) => {
      assert.equal(
        each.parseHead(bytes.subarray(0, head.length + 4), head.length),
        head.length + 4,
      );
      return "";
    });
    for (const byte of bytesOf(text)) {
      for (const [at, each] of [whole, other].entries()) {
        assert.equal(each.isComplete, false);
        assert.equal(each.parseBody(Buffer.from([byte])), 1);
        found[at] += Buffer.concat(each.parts).toString();
      }
    }
    for (const [at, each] of [whole, other].entries()) {
      assert.deepEqual([each.error, each.isComplete, found[at]], [undefined, true, expected]);
      assert.deepEqual(each.trailers, trailers);
      each.close();
    }
  }
});

test("Parser reads bodies that are longer than llhttp's input", () => {
  for (const length of [65_535, 65_536, 65_537, 131_072, 200_000]) {
    const parser = new Believing(length);
    const head = `${OK}\r\nContent-Length: ${length}`;
    const text = "0123456789abcdefg".repeat(length / 16).slice(0, length);
    const bytes = bytesOf(`${head}\r\n\r\n${text}`);
    assert.equal(parser.parseHead(bytes, head.length), bytes.length);
    assert.equal(Buffer.concat(parser.parts).toString(), text);
    parser.reset();
    parser.parseHead(bytesOf(`${head}\r\n\r\n`), head.length);
    assert.equal(parser.parseBody(bytesOf(`${text}HTTP`)), length);
    assert.equal(Buffer.concat(parser.parts).toString(), text);
    assert.equal(parser.isComplete, true);
    parser.close();
  }
});

test("Parser.finish() ends a body without a length, and no other one", () => {
  const finished = (framing: Framing, lines: string, text: string) => {
    const parser = new Believing(framing);
    const head = `${OK}\r\n${lines}`;
    parser.parseHead(bytesOf(`${head}\r\n\r\n${text}`), head.length);
    const before = parser.isComplete;
    parser.finish();
    parser.close();
    return [before, parser.isComplete, parser.error, parser.parts];
  };
  assert.deepEqual(finished("close", "A: b", "hello"), [false, true, undefined, []]);
  assert.deepEqual(finished("close", "A: b", ""), [false, true, undefined, []]);
  const [, isComplete, error] = finished(5, "Content-Length: 5", "hell");
  assert.deepEqual([isComplete, error], [false, "Invalid EOF state"]);
  assert.equal(finished("chunked", "Transfer-Encoding: chunked", "1\r\nx\r\n")[2], error);
  const parser = new Believing(0);
  parser.finish();
  assert.equal(parser.error, "the message is incomplete");
  parser.close();
});

test("Parser.canStart() finds starts of no message, and leaves no trace", () => {
  const parser = new RequestParser(requestFields(new Set()));
  for (const start of ["G", "GET /a HT", "GET /a HTTP/1.1\r\nHost: x\r\nX-Ucred", "\r\nPOST"]) {
    assert.equal(parser.canStart(bytesOf(start)), true, start);
  }
  for (
    const start of ["\0", "get", "GET /a FTP", "GET /a HTTP/1.1\r\nHost: x\r\n y", "HTTP/1.1 200"]
  ) {
    assert.equal(parser.canStart(bytesOf(start)), false, start);
  }
  assert.equal(parser.parseHead(bytesOf(`${GET}\r\n\r\n`), GET.length), GET.length + 4);
  assert.deepEqual(parser.request!.lines, ["Host: x\r\n"]);
  parser.close();
  // A parser of both would keep the kind of its first message.
  for (
    const [each, start] of [
      [new RequestParser(requestFields(new Set())), "HTTP/1.1 200"],
      [new ResponseParser(), "GET /a HTTP/1.1"],
    ] as const
  ) {
    assert.equal(each.canStart(bytesOf(start)), false, start);
    each.close();
  }
});

test("Parser joins the adjacent parts of a span, and refuses a gap", () => {
  const joined = (change: (parser: Believing) => void) => {
    const parser = new Believing(0);
    parser.onTarget(4, 2);
    parser.onTarget(6, 3);
    parser.onField(20, 2);
    parser.onField(22, 1);
    parser.onValue(25, 1);
    parser.onValue(26, 4);
    change(parser);
    const result = parser.onHeadersComplete(0, false);
    parser.close();
    assert.equal(parser.seen === undefined, parser.error !== undefined, "nothing is checked then");
    return parser.error ?? [result, ...parser.seen!.spans];
  };
  assert.deepEqual(joined(() => {}), [0, 4, 9, 20, 23, 25, 30]);
  assert.deepEqual(
    joined((parser) => {
      parser.onField(30, 1);
      parser.onField(33, 1);
    }),
    [0, 4, 9, 20, 23, 25, 30, 30, 31, -1, -1, 33, 34, -1, -1],
  );
  const after = joined((parser) => parser.onField(23, 1));
  assert.deepEqual(after, [0, 4, 9, 20, 23, 25, 30, 23, 24, -1, -1], "a name after its value");
  const gap = "a part of the head is missing";
  assert.equal(joined((parser) => parser.onTarget(10, 1)), gap);
  assert.equal(joined((parser) => parser.onValue(31, 1)), gap);
  assert.equal(joined((parser) => parser.onValue(29, 1)), gap);
});

test("Parser refuses all after close(), and frees its memory once", () => {
  const parser = new Believing(5);
  parser.close();
  parser.close();
  assert.throws(() => parser.parseBody(bytesOf("x")), /^Error: the parser is closed$/);
  assert.throws(() => parser.parseHead(bytesOf("x"), 1), /^Error: the parser is closed$/);
  // A memory that was freed twice would be that of two parsers.
  const head = `${OK}\r\nContent-Length: 5`;
  const [one, two] = [new Believing(5), new Believing(5)];
  for (const each of [one, two]) each.parseHead(bytesOf(`${head}\r\n\r\n`), head.length);
  assert.equal(one.parseBody(bytesOf("hello")), 5);
  assert.equal(two.parseBody(bytesOf("hell")), 4);
  assert.deepEqual([one.isComplete, two.isComplete, two.error], [true, false, undefined]);
  for (const each of [one, two]) each.close();
});

test("Parser works while the memory of llhttp grows", () => {
  const parsers = Array.from({ length: 3000 }, () => new Believing(0));
  for (const parser of parsers) {
    const { error, isComplete } = parsed(parser, `${OK}\r\nContent-Length: 0`);
    assert.deepEqual([error, isComplete], [undefined, true]);
  }
});

test("endOfHead() finds the empty line, wherever the parts of a head meet", () => {
  const bytes = bytesOf("ab\r\n\r\ncd\r\n\r\n");
  for (let from = 0; from <= 5; from++) assert.equal(endOfHead(bytes, from), 2, String(from));
  for (let from = 0; from <= 6; from++) {
    assert.equal(endOfHead(bytes.subarray(0, 5), from), -1, String(from));
  }
  assert.equal(endOfHead(bytes, 6), 8);
});

test("serialise() writes each part of a message with its framing", () => {
  const [one, two] = [bytesOf("hello"), bytesOf("0123456789\xff")];
  const write = (piece: Partial<Parameters<typeof serialise>[0]>) => {
    const result = serialise({ head: "", parts: [], isChunked: false, isEnd: false, ...piece });
    return typeof result === "string" ? result : [result.toString("latin1")];
  };
  assert.equal(write({}), "");
  assert.equal(write({ head: "H\r\n", isEnd: true }), "H\r\n");
  assert.equal(write({ head: "H\r\n", isChunked: true }), "H\r\n");
  assert.equal(write({ isChunked: true, isEnd: true }), "0\r\n\r\n");
  assert.equal(write({ isEnd: true, trailers: ["A", "b"] }), "");
  assert.deepEqual(write({ parts: [one, two] }), ["hello0123456789\xff"]);
  assert.deepEqual(write({ head: "H\xe9", parts: [one], isEnd: true }), ["H\xe9hello"]);
  assert.deepEqual(write({ parts: [one, two], isChunked: true }), [
    "10\r\nhello0123456789\xff\r\n",
  ]);
  const all = { head: "H\r\n", parts: [two], isChunked: true, isEnd: true };
  assert.deepEqual(write(all), ["H\r\nb\r\n0123456789\xff\r\n0\r\n\r\n"]);
  const forbidden = [
    "Connection",
    "content-length",
    "Content_Type",
    "Host",
    "TRANSFER-ENCODING",
    "Te",
  ];
  const trailers = [
    "A",
    "\xe9 ",
    ...forbidden.flatMap((name) => [name, "x"]),
    "X-Host",
    "",
    "Hosts",
    "c",
  ];
  assert.equal(
    write({ isChunked: true, isEnd: true, trailers }),
    "0\r\nA: \xe9\r\nX-Host: \r\nHosts: c\r\n\r\n",
  );
  assert.deepEqual(write({ ...all, trailers: ["A", "\xe9"] }), [
    "H\r\nb\r\n0123456789\xff\r\n0\r\nA: \xe9\r\n\r\n",
  ]);
  assert.equal(
    serialise({ head: "", parts: [one], isChunked: false, isEnd: true }),
    one,
    "no copy",
  );
});
