/** Tests that the guard's parser accepts each message that RFC 9112 permits, and reads it as it is. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { test } from "node:test";
import fc from "../support/properties.ts";
import { requestFields } from "../../guard/headers.ts";
import { RequestParser, ResponseParser } from "../../guard/http/message.ts";
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
