/** Transfer codings other than "chunked": parsers disagree about the end of the body. */

import assert from "node:assert/strict";
import { exchange, testEach } from "../support/http.ts";

const CHUNKS = "3\r\nabc\r\n0\r\n\r\n";

const REFUSED: { readonly [what: string]: string } = {
  "gzip before chunked": "HTTP/1.1\r\nTransfer-Encoding: gzip, chunked",
  "gzip before chunked, in two headers":
    "HTTP/1.1\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
  "chunked twice": "HTTP/1.1\r\nTransfer-Encoding: chunked, chunked",
  "chunked twice, in two headers":
    "HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
  "chunked before gzip": "HTTP/1.1\r\nTransfer-Encoding: chunked, gzip",
  "an unknown one": "HTTP/1.1\r\nTransfer-Encoding: x, chunked",
  "an empty element": "HTTP/1.1\r\nTransfer-Encoding: , chunked",
  "a parameter": "HTTP/1.1\r\nTransfer-Encoding: chunked;a=b",
  "gzip": "HTTP/1.1\r\nTransfer-Encoding: gzip",
  "identity": "HTTP/1.1\r\nTransfer-Encoding: identity",
  "chunked in HTTP/1.0": "HTTP/1.0\r\nTransfer-Encoding: chunked",
};

testEach(
  "rejects transfer codings other than chunked, and closes the connection",
  async (kind) => {
    const seen: string[] = [];
    const server = await kind.start({}, async ({ url, body }) => {
      seen.push(url);
      let text = "";
      for await (const part of body()) text += Buffer.from(part).toString("latin1");
      return { body: text };
    });
    for (const [what, head] of Object.entries(REFUSED)) {
      const rest = `${CHUNKS}GET /next HTTP/1.1\r\nHost: x\r\n\r\n`;
      const answer = await exchange(server.path, `POST /coded ${head}\r\nHost: x\r\n\r\n${rest}`);
      assert.match(answer, /^(HTTP\/1\.[01] (400|501) |$)/, what);
      assert.equal(answer.split("HTTP/1.").length - 1, answer === "" ? 0 : 1, what);
    }
    assert.deepEqual(seen, []);
    const accepted =
      `POST /coded HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\nConnection: close\r\n\r\n${CHUNKS}`;
    assert.match(await exchange(server.path, accepted), /abc/);
  },
);
