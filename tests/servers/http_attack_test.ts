/** Clients that attack HTTP servers: other clients are served, and resources are released afterwards. */

import assert from "node:assert/strict";
import { once } from "node:events";
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { test } from "node:test";
import { clearInterval, setInterval } from "node:timers";
import { definePolicy } from "../../mod.ts";
import { createServer, serve } from "../../servers/http.ts";
import { freshPath } from "../support/peers.ts";
import { runtime, until } from "../support/suite.ts";
import { eventsOf, KINDS, onDeno, running, testEach, testHere, Wire } from "../support/http.ts";

/** 1001 may read everything except `/secret`; 1002 and root may do everything. */
const policy = definePolicy({
  version: 1,
  rules: [
    { name: "no secrets", when: { uid: 1001 }, actions: "* /secret", deny: true },
    { name: "reader", when: { uid: 1001 }, actions: "GET /**", allow: true },
    { name: "all", when: { uid: [0, 1002] }, allow: true },
  ],
});

function requests(count: number, target = "/a"): string {
  return `GET ${target} HTTP/1.1\r\nHost: x\r\n\r\n`.repeat(count);
}

// ── pipelining ──

testEach("answers 64 pipelined requests in order", async (kind) => {
  const asked: string[] = [];
  const server = await kind.start({ policy }, async ({ url }) => {
    asked.push(url);
    await until(() => kind === onDeno || asked.length >= 64); // Deno's engine handles one request at a time
    return { body: url };
  });
  const targets = Array.from({ length: 64 }, (_, at) => `/${at}`);
  const wire = Wire.as(1001, server.path).send(targets.map((at) => requests(1, at)).join(""));
  for (const target of targets) assert.equal((await wire.response()).body, target);
  assert.equal((await wire.get("/next")).body, "/next");
});

for (const kind of KINDS.filter((kind) => kind !== onDeno)) {
  for (const target of ["/wait", "/secret"]) {
    testHere(
      `${kind.name} closes a connection that pipelines ${target} endlessly, and serves others`,
      async () => {
        let waiting = 0;
        const server = await kind.start({ policy }, ({ url }) => {
          if (url !== "/wait") return { body: url };
          waiting++;
          return new Promise(() => {});
        });
        using events = eventsOf(server);
        const attackers = Array.from({ length: 10 }, () => Wire.as(1001, server.path));
        for (const wire of attackers) wire.send(requests(20_000, target)).pause();
        const other = Wire.as(1002, server.path);
        for (let times = 0; times < 10; times++) assert.equal((await other.get("/a")).status, 200);
        const closed = () => events.filter(({ type }) => type === "closed");
        await until(() => closed().length === attackers.length);
        for (const event of closed()) {
          assert.equal(event.type === "closed" && event.why, "pipelining");
          assert.equal(event.peer?.uid, 1001);
        }
        assert.equal((await other.get("/a")).status, 200);
        const { open, allowed, failed } = server.stats();
        assert.deepEqual([open, failed], [1, 0]);
        if (target === "/wait") {
          assert.ok(waiting <= 640, `${waiting} wait`);
          assert.equal(allowed, waiting + 11); // dropped requests are not decided
        }
      },
    );
  }
}

testHere("serve() by deno handles one pipelined request at a time", async () => {
  let waiting = 0;
  const server = await onDeno.start({ policy }, ({ url }) => {
    if (url !== "/wait") return { body: url };
    waiting++;
    return new Promise(() => {});
  });
  const wire = Wire.as(1001, server.path).send(requests(20_000, "/wait"));
  const other = Wire.as(1002, server.path);
  await until(() => waiting > 0);
  assert.equal((await other.get("/a")).status, 200);
  assert.equal(waiting, 1);
  wire.destroy();
  await until(() => server.stats().open === 1);
  assert.equal(waiting, 1);
}, ...onDeno.needs);

testHere(
  "createServer() closes a connection that keeps sending beyond maxRequestsPerSocket",
  async () => {
    const path = freshPath();
    const server = createServer({ policy }, (_request, _response) => {});
    server.maxRequestsPerSocket = 1;
    const { stats } = running(server, path);
    await once(server.listen({ path, mode: 0o666 }), "listening");
    Wire.as(1001, path).send(requests(20_000)).pause();
    await until(() => stats().accepted === 1 && stats().open === 0);
    assert.ok(stats().allowed <= 64);
  },
);

// ── refused connections ──

const UPGRADE = "Connection: Upgrade\r\nUpgrade: websocket\r\n";

// An upgrade's response is written to the socket: it would overtake earlier ones.
for (const [uid, what] of [[1002, "an allowed"], [1001, "a denied"]] as const) {
  for (
    const head of [
      `GET /secret HTTP/1.1\r\nHost: x\r\n${UPGRADE}`,
      "CONNECT /secret HTTP/1.1\r\nHost: x\r\n",
    ]
  ) {
    const method = head.split(" ")[0];
    testHere(
      `createServer() drops ${what} upgrade by ${method} behind an unanswered request`,
      async () => {
        const path = freshPath();
        const server = createServer({ policy }, ({ url }, response) => {
          if (url === "/a") response.end(url);
        });
        let upgrades = 0;
        for (const event of ["upgrade", "connect"]) {
          server.on(event, (_request: IncomingMessage, socket: Duplex) => {
            upgrades++;
            socket.end("HTTP/1.1 101 Switching Protocols\r\n\r\n");
          });
        }
        const { stats } = running(server, path);
        await once(server.listen({ path, mode: 0o666 }), "listening");
        // Bun parses a pipelined upgrade as an ordinary request, after the response before it.
        for (const earlier of runtime === "bun" ? [] : ["/wait", "/wait /a", "/a /wait"]) {
          const text = earlier.split(" ").map((target) => requests(1, target)).join("");
          const received = await Wire.as(uid, path).send(`${text}${head}\r\n`).rest();
          assert.doesNotMatch(received, /HTTP\/1\.1 (101|403)/, earlier);
        }
        assert.deepEqual([upgrades, stats().denied], [0, 0]);
        // after answered requests it is served as always
        for (const count of [0, 1, 3]) {
          const wire = Wire.as(uid, path);
          for (let at = 0; at < count; at++) assert.equal((await wire.get("/a")).body, "/a");
          wire.send(`${head}\r\n`);
          const answer = await wire.rest();
          if (method === "GET" || uid === 1001) {
            assert.match(answer, uid === 1002 ? /^HTTP\/1\.1 101 / : /^HTTP\/1\.1 403 /);
          }
        }
      },
    );
  }
}

for (
  const [what, head] of [
    ["upgrade", `GET /secret HTTP/1.1\r\nHost: x\r\n${UPGRADE}`],
    ["CONNECT", "CONNECT x:80 HTTP/1.1\r\nHost: x\r\n"],
    ["upgrade that its listener ends", `GET /a HTTP/1.1\r\nHost: x\r\n${UPGRADE}`],
  ] as const
) {
  for (const leaves of [true, false]) {
    if (!leaves && what.endsWith("ends")) continue; // the listener closes the connection itself
    const client = leaves ? "a client that has left" : "a client that neither reads nor leaves";
    testHere(
      `createServer() closes a refused ${what} with further bytes, of ${client}`,
      async () => {
        const path = freshPath();
        const server = createServer({ policy });
        server.on("upgrade", (_request: IncomingMessage, socket: Duplex) => {
          socket.end("HTTP/1.1 401 Unauthorized\r\nConnection: close\r\n\r\n");
        });
        server.on("connect", () => assert.fail("it is denied"));
        const { stats } = running(server, path);
        await once(server.listen({ path, mode: 0o666 }), "listening");
        const wires = Array.from({ length: 3 }, () => Wire.as(1001, path));
        for (const wire of wires) {
          wire.send(`${head}\r\n`);
          if (leaves) assert.match(await wire.until("\r\n\r\n"), /^HTTP\/1\.1 40[13] /);
          else wire.pause();
          wire.send("a".repeat(1 << 20));
        }
        if (leaves) { for (const { child } of wires) child!.kill("SIGKILL"); }
        await until(() => stats().accepted === 3 && stats().open === 0);
      },
    );
  }
}

testEach(
  "closes a refused request with a body after the client has hung up",
  async (kind) => {
    const server = await kind.start({ policy }, () => ({}));
    const bodies = [
      `Content-Length: ${1 << 30}\r\n\r\n`,
      "Transfer-Encoding: chunked\r\n\r\n10000000\r\n",
      `Expect: 100-continue\r\nContent-Length: ${1 << 30}\r\n\r\n`,
    ];
    for (const body of bodies) {
      const wire = Wire.as(1001, server.path).send(`POST /secret HTTP/1.1\r\nHost: x\r\n${body}`);
      await wire.until("HTTP/1.1 ");
      wire.send("a".repeat(1 << 20));
      wire.child!.kill("SIGKILL");
    }
    await until(() => server.stats().accepted === 3 && server.stats().open === 0);
  },
);

// ── timeouts ──

testEach(
  "closes a connection that sends only empty lines, but not during a request",
  async (kind) => {
    const timeouts = { headersTimeout: 300, keepAliveTimeout: 300 };
    let finish = () => {};
    const server = await kind.start({ policy, ...timeouts }, async ({ url }) => {
      if (url === "/wait") await new Promise<void>((resolve) => finish = resolve);
      return { body: url };
    });
    const waiting = Wire.as(1002, server.path).send(requests(1, "/wait"));
    const idle = Wire.as(1001, server.path);
    assert.equal((await idle.get("/a")).status, 200);
    const timer = setInterval(() => idle.send("\r\n"), 50);
    try {
      assert.match(await idle.rest(), /^$|^HTTP\/1\.1 40[08] /); // Deno's engine parses empty lines as a request
    } finally {
      clearInterval(timer);
    }
    finish();
    assert.equal((await waiting.response()).body, "/wait");
  },
);

test("serve() throws when a timeout is out of range", () => {
  for (const timeout of [-1, NaN, 2 ** 31, "1"] as number[]) {
    for (const name of ["headersTimeout", "keepAliveTimeout"]) {
      const options = { path: freshPath(), fetch: () => new Response(""), [name]: timeout };
      assert.throws(() => serve(options), { name: "RangeError", message: new RegExp(name) });
    }
  }
});
