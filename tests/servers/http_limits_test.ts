/** Limits of HTTP servers: header sizes, timeouts, and requests for each connection. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { createServer } from "../../servers/http.ts";
import { freshPath } from "../support/peers.ts";
import { until } from "../support/suite.ts";
import {
  KINDS,
  onDeno,
  policy,
  running,
  testEach,
  testHere,
  whoAsks,
  Wire,
} from "../support/http.ts";

testEach(
  "answers 431 or closes the connection when headers are too long or too many",
  async (kind) => {
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
        "a".repeat(1 << 20), // a line without an end
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
  },
);

testHere("all servers close connections without a request or with too slow headers", async () => {
  const kinds = KINDS.filter((kind) => kind.needs.every(({ met }) => met));
  await Promise.all(kinds.map(async (kind) => {
    const server = await kind.start({ policy, headersTimeout: 1000 }, whoAsks);
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
        assert.equal((await other.get("/open")).status, 200, "others are served in the meantime");
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

testHere(
  "serve() by deno closes idle connections, but not during a response",
  async () => {
    const [begun, end] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    let responses = 0;
    const wait = async () => {
      if (++responses === 2) begun.resolve();
      await end.promise;
    };
    const server = await onDeno.start({ policy, keepAliveTimeout: 500 }, async ({ url }) => {
      if (url === "/late") await wait();
      const body = (async function* () {
        yield Buffer.from("begun ");
        await wait();
        yield Buffer.from("and over");
      })();
      return { body: url === "/stream" ? body : url };
    });
    const get = (url: string) =>
      Wire.as(1001, server.path).send(`GET ${url} HTTP/1.1\r\nHost: x\r\n\r\n`);
    const [late, stream] = [get("/late"), get("/stream")];
    await begun.promise;
    const [idle, half] = [get("/a"), get("/b")];
    assert.equal((await idle.response()).body, "/a");
    assert.equal((await half.response()).body, "/b");
    half.send("GET /c HTTP/1.1\r\nHost"); // an incomplete request
    // Both responses have begun before the idle connections, and last until these are closed.
    for (const wire of [idle, half]) assert.equal(await wire.rest(), "");
    await until(() => server.stats().open === 2);
    end.resolve();
    const answers = [[late, "/late"], [stream, "begun and over"]] as const;
    await Promise.all(answers.map(async ([wire, body]) => {
      assert.equal((await wire.response()).body, body);
      assert.equal((await wire.get("/next")).body, "/next", "the connection is still open");
    }));
  },
  ...onDeno.needs,
);

testHere("createServer() emits no event for requests beyond maxRequestsPerSocket", async () => {
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
