/** Tests of upgrades through a guard: when each side may end, and what becomes of the connection. */

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { until } from "../support/suite.ts";
import { answerOf, Behind, End, Guard, testGuard } from "../support/guard.ts";
import { GuardHere } from "../support/guard_here.ts";

const upgrade = "POST /up HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n";
const switching = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";

const BODIES = {
  "no body": "\r\n",
  "a body": "Content-Length: 4\r\n\r\nbody",
};

for (const [what, body] of Object.entries(BODIES)) {
  for (const early of ["", "EARLY", "x".repeat(200_000)]) {
    const sent = early.length === 0 ? "nothing" : `${early.length} bytes`;
    testGuard(
      `guard forwards ${sent} and a half-close before the 101, after an upgrade with ${what}`,
      async () => {
        const behind = await Behind.start();
        const guard = await GuardHere.start({ upstream: behind.path, mode: "http" });
        for (let round = 0; round < 3; round++) {
          const client = await End.open(guard.path);
          client.send(upgrade + body + early).end();
          const server = await behind.next();
          const { body: received } = await server.message(what !== "no body");
          if (what !== "no body") assert.equal(received, "body");
          await sleep(20 * round); // the guard may have read the half-close
          server.send(switching);
          assert.equal(await server.rest(), early);
          server.send("answer").end();
          assert.equal(await client.rest(), `${switching}answer`);
        }
      },
    );
  }
}

testGuard("guard answers 502 to a 101 that arrives before the whole request was sent", async () => {
  const behind = await Behind.start();
  const guard = await GuardHere.start({ upstream: behind.path, mode: "http" });
  const client = await End.open(guard.path);
  client.send(`${upgrade}Content-Length: 4\r\n\r\nbo`);
  const server = await behind.next();
  await server.until("bo");
  server.send(`${switching}EARLY`);
  const answer = await client.rest();
  assert.match(answer, /^HTTP\/1\.1 502 /);
  assert.ok(!answer.includes("EARLY"), answer);
  client.send("dyGET /b HTTP/1.1\r\nHost: x\r\n\r\n");
  assert.equal(await server.rest(), "");
});

const REFUSALS: { readonly [what: string]: (server: End) => void } = {
  "refuses": (server) => void server.send(answerOf("no", "403 Forbidden")),
  "refuses in chunks": (server) =>
    void server.send("HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"),
  "breaks off": (server) => void server.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").end(),
  "sends garbage": (server) => void server.send("garbage\r\n\r\n"),
  "ends": (server) => server.destroy(),
};

for (const [what, answer] of Object.entries(REFUSALS)) {
  testGuard(
    `guard closes the connection of an upgrade that the upstream ${what}, despite later data`,
    async () => {
      const behind = await Behind.start();
      const guard = await Guard.start({ upstream: behind.path, mode: "http" });
      const idle = guard.sockets();
      const stays: End[] = [];
      for (let i = 0; i < 20; i++) {
        const client = await End.open(guard.path);
        client.socket.pause();
        client.send(upgrade + "\r\n" + "x".repeat(300_000));
        if (i % 2 === 0) stays.push(client);
        const server = await behind.next();
        await server.message(false);
        answer(server);
        if (i % 2 === 1) client.destroy();
      }
      await until(() => guard.sockets() <= idle);
      assert.equal(stays.length, 10);
    },
  );
}

testGuard(
  "guard closes the upstream connection of a client that hangs up before the response",
  async () => {
    const behind = await Behind.start();
    const guard = await Guard.start({ upstream: behind.path, mode: "http" });
    const idle = guard.sockets();
    const servers: End[] = [];
    for (const early of ["", "EARLY", "x".repeat(300_000)]) {
      const client = await End.open(guard.path);
      client.send(`${upgrade}\r\n${early}`);
      const server = await behind.next();
      await server.message(false);
      servers.push(server);
      client.destroy();
    }
    for (const server of servers) assert.equal(await server.rest(), "");
    await until(() => guard.sockets() <= idle);
  },
);

testGuard("guard waits for a late 101, and then forwards the buffered data", async () => {
  const behind = await Behind.start();
  const guard = await GuardHere.start({ upstream: behind.path, mode: "http" });
  const clients = await Promise.all([1, 2].map(() => End.open(guard.path)));
  for (const client of clients) client.send(`${upgrade}\r\nEARLY`);
  clients[1]!.end();
  const servers = [await behind.next(), await behind.next()];
  for (const server of servers) await server.message(false);
  await sleep(2500); // longer than the guard's interval between checks for a hang-up
  for (const server of servers) assert.equal(await server.send(switching).bytes(5), "EARLY");
  for (const client of clients) await client.until(switching);
});
