/** Tests of floods of requests and connections: others are served, and what was allowed is logged. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { freshPath } from "../support/peers.ts";
import { Wire } from "../support/http.ts";
import { needs, until } from "../support/suite.ts";
import {
  answerAll,
  answerOf,
  Behind,
  End,
  Guard,
  policyFile,
  testGuard,
  USERS,
} from "../support/guard.ts";

const POLICY = `version: 1
rules:
  - { name: root, when: { uid: 0 }, actions: ["GET /allowed/*"], allow: true }
  - { name: two, when: { uid: ${USERS.two} }, allow: true }
`;

const junk = `DELETE /${"x".repeat(200)} HTTP/1.1\r\nHost: x\r\n\r\n`;

testGuard("guard logs each allowed action during a flood of denied ones", async () => {
  const targets: string[] = [];
  const behind = await Behind.start((end) =>
    answerAll(end, ({ first }) => {
      targets.push(first.split(" ")[1]!);
      return answerOf("done");
    })
  );
  const audit = freshPath("audit.log");
  const args = ["--audit", audit, "--max-per-user", "1000"];
  const policy = policyFile(POLICY);
  const guard = await Guard.start({ upstream: behind.path, mode: "http", policy, args });
  const actions = () =>
    readFileSync(audit, "utf8").split("\n").slice(0, -1).map((line) => JSON.parse(line))
      .filter((entry) => entry.event === "decided" && entry.allowed)
      .map((entry) => entry.action as string);
  for (let round = 0; round < 5; round++) {
    const clients = await Promise.all(Array.from({ length: 160 }, () => End.open(guard.path)));
    for (const [at, client] of clients.entries()) {
      const allowed = `GET /allowed/${round} HTTP/1.1\r\nHost: x\r\n\r\n`;
      client.send(at === 150 ? junk.repeat(20) + allowed + junk.repeat(20) : junk.repeat(50));
    }
    await until(() => targets.includes(`/allowed/${round}`));
    assert.equal((await Wire.as(USERS.two, guard.path).get("/two")).body, "done");
    for (const client of clients) client.destroy();
  }
  await until(() => actions().filter((action) => action.includes("/allowed/")).length >= 5);
}, needs.oneRuntime);

testGuard(
  "guard closes a connection that pipelines endlessly, and serves other clients",
  async () => {
    const behind = await Behind.start((end) => answerAll(end, () => answerOf("done")));
    const policy = policyFile(POLICY);
    const guard = await Guard.start({ upstream: behind.path, mode: "http", policy });
    const before = guard.memory();
    const wire = Wire.as(USERS.two, guard.path);
    assert.equal((await wire.get("/two")).body, "done");
    for (const request of ["GET /allowed/x HTTP/1.1\r\nHost: x\r\n\r\n", junk]) {
      const client = await End.open(guard.path);
      client.socket.pause(); // answers are not read
      client.socket.on("close", () => {});
      for (let sent = 0; sent < 100_000 && !client.socket.destroyed; sent += 1000) {
        client.socket.write(request.repeat(1000));
      }
      assert.equal((await wire.get("/two")).body, "done");
      await until(() => client.socket.destroyed || client.socket.errored !== null);
      assert.equal((await wire.get("/two")).body, "done");
      client.destroy();
    }
    assert.ok(guard.memory() - before < 192, `${before} → ${guard.memory()} MiB`);
  },
);

testGuard("guard stops reading while large pipelined requests wait, and answers each", async () => {
  const behind = await Behind.start();
  const guard = await Guard.start({ upstream: behind.path, mode: "http" });
  const client = await End.open(guard.path);
  const targets = Array.from({ length: 60 }, (_, at) => `/${at}`);
  let written = 0;
  for (const target of targets) {
    const request = `GET ${target} HTTP/1.1\r\nHost: x\r\nA: ${"a".repeat(16_000)}\r\n\r\n`;
    client.socket.write(request, () => void written++);
  }
  const server = await behind.next();
  await server.message();
  await sleep(500); // more time than the guard needs to read all of them
  assert.ok(written < 50, `${written} requests of 16 kB were read before the first answer`);
  for (const [at, target] of targets.entries()) {
    if (at > 0) assert.equal((await server.message()).first, `GET ${target} HTTP/1.1`);
    server.send(answerOf(target));
    assert.equal((await client.message()).body, target);
  }
});
