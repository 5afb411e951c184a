/** Denied HTTP requests: the error response, their bodies, upgrades, and ambiguous hosts and targets. */

import assert from "node:assert/strict";
import { once } from "node:events";
import type { IncomingMessage } from "node:http";
import { connect as connectHttp2 } from "node:http2";
import { connect } from "node:net";
import process from "node:process";
import { test } from "node:test";
import { definePolicy } from "../../mod.ts";
import { createServer } from "../../servers/http.ts";
import { freshPath } from "../support/peers.ts";
import { needs, runtime, until } from "../support/suite.ts";
import {
  many,
  onDeno,
  policy,
  readBody,
  running,
  testEach,
  testHere,
  testServe,
  whoAsks,
  Wire,
} from "../support/http.ts";

testEach("answers a denied request with a problem of RFC 9457", async (kind) => {
  let handled = 0;
  const server = await kind.start({ policy }, () => {
    handled++;
    return {};
  });
  const wire = Wire.as(1001, server.path);
  const table = [
    ["GET", "/secret", 403, "Forbidden", 'Ask "root" for it: é'],
    ["DELETE", "/a", 403, "Forbidden", "The policy does not allow it"],
    ["GET", "/a%2fb", 400, "Bad Request", "The path is ambiguous"],
    ["get", "/a", 400, "Bad Request", "The path is ambiguous"],
    ["GET", `/${"a".repeat(8192)}`, 414, "URI Too Long", "The request target is too long"],
    ["GET", `/a?${"a/".repeat(4095)}`, 414, "URI Too Long", "The request target is too long"],
  ] as const;
  for (const [method, target, status, title, detail] of table) {
    const wire = Wire.as(1001, server.path); // some parsers close the connection after "get"
    const answer = await wire.get(target, method);
    assert.equal(answer.status, status);
    if (answer.headers["content-type"] === undefined) {
      assert.equal(method, "get", "the runtime's own answer");
      continue;
    }
    assert.equal(answer.headers["content-type"], "application/problem+json");
    assert.equal(answer.headers["cache-control"], "no-store");
    const body = JSON.parse(Buffer.from(answer.body, "latin1").toString());
    assert.deepEqual(body, { type: "about:blank", title, status, detail });
  }
  const { status, body, headers } = await wire.get("/secret", "HEAD");
  assert.deepEqual([status, body], [403, ""]);
  assert.ok(Number(headers["content-length"]) > 0);
  assert.equal((await wire.get("/secret")).status, 403, "on the same connection");
  assert.equal(handled, 0);
  assert.equal((await wire.get("/a")).status, 200, "on the same connection");
  assert.equal((await wire.get(`/a?${"a".repeat(8189)}`)).status, 200, "8 KiB");
});

/** Request bodies. */
const BODIES: readonly (readonly [what: string, head: string, body: () => Iterable<Buffer>])[] = [
  ["a small body", "Content-Length: 3\r\n", () => [Buffer.from("abc")]],
  ["a large body", `Content-Length: ${64 << 20}\r\n`, () => many(64)],
  ["an announced body", "Content-Length: 3\r\nExpect: 100-continue\r\n", () => []],
  ["a body in chunks", "Transfer-Encoding: chunked\r\n", () => [
    Buffer.from("3\r\nabc\r\n0\r\n\r\n"),
  ]],
  ["a large body in chunks", "Transfer-Encoding: chunked\r\n", function* () {
    for (const each of many(64)) {
      yield Buffer.from(`${each.length.toString(16)}\r\n`);
      yield each;
      yield Buffer.from("\r\n");
    }
    yield Buffer.from("0\r\n\r\n");
  }],
  ["a body that never arrives", "Content-Length: 1000\r\n", () => []],
];

for (const [what, head, body] of BODIES) {
  testEach(
    `answers a denied request with ${what}, which is not parsed as a request`,
    async (kind) => {
      let handled = 0;
      const server = await kind.start({ policy }, () => {
        handled++;
        return { body: "handled" };
      });
      const wire = Wire.as(1001, server.path);
      wire.send(`POST /secret HTTP/1.1\r\nHost: x\r\n${head}\r\n`);
      const answer = wire.response();
      await Promise.race([wire.sendAll(body()), answer]);
      let found = await answer;
      if (found.status === 100) found = await wire.response();
      assert.equal(found.status, 403);
      assert.equal(handled, 0);
      if (kind !== onDeno) assert.equal(found.headers["connection"], "close");
      wire.end();
      if (found.headers["connection"] === "close") assert.doesNotMatch(await wire.rest(), /HTTP/);
      wire.destroy();
      assert.equal(handled, 0);
      const other = Wire.as(1001, server.path);
      assert.equal((await other.get("/a")).body, "handled");
      assert.equal(server.stats().denied, 1);
    },
  );
}

testEach("keeps reading while a client sends the body of a denied request", async (kind) => {
  const readers = definePolicy({
    version: 1,
    rules: [{ name: "readers", actions: "GET /**", allow: "read" }],
  });
  const server = await kind.start({ policy: readers }, () => ({ body: "handled" }));
  // From this process: relay.c would hide a broken pipe.
  const client = connect(server.path);
  const failures: unknown[] = [];
  let text = "";
  client.setEncoding("utf8").on("data", (part: string) => text += part);
  const closed = new Promise((resolve) =>
    client.on("error", (error) => failures.push(error)).on("close", resolve)
  );
  const sends = (part: string) => new Promise((resolve) => client.write(part, resolve));
  await sends("POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc");
  await until(() => text.includes("\r\n\r\n"));
  for (const part of ["d", "e", "f"]) assert.equal(await sends(part) ?? undefined, undefined);
  if (/connection: close/i.test(text)) await closed;
  else client.destroy();
  assert.match(text, /^HTTP\/1\.1 403 /);
  assert.deepEqual(failures, []);
});

testHere("createServer() answers a denied upgrade, and emits no event", async () => {
  const path = freshPath();
  const heard: string[] = [];
  const server = createServer({ policy }, () => void heard.push("request"));
  running(server, path);
  for (const event of ["upgrade", "connect", "checkContinue", "checkExpectation"] as const) {
    server.on(event, (request: IncomingMessage) => void heard.push(`${event} ${request.url}`));
  }
  await once(server.listen({ path, mode: 0o666 }), "listening");
  const table = [
    "GET /secret HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "POST /x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
    "POST /x HTTP/1.1\r\nHost: x\r\nExpect: other\r\nContent-Length: 1\r\n\r\n",
  ];
  for (const bytes of table) {
    const text = await Wire.as(1001, path).send(`${bytes}GET /a HTTP/1.1\r\nHost: x\r\n\r\n`)
      .rest();
    assert.match(text, /^HTTP\/1\.1 403 Forbidden\r\n/, bytes);
    assert.match(text, /\r\ncontent-type: application\/problem\+json\r\n/i, bytes);
    assert.match(text, /"detail":"The policy does not allow it"|"detail":"Ask /, bytes);
    assert.equal(text.match(/HTTP\/1/g)?.length, 1, bytes);
  }
  assert.deepEqual(heard, []);
  const wire = Wire.as(1001, path);
  wire.send("GET /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
  await until(() => heard.length > 0);
  assert.deepEqual(heard, ["upgrade /a"]);
});

testServe(
  "answers 400 when the Host header is not a host or the target is not a path",
  async (kind) => {
    const asked: string[] = [];
    const server = await kind.start({ policy }, ({ url }) => {
      asked.push(url);
      return { body: "served" };
    });
    const wire = Wire.as(0, server.path);
    assert.equal((await wire.get("/real")).status, 200, "the decision records its host");
    for (const host of ["x/other?", "x/", "x?", "x#", "x/other/..", "y@x", "x"]) {
      const wire = Wire.as(0, server.path);
      for (const each of ["x", host]) {
        wire.send(`GET /real HTTP/1.1\r\nHost: ${each}\r\n\r\n`);
        assert.equal((await wire.response()).status, each === "x" ? 200 : 400, host);
      }
    }
    for (const lines of ["Host: x\r\nHost: x\r\n", "Host: x\r\nHost: y/other?\r\n"]) {
      const text = await Wire.as(0, server.path).send(
        `GET /real HTTP/1.1\r\n${lines}Connection: close\r\n\r\n`,
      ).rest();
      assert.match(text, /^HTTP\/1\.1 400 /, lines);
    }
    if (runtime !== "bun") { // Bun's http rejects this target
      const wire = Wire.as(0, server.path);
      for (const host of ["x", "x/other?"]) {
        wire.send(`GET http://x/real HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
        assert.equal((await wire.response()).status, host === "x" ? 200 : 400, `http://x, ${host}`);
      }
    }
    assert.equal((await Wire.as(0, server.path).get("*", "OPTIONS")).status, 400);
    assert.ok(asked.every((url) => url === "/real"), `${asked}`);
  },
);

test("createServer() throws with shouldUpgradeCallback, which would receive undecided requests", () => {
  const options = { shouldUpgradeCallback: () => true };
  assert.throws(() => createServer(options as object), {
    name: "TypeError",
    message: /shouldUpgradeCallback/,
  });
});

testHere("serve() by deno identifies the peer and decides each stream of HTTP/2", async () => {
  const policy = definePolicy({
    version: 1,
    rules: [{ name: "no", actions: "* /secret", deny: true }, { name: "root", allow: true }],
  });
  const server = await onDeno.start({ policy }, whoAsks);
  const client = connectHttp2("http://localhost", { createConnection: () => connect(server.path) });
  const ask = async (path: string): Promise<[status: unknown, body: string]> => {
    const stream = client.request({ ":path": path });
    const [headers] = await once(stream, "response");
    return [headers[":status"], await readBody(stream)];
  };
  try {
    const [status, body] = await ask("/a/../open");
    assert.equal(status, 200);
    const { uid, rule, url } = JSON.parse(body);
    assert.deepEqual([uid, rule, url], [process.getuid!(), "root", "/open"]);
    for (const path of ["/secret", "//secret", "/%73ecret", "/a/../secret"]) {
      assert.equal((await ask(path))[0], 403, path);
    }
    assert.equal((await ask("/a%2fb"))[0], 400);
  } finally {
    client.destroy();
  }
}, needs.deno);
