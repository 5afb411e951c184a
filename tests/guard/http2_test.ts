/** The guard with HTTP/2: decisions for each stream, and what reaches the other side. */

import assert from "node:assert/strict";
import { createServer, type Server } from "node:net";
import process from "node:process";
import { createGuard, type GuardOptions } from "../../guard/mod.ts";
import { definePolicy, type Policy } from "../../mod.ts";
import { parsePolicy } from "../../policy/mod.ts";
import {
  ask,
  connectHttp2,
  CONTINUATION,
  DATA,
  echo,
  END_HEADERS,
  END_STREAM,
  type FieldList,
  frame,
  FrameClient,
  GOAWAY,
  HEADERS,
  hpack,
  Http2Upstream,
  PING,
  PREFACE,
  pseudo,
  received,
  reset,
  RST_STREAM,
  SETTINGS,
  WINDOW_UPDATE,
  words,
} from "../support/http2.ts";
import { End } from "../support/guard.ts";
import { guardHere } from "../support/guard_here.ts";
import { freshPath } from "../support/peers.ts";
import { endAfterEach, needs, testWith, until } from "../support/suite.ts";

const here = [needs.linux, needs.http2];

const servers = new Set<Server>();
endAfterEach(() => {
  servers.forEach((server) => server.close());
  servers.clear();
});

const POLICY = definePolicy({
  version: 1,
  rules: [
    {
      name: "not this",
      when: { uid: process.getuid?.() ?? 0 },
      actions: "POST /denied/**",
      deny: "50% no",
    },
    { name: "own", when: { uid: process.getuid?.() ?? 0 }, allow: ["read", "write"] },
  ],
});

/** Starts a guard in this process. */
async function start(upstream: string, options: Partial<GuardOptions> = {}) {
  const lines: string[] = [];
  const { path, guard } = await guardHere({
    mode: "http",
    upstream,
    http2: true,
    policy: POLICY,
    report: (line) => lines.push(line),
    ...options,
  });
  return { path, guard, lines };
}

testWith(
  [needs.deno],
  "createGuard() refuses HTTP/2 on Deno, whose engine can end the process",
  () => {
    assert.throws(
      () => createGuard({ mode: "http", upstream: "x", http2: true }),
      { code: "ERR_UCRED_UNSUPPORTED", message: /^Cannot serve HTTP\/2 on Deno .*GOAWAY/ },
    );
  },
);

testWith(here, "createGuard() rejects http2 in stream mode, and a value that is no boolean", () => {
  const make = (options: object) => () =>
    createGuard({ upstream: "x", ...options } as GuardOptions);
  assert.throws(make({ mode: "stream", http2: true }), /^TypeError: http2 has no effect/);
  assert.throws(make({ mode: "http", http2: "yes" }), /^TypeError: http2 must be a boolean/);
});

testWith(
  here,
  "guard forwards a stream with the client's identity, fields and trailers",
  async () => {
    const upstream = await Http2Upstream.start((stream) => {
      stream.on("trailers", (trailers) => {
        assert.deepEqual(Object.entries(trailers), [["x-sum", "7"]], "no forged identity");
      });
      echo(stream);
    });
    const { path } = await start(upstream.path);
    const session = connectHttp2(path);
    const forged = {
      "x-ucred-uid": "1",
      "x_ucred_uid": "1",
      "x-forwarded-for": "1.2.3.4",
      "x-http-method-override": "GET",
      "x-original-url": "/denied/x",
    };
    const headers = {
      ":path": "/a/./b/../%63//d;e?q=%2e;",
      ":scheme": "https",
      te: "trailers",
      "x-two": ["1", "2"],
      ...forged,
    };
    const trailers = { "x-sum": "7", "x-ucred-uid": "1", host: "other" };
    const answer = await ask(session, headers, "hello", trailers);
    assert.deepEqual([answer.headers[":status"], answer.body], [200, "hello"]);
    assert.deepEqual(answer.trailers, { "x-end": "yes" });
    assert.ok(answer.isWhole);
    assert.deepEqual(upstream.last(":path"), ["/a/c/d%3Be?q=%2e;"]);
    assert.deepEqual(upstream.last(":scheme"), ["http"]);
    assert.deepEqual(upstream.last("x-two"), ["1", "2"]);
    assert.deepEqual(upstream.last("te"), ["trailers"]);
    assert.deepEqual(upstream.last("x-ucred-uid"), [String(process.getuid!())]);
    assert.deepEqual(upstream.last("x-ucred-pid"), [String(process.pid)]);
    assert.deepEqual(upstream.last("x-ucred-rule"), ["own"]);
    assert.deepEqual(upstream.last("x-ucred-grants"), ["read,write"]);
    for (const name of Object.keys(forged).slice(1)) {
      assert.deepEqual(
        upstream.last(name),
        [],
        name,
      );
    }
  },
);

testWith(here, "guard decides each stream: 403, or PERMISSION_DENIED for gRPC", async () => {
  const upstream = await Http2Upstream.start(echo);
  const { path, guard } = await start(upstream.path);
  const session = connectHttp2(path);
  const denied = { ":path": "/denied/x" };
  const answers = await Promise.all([
    ask(session, denied, "x".repeat(100_000)),
    ask(session, { ":path": "/allowed" }),
    ask(session, { ...denied, "content-type": "application/grpc+proto" }, "12345"),
    ask(session, { ":path": "//denied/./x" }),
  ]);
  const [plain, allowed, grpc, spelled] = answers;
  assert.equal(plain.headers[":status"], 403);
  assert.deepEqual(JSON.parse(plain.body).detail, "50% no");
  assert.equal(allowed.headers[":status"], 200);
  assert.deepEqual(
    [grpc.headers[":status"], grpc.headers["grpc-status"], grpc.headers["grpc-message"], grpc.body],
    [200, "7", "50%25 no", ""],
  );
  assert.equal(grpc.headers["content-type"], "application/grpc");
  assert.equal(spelled.headers[":status"], 403);
  assert.equal(upstream.requests.length, 1);
  assert.deepEqual([guard.stats().allowed, guard.stats().denied], [1, 3]);
  await until(() => guard.stats().requests!.outcomes.denied === 3);
  assert.equal(guard.stats().requests!.outcomes.allowed, 1);
});

const replaced = (name: string, value: string): FieldList =>
  pseudo("/x").map(([key, old]) => [key, key === name ? value : old] as const);
const without = (name: string): FieldList => pseudo("/x").filter(([key]) => key !== name);

/** Requests that are ambiguous or malformed. */
const BAD: readonly (readonly [what: string, fields: FieldList])[] = [
  ["an absolute URL as path", replaced(":path", "http://localhost/x")],
  ["a path without a slash", replaced(":path", "x")],
  ["an empty path", replaced(":path", "")],
  ["an encoded slash", replaced(":path", "/a%2fb")],
  ["a fragment", replaced(":path", "/a#b")],
  ["two paths", [...pseudo("/x"), [":path", "/y"]]],
  ["no path", without(":path")],
  ["no method", without(":method")],
  ["no scheme", without(":scheme")],
  ["an unknown scheme", replaced(":scheme", "file")],
  ["a method in lower case", replaced(":method", "post")],
  ["a space in the method", replaced(":method", "GET /x HTTP/1.1")],
  ["no authority and no host", without(":authority")],
  ["a host that differs from the authority", [...pseudo("/x"), ["host", "other"]]],
  ["two hosts", [...without(":authority"), ["host", "a"], ["host", "b"]]],
  ["an authority that is no host", replaced(":authority", "a/b")],
  ["CONNECT", [[":method", "CONNECT"], [":authority", "localhost"]]],
  ["an extended CONNECT", [...replaced(":method", "CONNECT"), [":protocol", "websocket"]]],
  ["an unknown pseudo-header", [...pseudo("/x"), [":other", "x"]]],
  ["a status in a request", [...pseudo("/x"), [":status", "200"]]],
  ["a pseudo-header after a field", [...without(":path"), ["x-a", "b"], [":path", "/x"]]],
  ["connection", [...pseudo("/x"), ["connection", "close"]]],
  ["keep-alive", [...pseudo("/x"), ["keep-alive", "1"]]],
  ["proxy-connection", [...pseudo("/x"), ["proxy-connection", "close"]]],
  ["transfer-encoding", [...pseudo("/x"), ["transfer-encoding", "chunked"]]],
  ["upgrade", [...pseudo("/x"), ["upgrade", "websocket"]]],
  ["http2-settings", [...pseudo("/x"), ["http2-settings", "AAMAAABk"]]],
  ["te with more than trailers", [...pseudo("/x"), ["te", "trailers, gzip"]]],
  ["a name in upper case", [...pseudo("/x"), ["X-Upper", "1"]]],
  ["a CR LF in the path", replaced(":path", "/x HTTP/1.1\r\nhost: y")],
  ["two lengths", [...pseudo("/x"), ["content-length", "0"], ["content-length", "0"]]],
  ["a length that is no number", [...pseudo("/x"), ["content-length", "0x0"]]],
  ["a name like content-length", [...pseudo("/x"), ["content_length", "0"]]],
  ["an unknown expectation", [...pseudo("/x"), ["expect", "gold"]]],
];

testWith(
  here,
  "guard refuses malformed and ambiguous requests, which reach no upstream",
  async () => {
    const upstream = await Http2Upstream.start(echo);
    const { path } = await start(upstream.path);
    for (const [what, fields] of BAD) {
      const client = await FrameClient.open(path);
      client.request(1, fields, END_HEADERS | END_STREAM);
      await until(() =>
        client.isClosed || client.find(HEADERS, 1) || client.find(RST_STREAM, 1) ||
        client.find(GOAWAY)
      );
      const first = client.find(HEADERS, 1)?.payload[0];
      assert.notEqual(first, 0x88, `${what}: no status 200, which HPACK encodes as 0x88`);
      client.socket.destroy();
    }
    assert.deepEqual(upstream.requests, []);
    assert.equal(upstream.sessions.length, 0, "not even a connection");
    const session = connectHttp2(path);
    assert.equal((await ask(session, { ":path": "/x" }, "ok")).body, "ok");
  },
);

/** Fields that the runtime may drop. */
const BAD_FIELDS: FieldList = [
  ["x evil", "1"],
  ["x:evil", "1"],
  ["", "evil"],
  ["x-evil", "b\r\nx-ucred-uid: 0"],
  ["x-evil", "b\0c"],
  ["x-evil", " b"],
  ["x-evil", "b "],
];

testWith(here, "guard refuses or drops malformed fields", async () => {
  const upstream = await Http2Upstream.start(echo);
  const { path } = await start(upstream.path);
  for (const field of BAD_FIELDS) {
    const client = await FrameClient.open(path);
    client.request(1, [...pseudo("/x"), field], END_HEADERS | END_STREAM);
    await until(() =>
      client.isClosed || client.find(HEADERS, 1) || client.find(RST_STREAM, 1) ||
      client.find(GOAWAY)
    );
    client.socket.destroy();
  }
  for (const raw of upstream.requests) {
    assert.ok(raw.every((text) => !/evil|^$/.test(text)), JSON.stringify(raw));
  }
});

testWith(here, "guard limits the size of a header section", async () => {
  const upstream = await Http2Upstream.start(echo);
  const { path } = await start(upstream.path);
  const long = await ask(connectHttp2(path), { ":path": "/x", "x-long": "x".repeat(17_000) });
  assert.ok(long.headers[":status"] === 431 || long.code !== 0, JSON.stringify(long));
  const fields = Object.fromEntries(Array.from({ length: 101 }, (_, n) => [`x-${n}`, "1"]));
  const many = await ask(connectHttp2(path), { ":path": "/x", ...fields });
  assert.equal(many.headers[":status"], 431);
  const target = await ask(connectHttp2(path), { ":path": `/${"x".repeat(9000)}` });
  assert.equal(target.headers[":status"], 414);
  assert.deepEqual(upstream.requests, []);
});

testWith(
  here,
  "guard passes on the code of RST_STREAM, and no incomplete message as a whole one",
  async () => {
    const seen = new Map<string, string>();
    const upstream = await Http2Upstream.start((stream, { ":path": path }) => {
      stream.on("end", () => {
        if (!stream.destroyed && !stream.rstCode) seen.set(path!, "whole");
      }).on("close", () => seen.set(`${path} closed`, String(stream.rstCode))).resume();
      if (path === "/refuse") return void reset(stream, 7);
      if (path === "/before") return void reset(stream, 11);
      stream.respond({ ":status": 200 });
      stream.write("part");
      if (path === "/after") setTimeout(() => reset(stream, 11), 20);
    });
    const { path } = await start(upstream.path);
    const session = connectHttp2(path);
    const refused = await ask(session, { ":path": "/refuse" });
    assert.deepEqual([refused.code, refused.headers[":status"]], [7, undefined]);
    assert.equal((await ask(session, { ":path": "/before" })).code, 11);
    const after = await ask(session, { ":path": "/after" });
    assert.deepEqual([after.code, after.isWhole, after.headers[":status"]], [11, false, 200]);

    for (const code of [8, 5]) {
      const stream = session.request({ ":method": "POST", ":path": `/client${code}` });
      stream.write("incomplete");
      const end = received(stream);
      await new Promise((resolve) => stream.once("response", resolve));
      reset(stream, code);
      await end;
      await until(() => seen.has(`/client${code} closed`));
      assert.equal(seen.get(`/client${code} closed`), String(code));
      assert.equal(seen.get(`/client${code}`), undefined, "the request is incomplete");
    }
    const stream = session.request({ ":method": "POST", ":path": "/gone" });
    stream.on("error", () => {}).write("incomplete");
    await new Promise((resolve) => stream.once("response", resolve));
    session.destroy();
    await until(() => seen.has("/gone closed"));
    assert.equal(seen.get("/gone"), undefined, "the request is incomplete");
  },
);

testWith(here, "guard answers 502 or UNAVAILABLE when the upstream goes away", async () => {
  const upstream = await Http2Upstream.start((stream, { ":path": path }) => {
    if (path === "/before") return void upstream.sockets.at(-1)!.destroy();
    stream.respond({ ":status": 200, "content-type": "application/grpc" });
    stream.write("part");
    setTimeout(() => upstream.sockets.at(-1)!.destroy(), 20);
  });
  const { path, lines } = await start(upstream.path);
  const session = connectHttp2(path);
  const grpc = { "content-type": "application/grpc" };
  const plain = await ask(session, { ":path": "/before" });
  assert.deepEqual([plain.headers[":status"], plain.body], [
    502,
    "The upstream server cannot be reached\n",
  ]);
  const early = await ask(session, { ":path": "/before", ...grpc });
  assert.deepEqual([early.headers[":status"], early.headers["grpc-status"]], [200, "14"]);
  const late = await ask(session, { ":path": "/after", ...grpc });
  assert.deepEqual([late.body, late.trailers?.["grpc-status"]], ["part", "14"]);
  const cut = await ask(session, { ":path": "/after" });
  assert.deepEqual([cut.isWhole, cut.code], [false, 2]);
  assert.equal(upstream.sessions.length, 4);
  assert.match(lines[0]!, /cannot be used: it closed the connection/);
});

testWith(here, "guard sends no request to an upstream that speaks only HTTP/1", async () => {
  let text = "";
  const server = createServer((socket) => {
    socket.on("error", () => {}).on("data", (bytes) => {
      text += bytes.toString("latin1");
      socket.end("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    });
  });
  servers.add(server);
  const up = freshPath("up.sock");
  await new Promise<void>((resolve) => server.listen(up, resolve));
  const { path, lines } = await start(up);
  const session = connectHttp2(path);
  const answer = await ask(session, { ":path": "/x" }, "GET /secret HTTP/1.1\r\n\r\n");
  assert.equal(answer.headers[":status"], 502);
  assert.ok(text.startsWith("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
  assert.doesNotMatch(text, /secret|localhost/);
  assert.match(lines[0]!, /it does not answer with HTTP\/2/);
});

testWith(here, "guard stops reading when the other side does not read", async () => {
  let written = 0, paused = 0;
  const chunk = Buffer.alloc(65536);
  const upstream = await Http2Upstream.start((stream, { ":path": path }) => {
    stream.respond({ ":status": 200 });
    if (path === "/up") {
      stream.pause();
      return;
    }
    const send = () => {
      while (written < 64 * 2 ** 20) {
        written += chunk.length;
        if (!stream.write(chunk)) return void stream.once("drain", send);
      }
    };
    send();
  });
  const { path } = await start(upstream.path);
  // A window of 2 GiB: only the socket limits the guard.
  const settings = Buffer.concat([Buffer.from([0, 4]), words(0x7fffffff)]);
  const deaf = await FrameClient.open(path, settings);
  deaf.send(frame(8, 0, 0, words(0x7fff0000 - 65535)));
  deaf.socket.pause();
  deaf.request(1, pseudo("/down"), END_HEADERS | END_STREAM);
  await until(() => written > 0);
  let last = -1;
  while (last !== written) { // until it has stopped
    last = written;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  assert.ok(written < 4 * 2 ** 20, `${written} bytes were read`);

  const stream = connectHttp2(path).request({ ":method": "POST", ":path": "/up" });
  stream.on("error", () => {});
  await new Promise((resolve) => stream.once("response", resolve));
  for (last = -1; last !== paused;) {
    last = paused;
    while (paused < 64 * 2 ** 20 && stream.write(chunk)) paused += chunk.length;
    await new Promise((resolve) => setTimeout(resolve, 200));
    if (!stream.writableNeedDrain) paused++;
  }
  assert.ok(paused < 4 * 2 ** 20, `${paused} bytes were read`);
});

testWith(
  here,
  "guard lets streams end after GOAWAY of the client, of the upstream and of itself",
  async () => {
    const ends: (() => void)[] = [];
    const upstream = await Http2Upstream.start((stream) => {
      stream.respond({ ":status": 200 });
      stream.write("a");
      ends.push(() => stream.end("z"));
    });
    const { path, guard } = await start(upstream.path);

    const client = await FrameClient.open(path);
    client.request(1, pseudo("/x"), END_HEADERS | END_STREAM);
    await client.until(DATA, 1);
    client.send(frame(GOAWAY, 0, 0, words(0, 0)));
    ends.shift()!();
    await until(() =>
      client.frames.some(({ type, flags }) => type === DATA && (flags & END_STREAM) !== 0)
    );
    await until(() => client.isClosed);

    const session = connectHttp2(path);
    const first = ask(session, { ":path": "/first" });
    await until(() => ends.length === 1);
    upstream.sessions.at(-1)!.goaway(0);
    const sessions = upstream.sessions.length;
    let second: Promise<{ body: string }> | undefined;
    await until(async () => { // until the guard has received GOAWAY
      second = ask(session, { ":path": "/second" });
      const count = ends.length + 1;
      await until(() => ends.length === count);
      if (upstream.sessions.length > sessions) return true;
      ends.pop()?.();
      await second;
      return false;
    });
    ends.forEach((end) => end());
    ends.length = 0;
    assert.deepEqual([(await first).body, (await second!).body], ["az", "az"]);

    const third = ask(session, { ":path": "/third" });
    await until(() => ends.length === 1);
    client.socket.destroy();
    const closed = guard.close({ timeout: 30_000 });
    await until(() => session.closed);
    ends[0]!();
    assert.deepEqual([(await third).body, (await third).isWhole], ["az", true]);
    await closed;
  },
);

testWith(here, "guard decides the next stream of an open connection by a new policy", async () => {
  const upstream = await Http2Upstream.start(echo);
  let current: Policy = POLICY;
  const policy: { -readonly [name in keyof Policy]: Policy[name] } = {
    get needsPin() {
      return current.needsPin;
    },
    admits: (peer) => current.admits(peer),
    decide: (peer, request) => current.decide(peer, request),
    explain: (peer, request) => current.explain!(peer, request),
  };
  const { path } = await start(upstream.path, { policy });
  const session = connectHttp2(path);
  assert.equal((await ask(session, { ":path": "/x" })).headers[":status"], 200);
  current = definePolicy({ version: 1, rules: [{ name: "none", deny: "closed" }] });
  assert.equal((await ask(session, { ":path": "/x" })).headers[":status"], 403);
  policy.decide = () => {
    throw new Error("broken");
  };
  const broken = await ask(session, { ":path": "/x", "content-type": "application/grpc" });
  assert.equal(broken.headers["grpc-status"], "2");
  assert.equal(upstream.requests.length, 1);
});

testWith(
  here,
  "guard opens one upstream connection for each client, when its first stream is allowed",
  async () => {
    const upstream = await Http2Upstream.start(echo);
    const { path } = await start(upstream.path);
    const clients = [connectHttp2(path), connectHttp2(path)];
    await Promise.all(clients.map((each) => ask(each, { ":path": "/denied/x" })));
    assert.equal(upstream.sessions.length, 0);
    for (let round = 0; round < 3; round++) {
      await Promise.all(clients.map((each) => ask(each, { ":path": "/x" })));
    }
    assert.equal(upstream.sessions.length, 2);
    clients.forEach((each) => each.destroy());
    await until(() => upstream.sessions.every((each) => each.destroyed));
  },
);

testWith(
  here,
  "guard recognises a preface that arrives in parts, and HTTP/1 with a similar start",
  async () => {
    const upstream = await Http2Upstream.start(echo);
    const { path } = await start(upstream.path);
    const end = await End.open(path);
    for (const byte of PREFACE) {
      end.socket.write(Buffer.from([byte]));
      await new Promise((resolve) => setImmediate(resolve));
    }
    end.socket.write(frame(SETTINGS));
    const server = Buffer.from(await end.bytes(9), "latin1");
    assert.equal(server[3], SETTINGS);
    end.destroy();
    for (
      const text of [
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        "PRI * HTTP/1.1\r\nHost: x\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\n",
      ]
    ) {
      const other = (await End.open(path)).send(text);
      assert.match(await other.rest(), /^HTTP\/1\.1 400 /, JSON.stringify(text));
    }
    const after = await End.open(path); // only the first bytes of a connection are a preface
    after.send(`POST /denied/x HTTP/1.1\r\nHost: x\r\n\r\n${PREFACE.toString("latin1")}`);
    assert.match(await after.rest(), /^HTTP\/1\.1 403 [^]*HTTP\/1\.1 400 /);
  },
);

testWith(here, "guard limits the open streams of a user", async () => {
  const upstream = await Http2Upstream.start(() => {}); // never answers
  const { path, guard } = await start(upstream.path);
  const refused = (client: FrameClient) =>
    client.frames.filter(({ type, payload }) => type === RST_STREAM && payload.readUInt32BE() === 7)
      .length;
  const clients: FrameClient[] = [];
  for (let count = 0; count < 11; count++) {
    const client = await FrameClient.open(path);
    for (let stream = 1; stream < 200; stream += 2) client.request(stream, pseudo("/x"));
    clients.push(client);
    if (count === 10) await until(() => refused(client) === 76);
  }
  assert.equal(clients.reduce((sum, client) => sum + refused(client), 0), 76, "1024 are open");
  clients[0]!.socket.destroy();
  await until(() => guard.stats().open <= 10); // Bun also ends the connection with the refused streams
  const before = guard.stats().allowed;
  (await FrameClient.open(path)).request(1, pseudo("/x"));
  await until(() => guard.stats().allowed === before + 1);
});

testWith(here, "guard answers 408 to a stream whose body does not arrive", async () => {
  const upstream = await Http2Upstream.start(() => {});
  const { path } = await start(upstream.path, { bodyTimeout: 100 });
  const session = connectHttp2(path);
  const streams = ["text/plain", "application/grpc"].map((type) => {
    const stream = session.request({ ":method": "POST", ":path": "/x", "content-type": type });
    stream.write("part");
    return received(stream);
  });
  const [plain, grpc] = await Promise.all(streams);
  assert.equal(plain!.headers[":status"], 408);
  assert.equal(grpc!.headers["grpc-status"], "4");
});

testWith(here, "guard passes a stream's attributes to a policy about HTTP", async () => {
  const upstream = await Http2Upstream.start(echo);
  const policy = parsePolicy(`version: 1
about: http
rules:
  - name: gRPC only
    when: { uid: ${process.getuid?.() ?? 0} }
    where: { contentType: application/grpc, host: localhost }
    allow: true
`);
  const { path } = await start(upstream.path, { policy });
  const session = connectHttp2(path);
  const answerTo = async (headers: object) =>
    (await ask(session, { ":path": "/x", ":authority": "localhost", ...headers })).headers;
  const grpc = { "content-type": "application/grpc" };
  assert.equal((await answerTo(grpc))["grpc-status"], undefined);
  assert.equal((await answerTo({ ...grpc, ":authority": "other" }))["grpc-status"], "7");
  assert.equal((await answerTo({ "content-type": "text/plain" }))[":status"], 403);
  assert.equal((await answerTo({}))[":status"], 403);
  assert.equal(upstream.requests.length, 1);
});

const requestOf = (stream: number, flags = END_HEADERS) =>
  frame(HEADERS, flags, stream, hpack(pseudo("/x")));

/** Floods: each sends frames with its n-th call. */
const FLOODS: readonly (readonly [what: string, send: (n: number) => Buffer])[] = [
  [
    "streams that the client resets (CVE-2023-44487)",
    (n) => Buffer.concat([requestOf(2 * n + 1), frame(RST_STREAM, 0, 2 * n + 1, words(8))]),
  ],
  [
    "streams that the client makes the guard reset (CVE-2025-8671)",
    (n) => Buffer.concat([requestOf(2 * n + 1), frame(WINDOW_UPDATE, 0, 2 * n + 1, words(0))]),
  ],
  ["PING (CVE-2019-9512)", () => frame(PING, 0, 0, Buffer.alloc(8))],
  ["SETTINGS (CVE-2019-9515)", () => frame(SETTINGS)],
  [
    "CONTINUATION (CVE-2024-27316, CVE-2024-27983)",
    (n) =>
      n === 0 ? requestOf(1, 0) : frame(CONTINUATION, 0, 1, hpack([[`x-${n}`, "y".repeat(500)]])),
  ],
];

for (const [what, send] of FLOODS) {
  testWith(
    here,
    `guard closes the connection of a client that floods it with ${what}`,
    async () => {
      const upstream = await Http2Upstream.start((stream) => stream.on("error", () => {}));
      const { path, guard } = await start(upstream.path);
      const client = await FrameClient.open(path);
      client.socket.pause(); // the guard cannot send its acknowledgements
      let count = 0;
      while (guard.stats().open > 0 && count < 200_000) {
        const frames = Array.from({ length: 100 }, () => send(count++));
        if (!client.socket.destroyed) client.socket.write(Buffer.concat(frames));
        await new Promise((resolve) => setImmediate(resolve));
      }
      client.socket.resume();
      await until(() => guard.stats().open === 0);
      assert.ok(
        upstream.requests.length <= 1500,
        `${upstream.requests.length} reached the upstream`,
      );
      assert.equal(
        (await ask(connectHttp2(path), { ":path": "/denied/x" })).headers[":status"],
        403,
      );
    },
  );
}
