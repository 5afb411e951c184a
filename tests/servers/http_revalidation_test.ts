/** Reloaded policies, and peers that change or end while their HTTP connection is open. */

import assert from "node:assert/strict";
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import process from "node:process";
import { watchPolicy } from "../../policy/mod.ts";
import { freshPath } from "../support/peers.ts";
import { needs, until } from "../support/suite.ts";
import {
  type Ask,
  eventsOf,
  type Kind,
  KINDS,
  onDeno,
  policy,
  testEach,
  testHere,
  Wire,
} from "../support/http.ts";

testEach("decides by the new policy after a reload between two requests", async (kind) => {
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
  assert.deepEqual(await ask(), [403, false, 403, false], "on an accepted connection");
  assert.equal(await Wire.as(1001, server.path).rest(), "");
  assert.equal(server.stats().accepted, 1);
});

const live = [needs.peerPidfd];

/** Connects from process `pid`. With `--child`, a child of it keeps the connection. */
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
    testLive(`closes a connection and aborts ${what} when the peer's process ends`, async () => {
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

  testLive("closes an idle connection when the peer's process ends", async () => {
    const { server, wire, pid, asks } = await held(kind, ["--child"]);
    process.kill(pid, "SIGKILL");
    assert.equal(await wire.rest(), "");
    await until(() => server.stats().open === 0);
    assert.equal(asks.length, 1);
  });

  testLive("keeps a connection without revalidate when the peer's process ends", async () => {
    const { wire, pid, asks, events } = await held(kind, ["--child"], false);
    process.kill(pid, "SIGKILL");
    await until(() => !existsSync(`/proc/${pid}`));
    assert.equal((await wire.get("/b")).body, "1001");
    assert.equal(asks.length, 2);
    events[Symbol.dispose]();
  });

  for (const how of ["--child", "--reused"]) {
    const end = how === "--child" ? "has just ended" : "has ended and its pid is another's";
    testLive(`denies a request when the peer's process ${end}`, async () => {
      const { server, wire, asks, pid } = await held(kind, [how]);
      process.kill(pid, "SIGKILL");
      wire.send("GET /late HTTP/1.1\r\nHost: x\r\n\r\n");
      // This also blocks the server: it notices the end and the request together.
      while (how === "--child" ? existsSync(`/proc/${pid}`) : !isAnother(pid)) pause();
      for (let at = 0; at < 10; at++) pause();
      assert.doesNotMatch(await wire.rest(), /HTTP\/1\.1 2/);
      await until(() => server.stats().open === 0);
      assert.equal(asks.length, 1);
    });
  }

  testLive(
    "denies a request and closes the connection when the peer has changed its user",
    async () => {
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
    },
  );
}

/** Returns whether the pid belongs to a process of root, which was not the peer. */
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

/** Blocks this thread for 10 ms. */
function pause(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
}
