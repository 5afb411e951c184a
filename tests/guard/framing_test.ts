/** Tests of messages with more than one reading, by the names under which other servers had them. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createRequire } from "node:module";
import { test } from "node:test";
import { LLHTTP_WASM } from "../../guard/http/llhttp_wasm.ts";
import { answerAll, answerOf, Behind, End, testGuard } from "../support/guard.ts";
import { GuardHere } from "../support/guard_here.ts";
import { sample, until } from "../support/suite.ts";

test("llhttp is the unchanged build of the pinned version of undici", () => {
  const bytes = Buffer.from(LLHTTP_WASM, "base64");
  const require = createRequire(import.meta.url);
  assert.ok(bytes.equals(require("undici/lib/llhttp/llhttp-wasm.js")), "run node tools/llhttp.ts");
  assert.equal(
    createHash("sha256").update(bytes).digest("hex"),
    "ab4573a06c43574936dc98c3943b10a4ee32798e9797329e9f327e5f64115f54",
  );
});

const HOST = "POST /a HTTP/1.1\r\nHost: x\r\n";
const HIDDEN = "DELETE /hidden HTTP/1.1\r\nHost: x\r\n\r\n";
const SIZE = HIDDEN.length;
const CHUNK = `${SIZE.toString(16)}\r\n${HIDDEN}\r\n0\r\n\r\n`;

/** Refused with these statuses: the upstream receives nothing. */
const REFUSED: { readonly [name: string]: readonly (readonly [status: number, bytes: string])[] } =
  {
    "CVE-2021-22959: a space before the colon": [
      [400, `${HOST}Content-Length : ${SIZE}\r\n\r\n${HIDDEN}`],
      [400, `${HOST}Transfer-Encoding\t: chunked\r\n\r\n${CHUNK}`],
    ],
    "CVE-2021-22960: chunk extensions with a bare line end": [
      [
        400,
        `${HOST}Transfer-Encoding: chunked\r\n\r\n${SIZE.toString(16)};a=\n${HIDDEN}\r\n0\r\n\r\n`,
      ],
      [
        400,
        `${HOST}Transfer-Encoding: chunked\r\n\r\n${SIZE.toString(16)};a\r${HIDDEN}\r\n0\r\n\r\n`,
      ],
      [
        400,
        `${HOST}Transfer-Encoding: chunked\r\n\r\n${SIZE.toString(16)}\n${HIDDEN}\r\n0\r\n\r\n`,
      ],
    ],
    "CVE-2022-32213: a Transfer-Encoding of several values": [
      [501, `${HOST}Transfer-Encoding: gzip, chunked\r\n\r\n${CHUNK}`],
      [400, `${HOST}Transfer-Encoding: chunked, identity\r\n\r\n${CHUNK}`],
      [400, `${HOST}Transfer-Encoding: chunked, chunked\r\n\r\n${CHUNK}`],
      [501, `${HOST}Transfer-Encoding: xchunked\r\n\r\n${CHUNK}`],
      [501, `${HOST}Transfer-Encoding: identity\r\n\r\n${CHUNK}`],
    ],
    "CVE-2022-32214: a line that ends with LF alone": [
      [400, `${HOST}X: y\nTransfer-Encoding: chunked\r\n\r\n${CHUNK}`],
      [400, `GET / HTTP/1.1\nHost: x\r\n\r\n${HIDDEN}`],
      [400, `\nGET / HTTP/1.1\r\nHost: x\r\n\r\n`],
    ],
    "CVE-2022-32215, CVE-2022-35256: folded lines": [
      [400, `${HOST}Transfer-Encoding: chunked\r\n , identity\r\n\r\n${CHUNK}`],
      [400, `${HOST}Content-Length: 1\r\n\t0\r\n\r\n${HIDDEN}`],
      [400, `${HOST}X: y\r\n z\r\n\r\n`],
      [400, `POST /a HTTP/1.1\r\n Host: x\r\n\r\n`],
    ],
    "CVE-2023-30589: a line that ends with CR alone": [
      [400, `${HOST}X: y\rContent-Length: ${SIZE}\r\n\r\n${HIDDEN}`],
      [400, `${HOST}X:\rTransfer-Encoding: chunked\r\n\r\n${CHUNK}`],
      [400, `${HOST}Content-Length: 0\r\r\n\r\n${HIDDEN}`],
    ],
    "CVE-2024-27982: a space before Content-Length": [
      [400, `POST /a HTTP/1.1\r\n Content-Length: ${SIZE}\r\nHost: x\r\n\r\n${HIDDEN}`],
      [400, `POST /a HTTP/1.1\r\nHost: x\r\n\tContent-Length: ${SIZE}\r\n\r\n${HIDDEN}`],
    ],
    "CVE-2021-40346: a name that overflows into a second Content-Length": [
      [
        400,
        `${HOST}Content-Length0${
          "a".repeat(255)
        }:\r\nContent-Length: 0\r\nContent-Length: ${SIZE}\r\n\r\n${HIDDEN}`,
      ],
      [400, `${HOST}Content-Length: ${SIZE}\r\nContent-Length: ${SIZE}\r\n\r\n${HIDDEN}`],
      [400, `${HOST}Content-Length: ${SIZE}, ${SIZE}\r\n\r\n${HIDDEN}`],
    ],
    "CVE-2023-25725: an empty header name": [
      [400, `${HOST}: x\r\nContent-Length: ${SIZE}\r\n\r\n${HIDDEN}`],
      [400, `${HOST}:\r\n\r\n${HIDDEN}`],
    ],
    "CVE-2023-40225: an empty Content-Length": [
      [400, `${HOST}Content-Length:\r\n\r\n${HIDDEN}`],
      [400, `${HOST}Content-Length: \r\nContent-Length: ${SIZE}\r\n\r\n${HIDDEN}`],
    ],
    "Content-Length with Transfer-Encoding": [
      [400, `${HOST}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n${CHUNK}`],
      [400, `${HOST}Transfer-Encoding: chunked\r\nContent-Length: ${SIZE}\r\n\r\n${CHUNK}`],
      [501, `POST /a HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n${CHUNK}`],
    ],
    "a Content-Length that is no number": [
      ...["+5", "-1", "0x5", "5 5", "5;", "1e1", "5.0", "١"].map((value) =>
        [400, `${HOST}Content-Length: ${value}\r\n\r\n${HIDDEN}`] as const
      ),
      [400, `${HOST}Content-Length: ${2n ** 64n}\r\n\r\n${HIDDEN}`],
      [400, `${HOST}Content-Length: 9999999999999999\r\n\r\n${HIDDEN}`],
    ],
    "a framing field with an underscore": [
      [400, `${HOST}Content_Length: ${SIZE}\r\n\r\n${HIDDEN}`],
      [400, `${HOST}Transfer_Encoding: chunked\r\n\r\n${CHUNK}`],
    ],
    "a request without exactly one valid host": [
      [400, "GET / HTTP/1.1\r\n\r\n"],
      [400, "GET / HTTP/1.1\r\nHost:\r\n\r\n"],
      [400, "GET / HTTP/1.1\r\nHost: x/admin?\r\n\r\n"],
      [400, "GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n"],
      [400, "GET / HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n"],
    ],
    "an unknown version, and HTTP/2": [
      ...["HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "HTTP/1.1 ", "RTSP/1.0", "ICE/1.0", "http/1.1"].map((
        version,
      ) => [400, `GET / ${version}\r\nHost: x\r\n\r\n`] as const),
      [400, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
      [400, "GET /\r\n\r\n"],
    ],
    "a request line with other spaces": [
      [400, "GET  / HTTP/1.1\r\nHost: x\r\n\r\n"],
      [400, "GET /  HTTP/1.1\r\nHost: x\r\n\r\n"],
      [400, "GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n"],
      [400, " GET / HTTP/1.1\r\nHost: x\r\n\r\n"],
      [400, "GET /a b HTTP/1.1\r\nHost: x\r\n\r\n"],
    ],
    "characters that names and values must not have": [
      ...["X Y: 1", "X(: 1", "X\x00: 1", "X\x80: 1", "X: a\x00b", "X: a\x7fb", "X: a\x01", "X"].map(
        (line) => [400, `GET / HTTP/1.1\r\nHost: x\r\n${line}\r\n\r\n`] as const,
      ),
    ],
    "chunk sizes that are none": [
      ...["-1", "+5", "0x5", "5 ", " 5", "5,", "", "1_0", "g", `1${"0".repeat(16)}`].map((size) =>
        [400, `${HOST}Transfer-Encoding: chunked\r\n\r\n${size}\r\n${HIDDEN}\r\n0\r\n\r\n`] as const
      ),
      [400, `${HOST}Transfer-Encoding: chunked\r\n\r\n3\r\n${HIDDEN}\r\n0\r\n\r\n`],
    ],
    "framing in trailers": [
      [
        400,
        `${HOST}Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: ${SIZE}\r\n\r\n${HIDDEN}`,
      ],
      [400, `${HOST}Transfer-Encoding: chunked\r\n\r\n0\r\nTransfer-Encoding: x\r\n\r\n${HIDDEN}`],
    ],
    "chunk extensions without end": [
      [400, `${HOST}Transfer-Encoding: chunked\r\n\r\n1;${"x".repeat(40_000)}\r\na\r\n0\r\n\r\n`],
      [400, `${HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n${"X: y\r\n".repeat(10_000)}\r\n`],
    ],
    "an expectation that is unknown": [[417, `${HOST}Expect: x\r\n\r\n`]],
    "CONNECT": [[501, `CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n${HIDDEN}`]],
  };

for (const [name, all] of sample(Object.entries(REFUSED))) {
  testGuard(`guard refuses ${name}, and closes the connection`, async () => {
    let received = "";
    const behind = await Behind.start(async (end) => {
      received += await end.rest();
      end.destroy();
    });
    const guard = await GuardHere.start({ upstream: behind.path, mode: "http" });
    const idle = guard.sockets();
    for (const [status, bytes] of all) {
      const client = await End.open(guard.path);
      const answer = await client.send(bytes).rest(); // without a half-close
      assert.equal(answer.slice(0, 13), `HTTP/1.1 ${status} `, JSON.stringify(bytes.slice(0, 200)));
      assert.match(answer, /\r\nConnection: close\r\n/);
      assert.equal(answer.split("HTTP/1.1 ").length, 2, "one response");
      client.destroy();
    }
    await until(() => guard.sockets() <= idle);
    // A body is only known to be malformed after its head was forwarded.
    assert.ok(!received.includes("DELETE"), received);
  });
}

testGuard(
  "guard forwards CVE-2026-29057 as one request: DELETE and OPTIONS with chunks",
  async () => {
    const behind = await Behind.start();
    const guard = await GuardHere.start({ upstream: behind.path, mode: "http" });
    for (const method of ["DELETE", "OPTIONS", "GET"]) {
      const client = await End.open(guard.path);
      client.send(`${method} /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n${CHUNK}`);
      const server = await behind.next();
      const { first, header, body } = await server.message();
      assert.equal(first, `${method} /a HTTP/1.1`);
      assert.deepEqual([header("transfer-encoding"), header("content-length")], ["chunked", ""]);
      assert.equal(body, HIDDEN);
      server.send(answerOf("ok"));
      assert.equal((await client.message()).body, "ok");
      client.destroy();
      assert.equal(await server.rest(), "");
    }
  },
);

testGuard(
  "guard never reuses the upstream connection of CVE-2026-58055: an upgrade with a body",
  async () => {
    const behind = await Behind.start();
    const guard = await GuardHere.start({ upstream: behind.path, mode: "http" });
    for (
      const framing of [
        `Content-Length: ${SIZE}\r\n\r\n${HIDDEN}`,
        `Transfer-Encoding: chunked\r\n\r\n${CHUNK}`,
      ]
    ) {
      const client = await End.open(guard.path);
      client.send(`GET /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n${framing}`);
      client.send("GET /b HTTP/1.1\r\nHost: x\r\n\r\n");
      const server = await behind.next();
      const { first, body } = await server.message();
      assert.deepEqual([first, body], ["GET /a HTTP/1.1", HIDDEN]);
      server.send(answerOf("no") + answerOf("hidden"));
      const answer = await client.rest();
      assert.ok(!answer.includes("hidden"), answer);
      assert.equal(await server.rest(), "");
    }
    assert.equal(behind.count, 2);
  },
);

testGuard(
  "guard writes each request anew: one spelling of its framing, and no chunk extensions",
  async () => {
    const behind = await Behind.start((end) =>
      answerAll(end, ({ first, fields, body }) => answerOf(JSON.stringify({ first, fields, body })))
    );
    const guard = await GuardHere.start({ upstream: behind.path, mode: "http" });
    const client = await End.open(guard.path);
    const ask = async (bytes: string) => JSON.parse((await client.send(bytes).message()).body);
    const names = (fields: [string, string][]) =>
      fields.filter(([name]) => !/^x-ucred/i.test(name)).map((field) => field.join(": "));
    const length = await ask(`\r\n\r\n${HOST}content-LENGTH:\t 0005 \r\nX:  y\t\r\n\r\nhello`);
    assert.deepEqual([names(length.fields), length.body], [
      ["Host: x", "X: y", "Content-Length: 5"],
      "hello",
    ]);
    const chunks = await ask(
      `${HOST}transfer-encoding: CHUNKED\r\nTrailer: T\r\n\r\n0002;a="b"\r\nhe\r\n3\r\nllo\r\n00;c\r\nT: 1\r\n\r\n`,
    );
    assert.deepEqual([names(chunks.fields), chunks.body], [[
      "Host: x",
      "Transfer-Encoding: chunked",
    ], "hello"]);
  },
);

/** Answered with 502: the client receives nothing of it. */
const BAD_RESPONSES: { readonly [what: string]: string } = {
  "two equal lengths": "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nContent-Length: 6\r\n\r\nFORGED",
  "length and chunks":
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\nFORGED",
  "another coding":
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n6\r\nFORGED\r\n0\r\n\r\n",
  "chunks in HTTP/1.0":
    "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nFORGED\r\n0\r\n\r\n",
  "a folded line": "HTTP/1.1 200 OK\r\nX: a\r\n FORGED\r\nContent-Length: 0\r\n\r\n",
  "a bare LF": "HTTP/1.1 200 OK\nX: FORGED\r\nContent-Length: 0\r\n\r\n",
  "a bare CR": "HTTP/1.1 200 OK\r\nX: a\rY: FORGED\r\nContent-Length: 0\r\n\r\n",
  "a space before the colon": "HTTP/1.1 200 OK\r\nContent-Length : 6\r\n\r\nFORGED",
  "an underscore": "HTTP/1.1 200 OK\r\nContent_Length: 6\r\n\r\nFORGED",
  "an unknown version": "HTTP/2.0 200 OK\r\nContent-Length: 6\r\n\r\nFORGED",
  "an empty line first": "\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nFORGED",
  "two spaces": "HTTP/1.1  200 OK\r\nContent-Length: 6\r\n\r\nFORGED",
  "a 100 with a body": "HTTP/1.1 100 Continue\r\nContent-Length: 6\r\n\r\nFORGED",
  "a 204 with a body": "HTTP/1.1 204 No Content\r\n\r\nFORGED",
  "a 304 with a body": "HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\nFORGED",
  "a second response": answerOf("ok") + answerOf("FORGED"),
};

testGuard("guard answers 502 for each response with more than one reading", async () => {
  const entries = Object.values(BAD_RESPONSES);
  const behind = await Behind.start((end) =>
    answerAll(end, ({ first }) => {
      const at = Number(first.split("/")[1]!.split(" ")[0]);
      return entries[at] ?? answerOf("fine");
    })
  );
  const guard = await GuardHere.start({ upstream: behind.path, mode: "http" });
  for (const [at, what] of Object.keys(BAD_RESPONSES).entries()) {
    const client = await End.open(guard.path);
    client.send(`GET /${at} HTTP/1.1\r\nHost: x\r\n\r\n`);
    const answer = await client.rest();
    assert.match(answer, /^HTTP\/1\.1 502 Bad Gateway\r\n/, what);
    assert.ok(!answer.includes("FORGED"), what);
    assert.equal((await (await End.open(guard.path)).ask("/fine")).body, "fine");
  }
});

testGuard("guard answers a malformed request after the response that is under way", async () => {
  const behind = await Behind.start();
  const guard = await GuardHere.start({ upstream: behind.path, mode: "http" });
  const client = await End.open(guard.path);
  client.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
  const server = await behind.next();
  await server.message(false);
  server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
  await client.until("3\r\nabc\r\n");
  client.send("\0garbage\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n");
  // Another client's request is answered after the guard has read the garbage.
  const other = await End.open(guard.path);
  const asked = other.ask("/other");
  const second = await behind.next();
  await second.message(false);
  second.send(answerOf("other"));
  assert.equal((await asked).body, "other");
  server.send("3\r\ndef\r\n0\r\n\r\n");
  assert.match(await client.rest(), /^3\r\ndef\r\n0\r\n\r\nHTTP\/1\.1 400 Bad Request\r\n/);
  assert.equal(behind.count, 2);
});

testGuard(
  "guard keeps the rest of a body apart from the next request, after an early response",
  async () => {
    const behind = await Behind.start();
    const guard = await GuardHere.start({ upstream: behind.path, mode: "http" });
    for (const isKept of [true, false]) {
      const client = await End.open(guard.path);
      client.send(`POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: ${SIZE}\r\n\r\n`);
      const server = await behind.next();
      await server.message(false);
      const close = isKept ? "" : "Connection: close\r\n";
      server.send(`HTTP/1.1 200 OK\r\n${close}Content-Length: 5\r\n\r\nearly`);
      assert.equal((await client.message()).body, "early");
      client.send(HIDDEN + (isKept ? "GET /b HTTP/1.1\r\nHost: x\r\n\r\n" : ""));
      if (isKept) {
        assert.equal(await server.bytes(SIZE), HIDDEN, "as its body");
        assert.equal((await server.message(false)).first, "GET /b HTTP/1.1");
        server.send(answerOf("b"));
        assert.equal((await client.message()).body, "b");
      } else {
        assert.equal(await client.rest(), "", "the connection is closed");
        assert.equal(await server.rest(), "", "nothing more is sent to the upstream");
      }
      client.destroy();
    }
    assert.equal(behind.count, 2);
  },
);
