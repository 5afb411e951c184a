/** HTTP servers over real sockets, by real users: who is told what, and how connections live and end. */

import assert from "node:assert/strict";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { chmodSync, existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import { connect as connectHttp2 } from "node:http2";
import { connect } from "node:net";
import process from "node:process";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { WebSocketServer } from "ws";
import { definePolicy, identify, type Peer } from "../../mod.ts";
import { watchPolicy } from "../../policy/mod.ts";
import { createServer, decisionOf, peerOf, serve } from "../../servers/http.ts";
import { Child, freshPath } from "../support/peers.ts";
import { needs, runtime, runtimeCommand, testWith, until } from "../support/suite.ts";
import {
  type App,
  type Ask,
  eventsOf,
  type Kind,
  KINDS,
  running,
  testEach,
  testHere,
  textOf,
  Wire,
} from "../support/http.ts";

/** Root does everything, 1001 reads, 1002 only looks at `/open`, nobody else gets in. */
const policy = definePolicy({
  version: 1,
  rules: [
    { name: "root", when: { uid: 0 }, allow: "full" },
    {
      name: "no secrets",
      when: { uid: 1001 },
      actions: "* /secret",
      deny: 'Ask "root" for it: é',
    },
    { name: "reader", when: { uid: 1001 }, actions: ["GET /**", "HEAD /**"], allow: "read" },
    { name: "writer", when: { uid: 1001 }, actions: "POST /in", allow: "write" },
    { name: "looker", when: { uid: 1002 }, actions: "GET /open", allow: "look" },
  ],
});

const whoAsks: App = ({ peer, decision, url }) => ({
  body: JSON.stringify({ uid: peer.uid, pid: peer.pid, rule: decision.rule, url }),
});

/** Deno's own HTTP. */
const onDeno = KINDS.find(({ name }) => name === "serve() by deno");

// ── who asks ──

testEach("tells users apart, and refuses others, when they come at once", async (kind) => {
  const server = await kind.start({ policy }, whoAsks);
  const users = [0, 1001, 1002, 1003].flatMap((uid) => [uid, uid, uid]);
  const answers = await Promise.all(users.map(async (uid) => {
    const wire = Wire.as(uid, server.path);
    const { pid } = wire.child!;
    if (uid === 1003) return assert.equal((await wire.get("/open")).status, 403);
    // Pipelined: as many answers, in this order.
    const targets = Array.from({ length: 20 }, (_, at) => at % 4 === 3 ? "/other" : "/open");
    wire.send(targets.map((at) => `GET ${at} HTTP/1.1\r\nHost: x\r\n\r\n`).join(""));
    for (const url of targets) {
      const { status, body } = await wire.response();
      const rule = { 0: "root", 1001: "reader", 1002: "looker" }[uid];
      if (uid === 1002 && url !== "/open") assert.equal(status, 403);
      else assert.deepEqual([status, JSON.parse(body)], [200, { uid, pid, rule, url }]);
    }
  }));
  assert.equal(answers.length, 12);
  const { open, accepted, refused, allowed, denied, failed } = server.stats();
  assert.ok(open <= 9);
  assert.deepEqual([accepted, refused.policy, allowed, denied, failed], [9, 3, 165, 15, 0]);
});

testEach("lets in root and nobody else, when root runs it without a policy", async (kind) => {
  const server = await kind.start({}, whoAsks);
  assert.equal((await Wire.as(0, server.path).get("/x")).status, 200);
  for (const uid of [1, 1001, 65534]) {
    assert.equal((await Wire.as(uid, server.path).get("/x")).status, 403);
  }
  assert.deepEqual(server.stats().refused, { policy: 3, limits: 0, unidentified: 0 });
});

testEach("counts the connections of each user, when there is a limit", async (kind) => {
  const limits = { connectionsPerUser: 2 };
  const server = await kind.start({ policy: "anyone", limits }, whoAsks);
  const held = [Wire.as(1001, server.path), Wire.as(1001, server.path)];
  for (const wire of held) assert.equal((await wire.get("/")).status, 200);
  assert.equal(await Wire.as(1001, server.path).send("GET / HTTP/1.1\r\n").rest(), "");
  assert.equal((await Wire.as(1002, server.path).get("/")).status, 200);
  held[0]!.destroy();
  await until(() => server.stats().open === 2);
  assert.equal((await Wire.as(1001, server.path).get("/")).status, 200);
  assert.equal(server.stats().refused.limits, 1);
});

/** By which some servers learn who asks. */
const CLAIMS = [
  "X-Ucred-Uid: 0",
  "X-Ucred-User: root",
  "X-Ucred-Pid: 1",
  "X_Ucred_Uid: 0",
  "x-ucred-uid: 0\r\nX-Ucred-Uid: 0",
  "X-Remote-User: root",
  "Remote-User: root",
  "REMOTE_USER: root",
  "X-Forwarded-User: root",
  "X-Forwarded-For: 127.0.0.1",
  "X-Forwarded-Uid: 0",
  "X-Auth-Request-User: root",
  "X-Authenticated-User: root",
  "X-WebAuth-User: root",
  "X-Real-IP: 127.0.0.1",
  "X-Client-Cert: CN=root",
  "Forwarded: for=root;by=root",
  "Authorization: Basic cm9vdDpyb290",
  "Authorization: Bearer eyJhbGciOiJub25lIn0.eyJ1aWQiOjB9.",
  "Authorization: EXTERNAL 30",
  "Proxy-Authorization: Basic cm9vdDo=",
  "Cookie: uid=0; user=root; peer=root",
  "From: root@localhost",
  "Via: 1.1 root",
  "__proto__: root",
  "constructor: root",
  "peer: root",
  "ucred.admitted: root",
  "socket: root",
  "Connection: X-Ucred-Uid, Host",
] as const;

testEach("takes nobody's word for who asks, whatever headers say so", async (kind) => {
  const seen: string[] = [];
  const server = await kind.start({ policy }, (ask) => {
    seen.push(ask.url);
    return whoAsks(ask);
  });
  const wire = Wire.as(1002, server.path);
  const { pid } = wire.child!;
  for (const claim of CLAIMS) {
    for (const url of ["/open", "/secret"]) {
      wire.send(`GET ${url} HTTP/1.1\r\nHost: x\r\n${claim}\r\n\r\n`);
      const { status, body } = await wire.response();
      if (url === "/secret") assert.equal(status, 403, claim);
      else {
        assert.deepEqual(
          [status, JSON.parse(body)],
          [200, { uid: 1002, pid, rule: "looker", url }],
          claim,
        );
      }
    }
  }
  assert.deepEqual(seen, CLAIMS.map(() => "/open"));
});

testEach("tells who asked for as long as the handler runs, and after", async (kind) => {
  const asks: Ask[] = [];
  const server = await kind.start({ policy }, async (ask) => {
    asks.push(ask);
    const { request, peer, decision } = ask;
    const same = () => assert.deepEqual([peerOf(request), decisionOf(request)], [peer, decision]);
    same();
    await sleep(1);
    same();
    await textOf(ask.body());
    same();
    return { body: String(peerOf(request).uid) };
  });
  const wire = Wire.as(1001, server.path);
  wire.send("POST /in HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
  assert.equal((await wire.response()).body, "1001");
  assert.equal((await wire.get("/a")).body, "1001");
  wire.destroy();
  await until(() => server.stats().open === 0);
  const [first, second] = asks.map(({ request }) => decisionOf(request));
  assert.deepEqual([first!.rule, second!.rule], ["writer", "reader"]);
  assert.deepEqual([first!.grants, second!.grants], [["write"], ["read"]]);
  assert.equal(peerOf(asks[0]!.request), peerOf(asks[1]!.request));
  assert.equal(peerOf(asks[0]!.request).uid, 1001);
});

test("peerOf() and decisionOf() throw, when a request is none of ours", () => {
  for (const other of [{}, new Request("http://x/"), { socket: null }, { socket: {} }]) {
    for (const ask of [peerOf, decisionOf]) {
      assert.throws(() => ask(other), { name: "UcredError", code: "ERR_UCRED_NO_PEER" });
    }
  }
});

testHere("identify() takes a request of createServer(), when a handler calls it", async () => {
  const path = freshPath();
  const server = createServer({ policy: "anyone" }, async (request, response) => {
    const { uid, pid } = identify(request);
    await sleep(1);
    response.end(JSON.stringify([uid, pid, identify(request).uid]));
  });
  running(server, path);
  await once(server.listen({ path, mode: 0o666 }), "listening");
  const wire = Wire.as(1001, path);
  const { body } = await wire.get("/");
  assert.deepEqual(JSON.parse(body), [1001, wire.child!.pid, 1001]);
});

// ── what is denied ──

testEach("says so in the words of RFC 9457, when it denies a request", async (kind) => {
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
    const wire = Wire.as(1001, server.path); // some parsers end the connection upon "get"
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

/** A body of so many bytes, as the connection is then used. */
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
  ["a body that never comes", "Content-Length: 1000\r\n", () => []],
];

function* many(count: number): Iterable<Buffer> {
  const megabyte = Buffer.alloc(1 << 20, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
  for (let at = 0; at < count; at++) yield megabyte;
}

for (const [what, head, body] of BODIES) {
  testEach(
    `answers ${what} of what is denied, and takes none of it for a request`,
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

testEach("reads on while a client sends the body of what was denied", async (kind) => {
  const readers = definePolicy({
    version: 1,
    rules: [{ name: "readers", actions: "GET /**", allow: "read" }],
  });
  const server = await kind.start({ policy: readers }, () => ({ body: "handled" }));
  // By this process: relay.c would hide a broken pipe.
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

testHere("createServer() answers an upgrade that is denied, and nobody hears of it", async () => {
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

// ── how connections live ──

testEach("answers in the order of the requests, when the first takes longest", async (kind) => {
  const server = await kind.start({ policy }, async ({ url }) => {
    if (url === "/1") await sleep(50);
    return { body: url };
  });
  const wire = Wire.as(1001, server.path);
  wire.send(
    ["/1", "/2", "/secret", "/3"].map((at) => `GET ${at} HTTP/1.1\r\nHost: x\r\n\r\n`).join(""),
  );
  const bodies = [];
  for (let at = 0; at < 4; at++) bodies.push((await wire.response()).body);
  assert.match(bodies.splice(2, 1)[0]!, /"status":403/);
  assert.deepEqual(bodies, ["/1", "/2", "/3"]);
});

testEach("keeps a connection, and decides each of its requests", async (kind) => {
  const server = await kind.start({ policy }, whoAsks);
  const wire = Wire.as(1002, server.path);
  for (let at = 0; at < 50; at++) {
    assert.equal((await wire.get(at % 2 ? "/open" : "/a")).status, at % 2 ? 200 : 403);
  }
  const { accepted, allowed, denied } = server.stats();
  assert.deepEqual([accepted, allowed, denied], [1, 25, 25]);
});

testEach("passes bodies both ways unchanged, in chunks and of known lengths", async (kind) => {
  const server = await kind.start({ policy }, async ({ body }) => {
    const hash = createHash("sha256");
    let length = 0;
    for await (const chunk of body()) {
      hash.update(chunk);
      length += chunk.length;
    }
    return {
      body: (async function* () {
        for (const each of many(8)) yield each;
        yield Buffer.from(`${length} ${hash.digest("hex")}`);
      })(),
    };
  });
  const sum = createHash("sha256");
  for (const each of many(8)) sum.update(each);
  const wanted = `${8 << 20} ${sum.digest("hex")}`;
  for (const head of [`Content-Length: ${8 << 20}`, "Transfer-Encoding: chunked"]) {
    const wire = Wire.as(1001, server.path);
    wire.send(`POST /in HTTP/1.1\r\nHost: x\r\n${head}\r\n\r\n`);
    const answer = wire.response();
    for (const each of many(8)) {
      if (head.startsWith("T")) wire.send("100000\r\n");
      await wire.sendAll([each]);
      if (head.startsWith("T")) wire.send("\r\n");
    }
    if (head.startsWith("T")) wire.send("0\r\n\r\n");
    const { body } = await answer;
    assert.equal(body.slice(8 << 20), wanted);
    assert.equal(body.slice(0, 64), [...many(1)][0]!.toString("latin1", 0, 64));
  }
});

testEach("sends events one by one, and aborts the request when the client leaves", async (kind) => {
  const asks: Ask[] = [];
  let hasEnded = false;
  let next = (_: string) => {};
  const server = await kind.start({ policy }, (ask) => {
    asks.push(ask);
    return {
      headers: { "content-type": "text/event-stream" },
      body: (async function* () {
        try {
          while (true) {
            const data = await new Promise<string>((resolve) => {
              next = resolve;
              ask.signal.addEventListener("abort", () => resolve("late"));
            });
            if (ask.signal.aborted) return;
            yield Buffer.from(`data: ${data}\n\n`);
          }
        } finally {
          hasEnded = true;
        }
      })(),
    };
  });
  const wire = Wire.as(1001, server.path);
  wire.send("GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
  for (const data of ["one", "two", "three"]) {
    await until(() => asks.length === 1);
    await sleep(1);
    next(data);
    assert.match(await wire.until("\n\n"), new RegExp(`data: ${data}\n\n$`));
  }
  assert.equal(hasEnded, false);
  assert.equal(asks[0]!.signal.aborted, false);
  wire.destroy();
  await until(() => hasEnded && server.stats().open === 0);
  assert.equal(asks[0]!.signal.aborted, true);
  assert.equal(server.stats().failed, 0);
});

testEach("aborts the request when the client leaves before there is an answer", async (kind) => {
  const asks: Ask[] = [];
  const server = await kind.start({ policy }, async (ask) => {
    asks.push(ask);
    await new Promise((resolve) => ask.signal.addEventListener("abort", resolve));
    return { body: "too late" };
  });
  const whole = [
    "GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
    "POST /in HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
  ];
  // Deno's own HTTP does not notice, while nobody reads the rest.
  const half = "POST /in HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na";
  for (const bytes of kind === onDeno ? whole : [...whole, half]) {
    asks.length = 0;
    const wire = Wire.as(1001, server.path).send(bytes);
    await until(() => asks.length === 1);
    assert.equal(asks[0]!.signal.aborted, false);
    wire.destroy();
    await until(() => asks[0]!.signal.aborted && server.stats().open === 0);
  }
});

/** Deno's own HTTP takes the end of what is sent for the end of the client. */
const halfOpen = KINDS.filter((kind) => kind !== onDeno);

for (const kind of halfOpen) {
  testHere(`${kind.name} answers a client that sends no more, late and in the order`, async () => {
    const server = await kind.start({ policy }, async ({ url, body }) => {
      await sleep(30);
      return { body: `${url} ${await textOf(body())}` };
    });
    const wire = Wire.as(1001, server.path);
    wire.send("POST /in HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
    wire.send("GET /2 HTTP/1.1\r\nHost: x\r\n\r\n").end();
    assert.equal((await wire.response()).body, "/in abc");
    assert.equal((await wire.response()).body, "/2 ");
    assert.equal(await wire.rest(), "");
    await until(() => server.stats().open === 0);
  });

  testHere(`${kind.name} aborts, when a client that sends no more leaves later`, async () => {
    const asks: Ask[] = [];
    const server = await kind.start({ policy }, async (ask) => {
      asks.push(ask);
      await new Promise((resolve) => ask.signal.addEventListener("abort", resolve));
      return {};
    });
    const wire = Wire.as(1001, server.path).send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n").end();
    await until(() => asks.length === 1);
    await sleep(30);
    assert.equal(asks[0]!.signal.aborted, false);
    wire.destroy();
    await until(() => asks[0]!.signal.aborted && server.stats().open === 0);
  });
}

testHere("a WebSocket server on createServer() knows who talks to it", async () => {
  const path = freshPath();
  const sockets = new WebSocketServer({ noServer: true });
  const server = createServer({ policy });
  running(server, path);
  server.on("upgrade", (request, socket, head) => {
    sockets.handleUpgrade(request, socket, head, (client) => {
      const { uid } = peerOf(request);
      const { rule } = decisionOf(request);
      client.on("message", (data) => client.send(`${uid} by ${rule}: ${data}`));
    });
  });
  await once(server.listen({ path, mode: 0o666 }), "listening");
  const hello = (target: string) =>
    `GET ${target} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n";
  const talk = async (uid: number, target: string): Promise<string> => {
    const wire = Wire.as(uid, path).send(hello(target));
    const { status } = await wire.response();
    if (status !== 101) return `${status}`;
    let text = "";
    for (const word of ["one", "two"]) {
      wire.send(`\x81\x83\0\0\0\0${word}`); // a masked text frame of 3 bytes
      text += await wire.until(word);
    }
    wire.send("\x88\x80\0\0\0\0"); // a masked close frame
    await wire.rest();
    return text.replaceAll(/\x81[\0-\x7f]/g, "|");
  };
  assert.equal(await talk(1001, "/socket"), "|1001 by reader: one|1001 by reader: two");
  assert.equal(await talk(0, "/secret"), "|0 by root: one|0 by root: two");
  assert.equal(await talk(1002, "/open"), "|1002 by looker: one|1002 by looker: two");
  assert.equal(await talk(1001, "/secret"), "403");
  assert.equal(await talk(1002, "/socket"), "403");
  assert.match(await Wire.as(1003, path).send(hello("/open")).rest(), /^HTTP\/1\.1 403 /);
  await until(() => server.stats().open === 0);
});

// ── handlers that fail ──

function testServe(name: string, run: (kind: Kind) => Promise<void>): void {
  for (const kind of KINDS.filter(({ name }) => name.startsWith("serve()"))) {
    testHere(`${kind.name} ${name}`, () => run(kind), ...kind.needs);
  }
}

testEach("answers 500 and goes on, when a handler fails before it answers", async (kind) => {
  const failures: { [url: string]: () => never | Promise<never> } = {
    "/throws": () => {
      throw new Error("thrown");
    },
    "/rejects": () => Promise.reject(new Error("rejected")),
    "/rejects-later": async () => {
      await sleep(1);
      throw new Error("rejected");
    },
    "/throws-nothing": () => {
      throw undefined;
    },
    "/throws-odd": () => {
      throw Object.create(null);
    },
  };
  const server = await kind.start({ policy }, ({ url }) => failures[url]?.() ?? { body: "fine" });
  using events = eventsOf(server);
  const urls = Object.keys(failures);
  for (const url of urls) {
    const wire = Wire.as(1001, server.path);
    assert.equal((await wire.get(url)).status, 500, url);
    assert.equal((await Wire.as(1001, server.path).get("/fine")).body, "fine");
  }
  assert.equal(server.stats().failed, urls.length);
  assert.equal(events.filter(({ type }) => type === "failed").length, urls.length);
});

testEach("ends the connection, when a stream fails in its middle", async (kind) => {
  const server = await kind.start({ policy }, () => ({
    body: (async function* () {
      yield Buffer.from("begun");
      await sleep(10);
      throw new Error("no more");
    })(),
  }));
  const text = await Wire.as(1001, server.path).send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n").rest();
  assert.match(text, /^HTTP\/1\.1 200/);
  assert.doesNotMatch(text, /\r\n0\r\n\r\n$/, "nobody takes it for a whole answer");
  assert.equal((await Wire.as(1001, server.path).get("/secret")).status, 403);
});

testServe("answers 500, when fetch() gives no response or a used one", async (kind) => {
  const used = new Response("used");
  await used.text();
  const odd: { [path: string]: unknown } = {
    "/nothing": undefined,
    "/null": null,
    "/text": "text",
    "/object": { status: 200 },
    "/error": Response.error(),
    "/used": used,
  };
  const path = freshPath();
  await using server = await serve({
    path,
    engine: kind.name.endsWith("deno") ? "deno" : "node:http",
    fetch: ({ url }) => {
      const { pathname } = new URL(url);
      const answer = pathname.slice(1) in {} ? undefined : odd[pathname.replace("/later", "")];
      if (pathname === "/fine") return new Response("fine");
      return (pathname.startsWith("/later") ? sleep(1, answer) : answer) as Response;
    },
  });
  const paths = Object.keys(odd).flatMap((path) => [path, `/later${path}`]);
  for (const target of paths) {
    assert.equal((await Wire.as(0, path).get(target)).status, 500, target);
  }
  assert.equal((await Wire.as(0, path).get("/fine")).body, "fine");
  assert.equal(server.stats().failed, paths.length);
});

// ── limits ──

testEach("answers 431 or ends it, when headers are huge or many", async (kind) => {
  let handled = 0;
  const server = await kind.start({ policy }, ({ header }) => {
    handled++;
    return { body: header("x-a") ?? "" };
  });
  const fits = Wire.as(1001, server.path);
  fits.send(`GET /a HTTP/1.1\r\nHost: x\r\nX-A: ${"a".repeat(4000)}\r\n\r\n`);
  assert.equal((await fits.response()).body, "a".repeat(4000));
  for (
    const lines of [
      `X-A: ${"a".repeat(1 << 20)}\r\n`,
      `${"a".repeat(1 << 20)}: a\r\n`,
      "X-A: a\r\n".repeat(1 << 17),
      Array.from({ length: 1 << 16 }, (_, at) => `X-${at}: a\r\n`).join(""),
      "a".repeat(1 << 20), // a line that does not end
    ]
  ) {
    const wire = Wire.as(1001, server.path);
    wire.send(`GET /a HTTP/1.1\r\nHost: x\r\n${lines}\r\n`);
    assert.match(await wire.rest(), /^$|^HTTP\/1\.1 (431|400) /);
  }
  const long = Wire.as(1001, server.path).send(`GET /${"a".repeat(1 << 20)} HTTP/1.1\r\n\r\n`);
  assert.match(await long.rest(), /^$|^HTTP\/1\.1 (431|414|400) /);
  assert.equal(handled, 1);
  assert.equal((await Wire.as(1001, server.path).get("/a")).status, 200);
});

testHere("every server ends connections that ask for nothing, or too slowly", async () => {
  const kinds = KINDS.filter((kind) => kind.needs.every(({ met }) => met));
  await Promise.all(kinds.map(async (kind) => {
    const server = await kind.start({ policy, headersTimeout: 300 }, whoAsks);
    const other = Wire.as(1002, server.path);
    const slow = [
      Wire.as(1001, server.path),
      Wire.as(1001, server.path).send("GET /a HT"),
      Wire.as(1001, server.path).send("GET /a HTTP/1.1\r\nHost: x\r\n"),
    ];
    const ends = Promise.all(slow.map((wire) => wire.rest()));
    let isOver = false;
    const drip = async () => {
      while (!isOver) {
        slow[2]!.send("X: y\r\n");
        assert.equal((await other.get("/open")).status, 200, "others are served all the while");
        await sleep(200);
      }
    };
    const dripping = drip();
    for (const text of await ends) assert.match(text, /^$|^HTTP\/1\.1 408 /);
    isOver = true;
    await dripping;
    assert.equal(server.stats().denied, 0);
  }));
});

testWith(
  onDeno!.needs,
  "serve() by deno ends connections that were idle for long, and lets answers be",
  async () => {
    const isLong = 1500;
    const server = await onDeno!.start({ policy, keepAliveTimeout: 500 }, async ({ url }) => {
      if (url === "/late") await sleep(isLong);
      const body = (async function* () {
        yield Buffer.from("begun ");
        await sleep(isLong);
        yield Buffer.from("and over");
      })();
      return { body: url === "/stream" ? body : url };
    });
    const [idle, half, late, stream] = ["/a", "/b", "/late", "/stream"].map((url) =>
      Wire.as(1001, server.path).send(`GET ${url} HTTP/1.1\r\nHost: x\r\n\r\n`)
    ) as [Wire, Wire, Wire, Wire];
    assert.equal((await idle.response()).body, "/a");
    assert.equal((await half.response()).body, "/b");
    half.send("GET /c HTTP/1.1\r\nHost"); // and no more
    const ends = [idle, half].map(async (wire) => {
      assert.equal(await wire.rest(), "");
      await until(() => server.stats().open === 2);
    });
    const answers = [[late, "/late"], [stream, "begun and over"]] as const;
    await Promise.all([
      ...ends,
      ...answers.map(async ([wire, body]) => {
        assert.equal((await wire.response()).body, body);
        await Promise.all(ends);
        assert.equal((await wire.get("/next")).body, "/next", "it may ask again");
      }),
    ]);
  },
);

// ── how servers end ──

testEach("close() lets requests finish, and lets in nobody more", async (kind) => {
  let finish = () => {};
  const server = await kind.start({ policy }, async ({ url }) => {
    if (url === "/slow") await new Promise<void>((resolve) => finish = resolve);
    return { body: url };
  });
  const [idle, silent, busy] = [1, 2, 3].map(() => Wire.as(1001, server.path)) as [
    Wire,
    Wire,
    Wire,
  ];
  assert.equal((await idle.get("/a")).status, 200);
  busy.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
  await until(() => server.stats().allowed === 2 && server.stats().open === 3);
  let isClosed = false;
  const closed = server.close().then(() => isClosed = true);
  await Promise.all([idle.rest(), silent.rest()]);
  assert.equal(existsSync(server.path), false);
  assert.equal(isClosed, false);
  finish();
  const { body, headers } = await busy.response();
  assert.equal(body, "/slow");
  if (kind !== onDeno) assert.equal(headers["connection"], "close"); // not after its idle time
  await closed;
  assert.equal(await busy.rest(), "");
  await until(() => server.stats().open === 0);
});

testEach("close() answers a request that has begun, and ends its connection", async (kind) => {
  const server = await kind.start({ policy }, ({ url }) => ({ body: url }));
  const wire = await Wire.open(server.path); // from here, where one loop serves both ends:
  assert.equal((await wire.get("/a")).status, 200);
  wire.send("GET /b HTTP/1.1\r\nHost: x\r\n");
  await sleep(50); // so that it has come by then
  const closed = server.close();
  wire.send("\r\n");
  if (runtime === "deno") assert.equal(await wire.rest(), ""); // to Deno it is idle still
  else {
    const { body, headers } = await wire.response();
    assert.deepEqual([body, headers["connection"]], ["/b", "close"]);
    assert.equal(await wire.rest(), "");
  }
  await closed;
});

testWith(
  onDeno!.needs,
  "serve() by deno: close() ends a connection that is let in at that very moment",
  async () => {
    const server = await onDeno!.start({ policy }, whoAsks);
    const { promise: closed, resolve } = Promise.withResolvers<void>();
    const close = () => {
      unsubscribe("ucred:accepted", close);
      resolve(server.close({ timeout: 60_000 }));
    };
    subscribe("ucred:accepted", close);
    const wire = Wire.as(1001, server.path).send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    await closed;
    assert.equal(server.stats().open, 0);
    assert.equal(await wire.rest(), "");
  },
);

testEach("close({ timeout }) cuts what does not finish, and aborts it", async (kind) => {
  const asks: Ask[] = [];
  const server = await kind.start({ policy }, async (ask) => {
    asks.push(ask);
    if (ask.url === "/stream") {
      const body = (async function* () {
        yield Buffer.from("begun");
        await new Promise((resolve) => ask.signal.addEventListener("abort", resolve));
      })();
      return { body };
    }
    await new Promise((resolve) => ask.signal.addEventListener("abort", resolve));
    return {};
  });
  const wires = ["/a", "/stream"].map((url) =>
    Wire.as(1001, server.path).send(`GET ${url} HTTP/1.1\r\nHost: x\r\n\r\n`)
  );
  await wires[1]!.until("begun");
  await until(() => asks.length === 2);
  await server.close({ timeout: 30 });
  assert.equal(await wires[0]!.rest(), "");
  await wires[1]!.rest();
  await until(() => asks.every(({ signal }) => signal.aborted));
  assert.equal(existsSync(server.path), false);
});

/** A server whose handler never ends, and a connection that waits for it. */
async function startHanging(kind: Kind) {
  let isAsked = false;
  const server = await kind.start({ policy }, () => {
    isAsked = true;
    return new Promise(() => {});
  });
  const wire = Wire.as(1001, server.path).send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
  await until(() => isAsked);
  return { server, wire };
}

testEach("close({ timeout }) ends, when a handler never does", async (kind) => {
  const { server, wire } = await startHanging(kind);
  await server.close({ timeout: 30 });
  assert.equal(server.stats().open, 0);
  assert.equal(await wire.rest(), "");
});

testServe("answers 400, when a Host is no host or a target is no path", async (kind) => {
  const asked: string[] = [];
  const server = await kind.start({ policy }, ({ url }) => {
    asked.push(url);
    return { body: "served" };
  });
  const wire = Wire.as(0, server.path);
  assert.equal((await wire.get("/real")).status, 200, "its host is noted");
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
  if (runtime !== "bun") { // whose http takes no such target
    const wire = Wire.as(0, server.path);
    for (const host of ["x", "x/other?"]) {
      wire.send(`GET http://x/real HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
      assert.equal((await wire.response()).status, host === "x" ? 200 : 400, `http://x, ${host}`);
    }
  }
  assert.equal((await Wire.as(0, server.path).get("*", "OPTIONS")).status, 400);
  assert.ok(asked.every((url) => url === "/real"), `${asked}`);
});

testServe("close() is one end for all who call it, and a later one can hasten it", async (kind) => {
  const { server, wire } = await startHanging(kind);
  const patient = [server.close(), server.close({ timeout: 600_000 })];
  await assert.rejects(() => server.close({ timeout: -1 }), RangeError);
  writeFileSync(server.path, "another's");
  await server.close({ timeout: 30 });
  await Promise.all(patient);
  await server.close();
  assert.equal(await wire.rest(), "");
  assert.equal(readFileSync(server.path, "utf8"), "another's");
});

testServe("goes on and warns, when it cannot report to the service manager", async (kind) => {
  const { NOTIFY_SOCKET: before } = process.env;
  const warnings: string[] = [];
  const note = (warning: Error) => void warnings.push(warning.message);
  process.on("warning", note);
  const hasWarned = (what: string) =>
    warnings.some((each) => each.includes(`that a server ${what}`));
  try {
    process.env.NOTIFY_SOCKET = freshPath("nobody");
    const server = await kind.start({ policy, notify: true }, ({ url }) => ({ body: url }));
    await until(() => hasWarned("listens"));
    assert.equal((await Wire.as(0, server.path).get("/a")).body, "/a");
    await server.close({ timeout: 0 });
    await until(() => hasWarned("stops"));
    assert.equal(existsSync(server.path), false);
  } finally {
    process.off("warning", note);
    if (before === undefined) delete process.env.NOTIFY_SOCKET;
    else process.env.NOTIFY_SOCKET = before;
  }
});

testEach("answers 500 and lets nobody through, when the policy throws", async (kind) => {
  let handled = 0;
  const throwing = {
    needsPin: false,
    admits: (peer: Peer) => policy.admits(peer),
    decide: (peer: Peer, about?: { action?: string }) => {
      if (about?.action === "GET /fails") throw new Error("no accounts today");
      return policy.decide(peer, about);
    },
  };
  const server = await kind.start({ policy: throwing }, () => {
    handled++;
    return { body: "handled" };
  });
  using events = eventsOf(server);
  const wire = Wire.as(1001, server.path);
  const { status, body, headers } = await wire.get("/fails");
  assert.equal(status, 500);
  assert.equal(headers["content-type"], "application/problem+json");
  assert.doesNotMatch(body, /accounts/);
  assert.equal(handled, 0);
  assert.equal((await wire.get("/a")).body, "handled");
  const { failed, denied, allowed } = server.stats();
  assert.deepEqual([failed, denied, allowed], [1, 1, 1]);
  const failures = events.filter((event) => event.type === "failed");
  assert.match(String(failures[0]?.error), /no accounts today/);
});

test("createServer() throws, when shouldUpgradeCallback would hear what is not decided", () => {
  const options = { shouldUpgradeCallback: () => true };
  assert.throws(() => createServer(options as object), {
    name: "TypeError",
    message: /shouldUpgradeCallback/,
  });
});

testHere("createServer() tells nobody of a request beyond maxRequestsPerSocket", async () => {
  const path = freshPath();
  const heard: unknown[] = [];
  const server = createServer({ policy }, (request, response) => {
    heard.push(request.url);
    response.end();
  });
  server.maxRequestsPerSocket = 1;
  server.on("dropRequest", ({ url }) => heard.push(url));
  running(server, path);
  await once(server.listen({ path, mode: 0o666 }), "listening");
  const request = (url: string) => `GET ${url} HTTP/1.1\r\nHost: x\r\n\r\n`;
  const wire = Wire.as(1001, path).send(request("/a") + request("/secret"));
  await wire.response();
  wire.end();
  await wire.rest();
  assert.deepEqual(heard, ["/a"]);
});

testHere("serve() by deno decides each request of HTTP/2, and tells who asks", async () => {
  const policy = definePolicy({
    version: 1,
    rules: [{ name: "no", actions: "* /secret", deny: true }, { name: "root", allow: true }],
  });
  const server = await onDeno!.start({ policy }, whoAsks);
  const client = connectHttp2("http://localhost", { createConnection: () => connect(server.path) });
  const ask = async (path: string): Promise<[status: unknown, body: string]> => {
    const stream = client.request({ ":path": path });
    const [headers] = await once(stream, "response");
    return [headers[":status"], await textOf(stream)];
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

// ── policies that change, peers that change ──

testEach("decides by the new policy, when it changes between two requests", async (kind) => {
  const file = freshPath("policy.yaml");
  const write = (rules: string) => {
    writeFileSync(`${file}.new`, `version: 1\nrules: [${rules}]\n`, { mode: 0o600 });
    renameSync(`${file}.new`, file);
  };
  write("{ name: old, when: { uid: 1001 }, actions: GET /a, allow: true }");
  let reloaded = () => {};
  using policy = watchPolicy(file, { allowUnsafeOwner: true, onReload: () => reloaded() });
  const server = await kind.start({ policy }, ({ decision }) => ({ body: decision.rule! }));
  const wire = Wire.as(1001, server.path);
  const ask = async () => {
    const [a, b] = [await wire.get("/a"), await wire.get("/b")];
    return [a.status, a.status === 200 && a.body, b.status, b.status === 200 && b.body];
  };
  assert.deepEqual(await ask(), [200, "old", 403, false]);
  const noticed = new Promise<void>((resolve) => reloaded = resolve);
  write("{ name: new, when: { uid: 1001 }, actions: GET /b, allow: true }");
  await noticed;
  assert.deepEqual(await ask(), [403, false, 200, "new"]);
  write("{ name: none, allow: true, when: { uid: 1002 } }");
  policy.reload();
  assert.deepEqual(await ask(), [403, false, 403, false], "on a connection that was let in");
  assert.equal(await Wire.as(1001, server.path).rest(), "");
  assert.equal(server.stats().accepted, 1);
});

const live = [needs.peerPidfd];

/** A connection of a process `pid`, which has left it to a child if it was told to. */
async function held(kind: Kind, how: readonly string[], revalidate = true) {
  const asks: Ask[] = [];
  const server = await kind.start({ policy, revalidate }, async (ask) => {
    asks.push(ask);
    if (ask.url.endsWith("wait")) {
      await new Promise((resolve) => ask.signal.addEventListener("abort", resolve));
    }
    return { body: `${ask.peer.uid}` };
  });
  const events = eventsOf(server);
  const wire = Wire.as(1001, server.path, ...how);
  assert.equal((await wire.get("/a")).body, "1001");
  return { server, wire, asks, events, pid: asks[0]!.peer.pid! };
}

for (const kind of KINDS) {
  const testLive = (name: string, run: () => Promise<void>) =>
    testHere(`${kind.name} ${name}`, run, ...kind.needs, ...live);

  for (
    const [what, bytes] of [
      ["its request", "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n"],
      ["half a request", "POST /in?wait HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na"],
    ] as const
  ) {
    testLive(`ends a connection and aborts ${what}, when the peer's process ends`, async () => {
      const { server, wire, asks, events, pid } = await held(kind, ["--child"]);
      wire.send(bytes);
      await until(() => asks.length === 2);
      assert.equal(asks[1]!.signal.aborted, false);
      process.kill(pid, "SIGKILL");
      assert.doesNotMatch(await wire.rest(), /1001/);
      await until(() => asks[1]!.signal.aborted && server.stats().open === 0);
      await until(() => events.some((event) => event.type === "closed" && event.why === "ended"));
      events[Symbol.dispose]();
    });
  }

  testLive("ends a connection that waits, when the peer's process ends", async () => {
    const { server, wire, pid, asks } = await held(kind, ["--child"]);
    process.kill(pid, "SIGKILL");
    assert.equal(await wire.rest(), "");
    await until(() => server.stats().open === 0);
    assert.equal(asks.length, 1);
  });

  testLive("goes on, when the peer's process ends and nobody asked for more", async () => {
    const { wire, pid, asks, events } = await held(kind, ["--child"], false);
    process.kill(pid, "SIGKILL");
    await until(() => !existsSync(`/proc/${pid}`));
    assert.equal((await wire.get("/b")).body, "1001");
    assert.equal(asks.length, 2);
    events[Symbol.dispose]();
  });

  for (const how of ["--child", "--reused"]) {
    const end = how === "--child" ? "has just ended" : "has ended and its pid is another's";
    testLive(`denies a request, when the peer's process ${end}`, async () => {
      const { server, wire, asks, pid } = await held(kind, [how]);
      process.kill(pid, "SIGKILL");
      wire.send("GET /late HTTP/1.1\r\nHost: x\r\n\r\n");
      // This blocks the server, too: it learns of the end and of the request at once.
      while (how === "--child" ? existsSync(`/proc/${pid}`) : !isAnother(pid)) pause();
      for (let at = 0; at < 10; at++) pause();
      assert.doesNotMatch(await wire.rest(), /HTTP\/1\.1 2/);
      await until(() => server.stats().open === 0);
      assert.equal(asks.length, 1);
    });
  }

  testLive("denies a request and ends the connection, when the peer is another user", async () => {
    const { server, wire, asks, events, pid } = await held(kind, ["--later", "1002"]);
    process.kill(pid, "SIGUSR1");
    await until(() => /^Uid:\t1002\t1002\t1002\t/m.test(statusOf(pid)));
    wire.send("GET /b HTTP/1.1\r\nHost: x\r\n\r\nGET /c HTTP/1.1\r\nHost: x\r\n\r\n");
    const { status, body, headers } = await wire.response();
    assert.equal(status, 403);
    assert.equal(JSON.parse(body).detail, "The peer has changed since it connected");
    assert.equal(headers["content-type"], "application/problem+json");
    if (kind !== onDeno) assert.equal(headers["connection"], "close");
    assert.doesNotMatch(await wire.rest(), /HTTP\/1\.1 2/);
    await until(() => server.stats().open === 0);
    assert.equal(asks.length, 1);
    const closed = events.find((event) => event.type === "closed");
    assert.equal(closed?.type === "closed" && closed.why, "drift");
    events[Symbol.dispose]();
  });
}

/** Whether root has the pid, who was not the peer. */
function isAnother(pid: number): boolean {
  return /^Uid:\t0\t0\t/m.test(statusOf(pid));
}

function statusOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/status`, "utf8");
  } catch {
    return "";
  }
}

/** Blocks this thread for a moment. */
function pause(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
}

// ── engines, systemd ──

testWith(
  [needs.linux],
  "serve() says what answers, and refuses an engine that is not there",
  async () => {
    const path = freshPath();
    const fetch = () => new Response("");
    const engines = runtime === "deno" ? ["node:http", "deno"] : ["node:http"];
    for (const engine of ["node:http", "deno", "bun", ""] as never[]) {
      const start = async () => await serve({ path, engine, fetch });
      if (!engines.includes(engine)) await assert.rejects(start, TypeError);
      else {
        await using server = await start();
        assert.equal(server.engine, engine);
      }
    }
    await using server = await serve({ path, fetch });
    assert.equal(server.engine, engines.at(-1));
  },
);

testWith([needs.bun], "Bun.serve still hides who connects", async () => {
  const { Bun } = globalThis as unknown as {
    Bun: { serve(options: object): { stop(now: boolean): Promise<void>; requestFD?: unknown } };
  };
  const server = Bun.serve({ unix: freshPath(), fetch: () => new Response("") });
  const hidden = server.requestFD === undefined;
  await server.stop(true);
  assert.ok(hidden, "Bun.serve has requestFD: build the Bun.serve engine");
});

const activation = {
  name: "systemd-socket-activate (Debian: systemd)",
  met: existsSync("/usr/bin/systemd-socket-activate"),
};

for (const kind of ["createServer", "serve"] as const) {
  testHere(`${kind}() takes the socket of the service manager`, async () => {
    const path = freshPath();
    const command = runtimeCommand();
    const script = new URL("http_activated.ts", import.meta.url).pathname;
    const args = ["-l", path, "-E", "PATH", "-E", "HOME", ...command, script, kind];
    const child = new Child("systemd-socket-activate", args);
    try {
      let own!: Wire;
      const wake = () => Wire.open(path).then((wire) => own = wire);
      await until(() => wake().catch(() => undefined)); // while it does not listen yet
      assert.deepEqual(await child.json(), { path, engine: "node:http" });
      for (let at = 0; at < 3; at++) assert.equal((await own.get("/a")).body, "0 GET /a");
      chmodSync(path, 0o666);
      const other = Wire.as(1001, path);
      assert.equal((await other.get("/open")).body, "1001 GET /open");
      assert.equal((await other.get("/secret")).status, 403);
      assert.equal((await other.get("/open")).body, "1001 GET /open");
      assert.equal((await Wire.as(1003, path).get("/open")).status, 403);
      own.destroy();
      other.destroy();
      await child.end();
      assert.ok(existsSync(path), "the socket is the service manager's");
    } finally {
      child.process.kill("SIGKILL");
    }
  }, activation);
}
