/** Closing HTTP servers: pending requests, new connections, and the timeout. */

import assert from "node:assert/strict";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { runtime, until } from "../support/suite.ts";
import {
  type Ask,
  type Kind,
  onDeno,
  policy,
  testEach,
  testHere,
  testServe,
  whoAsks,
  Wire,
} from "../support/http.ts";

testEach("close() lets requests finish, and refuses new connections", async (kind) => {
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
  if (kind !== onDeno) assert.equal(headers["connection"], "close"); // the response ends the connection, not the idle timeout
  await closed;
  assert.equal(await busy.rest(), "");
  await until(() => server.stats().open === 0);
});

testEach("close() answers a partly received request, and closes its connection", async (kind) => {
  const server = await kind.start({ policy }, ({ url }) => ({ body: url }));
  const wire = await Wire.open(server.path); // from this process, where one event loop serves both ends
  assert.equal((await wire.get("/a")).status, 200);
  wire.send("GET /b HTTP/1.1\r\nHost: x\r\n");
  await sleep(50); // until the first part has arrived
  const closed = server.close();
  wire.send("\r\n");
  if (runtime === "deno") assert.equal(await wire.rest(), ""); // Deno still counts the connection as idle
  else {
    const { body, headers } = await wire.response();
    assert.deepEqual([body, headers["connection"]], ["/b", "close"]);
    assert.equal(await wire.rest(), "");
  }
  await closed;
});

testHere(
  "close() of serve() by deno ends a connection that is just being accepted",
  async () => {
    const server = await onDeno.start({ policy }, whoAsks);
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
  ...onDeno.needs,
);

testEach("close({ timeout }) cuts off and aborts requests that do not finish", async (kind) => {
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

/** Starts a server with a handler that never ends, and a client that waits for it. */
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

testEach("close({ timeout }) resolves although a handler never ends", async (kind) => {
  const { server, wire } = await startHanging(kind);
  await server.close({ timeout: 30 });
  assert.equal(server.stats().open, 0);
  assert.equal(await wire.rest(), "");
});

testServe(
  "close() resolves together for all calls, and a later call can shorten the timeout",
  async (kind) => {
    const { server, wire } = await startHanging(kind);
    const patient = [server.close(), server.close({ timeout: 600_000 })];
    await assert.rejects(() => server.close({ timeout: -1 }), RangeError);
    writeFileSync(server.path, "another's");
    await server.close({ timeout: 30 });
    await Promise.all(patient);
    await server.close();
    assert.equal(await wire.rest(), "");
    assert.equal(readFileSync(server.path, "utf8"), "another's");
  },
);
