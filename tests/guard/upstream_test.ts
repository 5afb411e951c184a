/** Tests of what a guard does with its connections to the upstream, over raw sockets on both sides. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { once } from "node:events";
import { renameSync, rmSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { duplexPair } from "node:stream";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { discardFailedWrites } from "../../guard/half_open.ts";
import type { Response } from "../../guard/http/message.ts";
import { type Receiver, UpstreamConnection } from "../../guard/http/upstream.ts";
import { Upstream } from "../../guard/upstream.ts";
import { fakePeer } from "../../testing/mod.ts";
import { putForward } from "../support/clock.ts";
import { Wire } from "../support/http.ts";
import {
  answerAll,
  answerOf,
  Behind,
  End,
  Guard,
  type Message,
  testGuard,
  USERS,
} from "../support/guard.ts";
import { GuardHere } from "../support/guard_here.ts";
import { freshPath } from "../support/peers.ts";
import { needs, until } from "../support/suite.ts";

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

/** A connection in memory. It receives the pieces and events that a test chooses. */
class Link implements Receiver {
  /** The answers: status, data, "." at the end, and trailers. Then switches and failures. */
  readonly events: string[] = [];
  readonly far: Socket;
  readonly socket: Socket;
  readonly connection: UpstreamConnection;

  constructor() {
    const [near, far] = duplexPair();
    this.socket = near as Socket;
    this.far = far as Socket;
    this.connection = new UpstreamConnection(this.socket, this);
  }

  /** Sends a request, and receives pieces. */
  ask(pieces: readonly string[], isHead = false): this {
    this.connection.begin("", isHead);
    return this.receive(...pieces);
  }

  receive(...pieces: readonly string[]): this {
    for (const piece of pieces) this.socket.emit("data", Buffer.from(piece, "latin1"));
    return this;
  }

  /** Events so far, and the state of the connection. */
  get result(): readonly string[] {
    const { isOpen, isFree } = this.connection;
    return [...this.events.splice(0), isFree ? "free" : isOpen ? "busy" : "closed"];
  }

  onResponse(
    response: Response | undefined,
    parts: readonly Buffer[],
    isEnd: boolean,
    trailers: readonly string[],
  ): void {
    const status = response === undefined ? "" : `${response.status} `;
    this.events.push(`${status}${Buffer.concat(parts)}${isEnd ? `.${trailers}` : ""}`);
  }

  onSwitch({ status }: Response, socket: Socket, bytes: Buffer): void {
    assert.equal(socket, this.socket);
    this.events.push(`switched ${status} ${bytes}`);
  }

  onFailure({ message }: Error, isReset: boolean): void {
    this.events.push(`${isReset ? "reset" : "failed"}: ${message}`);
  }

  onDrain(): void {
    this.events.push("drain");
  }

  attempt(work: () => void): void {
    work();
  }
}

const SIZED = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
const CHUNKED = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
const UNSIZED = "HTTP/1.1 200 OK\r\n\r\n";
const CLOSED = "it closed the connection before it had answered";

test("UpstreamConnection reads each response of a connection, however it is divided", () => {
  const link = new Link();
  const interim = "HTTP/1.1 100 C\r\n\r\nHTTP/1.1 103 E\r\nLink: x\r\n\r\n";
  for (
    const [text, expected] of [
      [`${SIZED}ok`, "200 ok."],
      [`${interim}${SIZED}ok`, "200 ok."],
      [`${CHUNKED}1;a\r\no\r\n1\r\nk\r\n0\r\nA: b\r\n\r\n`, "200 ok.A,b"],
      ["HTTP/1.1 204 N\r\n\r\n", "204 ."],
    ] as const
  ) {
    for (const pieces of [[text], [...text], [text.slice(0, 9), text.slice(9)]]) {
      const [state, ...events] = link.ask(pieces).result.toReversed();
      assert.deepEqual([events.reverse().join(""), state], [expected, "free"], text);
    }
  }
  assert.deepEqual(link.ask(["HTTP/1.1 200 OK\r\n\r\n"], true).result, ["200 .", "free"]);
  assert.deepEqual(link.ask([`${SIZED}ok`]).result, ["200 ok.", "free"], "after a HEAD");
  assert.deepEqual(link.ask([interim, SIZED]).result, ["200 ", "busy"]);
});

const AMBIGUOUS = "its response is malformed: the length of its response is ambiguous";
/** A head of this many bytes, without its empty line. */
const headOf = (bytes: number) => `${SIZED.trimEnd()}\r\nX: `.padEnd(bytes, "x");

/** Pieces of a response, and what the receiver is given. */
const RESULTS: { readonly [what: string]: readonly [pieces: string[], result: string[]] } = {
  "bytes after its end": [[`${SIZED}okX`], ["failed: bytes follow its response", "closed"]],
  "two at once": [[`${SIZED}ok${SIZED}no`], ["failed: bytes follow its response", "closed"]],
  "bytes after its last part": [[SIZED, "okX"], ["200 ", "ok.", "closed"]],
  "bytes later": [[`${SIZED}ok`, "X"], ["200 ok.", "closed"]],
  "bytes after a 204": [["HTTP/1.1 204 N\r\n\r\nX"], [
    ...["failed: bytes follow its response", "closed"],
  ]],
  "no HTTP": [["SSH-2.0"], ["failed: it does not answer with HTTP", "closed"]],
  "the start of a head": [["HTTP/1."], ["busy"]],
  "two lengths": [[`HTTP/1.1 200 OK\r\nContent_Length: 2\r\n\r\nok`], [
    ...[`failed: ${AMBIGUOUS}`, "closed"],
  ]],
  "no chunk": [[CHUNKED, "x"], [
    ...["200 ", "failed: its response is malformed: Invalid character in chunk size", "closed"],
  ]],
  "Connection: close": [["HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"], [
    ...["200 ok.", "closed"],
  ]],
  "a switch": [["HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\nab"], ["switched 101 ab", "closed"]],
  "a long head": [[`${headOf(16384)}\r\n\r\nok`], ["200 ok.", "free"]],
  "a long head in parts": [[headOf(16384), "\r\n\r\no", "k"], ["200 o", "k.", "free"]],
  "a head that is too long": [[`${headOf(16385)}\r\n\r\nok`], [
    ...["failed: the head of its response is too long", "closed"],
  ]],
  "a head without end": [[headOf(16384), "x"], [
    ...["failed: the head of its response is too long", "closed"],
  ]],
};

test("UpstreamConnection closes when it cannot know where the next response begins", () => {
  for (const [what, [pieces, result]] of Object.entries(RESULTS)) {
    const link = new Link();
    assert.deepEqual(link.ask(pieces).result, result, what);
    assert.equal(link.socket.destroyed, result.at(-1) === "closed" && what !== "a switch", what);
    if (result.at(-1) !== "closed") continue;
    // Nothing of the old connection reaches the receiver.
    link.receive(`${SIZED}no`);
    for (const event of ["end", "close", "drain"]) link.socket.emit(event);
    link.connection.destroy(); // a connection that was switched belongs to the receiver
    assert.equal(link.socket.destroyed, what !== "a switch", what);
    assert.deepEqual(link.result, ["closed"], what);
    assert.equal(link.socket.listenerCount("data"), 0, what);
  }
  const idle = new Link();
  assert.deepEqual(idle.receive(`${SIZED}no`).result, ["closed"], "without a request");
});

/** Pieces of a response, then events of the socket, and what the receiver is given. */
const ENDS: { readonly [what: string]: readonly [string[], string[], result: string[]] } = {
  "nothing": [[], ["end"], [`reset: ${CLOSED}`, "closed"]],
  "nothing, and a reset": [[], ["close"], [`reset: ${CLOSED}`, "closed"]],
  "a part of a head": [["HTTP/1.1"], ["end"], [`failed: ${CLOSED}`, "closed"]],
  "a part of a body": [[SIZED, "o"], ["end"], ["200 ", "o", `failed: ${CLOSED}`, "closed"]],
  "a part of the chunks": [[`${CHUNKED}1\r\no\r\n`], ["end", "close"], [
    ...["200 o", `failed: ${CLOSED}`, "closed"],
  ]],
  "a body without length": [[UNSIZED, "o", "k"], ["end", "close"], [
    "200 ",
    "o",
    "k",
    ".",
    "closed",
  ]],
  "such a body, and a reset": [[`${UNSIZED}o`], ["close"], [
    "200 o",
    `failed: ${CLOSED}`,
    "closed",
  ]],
  "a whole response": [[`${SIZED}ok`], ["end", "close"], ["200 ok.", "closed"]],
};

test("UpstreamConnection ends a response with the connection only if it has no other end", () => {
  for (const [what, [pieces, events, result]] of Object.entries(ENDS)) {
    const link = new Link().ask(pieces);
    for (const event of events) link.socket.emit(event);
    assert.deepEqual(link.result, result, what);
    assert.equal(link.socket.destroyed, true, what);
  }
  const link = new Link().ask([`${SIZED}ok`]).ask([]);
  for (const message of ["first", "second"]) link.socket.emit("error", new Error(message));
  link.socket.emit("close");
  assert.deepEqual(
    link.result,
    ["200 ok.", "reset: first", "closed"],
    "the second request is lost",
  );
});

test("UpstreamConnection passes on bytes and back-pressure, and nothing after destroy()", async () => {
  const { connection, socket, far, result, ...link } = new Link();
  assert.deepEqual(result, ["free"]);
  let received = "";
  far.on("data", (bytes) => received += bytes.toString("latin1"));
  assert.equal(connection.begin("\xe9", false), true);
  assert.equal(connection.write(Buffer.from([0xff])), true);
  assert.deepEqual([connection.isFree, connection.isOpen], [false, true]);
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(received, "\xe9\xff");
  far.pause();
  assert.equal(connection.write("x".repeat(1 << 20)), false);
  socket.emit("drain");
  assert.deepEqual(link.events, ["drain"]);
  connection.pause();
  assert.equal(socket.isPaused(), true);
  connection.resume();
  assert.equal(socket.isPaused(), false);
  for (let round = 0; round < 2; round++) connection.destroy();
  for (const event of ["end", "close", "drain"]) socket.emit(event);
  assert.deepEqual([link.events, connection.isOpen, connection.isFree], [["drain"], false, false]);
});

/** A socket file of which the server has ended: connect(2) fails with ECONNREFUSED. */
async function staleSocket(): Promise<string> {
  const [path, renamed] = [freshPath("up.sock"), freshPath("stale.sock")];
  const server = createServer().listen(path);
  await once(server, "listening");
  renameSync(path, renamed);
  await new Promise((resolve) => server.close(resolve));
  return renamed;
}

/** An upstream, and what it reports. */
function upstreamAt(path: string, expect?: { readonly uid: number }) {
  const lines: string[] = [];
  const report = (line: string) => lines.push(line);
  return { lines, upstream: new Upstream({ mode: "http", upstream: path, expect, report }) };
}

testGuard("guard sends nothing of a body before the head, while it connects", async () => {
  let status: number, body: string;
  do {
    const path = await staleSocket();
    const guard = await GuardHere.start({ upstream: path, mode: "http" });
    const client = await End.open(guard.path);
    client.send("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n");
    await until(() =>
      guard.server.stats().upstream.waiting + guard.server.stats().upstream.failures > 0
    );
    client.send("hello");
    const other = await End.open(guard.path); // answered after the guard has read "hello"
    assert.match(await other.send("x\0").rest(), /^HTTP\/1\.1 400 /);
    rmSync(path);
    await Behind.start((end) => answerAll(end, ({ body }) => answerOf(body)), path);
    client.send("world");
    ({ status, body } = await client.message());
  } while (status === 502); // this machine took more than a second, for which the guard waits
  assert.equal(body, "helloworld");
});

testGuard(
  "Upstream repeats a refused connect(2) for a second, and fails at once without a socket",
  async () => {
    const clients = await Behind.start();
    const client = async () => ({
      socket: (await End.open(clients.path)).socket,
      peer: fakePeer({ uid: USERS.one }),
    });
    const path = await staleSocket();
    const { upstream } = upstreamAt(path);
    const [one, two] = [await client(), await client()];
    const connected = upstream.connect(one);
    const left = upstream.connect(two);
    left.catch(() => {});
    putForward(-60_000); // both wait however slow this machine is
    await until(() => upstream.waiting === 2);
    two.socket.destroy();
    await assert.rejects(left, /^Error: the client has hung up$/);
    rmSync(path);
    const behind = await Behind.start(undefined, path);
    (await connected).end("x");
    assert.equal(await (await behind.next()).rest(), "x");
    assert.equal(upstream.waiting, 0);
    await assert.rejects(upstream.connect(two), /^Error: the client has hung up$/);
    assert.equal(behind.count, 1, "none for a client that has hung up");

    const refused = upstreamAt(await staleSocket()).upstream;
    const failed = refused.connect(one);
    failed.catch(() => {});
    putForward(-60_000);
    await until(() => refused.waiting === 1);
    putForward(61_001);
    await assert.rejects(failed, { code: "ECONNREFUSED" });
    assert.equal(refused.waiting, 0);

    const { upstream: none } = upstreamAt(freshPath("none.sock"));
    await assert.rejects(none.connect(one), { code: "ENOENT" });
    await assert.rejects(none.probe(), { code: "ENOENT" });
    await assert.rejects(none.connectAsGuard(), { code: "ENOENT" });
    assert.equal(none.waiting, 0);
    assert.equal(one.socket.listenerCount("close"), two.socket.listenerCount("close"));
  },
);

testGuard(
  "Upstream.probe() closes its connection, and no other server receives anything",
  async () => {
    const behind = await Behind.start();
    const { upstream } = upstreamAt(behind.path, { uid: 0 });
    await upstream.probe();
    assert.equal(await (await behind.next()).rest(), "");
    (await upstream.connectAsGuard()).end("x");
    assert.equal(await (await behind.next()).rest(), "x");
    const { upstream: other } = upstreamAt(behind.path, { uid: USERS.one });
    await assert.rejects(other.probe(), /Cannot trust the server/);
    await assert.rejects(other.connectAsGuard(), /Cannot trust the server/);
    for (const _ of [1, 2]) assert.equal(await (await behind.next()).rest(), "");
  },
);

test("Upstream.reportFailure() reports one line per second, and counts the others", () => {
  const { upstream, lines } = upstreamAt("/run/\u001bup");
  const why = (text: string) => `the upstream /run/\\u001bup cannot be used: ${text}`;
  for (const message of ["a\nb", "second", "third"]) upstream.reportFailure(new Error(message));
  putForward(1001);
  for (const thrown of ["text", new Error("fifth")]) upstream.reportFailure(thrown);
  putForward(1001);
  upstream.reportFailure(new Error("sixth"));
  assert.deepEqual(lines, [
    why("a\\u000ab"),
    why("text (and 2 times before)"),
    why("sixth (and 1 times before)"),
  ]);
  assert.equal(upstream.failures, 6);
});

testGuard("discardFailedWrites() keeps what the other side has sent before it closed", async () => {
  for (const isCorked of [false, true]) {
    const path = freshPath("half.sock");
    const { promise: closed, resolve } = Promise.withResolvers<void>();
    const server = createServer((end) => {
      end.on("error", () => {}).once("close", resolve).end("answer", () => end.destroy());
    }).listen(path);
    await once(server, "listening");
    const socket = discardFailedWrites(connect({ path, allowHalfOpen: true }));
    const errors: Error[] = [];
    socket.on("error", (error) => errors.push(error));
    await once(socket, "connect");
    await closed;
    let text = "";
    socket.on("data", (bytes) => text += bytes); // nothing is read before the writes
    if (isCorked) socket.cork();
    const writes = ["x", "y"].map((text) =>
      new Promise((resolve) => socket.write(text, (error) => resolve(error ?? undefined)))
    );
    if (isCorked) socket.uncork();
    assert.deepEqual(await Promise.all(writes), [undefined, undefined]);
    await once(socket, "close");
    assert.deepEqual([text, errors], ["answer", []]);
    server.close();
  }
}, needs.failedWrites);
