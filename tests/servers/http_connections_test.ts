/** HTTP connections: order of responses, bodies, streams, half-closed clients and WebSockets. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { WebSocketServer } from "ws";
import { createServer, decisionOf, peerOf } from "../../servers/http.ts";
import { freshPath } from "../support/peers.ts";
import { until } from "../support/suite.ts";
import {
  type Ask,
  KINDS,
  many,
  onDeno,
  policy,
  readBody,
  running,
  testEach,
  testHere,
  whoAsks,
  Wire,
} from "../support/http.ts";

testEach("answers pipelined requests in order when the first takes longest", async (kind) => {
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

testEach("decides each request of a persistent connection", async (kind) => {
  const server = await kind.start({ policy }, whoAsks);
  const wire = Wire.as(1002, server.path);
  for (let at = 0; at < 50; at++) {
    assert.equal((await wire.get(at % 2 ? "/open" : "/a")).status, at % 2 ? 200 : 403);
  }
  const { accepted, allowed, denied } = server.stats();
  assert.deepEqual([accepted, allowed, denied], [1, 25, 25]);
});

testEach("passes bodies unchanged in both directions, chunked and with a length", async (kind) => {
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

testEach(
  "sends server-sent events one by one, and aborts when the client hangs up",
  async (kind) => {
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
  },
);

testEach("aborts the request when the client hangs up before the response", async (kind) => {
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
  // Deno's engine does not notice a hang-up while the rest of the body is unread.
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

/** Kinds with half-closed connections: Deno's engine treats them as closed. */
const halfOpen = KINDS.filter((kind) => kind !== onDeno);

for (const kind of halfOpen) {
  testHere(`${kind.name} answers a half-closed client, late and in order`, async () => {
    const server = await kind.start({ policy }, async ({ url, body }) => {
      await sleep(30);
      return { body: `${url} ${await readBody(body())}` };
    });
    const wire = Wire.as(1001, server.path);
    wire.send("POST /in HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
    wire.send("GET /2 HTTP/1.1\r\nHost: x\r\n\r\n").end();
    assert.equal((await wire.response()).body, "/in abc");
    assert.equal((await wire.response()).body, "/2 ");
    assert.equal(await wire.rest(), "");
    await until(() => server.stats().open === 0);
  });

  testHere(`${kind.name} aborts the request when a half-closed client hangs up`, async () => {
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

testHere("createServer() identifies the peers of a WebSocket server", async () => {
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
