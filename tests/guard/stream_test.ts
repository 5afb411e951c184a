/** Tests of `ucred guard --mode stream`: bytes both ways, as if nobody stood between. */

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { freshPath } from "../support/peers.ts";
import { Wire } from "../support/http.ts";
import { visitAs } from "../support/servers.ts";
import {
  Behind,
  End,
  flow,
  type Flowed,
  flowListening,
  Guard,
  testGuard,
  USERS,
} from "../support/guard.ts";
import { GuardHere } from "../support/guard_here.ts";
import { soak, until } from "../support/suite.ts";

const MIB = soak(32, 1024);
const CONNECTIONS = soak(1000, 10_000);

testGuard(`guard forwards ${MIB} MiB unchanged in both directions at once`, async () => {
  const size = MIB * 2 ** 20;
  const upstream = freshPath("up.sock");
  const server = await flowListening(upstream, "exchange", size);
  const guard = await Guard.start({ upstream });
  const client = flow("connect", guard.path, "exchange", size);
  const all: Flowed = { sent: size, received: size, good: true };
  assert.deepEqual(await client.json(), all);
  assert.deepEqual(await server.json(), all);
});

testGuard(
  `guard forwards ${CONNECTIONS} short connections to an upstream with a backlog of 5`,
  async () => {
    const upstream = freshPath("up.sock");
    await flowListening(upstream, "echo", 5);
    const guard = await Guard.start({ upstream });
    const client = flow("connect", guard.path, "short", CONNECTIONS, 64);
    const { connections, bad, bytes } = await client.json<
      { connections: number; bad: number; bytes: number }
    >();
    assert.deepEqual(
      [connections, bad, guard.log.split("\n").length],
      [CONNECTIONS, 0, 2],
      guard.log,
    );
    assert.ok(bytes > 1000 * CONNECTIONS);
  },
);

testGuard("guard forwards a half-close of the client, and then the response", async () => {
  const behind = await Behind.start();
  const guard = await GuardHere.start({ mode: "stream", upstream: behind.path });
  const client = (await End.open(guard.path)).send("question").end();
  const server = await behind.next();
  assert.equal(await server.rest(), "question");
  server.send("answer");
  assert.equal(await client.bytes(6), "answer");
  server.send(", and more").end();
  assert.equal(await client.rest(), ", and more");
});

testGuard(
  "guard forwards a half-close of the upstream, and then the client's data",
  async () => {
    const behind = await Behind.start();
    const guard = await GuardHere.start({ mode: "stream", upstream: behind.path });
    const client = await End.open(guard.path);
    const server = (await behind.next()).send("greeting").end();
    assert.equal(await client.rest(), "greeting");
    client.send("late words");
    assert.equal(await server.bytes(10), "late words");
    client.send(", and more").end();
    assert.equal(await server.rest(), ", and more");
  },
);

for (
  const [who, full, deaf] of [["server", "connect", "listen"], ["client", "listen", "connect"]]
) {
  testGuard(
    `guard applies backpressure for a ${who} that does not read, and loses nothing`,
    async () => {
      const upstream = freshPath("up.sock");
      const first = await flowListening(upstream, full === "listen" ? "fill" : "drain");
      const guard = await Guard.start({ upstream });
      const second = flow("connect", guard.path, full === "connect" ? "fill" : "drain");
      const [filling, draining] = full === "listen" ? [first, second] : [second, first];
      const { sent } = await filling!.json<{ sent: number }>();
      assert.ok(sent < 16 << 20, `${deaf} reads nothing, and ${sent} bytes were taken`);
      for (const child of [filling, draining]) child!.process.stdin!.write("\n");
      assert.deepEqual(await draining!.json(), { sent: 0, received: sent, good: true });
      assert.deepEqual(await filling!.json(), { sent, received: 0, good: true });
    },
  );
}

testGuard(
  "guard delivers the data of a client that has hung up, although the upstream sends",
  async () => {
    const upstream = freshPath("up.sock");
    const server = await flowListening(upstream, "fill"); // it reads nothing until it is told to
    const guard = await Guard.start({ upstream });
    const client = await End.open(guard.path);
    client.socket.pause();
    client.send("x".repeat(250_000)); // more than the kernel takes
    await until(() => client.socket.writableLength === 0);
    await server.json(); // nothing more is taken from it
    client.destroy();
    server.process.stdin!.write("\n");
    assert.equal((await server.json<Flowed>()).received, 250_000);
  },
);

testGuard("guard closes the upstream connection when the client is killed", async () => {
  const behind = await Behind.start();
  const guard = await GuardHere.start({ mode: "stream", upstream: behind.path });
  const client = Wire.as(USERS.one, guard.path).send("hello");
  const server = await behind.next();
  assert.equal(await server.bytes(5), "hello");
  client.destroy();
  assert.equal(await server.rest(), "");
  await until(() => { // writing fails, as it would without a guard
    server.socket.write("is anybody there?");
    return server.socket.destroyed;
  });
});

testGuard("guard closes the client's connection when the upstream is killed", async () => {
  const upstream = freshPath("up.sock");
  const server = await flowListening(upstream, "drain");
  const guard = await Guard.start({ upstream });
  const client = (await End.open(guard.path)).send("hello");
  await sleep(50);
  server.process.kill("SIGKILL");
  await client.rest();
  await until(() => {
    client.socket.write("is anybody there?");
    return client.socket.destroyed;
  });
});

testGuard("guard keeps an idle connection open", async () => {
  const behind = await Behind.start();
  const guard = await GuardHere.start({ mode: "stream", upstream: behind.path });
  const client = await End.open(guard.path);
  const server = await behind.next();
  await sleep(5500); // above the 5 s after which node:http ends idle connections
  client.send("still here");
  assert.equal(await server.bytes(10), "still here");
  server.send("so am I");
  assert.equal(await client.bytes(7), "so am I");
});

testGuard(
  "guard buffers the client's data until the upstream accepts",
  async () => {
    const path = freshPath("up.sock");
    const guard = await GuardHere.start({ mode: "stream", upstream: path });
    await assert.doesNotReject(
      Behind.start(undefined, path).then(async (behind) => {
        const client = (await End.open(guard.path)).send("early").end();
        const server = await behind.next();
        assert.equal(await server.rest(), "early");
        server.end();
        assert.equal(await client.rest(), "");
      }),
    );
  },
);

testGuard(
  "guard closes connections and logs it while the upstream is down, and recovers",
  async () => {
    const upstream = freshPath("up.sock");
    const guard = await Guard.start({ upstream });
    for (let i = 0; i < 5; i++) {
      assert.equal(await (await End.open(guard.path)).send("hello").rest(), "");
    }
    await guard.logs(`the upstream ${upstream} cannot be used: `);
    assert.match(guard.log, /ENOENT/);
    assert.equal(guard.log.match(/cannot be used/g)!.length, 1, "once a second at most");

    const first = await flowListening(upstream, "exchange", 1000);
    assert.deepEqual(await flow("connect", guard.path, "exchange", 1000).json(), {
      sent: 1000,
      received: 1000,
      good: true,
    });
    await first.json();
    await first.end();
    assert.equal(await (await End.open(guard.path)).send("hello").rest(), "", "ECONNREFUSED");

    await flowListening(upstream, "exchange", 1000); // it takes the path anew
    const { good, received } = await flow("connect", guard.path, "exchange", 1000).json<Flowed>();
    assert.deepEqual([good, received], [true, 1000]);
  },
);

testGuard(
  "guard forwards only connections that its policy allows",
  async () => {
    const behind = await Behind.start((end) => void end.send("welcome").end());
    const guard = await GuardHere.start({
      mode: "stream",
      upstream: behind.path,
      policy: `version: 1\nrules: [{ name: one, when: { uid: ${USERS.one} }, allow: true }]\n`,
    });
    assert.equal(await visitAs(USERS.one, guard.path), "welcome");
    assert.equal(await visitAs(USERS.two, guard.path), "");
    assert.equal(await visitAs(0, guard.path), "", "root is nobody special to a policy");
    assert.equal(await visitAs(USERS.one, guard.path), "welcome");
    assert.equal(behind.count, 2);
  },
);

testGuard("guard without a policy accepts root and its own user", async () => {
  const behind = await Behind.start((end) => void end.send("welcome").end());
  const guard = await Guard.start({ upstream: behind.path, policy: null });
  assert.equal(await visitAs(0, guard.path), "welcome");
  assert.equal(await visitAs(USERS.one, guard.path), "");
  assert.equal(behind.count, 1);
});

testGuard("guard sends nothing to an upstream of another user", async () => {
  const behind = await Behind.start();
  const right = await Guard.start({ upstream: behind.path, args: ["--upstream-user", "root"] });
  const client = (await End.open(right.path)).send("secret");
  assert.equal(await (await behind.next()).bytes(6), "secret");
  client.destroy();

  const wrong = await Guard.start({ upstream: behind.path, args: ["--upstream-user", "4001"] });
  assert.equal(await (await End.open(wrong.path)).send("secret").rest(), "");
  await wrong.logs("cannot be used: ");
  const server = await behind.next();
  assert.equal(await server.rest(), "");
});

testGuard(
  "guard forwards what an upstream has sent before it closed, to a client that sends",
  async () => {
    const behind = await Behind.start();
    const guard = await Guard.start({ upstream: behind.path });
    for (const greeting of ["short", "x".repeat(60_000)]) {
      const client = (await End.open(guard.path)).send("hello");
      const server = await behind.next();
      await server.bytes(5);
      await guard.stop(); // it finds the client's bytes before the greeting
      client.send("y".repeat(50_000));
      await new Promise<void>((resolve) => server.socket.end(greeting, resolve));
      server.destroy();
      guard.signal("SIGCONT");
      assert.equal(await client.rest(), greeting);
      client.destroy();
    }
  },
);
