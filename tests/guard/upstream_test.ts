/** Tests of what a guard does with its connections to the upstream, over raw sockets on both sides. */

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { Wire } from "../support/http.ts";
import { answerOf, Behind, End, Guard, type Message, testGuard, USERS } from "../support/guard.ts";
import { GuardHere } from "../support/guard_here.ts";

const FORGED = answerOf("FORGED");

/** An upstream that answers with the caller's uid and path, but for what `odd` answers. */
async function upstreamOf(
  odd: (request: Message, end: End) => string | undefined | Promise<string | undefined>,
): Promise<{ readonly behind: Behind; readonly callers: readonly ReadonlySet<string>[] }> {
  const callers: Set<string>[] = [];
  const behind = await Behind.start(async (end) => {
    const uids = new Set<string>();
    callers.push(uids);
    while (true) {
      const request = await end.message();
      const uid = request.header("x-ucred-uid");
      uids.add(uid);
      const text = await odd(request, end);
      end.send(text ?? answerOf(`${uid} ${request.first.split(" ")[1]}`));
    }
  });
  return { behind, callers };
}

/** Answers that a client may frame in more than one way, or that have bytes behind their end. */
const ODD: { readonly [what: string]: readonly [method: string, answer: string] } = {
  "a HEAD with a body": ["HEAD", `HTTP/1.1 200 OK\r\nContent-Length: ${FORGED.length}\r\n\r\n`],
  "a HEAD with chunks": ["HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"],
  "a 204 with a body": [
    "GET",
    `HTTP/1.1 204 No Content\r\nContent-Length: ${FORGED.length}\r\n\r\n`,
  ],
  "a 304 with a body": [
    "GET",
    `HTTP/1.1 304 Not Modified\r\nContent-Length: ${FORGED.length}\r\n\r\n`,
  ],
  "a body beyond its length": ["GET", answerOf("short")],
  "a body beyond its last chunk": [
    "GET",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n0\r\n\r\n",
  ],
};

for (const when of ["at once", "later", "with the next request"] as const) {
  testGuard(`guard drops surplus bytes after a response, sent ${when}`, async () => {
    const due = new Set<End>();
    const { behind, callers } = await upstreamOf(async ({ first }, end) => {
      const what = decodeURIComponent(first.split(" ")[1]!.slice(1));
      if (due.delete(end)) return FORGED; // the connection of an odd answer was used again
      const odd = ODD[what]?.[1];
      if (odd === undefined) return undefined;
      if (when === "at once") return odd + FORGED;
      if (when === "later") {
        end.send(odd);
        await sleep(5);
        return FORGED;
      }
      if (!what.startsWith("a body beyond")) due.add(end);
      return odd;
    });
    const guard = await GuardHere.start({ upstream: behind.path, mode: "http" });
    const open = (uid: number) => Wire.as(uid, guard.path);
    for (const [what, [method]] of Object.entries(ODD)) {
      for (let round = 0; round < 5; round++) {
        const [victim, other] = [open(USERS.one), open(0)];
        assert.equal((await victim.get("/before")).body, `${USERS.one} /before`);
        other.send(`${method} /${encodeURIComponent(what)} HTTP/1.1\r\nHost: x\r\n\r\n`);
        await other.response(method).catch(() => {}); // or the guard takes the upstream for broken
        if (when === "later") await sleep(20);
        assert.equal((await victim.get("/after")).body, `${USERS.one} /after`, what);
        const same = await other.get("/same").catch(() => undefined);
        if (same !== undefined && same.status !== 502) assert.equal(same.body, "0 /same", what);
        for (const wire of [victim, other]) wire.destroy();
      }
    }
    for (const uids of callers) assert.ok(uids.size <= 1, `shared: ${[...uids]}`);
  });
}

testGuard("guard never shares an upstream connection between two peers", async () => {
  const { behind, callers } = await upstreamOf(() => undefined);
  const guard = await GuardHere.start({ upstream: behind.path, mode: "http" });
  const callerOf = async (uid: number) => {
    for (let i = 0; i < 10; i++) {
      const wire = Wire.as(uid, guard.path);
      for (const path of ["/a", "/b", "/c"]) {
        assert.equal((await wire.get(path)).body, `${uid} ${path}`);
      }
      wire.destroy();
    }
  };
  await Promise.all([0, USERS.one, USERS.two, 0].map(callerOf));
  assert.ok(callers.every((uids) => uids.size === 1), "each connection has one caller");
  assert.ok(behind.count <= 40, `${behind.count}: requests of a caller share one`);
});

for (const isRead of [true, false]) {
  const what = isRead ? "all that has arrived" : "a part";
  testGuard(
    `guard delivers the response of an upstream that has read ${what} of a body and closes`,
    async () => {
      const behind = await Behind.start();
      const guard = await Guard.start({ upstream: behind.path, mode: "http" });
      for (const answer of [answerOf("early"), answerOf("x".repeat(60_000), "413 Too Large")]) {
        const client = await End.open(guard.path);
        client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n");
        const server = await behind.next();
        await server.message(false);
        if (!isRead) server.socket.pause();
        client.send("x".repeat(50_000));
        if (isRead) await server.bytes(50_000);
        await guard.stop(); // it finds the rest of the body before the response
        client.send("y".repeat(50_000));
        await new Promise<void>((resolve) => server.socket.end(Buffer.from(answer), resolve));
        server.destroy();
        guard.signal("SIGCONT");
        const { status, body } = await client.message();
        assert.equal(answerOf(body, status === 200 ? "200 OK" : "413 Too Large"), answer);
        client.send("z".repeat(50_000)); // discarded
        assert.equal(await client.rest(), "");
        client.destroy();
      }
      assert.doesNotMatch(guard.log, /upstream/);
    },
  );
}

testGuard("guard answers 502 if the upstream closes in the middle of a body", async () => {
  const behind = await Behind.start();
  const guard = await Guard.start({ upstream: behind.path, mode: "http" });
  for (const answer of ["", "HTTP/1.1 200 OK\r\nContent-Le"]) {
    const client = await End.open(guard.path);
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n");
    const server = await behind.next();
    await server.message(false);
    await guard.stop();
    client.send("y".repeat(50_000));
    await new Promise<void>((resolve) => server.socket.end(answer, resolve));
    server.destroy();
    guard.signal("SIGCONT");
    assert.equal((await client.message()).status, 502);
    client.destroy();
  }
});
