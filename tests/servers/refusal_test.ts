/** Refused peers: the response, its cost, and the warnings about them. */

import assert from "node:assert/strict";
import { once } from "node:events";
import process from "node:process";
import { test } from "node:test";
import type { Decision } from "../../core/policy/decide/decision.ts";
import { definePolicy } from "../../mod.ts";
import { createServer as createNetServer } from "../../servers/net.ts";
import { auditLog } from "../../servers/audit.ts";
import { createServer } from "../../servers/http.ts";
import { forbidden } from "../../servers/http/problem.ts";
import { FirstRequest } from "../../servers/http/refusal.ts";
import { freshPath } from "../support/peers.ts";
import { until } from "../support/suite.ts";
import { eventsOf, running, testEach, testHere, Wire } from "../support/http.ts";

/** 1001 may get `/open`, a rule refuses 1003 with a reason, and all others may do nothing. */
const policy = definePolicy({
  version: 1,
  rules: [
    { name: "not 1003", when: { uid: 1003 }, deny: "Ask “root”" },
    { name: "looker", when: { uid: 1001 }, actions: "GET /open", allow: "look" },
  ],
});

const refuse = () => assert.fail("a handler was called");

testEach("answers 403 and closes the connection when no rule admits the peer", async (kind) => {
  const server = await kind.start({ policy }, refuse);
  using events = eventsOf(server);
  for (
    const request of [
      "GET /open HTTP/1.1\r\nHost: x\r\n\r\n",
      "GET /open HTTP/1.0\r\n\r\n",
      "POST /in HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
      "POST /in HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
      "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ]
  ) {
    const wire = Wire.as(1003, server.path).send(request);
    const { status, headers, body } = await wire.response();
    const { detail, title } = JSON.parse(Buffer.from(body, "latin1").toString());
    assert.deepEqual([status, title, detail], [403, "Forbidden", "Ask “root”"], request);
    assert.equal(headers["content-type"], "application/problem+json");
    assert.equal(headers["connection"]?.toLowerCase(), "close");
    assert.equal(await wire.rest(), "", "the connection is closed");
  }
  const head = await Wire.as(1004, server.path).send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n").rest();
  assert.match(head, /^HTTP\/1\.1 403 .*\r\n\r\n$/s);
  // In two parts, followed by a second request.
  const wire = Wire.as(1004, server.path).send("GET /open HTTP/1.1\r\nHos");
  wire.send("t: x\r\n\r\n").send("GET /open HTTP/1.1\r\nHost: x\r\n\r\n");
  assert.match((await wire.response()).body, /The policy does not allow it/);
  await until(() => events.length === 7);
  assert.deepEqual([...new Set(events.map(({ type }) => type))], ["refused"]);
  const { accepted, open, refused, denied, failed } = server.stats();
  assert.deepEqual([accepted, open, refused.policy, denied, failed], [0, 0, 7, 0, 0]);
});

test("finds the end of the first request however its bytes arrive", () => {
  const problem = forbidden({ message: "no" } as Decision);
  const encode = (text: string) => new TextEncoder().encode(text);
  const bodyOf = (request: FirstRequest) => request.response(problem).split("\r\n\r\n")[1];
  for (
    const [head, body] of [
      ["GET / HTTP/1.1\r\nA: \r\r\n\n\r\nB: b\r\n\r\r\n\r\n", problem.body],
      ["HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", ""],
      ["HEADER / HTTP/1.1\r\n\r\n", problem.body],
      ["HEAD\r\n\r\n", problem.body],
      [" HEAD / HTTP/1.1\r\n\r\n", problem.body],
      ["\r\n\r\n", problem.body],
    ] as const
  ) {
    const bytes = encode(head);
    for (let at = 0; at < bytes.length; at++) {
      const request = new FirstRequest();
      assert.equal(request.add(bytes.subarray(0, at)), "more", `${at} of ${head}`);
      assert.equal(request.add(bytes.subarray(at)), "answer", `${at} of ${head}`);
      assert.equal(bodyOf(request), body, `${at} of ${head}`);
    }
    const request = new FirstRequest();
    const found = Array.from(bytes, (byte) => request.add(Uint8Array.of(byte)));
    assert.equal(found.indexOf("answer"), bytes.length - 1, head);
    const followed = new FirstRequest();
    assert.equal(followed.add(encode(`${head}HEAD / HTTP/1.1\r\n\r\n`)), "answer");
    assert.equal(bodyOf(followed), body, head);
  }
});

test("reads at most 16 KiB of the first request", () => {
  const limit = 16384;
  const headOf = (size: number) => Buffer.from(`${"a".repeat(size - 4)}\r\n\r\n`);
  const unended = Buffer.alloc(limit, "\r\n\r");
  for (
    const [bytes, end, at] of [
      [headOf(limit - 1), "answer", limit - 1],
      [headOf(limit), "answer", limit],
      [headOf(limit + 1), "too long", limit],
      [unended, "too long", limit],
    ] as const
  ) {
    assert.equal(new FirstRequest().add(bytes), end);
    const request = new FirstRequest();
    for (let index = 0; index < at; index++) {
      const found = request.add(bytes.subarray(index, index + 1));
      assert.equal(found, index === at - 1 ? end : "more", `${index} of ${bytes.length}`);
    }
  }
});

testEach("closes a refused connection that sends no request", async (kind) => {
  const server = await kind.start({ policy }, refuse);
  const wires = ["", "GET / HT", `GET /${"a".repeat(1 << 16)}`, "\x16\x03\x01\x02"].map((text) =>
    Wire.as(1003, server.path).send(text)
  );
  for (const text of await Promise.all(wires.map((wire) => wire.rest()))) {
    assert.match(text, /^$|^HTTP\/1\.1 4(00|31) /); // the runtime's own parser responds
  }
  assert.equal(server.stats().refused.policy, 4);
});

testEach("does not count refused connections against the limits of accepted ones", async (kind) => {
  const server = await kind.start({ policy, limits: { connections: 2 } }, () => ({ body: "open" }));
  // As many refused connections as may wait for one user. From this process, so that they arrive together.
  const held = await Promise.all(Array.from({ length: 8 }, () => Wire.open(server.path)));
  await until(() => server.stats().refused.policy === 8);
  const request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
  const more = await Wire.open(server.path);
  assert.equal(await more.send(request).rest(), "", "one more is closed");
  assert.equal((await held[0]!.get("/")).status, 403);
  assert.equal((await Wire.as(1004, server.path).send(request).response()).status, 403);
  assert.equal((await Wire.as(1001, server.path).get("/open")).status, 200);
  for (const wire of held) await wire.end().rest();
});

testEach("closes refused connections when the server closes", async (kind) => {
  const server = await kind.start({ policy }, refuse);
  const wires = [Wire.as(1003, server.path), Wire.as(1003, server.path).send("GET / HTTP")];
  await until(() => server.stats().refused.policy === 2);
  await server.close();
  for (const wire of wires) await wire.rest();
});

testHere("createServer() emits no event for a refused connection", async () => {
  const server = createServer({ policy }, refuse);
  for (const event of ["connection", "request", "upgrade", "checkContinue", "clientError"]) {
    server.on(event, () => assert.fail(event));
  }
  const path = freshPath();
  server.listen({ path, mode: 0o666 });
  await once(server, "listening");
  const { close } = running(server, path);
  const expecting =
    "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
  assert.equal((await Wire.as(1003, path).send(expecting).response()).status, 403);
  assert.equal((await Wire.as(1003, path).get("/")).status, 403);
  await close();
});

/** Collects the library's warnings about servers from now on. */
function warningsOf(...paths: readonly string[]): string[] & Disposable {
  const messages: string[] = [];
  const note = ({ name, message }: Error) => {
    if (name === "UcredWarning" && paths.some((path) => message.includes(path))) {
      messages.push(message);
    }
  };
  process.on("warning", note);
  return Object.assign(messages, {
    [Symbol.dispose]: () => void process.off("warning", note),
  });
}

testHere(
  "createServer() warns about refused connections once a second without an observer",
  async () => {
    const path = freshPath();
    using seen = warningsOf(path);
    const server = createNetServer({ policy, decideAt: "action" }, refuse);
    server.listen({ path, mode: 0o666 });
    await once(server, "listening");
    await Wire.as(1003, path).rest();
    await until(() => seen.length === 1);
    assert.equal(seen[0], `Refused uid 1003 at ${path}: Rule "not 1003" denies it: Ask “root”`);
    await Promise.all(Array.from({ length: 20 }, () => Wire.as(1004, path).rest()));
    const mentioned = () =>
      seen.slice(1).reduce((sum, text) => {
        const [, count = 1] = /^Refused (\d+) connections, the last of them uid 1004 /.exec(text) ??
          [];
        assert.match(text, /uid 1004 at .*: No rule matches$/);
        return sum + Number(count);
      }, 0);
    await until(() => mentioned() === 20); // each refusal is counted, although few have a line
    assert.ok(seen.length < 20);
    await server.close({ timeout: 0 });
  },
);

testHere(
  "createServer() does not warn about refused connections that are audited or observed",
  async () => {
    const [first, second] = [freshPath(), freshPath()];
    using seen = warningsOf(first, second);
    const audit = auditLog({ file: freshPath() });
    const audited = createNetServer({ policy, audit }, refuse);
    const watched = createNetServer({ policy }, refuse);
    audited.listen({ path: first, mode: 0o666 });
    watched.listen({ path: second, mode: 0o666 });
    await Promise.all([once(audited, "listening"), once(watched, "listening")]);
    await Wire.as(1003, first).rest();
    using _ = eventsOf({ path: second } as Parameters<typeof eventsOf>[0]);
    await Wire.as(1003, second).rest();
    await new Promise((resolve) => setImmediate(resolve)); // process warnings are emitted in the next tick
    assert.deepEqual([...seen], []);
    await Promise.all([
      audited.close({ timeout: 0 }),
      watched.close({ timeout: 0 }),
      audit.close(),
    ]);
  },
);

testEach("answers 400 when URL cannot parse the Host header", async (kind) => {
  const server = await kind.start({ policy: "anyone" }, refuse);
  for (const host of ["", "a:b", "xn--", "xn--a", "abcd:99999", "256.1.1.1", "[::1", "a%", "x/?"]) {
    if (URL.canParse(`http://${host}`) && host !== "x/?") continue; // Node accepts "xn--", Deno does not
    const answer = await Wire.open(server.path);
    answer.send(`GET /open HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
    assert.match(await answer.rest(), /^HTTP\/1\.1 400 /, JSON.stringify(host));
  }
});

testEach("passes URLs that begin with http:// and the host", async (kind) => {
  const seen: string[] = [];
  const server = await kind.start({ policy: "anyone" }, ({ request, url }) => {
    if (request instanceof Request) {
      seen.push(request.url);
      assert.ok(new URL(request.url).host.length >= 4);
    } else seen.push(`http://example.org${url}`);
    return {};
  });
  const wire = await Wire.open(server.path);
  for (const target of ["/open?a=b", "/a/../open", "http://example.org/open"]) {
    wire.send(`GET ${target} HTTP/1.1\r\nHost: example.org\r\n\r\n`);
    assert.equal((await wire.response()).status, 200);
  }
  const open = "http://example.org/open";
  assert.deepEqual(seen, [`${open}?a=b`, open, open]);
  for (const host of ["example.org:8080", "[::1]", "127.0.0.1", "a.b-c.d_e"]) {
    wire.send(`GET /open HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
    assert.equal((await wire.response()).status, 200, host);
  }
});

testEach("passes requests that can be cloned", async (kind) => {
  const server = await kind.start({ policy: "anyone" }, async ({ request }) => {
    if (!(request instanceof Request)) return { body: "POST hello" }; // node:http has no Request
    const copy = new Request(request.clone());
    return { body: `${copy.method} ${await copy.text()}` };
  });
  const wire = await Wire.open(server.path);
  wire.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
  assert.equal((await wire.response()).body, "POST hello");
});
