/** Limits of the HTTP engine: the number of fields, the time without a byte of a body, and connections. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { limitsWithinFiles } from "../../guard/limits.ts";
import type { GuardOptions } from "../../guard/mod.ts";
import { answerAll, answerOf, Behind, End, testGuard } from "../support/guard.ts";
import { putForward, suspend } from "../support/clock.ts";
import { guardHere } from "../support/guard_here.ts";

async function guardOf(behind: Behind, options: Partial<GuardOptions> = {}): Promise<string> {
  const { path } = await guardHere({ mode: "http", upstream: behind.path, ...options });
  return path;
}

const fields = (count: number) =>
  Array.from({ length: count }, (_, at) => `a${at}: b\r\n`).join("");

testGuard("guard forwards 100 header fields, and refuses 101 with 431", async () => {
  const targets: string[] = [];
  const behind = await Behind.start((end) =>
    answerAll(end, ({ first, fields: { length } }) => {
      targets.push(first);
      return answerOf(String(length));
    })
  );
  const path = await guardOf(behind);
  const client = await End.open(path);
  client.send(`GET /a HTTP/1.1\r\nHost: x\r\n${fields(99)}\r\n`);
  assert.equal((await client.message()).status, 200);
  const hidden = "GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n";
  const length = `Content-Length: ${hidden.length}\r\n`;
  client.send(`POST /b HTTP/1.1\r\nHost: x\r\n${fields(98)}${length}\r\n${hidden}`);
  assert.equal((await client.message()).status, 200);
  // Deno drops fields beyond a limit. A body whose length is dropped would be the next request.
  client.send(`POST /c HTTP/1.1\r\nHost: x\r\n${fields(99)}${length}\r\n${hidden}`);
  const { status, body } = await client.message();
  assert.equal(status, 431);
  assert.match(body, /too many headers/);
  assert.equal(await client.rest(), "");
  assert.deepEqual(targets, ["GET /a HTTP/1.1", "POST /b HTTP/1.1"]);
});

testGuard("guard refuses a request with more than 100 trailer fields", async () => {
  const behind = await Behind.start((end) => answerAll(end, ({ body }) => answerOf(body)));
  const path = await guardOf(behind);
  const chunked =
    "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n0\r\n";
  const client = await End.open(path);
  client.send(`${chunked}${fields(100)}\r\n`);
  assert.equal((await client.message()).body, "b");
  client.send(`${chunked}${fields(101)}\r\n`);
  assert.equal((await client.message()).status, 400);
  assert.equal(await client.rest(), "");
});

const HEAD = "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n";

testGuard(
  "guard ends a request whose body does not arrive, and its upstream connection",
  async () => {
    const behind = await Behind.start();
    const path = await guardOf(behind, { bodyTimeout: 60 });
    for (
      const start of [
        HEAD,
        `${HEAD}12345`,
        HEAD.replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n"),
      ]
    ) {
      const client = await End.open(path);
      client.send(start);
      const upstream = await behind.next();
      if (start.includes("Expect")) await client.until("HTTP/1.1 100 Continue\r\n\r\n");
      const { status, body, header } = await client.message();
      assert.deepEqual([status, header("connection")], [408, "close"]);
      assert.match(body, /body did not arrive/);
      assert.equal(await client.rest(), "");
      await upstream.rest(); // the upstream's connection ends, too
    }
  },
);

testGuard("guard ends an answered request whose body does not arrive", async () => {
  const behind = await Behind.start();
  const path = await guardOf(behind, { bodyTimeout: 60 });
  const client = await End.open(path);
  client.send(`${HEAD}123`);
  const upstream = await behind.next();
  await upstream.until("123");
  upstream.send(answerOf("early"));
  assert.equal((await client.message()).body, "early");
  assert.equal(await client.rest(), "");
  await upstream.rest();
});

testGuard("guard ends no slow upload, no stream, no upgrade and no upload that waits", async () => {
  const behind = await Behind.start();
  const path = await guardOf(behind, { bodyTimeout: 80 });
  const pairOf = async (head: string): Promise<[client: End, upstream: End]> => {
    const client = await End.open(path);
    client.send(head);
    const upstream = await behind.next();
    await upstream.until("\r\n\r\n");
    return [client, upstream];
  };
  const chunked = "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
  const [streaming, responding] = await pairOf(chunked);
  responding.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
  await streaming.until("one");
  const upgrade = "POST /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
  const [upgraded, switched] = await pairOf(upgrade);
  switched.send("HTTP/1.1 101 OK\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n");
  await upgraded.until("\r\n\r\n");
  const [waiting, full] = await pairOf(
    chunked.replace("Transfer-Encoding: chunked", "Content-Length: 8388610"),
  );
  full.socket.pause();
  const bytes = "x".repeat(1 << 20);
  for (let at = 0; at < 8; at++) waiting.send(bytes);
  const [slow, receiving] = await pairOf(HEAD.replace("10", "100000"));
  const drip = setInterval(() => slow.send("x"), 5);
  try {
    // Later connections that send nothing are ended meanwhile, several in turn.
    for (let at = 0; at < 4; at++) {
      const client = await End.open(path);
      client.send(HEAD);
      assert.equal((await client.message()).status, 408);
      await (await behind.next()).rest();
    }
    streaming.send("3\r\ntwo\r\n0\r\n\r\n");
    assert.match(await responding.until("0\r\n\r\n"), /two/);
    responding.send("0\r\n\r\n");
    await streaming.until("0\r\n\r\n");
    upgraded.send("up");
    assert.equal(await switched.bytes(2), "up");
    full.socket.resume();
    waiting.send("yz");
    assert.match(await full.until("yz"), /^x+yz$/);
    full.send(answerOf("all"));
    assert.equal((await waiting.message()).body, "all");
    slow.send("!");
    await receiving.until("!");
  } finally {
    clearInterval(drip);
  }
});

testGuard("guard with bodyTimeout 0 waits for a body", async () => {
  const behind = await Behind.start();
  const path = await guardOf(behind, { bodyTimeout: 0 });
  const limited = await guardOf(behind, { bodyTimeout: 60 });
  const client = await End.open(path);
  client.send(HEAD);
  const upstream = await behind.next();
  for (let at = 0; at < 3; at++) {
    const other = await End.open(limited);
    other.send(HEAD);
    assert.equal((await other.message()).status, 408);
    await (await behind.next()).rest();
  }
  client.send("0123456789");
  await upstream.until("0123456789");
  upstream.send(answerOf("late"));
  assert.equal((await client.message()).body, "late");
});

testGuard("guard serves a request that has arrived while the guard was suspended", async () => {
  const behind = await Behind.start((end) => answerAll(end, ({ body }) => answerOf(body)));
  const path = await guardOf(behind, { bodyTimeout: 60 }); // timeouts are checked at shorter intervals
  const client = await End.open(path);
  for (const body of ["first", "second", "third"]) {
    const length = `Content-Length: ${body.length}\r\n`;
    client.send(`POST /a HTTP/1.1\r\nHost: x\r\n${length}\r\n${body}`);
    suspend(60_000); // before the guard reads
    assert.equal((await client.message()).body, body);
  }
  putForward(60_000); // nothing has arrived
  assert.equal(await client.rest(), "");
});

testGuard(
  "guard answers 408 to a head that does not arrive, and waits for the upstream",
  async () => {
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    const behind = await Behind.start((end) =>
      answerAll(end, async ({ first }) => {
        if (first.startsWith("GET /hold ")) await released;
        return answerOf(first);
      })
    );
    const path = await guardOf(behind, { bodyTimeout: 80 }); // timeouts are checked every 20 ms
    const barrier = await End.open(path);
    const [silent, empty, part, slow, next, held] = await Promise.all(
      Array.from({ length: 6 }, () => End.open(path)),
    ) as [End, End, End, End, End, End];
    empty.send("\r\n\r\n");
    part.send("GET / HT");
    slow.send("GET / HTTP/1.1\r\nHost: ");
    held.send("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    assert.equal((await next.ask("/first")).status, 200);
    next.send("\r\nGET /next HT");
    await barrier.ask("/"); // the guard has read the others
    putForward(9000);
    slow.send("x");
    empty.send("\r\n");
    next.send("T");
    await End.open(path).then((end) => end.ask("/"));
    putForward(9000);
    for (const [end, start] of [[silent, ""], [empty, ""], [barrier, ""]] as const) {
      assert.equal(await end.rest(), start);
    }
    for (const end of [part, slow, next]) {
      assert.match(await end.rest(), /^HTTP\/1\.1 408 Request Timeout\r\n/);
    }
    release();
    assert.equal((await held.message()).body, "GET /hold HTTP/1.1");
  },
);

testGuard(
  "guard ends at once what cannot become a request, and counts refused requests",
  async () => {
    const behind = await Behind.start();
    const { path, guard } = await guardHere({ mode: "http", upstream: behind.path });
    for (const start of ["\x16\x03\x01", "GET\t/", "get / HTTP/1.1\r\nHost:"]) {
      const client = await End.open(path);
      assert.match(await client.send(start).rest(), /^HTTP\/1\.1 400 /, start);
    }
    assert.equal(await (await End.open(path)).send("GET / HT").end().rest(), "");
    assert.equal(guard.stats().denied, 0);
    for (const line of ["Transfer-Encoding: x", "Host: y"]) {
      const client = await End.open(path);
      const head = `GET / HTTP/1.1\r\nHost: x\r\n${line}\r\n\r\n`;
      assert.match(await client.send(head).rest(), /^HTTP\/1\.1 (501|400) /);
    }
    assert.equal(guard.stats().denied, 2);
    assert.equal(behind.count, 0);
  },
);

testGuard("guard stops reading a client whose requests wait", async () => {
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  const behind = await Behind.start(async (end) => {
    await released;
    await answerAll(end, ({ first }) => answerOf(first));
  });
  const path = await guardOf(behind);
  const client = await End.open(path);
  const filler = "x".repeat(14_000);
  const [count, most] = [60, (128 + 256) << 10]; // those that wait, and the buffers of the kernel
  for (let at = 0; at < count; at++) {
    client.send(`GET /${at} HTTP/1.1\r\nHost: x\r\nX: ${filler}\r\n\r\n`);
  }
  for (let turn = 0; turn < 20; turn++) {
    assert.match(await (await End.open(path)).send("x\0").rest(), /^HTTP\/1\.1 400 /);
  }
  assert.ok(client.socket.writableLength > count * filler.length - most);
  release();
  for (let at = 0; at < count; at++) {
    assert.equal((await client.message()).body, `GET /${at} HTTP/1.1`);
  }
});

testGuard("limitsWithinFiles() lowers the limits to the files that the process may open", () => {
  const text = readFileSync("/proc/self/limits", "latin1");
  const files = Number(/^Max open files +([0-9]+)/m.exec(text)![1]);
  const possible = Math.floor((files - 128) / 3);
  const lines: string[] = [];
  const lowered = (connections: number, connectionsPerUser?: number) => {
    const limits = { connections, connectionsPerUser, acceptsPerSecond: 7 };
    const { connections: all, connectionsPerUser: each, acceptsPerSecond } = limitsWithinFiles(
      limits,
      (line) => lines.push(line),
    );
    assert.equal(acceptsPerSecond, 7);
    return [all, each];
  };
  assert.deepEqual(lowered(possible), [possible, undefined]);
  assert.equal(lines.length, 0);
  const share = Math.min(256, Math.max(1, Math.floor(possible / 8)));
  assert.deepEqual(lowered(possible + 1), [possible, share]);
  assert.deepEqual(lowered(possible + 1, possible + 2), [possible, possible + 2]);
  const reports = [share, possible].map((perUser) =>
    `at most ${possible} connections, ${perUser} per user, instead of ${possible + 1}: ` +
    `the process may open only ${files} files. `
  );
  assert.equal(lines.length, 2);
  for (const [at, report] of reports.entries()) {
    assert.ok(lines[at]!.startsWith(report), String(lines[at]));
  }
});
