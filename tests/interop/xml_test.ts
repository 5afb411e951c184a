/** XML documents as trees, and the places of their syntax errors. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { UcredError } from "../../core/errors.ts";
import { parseXml } from "../../interop/xml.ts";

test("parseXml() returns elements with attributes, text and places", () => {
  const text = `<a x="&lt;1">\n  t<!-- no text --> &amp; <![CDATA[<u>]]>\n  <b/>\n</a>`;
  const { attributes, children, ...root } = parseXml(text, "f", "read it");
  assert.deepEqual(root, {
    ...{ name: "a", text: "t & <u>", content: "\n  t & <u>\n  \n", line: 1, column: 1 },
  });
  assert.deepEqual([...attributes], [["x", "<1"]]);
  assert.deepEqual(children.map(({ name, line, column }) => [name, line, column]), [["b", 3, 3]]);
});

test("parseXml() rejects what other parsers read differently, with its place", () => {
  const rows: readonly (readonly [text: string, message: RegExp])[] = [
    ["<a>\n b\x01</a>", /^f:2:3: XML has no control characters$/],
    ["\0<a/>", /^f:1:1: XML has no control characters$/],
    ['<!DOCTYPE a [<!ENTITY e "x">]>\n<a/>', /^f:1:\d+: its document type has declarations$/],
    ['<a>\n  <b x="1" x="2"/>\n</a>', /^f:2:3: .*redefined$/],
    [`${"<a>\n".repeat(101)}${"</a>".repeat(101)}`, /^f:101:1: more than 100 elements are nested$/],
    ["", /^f:1:1: missing root element$/],
    [" ".repeat(4_000_001), /^f: it has more than 4000000 characters$/],
  ];
  for (const [text, message] of rows) {
    assert.throws(() => parseXml(text, "f", "read it"), (error: unknown) => {
      assert.ok(error instanceof UcredError && error.code === "ERR_UCRED_POLICY");
      const [, place] = /^Cannot read it: (.*)$/.exec(error.message)!;
      assert.match(place!, message);
      const { file, line, column, path } = error.problems![0]!;
      const at = line === undefined ? file : `${file}:${line}:${column}`;
      assert.ok(place!.startsWith(`${at}: `));
      assert.deepEqual(path, []);
      return true;
    });
  }
});
