/** Tests of `ucred guard --mode http` with the clients that people use, and byte for byte. */

import assert from "node:assert/strict";
import { spawn, type SpawnOptions } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { request as requestOf, type RequestOptions } from "node:http";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { freshPath } from "../support/peers.ts";
import { Wire } from "../support/http.ts";
import { packagesOf } from "../support/packages.ts";
import { needs, sample, soak } from "../support/suite.ts";
import { FakeDaemon } from "./daemon.ts";
import {
  answerAll,
  answerOf,
  Behind,
  End,
  Guard,
  type Message,
  testGuard,
  tool,
  USERS,
} from "../support/guard.ts";
import { GuardHere } from "../support/guard_here.ts";

function guardOf(upstream: string): Promise<GuardHere> {
  return GuardHere.start({ upstream, mode: "http" });
}

/** A server that answers each request with its own head and body. */
function mirror(): Promise<Behind> {
  return Behind.start((end) =>
    answerAll(end, ({ first, fields, body }) => {
      const text = JSON.stringify({ first, fields, body });
      return `HTTP/1.1 200 OK\r\nContent-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`;
    })
  );
}

type Seen = Pick<Message, "first" | "fields" | "body">;

/** The headers whose names mean X-Ucred-… to somebody. */
function identityIn({ fields }: Pick<Message, "fields">): { [name: string]: string } {
  const ours = fields.filter(([name]) => /^x[^a-z0-9]ucred/i.test(name));
  const names = ours.map(([name]) => name.toLowerCase());
  assert.equal(new Set(names).size, names.length, `twice: ${names}`);
  return Object.fromEntries(ours.map(([name, value]) => [name.toLowerCase(), value]));
}

testGuard("guard sends the upstream the identity of each user", async () => {
  const behind = await mirror();
  const guard = await guardOf(behind.path);
  for (const [uid, rule, grants] of [[0, "root", "full"], [USERS.one, "one", "read,write"]]) {
    const wire = Wire.as(Number(uid), guard.path);
    const { body } = await wire.get("/a?b=c");
    const seen = JSON.parse(body) as Seen;
    assert.equal(seen.first, "GET /a?b=c HTTP/1.1");
    const { "x-ucred-pid": pid, "x-ucred-user": _user, ...rest } = identityIn(seen);
    assert.equal(Number(pid), wire.child!.pid);
    assert.deepEqual(rest, {
      "x-ucred-uid": `${uid}`,
      "x-ucred-gid": `${uid}`,
      "x-ucred-groups": `${uid}`,
      "x-ucred-rule": rule,
      "x-ucred-grants": grants,
    });
  }
});

testGuard("guard encodes a comma in a grant", async () => {
  const policy =
    'version: 1\nrules: [{ name: all, when: { uid: 0 }, allow: ["read,admin", "café"] }]\n';
  const guard = await GuardHere.start({ upstream: (await mirror()).path, mode: "http", policy });
  const { body } = await (await End.open(guard.path)).ask("/");
  assert.equal(identityIn(JSON.parse(body))["x-ucred-grants"], "read%2Cadmin,caf%C3%A9");
});

testGuard("guard removes identity headers of the client, in every spelling", async () => {
  const behind = await mirror();
  const guard = await guardOf(behind.path);
  const wire = Wire.as(USERS.one, guard.path);
  const forged = [
    ...["X-Ucred-Uid: 0", "x-ucred-uid: 0", "X-UCRED-UID: 0", "X-Ucred-Uid: 0,1"],
    ...["X_Ucred_Uid: 0", "X-Ucred_Uid: 0", "x_ucred-uid: 0", "X.Ucred.Uid: 0", "X~Ucred~Uid: 0"],
    ...["X-Ucred-Admin: yes", "X_UCRED_USER: root", "X-Ucred-Groups: 0", "X-Ucred-: x"],
  ];
  for (const lines of [...forged.map((line) => [line]), forged]) {
    for (const verb of ["GET", "POST"]) {
      const body = verb === "GET"
        ? "\r\n"
        : "Trailer: X-Ucred-Uid\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Ucred-Uid: 0\r\n\r\n";
      wire.send(`${verb} / HTTP/1.1\r\nHost: x\r\n${lines.join("\r\n")}\r\n${body}`);
      const { status, body: answer } = await wire.response();
      assert.equal(status, 200, lines.join());
      const identity = identityIn(JSON.parse(answer));
      assert.equal(identity["x-ucred-uid"], String(USERS.one), lines.join());
      assert.deepEqual(
        Object.keys(identity).filter((name) =>
          !/^x-ucred-(uid|gid|groups|pid|rule|grants)$/.test(name)
        ),
        [],
        lines.join(),
      );
    }
  }
});

testGuard(
  "guard keeps identity and framing headers that `Connection` lists",
  async () => {
    const behind = await mirror();
    const guard = await guardOf(behind.path);
    const client = await End.open(guard.path);
    client.send(
      "POST / HTTP/1.1\r\nHost: a.example\r\nConnection: X-Ucred-Uid, keep-alive, X-Mine, Content-Length, Host\r\n" +
        "Keep-Alive: timeout=9\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\nX-Mine: 1\r\nX-Kept: 2\r\n" +
        "Cookie: a=1\r\nCookie: b=2\r\nContent-Length: 4\r\n\r\nbody",
    );
    const seen = JSON.parse((await client.message()).body) as Seen;
    const header = (wanted: string) =>
      seen.fields.filter(([name]) => name.toLowerCase() === wanted).map(([, value]) => value);
    assert.deepEqual(header("x-ucred-uid"), ["0"]);
    assert.deepEqual(header("host"), ["a.example"]);
    assert.deepEqual(header("x-kept"), ["2"]);
    assert.deepEqual(header("cookie"), ["a=1; b=2"]);
    for (const name of ["keep-alive", "proxy-connection", "te", "x-mine"]) {
      assert.deepEqual(header(name), [], name);
    }
    assert.ok(header("connection").every((value) => /^(keep-alive|close)$/i.test(value)));
    assert.equal(seen.body, "body");
  },
);

testGuard("guard removes hop-by-hop headers of the upstream", async () => {
  const behind = await Behind.start((end) =>
    answerAll(
      end,
      () =>
        "HTTP/1.1 200 OK\r\nConnection: X-Private, keep-alive\r\nX-Private: 1\r\nUpgrade: h2c\r\n" +
        "Keep-Alive: timeout=1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n\r\nok",
    )
  );
  const guard = await guardOf(behind.path);
  const client = await End.open(guard.path);
  const { header, body } = await client.ask("/");
  assert.equal(body, "ok");
  assert.equal(header("set-cookie"), "a=1, b=2");
  for (const name of ["x-private", "upgrade"]) assert.equal(header(name), "");
  assert.doesNotMatch(header("connection"), /private/i);
  assert.equal((await client.ask("/")).body, "ok", "the client's connection is kept");
});

testGuard("guard closes the connection after the response if the client requests it", async () => {
  const behind = await mirror();
  const guard = await guardOf(behind.path);
  for (const [version, line] of [["1.1", "Connection: close\r\n"], ["1.0", ""]]) {
    const client = await End.open(guard.path);
    client.send(`GET / HTTP/${version}\r\nHost: x\r\n${line}\r\n`);
    const answer = await client.rest();
    assert.match(answer, /^HTTP\/1\.1 200 OK/);
    assert.match(answer, /connection: close/i);
    assert.match(answer, /"first":"GET \/ HTTP\/1\.1"/);
  }
});

testGuard(
  "guard decides each request of a connection, and forwards none that is denied",
  async () => {
    const requests: string[] = [];
    const behind = await Behind.start((end) =>
      answerAll(end, ({ first }) => {
        requests.push(first);
        return first.startsWith("HEAD") ? "HTTP/1.1 200 OK\r\n\r\n" : answerOf("done");
      })
    );
    const guard = await guardOf(behind.path);
    const wire = Wire.as(USERS.two, guard.path);
    const expected = [["GET", 200], ["POST", 403], ["GET", 200], ["DELETE", 403], [
      "HEAD",
      200,
    ]] as const;
    for (const [method, status] of expected) {
      const { status: found, headers, body } = await wire.get("/a/./b//c", method);
      assert.equal(found, status, method);
      if (status !== 403) continue;
      assert.equal(headers["content-type"], "application/problem+json");
      assert.deepEqual(JSON.parse(body), {
        type: "about:blank",
        title: "Forbidden",
        status: 403,
        detail: "The policy does not allow it",
      });
    }
    assert.deepEqual(
      requests,
      ["GET /a/b/c HTTP/1.1", "GET /a/b/c HTTP/1.1", "HEAD /a/b/c HTTP/1.1"],
      "with the path that was decided about",
    );
    const stranger = Wire.as(USERS.nobody, guard.path).send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert.match(await stranger.rest(), /^HTTP\/1\.1 403 Forbidden\r\n/);
    assert.equal(requests.length, 3);
  },
);

testGuard("guard answers pipelined requests in order, and decides each", async () => {
  const behind = await mirror();
  const guard = await guardOf(behind.path);
  const wire = Wire.as(USERS.two, guard.path);
  const paths = ["/1", "/2", "/3", "/4"];
  wire.send(
    paths.map((path, at) => `${at === 2 ? "DELETE" : "GET"} ${path} HTTP/1.1\r\nHost: x\r\n\r\n`)
      .join(""),
  );
  for (const path of paths) {
    const { status, body } = await wire.response();
    if (path === "/3") assert.equal(status, 403);
    else assert.equal((JSON.parse(body) as Seen).first, `GET ${path} HTTP/1.1`);
  }
});

testGuard("guard forwards pipelined requests one after the other", async () => {
  const behind = await Behind.start();
  const guard = await guardOf(behind.path);
  const client = await End.open(guard.path);
  const targets = Array.from({ length: 50 }, (_, at) => `/${at}`);
  client.send(targets.map((target) => `GET ${target} HTTP/1.1\r\nHost: x\r\n\r\n`).join(""));
  const server = await behind.next();
  for (const target of targets) {
    assert.equal((await server.message()).first, `GET ${target} HTTP/1.1`);
    server.send(answerOf(target));
    assert.equal((await client.message()).body, target);
  }
  assert.equal(behind.count, 1, "over one connection");
});

testGuard("guard forwards OPTIONS * unchanged", async () => {
  const behind = await mirror();
  const guard = await guardOf(behind.path);
  const { body } = await (await End.open(guard.path)).ask("*", "OPTIONS");
  assert.equal((JSON.parse(body) as Seen).first, "OPTIONS * HTTP/1.1");
});

/** A request by node:http of the runtime under test, whose body is sent as it is taken. */
function ask(options: RequestOptions, chunks: readonly Uint8Array[] = []) {
  return new Promise<{ status: number; headers: object; trailers: object; body: Buffer }>(
    (resolve, reject) => {
      const request = requestOf(options, (response) => {
        const parts: Buffer[] = [];
        response.on("data", (part: Buffer) => parts.push(part)).on("error", reject);
        response.on("end", () => {
          const { statusCode: status = 0, headers, trailers } = response;
          resolve({ status, headers, trailers, body: Buffer.concat(parts) });
        });
      });
      request.on("error", reject);
      for (const chunk of chunks) request.write(chunk);
      request.end();
    },
  );
}

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

/** Size of large bodies in MiB: much more than the buffers of the guard and the kernel hold. */
const MIB = soak(8, 32);

for (const framing of ["a length", "chunks"]) {
  testGuard(`guard forwards a large body with ${framing} in each direction`, async () => {
    const size = MIB << 20;
    const upload = randomBytes(size), download = randomBytes(size);
    const isChunked = framing === "chunks";
    let received = "";
    const behind = await Behind.start(async (end) => {
      const { body } = await end.message();
      received = sha256(Buffer.from(body, "latin1"));
      const head = isChunked ? "Transfer-Encoding: chunked" : `Content-Length: ${size}`;
      end.send(`HTTP/1.1 200 OK\r\n${head}\r\n\r\n`);
      for (let at = 0; at < size; at += 1 << 20) {
        const part = download.subarray(at, at + (1 << 20));
        if (isChunked) end.send(`${part.length.toString(16)}\r\n`);
        end.socket.write(part);
        if (isChunked) end.send("\r\n");
      }
      if (isChunked) end.send("0\r\n\r\n");
    });
    const guard = await Guard.start({ upstream: behind.path, mode: "http" });
    const chunks = Array.from(
      { length: MIB },
      (_, at) => upload.subarray(at << 20, (at + 1) << 20),
    );
    const headers = isChunked ? {} : { "content-length": size };
    const options = { socketPath: guard.path, method: "POST", path: "/", headers };
    const { status, body } = await ask(options, chunks);
    assert.equal(status, 200);
    assert.equal(received, sha256(upload));
    assert.equal(sha256(body), sha256(download));
    assert.ok(guard.memory() < 512, `${guard.memory()} MiB`);
  });
}

testGuard("guard forwards each chunk at once, in both directions", async () => {
  const behind = await Behind.start();
  const guard = await guardOf(behind.path);
  const client = await End.open(guard.path);
  client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
  const server = await behind.next();
  await server.until("5\r\nfirst\r\n");
  server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nanswer\r\n");
  await client.until("6\r\nanswer\r\n"); // before the request has ended
  client.send("4\r\nlast\r\n0\r\n\r\n");
  await server.until("4\r\nlast\r\n0\r\n\r\n");
  server.send("3\r\nend\r\n0\r\nX-Sum: 12\r\n\r\n");
  await client.until("3\r\nend\r\n0\r\n");
  assert.match(await client.until("\r\n\r\n"), /^x-sum: 12\r\n/i, "with its trailers");
});

testGuard(
  "guard forwards response headers before the first event, and each event at once",
  async () => {
    const behind = await Behind.start();
    const guard = await guardOf(behind.path);
    const client = await End.open(guard.path);
    client.send("GET /events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n");
    const server = await behind.next();
    await server.message(false);
    server.send(
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    assert.match(await client.until("\r\n\r\n"), /text\/event-stream/);
    for (const name of ["one", "two"]) {
      const event = `data: ${name}\n\n`;
      server.send(`${event.length.toString(16)}\r\n${event}\r\n`);
      await client.until(event);
    }
    client.destroy();
    await server.rest(); // the upstream sees the hang-up
  },
);

testGuard("guard sends 100 Continue only for an allowed request", async () => {
  const behind = await mirror();
  const guard = await guardOf(behind.path);
  const head = "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
  const allowed = Wire.as(USERS.one, guard.path).send(head);
  assert.match(await allowed.until("\r\n\r\n"), /^HTTP\/1\.1 100 /);
  const { status, body } = await allowed.send("body").response();
  assert.equal(status, 200);
  assert.equal((JSON.parse(body) as Seen).body, "body");
  assert.ok(!(JSON.parse(body) as Seen).fields.some(([name]) => /^expect$/i.test(name)));
  const denied = Wire.as(USERS.two, guard.path).send(head);
  assert.match(await denied.until("\r\n\r\n"), /^HTTP\/1\.1 403 /);
  await denied.rest();
});

testGuard("guard forwards responses without a body: HEAD, 204 and 304", async () => {
  const behind = await Behind.start((end) =>
    answerAll(end, ({ first }) => {
      if (first.includes("/204")) return "HTTP/1.1 204 No Content\r\n\r\n";
      if (first.includes("/304")) return 'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\n\r\n';
      return first.startsWith("HEAD")
        ? "HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n"
        : answerOf("ok");
    })
  );
  const guard = await guardOf(behind.path);
  const client = await End.open(guard.path);
  for (let round = 0; round < 2; round++) {
    const head = await client.ask("/", "HEAD");
    assert.deepEqual([head.status, head.header("content-length")], [200, "77"]);
    assert.equal((await client.ask("/204")).status, 204);
    const unchanged = await client.ask("/304");
    assert.deepEqual([unchanged.status, unchanged.header("etag")], [304, '"1"']);
    assert.equal((await client.ask("/")).body, "ok");
  }
  // After the answer to each HEAD, which has a length and may have a body, another connection is used.
  assert.equal(behind.count, 3, "over no more connections than needed");
});

testGuard("guard forwards responses that end with the connection", async () => {
  const behind = await Behind.start(async (end) => {
    await end.message();
    end.send("HTTP/1.0 200 OK\r\n\r\nall there is").end();
  });
  const guard = await guardOf(behind.path);
  assert.equal((await (await End.open(guard.path)).ask("/")).body, "all there is");
});

testGuard(
  "guard works with curl",
  async () => {
    const behind = await mirror();
    const guard = await guardOf(behind.path);
    const curl = (...args: string[]) =>
      ran("curl", ["-sS", "--max-time", "20", "--unix-socket", guard.path, ...args]);
    const { stdout } = await curl("-d", "a=b", "-H", "X-Ucred-Uid: 7", "http://app.example/form");
    const seen = JSON.parse(stdout) as Seen;
    assert.equal(seen.first, "POST /form HTTP/1.1");
    assert.equal(seen.body, "a=b");
    assert.equal(identityIn(seen)["x-ucred-uid"], "0");
    const upgrade = await curl("--http2", "http://app.example/"); // which asks to upgrade to h2c
    assert.ok(
      (JSON.parse(upgrade.stdout) as Seen).fields.every(([name]) => !/upgrade|http2/i.test(name)),
    );
  },
  tool("curl"),
  needs.oneRuntime,
);

testGuard("guard forwards WebSocket messages in both directions, and the close", async () => {
  const behind = await Behind.start();
  const guard = await guardOf(behind.path);
  const wire = Wire.as(USERS.two, guard.path);
  wire.send(
    "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" +
      "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX_Ucred_Uid: 0\r\n\r\n",
  );
  const server = await behind.next();
  const { first, header, fields } = await server.message(false);
  assert.equal(first, "GET /chat HTTP/1.1");
  assert.deepEqual([header("connection").toLowerCase(), header("upgrade")], [
    "upgrade",
    "websocket",
  ]);
  assert.equal(header("sec-websocket-key"), "dGhlIHNhbXBsZSBub25jZQ==");
  assert.equal(identityIn({ fields })["x-ucred-uid"], String(USERS.two));
  server.send(
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
      "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nfirst words",
  );
  assert.match(await wire.until("\r\n\r\n"), /^HTTP\/1\.1 101 [^]*s3pPLMBiTxaQ9kYGzzhZRbK\+xOo=/);
  assert.equal(await wire.until("first words"), "first words");
  wire.send("\x81\x05hello");
  assert.equal(await server.bytes(7), "\x81\x05hello");
  server.send("\x81\x05there").end();
  assert.equal(await wire.rest(), "\x81\x05there");

  const denied = Wire.as(USERS.two, guard.path);
  denied.send(
    "POST /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
  );
  assert.match(await denied.rest(), /^HTTP\/1\.1 403 /);
  assert.equal(behind.count, 1);
});

testGuard(
  "guard works with ws, client and server",
  async () => {
    const up = freshPath("up.sock");
    const guard = await guardOf(up);
    const script = `
    import { randomBytes } from "node:crypto";
    import { createServer } from "node:http";
    import { WebSocket, WebSocketServer } from "ws";
    const [upstream, guard] = process.argv.slice(-2);
    const http = createServer().listen(upstream, () => {
      const big = randomBytes(1 << 20), messages = [];
      const client = new WebSocket("ws+unix:" + guard + ":/echo");
      client.on("message", (data) => {
        messages.push(data);
        if (messages.length === 1) client.send(big);
        else client.close(4321);
      });
      client.on("close", (code) => {
        console.log(String(messages[0]), big.equals(messages[1]), code);
        process.exit();
      });
    });
    new WebSocketServer({ server: http }).on("connection", (socket, request) => {
      socket.send("uid " + request.headers["x-ucred-uid"]);
      socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
    });
  `;
    assert.equal(await runByNode(script, up, guard.path), "uid 0 true 4321\n");
  },
  tool("node"),
  needs.oneRuntime,
);

for (
  const [status, what] of [
    ["101 UPGRADED", "raw, with half-close"],
    ["200 OK", "to be read only"],
  ] as const
) {
  testGuard(`guard forwards a connection that was hijacked by ${status}, ${what}`, async () => {
    const behind = await Behind.start();
    const guard = await guardOf(behind.path);
    const client = await End.open(guard.path);
    client.send(
      "POST /containers/1/attach?stream=1 HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n" +
        "Content-Type: text/plain\r\n\r\nEARLY ",
    );
    const server = await behind.next();
    assert.equal((await server.message(false)).header("upgrade"), "tcp");
    server.send(
      `HTTP/1.1 ${status}\r\nContent-Type: application/vnd.docker.raw-stream\r\n` +
        `${status.startsWith("101") ? "Connection: Upgrade\r\nUpgrade: tcp\r\n" : ""}\r\nprompt> `,
    );
    assert.match(await client.until("prompt> "), new RegExp(`^HTTP/1.1 ${status}\r\n`));
    client.send("GET /not/decided HTTP/1.1\r\nHost: x\r\n\r\n").end();
    if (status.startsWith("101")) {
      assert.equal(await server.rest(), "EARLY GET /not/decided HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    server.send("bye").end();
    assert.equal(await client.rest(), "bye");
    if (!status.startsWith("101")) {
      assert.equal(await server.rest(), "", "no byte was taken for a request");
    }
  });
}

const upgrade = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";

testGuard(
  "guard forwards a response that rejects an upgrade unchanged",
  async () => {
    const behind = await Behind.start();
    const guard = await guardOf(behind.path);
    const client = (await End.open(guard.path)).send(upgrade);
    const server = await behind.next();
    await server.message(false);
    server.send(
      "HTTP/1.1 200 caf\xe9\r\nX-Name: \xc3\xa9\xff\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    );
    assert.match(
      await client.until("abc\r\n"),
      /^HTTP\/1\.1 200 caf\xe9\r\nX-Name: \xc3\xa9\xff\r\n/,
    );
    server.send("10\r\n0123456789abcdef\r\n0\r\n\r\n");
    assert.equal(await client.rest(), "10\r\n0123456789abcdef\r\n0\r\n\r\n");
  },
);

testGuard("guard closes the connection after a truncated response to an upgrade", async () => {
  const heads = {
    chunked: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    long: "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc",
  };
  const behind = await Behind.start();
  const guard = await guardOf(behind.path);
  for (const [name, head] of Object.entries(heads)) {
    for (const end of ["garbage", "end"]) {
      const client = (await End.open(guard.path)).send(upgrade);
      const server = await behind.next();
      await server.message(false);
      server.send(head);
      const answer = await client.until("abc");
      assert.match(answer, name === "chunked" ? /Transfer-Encoding: chunked/ : /Length: 100/);
      if (end === "garbage" && name === "chunked") server.send("ZZ\r\n");
      server.end();
      assert.match(await client.rest(), /^(\r\n)?$/, `${name}, ${end}`);
    }
  }
});

testGuard("guard answers 502 for an unreadable response", async () => {
  const answers = [
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: s=1\r\nContent-Encoding: gzip\r\n\r\nok, and more",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nSet-Cookie: s=1\r\n\r\nZZ\r\n",
    "HTTP/1.1 200 OK\r\nSet-Cookie: a\rX: y\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\nSet-Cookie: s=1\r\n\r\nraw",
  ];
  const behind = await Behind.start();
  const guard = await guardOf(behind.path);
  for (const answer of answers) {
    const client = await End.open(guard.path);
    const asked = client.ask("/");
    const server = await behind.next();
    await server.message();
    server.send(answer);
    const { first, header, body } = await asked;
    assert.equal(first, "HTTP/1.1 502 Bad Gateway", answer);
    assert.deepEqual([header("set-cookie"), header("content-encoding")], ["", ""]);
    assert.equal(header("content-length"), `${body.length}`);
    assert.match(body, /cannot be reached/);
    assert.equal(await client.rest(), "");
    server.destroy();
  }
  await guard.logs("cannot be used");
});

testGuard(
  "guard forwards the body of an upgrade request before the response, and no later data",
  async () => {
    const behind = await Behind.start();
    const guard = await guardOf(behind.path);
    const client = await End.open(guard.path);
    const tooEarly = "DELETE /all HTTP/1.1\r\nHost: x\r\n\r\n";
    client.send(
      `GET /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n${tooEarly}`,
    );
    client.send(tooEarly); // it might be read as a request
    const server = await behind.next();
    await server.message(false);
    server.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    const answer = await client.rest();
    assert.match(answer, /^HTTP\/1\.1 403 Forbidden\r\n[^]*\r\n\r\nno$/);
    assert.equal(await server.rest(), "");
    assert.equal(behind.count, 1);
  },
);

testGuard(
  "guard forwards the body of an upgrade that arrives in parts, then the stream",
  async () => {
    const behind = await Behind.start();
    const guard = await guardOf(behind.path);
    const head = "POST /exec HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n";
    const body = "body ".repeat(50_000);
    for (
      const parts of [["", body], [body.slice(0, 7), body.slice(7)], [body, ""], [
        "",
        body.slice(0, 9),
        body.slice(9),
      ]]
    ) {
      const client = await End.open(guard.path);
      client.send(`${head}Content-Length: ${body.length}\r\n\r\n${parts[0]}`);
      for (const part of parts.slice(1)) {
        await sleep(50);
        client.send(part);
      }
      client.send("RAW");
      const server = await behind.next();
      assert.equal((await server.message()).body, body);
      server.send("HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n");
      await client.until("\r\n\r\n");
      client.send(" AND MORE").end();
      assert.equal(await server.rest(), "RAW AND MORE");
      server.send("bye").end();
      assert.equal(await client.rest(), "bye");
    }
    const client = await End.open(guard.path);
    client.send(`${head}Transfer-Encoding: chunked\r\n\r\n4\r\nbo`);
    await sleep(50);
    client.send("dy\r\n0\r\n\r\n");
    assert.equal((await (await behind.next()).message()).body, "body");
  },
);

for (
  const protocol of sample([
    ...["h2c", "H2C", "h2c-14", "HTTP/2.0", "TLS/1.0", "h 2c", '"h2c"', "h2c;q=1", "websocket h2c"],
    "websocket, h2c",
  ])
) {
  testGuard(
    `guard removes an upgrade to ${protocol}, which would bypass the policy`,
    async () => {
      const behind = await Behind.start();
      const guard = await guardOf(behind.path);
      const client = await End.open(guard.path);
      client.send(
        `GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: ${protocol}\r\n` +
          "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n",
      );
      const server = await behind.next();
      const { header } = await server.message(false);
      assert.equal(header("upgrade"), protocol === "websocket, h2c" ? "websocket" : "");
      assert.equal(header("http2-settings"), "");
      server.send(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
      );
      assert.match(await client.rest(), /^HTTP\/1\.1 502 /, "even if the server does it unasked");
    },
  );
}

testGuard(
  "guard answers complete requests before an incomplete one, when the client half-closes",
  async () => {
    const behind = await Behind.start();
    const guard = await guardOf(behind.path);
    const client = await End.open(guard.path);
    client.send(
      "GET /whole HTTP/1.1\r\nHost: x\r\n\r\n" +
        "POST /part HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab",
    ).end();
    const server = await behind.next();
    assert.match((await server.message(false)).first, /^GET \/whole /);
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole");
    assert.match(await client.rest(), /^HTTP\/1\.1 200 OK\r\n[^]*\r\n\r\nwhole$/);
  },
);

testGuard("guard --h2c forwards upgrades to HTTP/2", async () => {
  const behind = await Behind.start();
  const guard = await Guard.start({ upstream: behind.path, mode: "http", args: ["--h2c"] });
  const client = await End.open(guard.path);
  client.send("POST /session HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n");
  const server = await behind.next();
  assert.equal((await server.message(false)).header("upgrade"), "h2c");
  server.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n");
  await client.until("\r\n\r\n");
  client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
  assert.equal(await server.bytes(24), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
});

testGuard(
  "guard answers 502 while the upstream is down, and repeats a GET lost on an idle connection",
  async () => {
    const path = freshPath("up.sock");
    const guard = await guardOf(path);
    const client = await End.open(guard.path);
    const { status, body } = await client.ask("/");
    assert.deepEqual([status, body], [502, "The upstream server cannot be reached\n"]);
    await guard.logs(`the upstream ${path} cannot be used: connect ENOENT`);
    await client.rest();

    let requests = 0;
    await Behind.start(async (end) => { // answers once for each connection, and ends at the next request
      requests++;
      await end.message();
      end.send(answerOf("ok"));
      await end.message();
      requests++;
      end.destroy();
    }, path);
    const other = await End.open(guard.path);
    assert.equal((await other.ask("/")).body, "ok");
    assert.equal((await other.ask("/")).body, "ok", "GET is safe to ask again");
    other.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert.equal((await other.message()).status, 502, "POST is not");
    assert.equal(requests, 4);
  },
);

testGuard("guard repeats a lost request once, and only if it is safe and has no body", async () => {
  let answer = "";
  const behind = await Behind.start(async (end) => {
    await end.message(false);
    end.send(answer).destroy();
  });
  const guard = await guardOf(behind.path);
  const attempts = async (line: string, rest = "\r\n") => {
    const before = behind.count;
    const client = await End.open(guard.path);
    client.send(`${line} / HTTP/1.1\r\nHost: x\r\n${rest}`);
    assert.match(await client.rest(), /^HTTP\/1\.1 502 /, line);
    return behind.count - before;
  };
  for (const method of ["GET", "HEAD", "OPTIONS"]) assert.equal(await attempts(method), 2, method);
  assert.equal(await attempts("GET", "Content-Length: 0\r\n\r\n"), 2);
  for (const method of ["POST", "PUT", "DELETE"]) assert.equal(await attempts(method), 1, method);
  for (
    const rest of [
      ...["Content-Length: 1\r\n\r\nx", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
      "Connection: Upgrade\r\nUpgrade: x\r\n\r\n",
    ]
  ) assert.equal(await attempts("GET", rest), 1, rest);
  answer = "HTTP/1.1";
  assert.equal(await attempts("GET"), 1, "after the start of a response");
});

/** Runs a script of which other packages are a part. */
async function runByNode(script: string, ...args: string[]): Promise<string> {
  const cwd = fileURLToPath(new URL("../packages", import.meta.url)); // npm test installs them
  const line = ["--input-type=module", "-e", script, ...args];
  const { code, stdout, stderr } = await ran("node", line, { cwd });
  assert.equal(code, 0, stderr);
  return stdout;
}

/** Runs a program that is given a few words of input: how it ends. */
async function ran(command: string, args: readonly string[], options: SpawnOptions = {}) {
  const child = spawn(command, args, { ...options, stdio: "pipe", timeout: 60_000 });
  const output = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name]!.setEncoding("utf8").on("data", (text: string) => output[name] += text);
  }
  child.stdin!.on("error", () => {}).end("hello from the client");
  const [code] = await once(child, "close");
  return { code, ...output };
}

testGuard(
  "guard works with the docker client: ps, logs, exec with input and exit code",
  async () => {
    const daemon = await FakeDaemon.start();
    const guard = await GuardHere.start({
      upstream: daemon.path,
      mode: "http",
      policy: `version: 1
rules:
  - { name: ours, when: { uid: 0 }, actions: ["GET /**", "HEAD /**", "POST /**"], allow: true }
`,
    });
    const env = { ...process.env, HOME: "/nonexistent", DOCKER_CONFIG: "/nonexistent" };
    const cli = (...args: string[]) =>
      ran("docker", ["-H", `unix://${guard.path}`, ...args], { env });
    assert.match((await cli("version", "--format", "{{.Server.Version}}")).stdout, /^99\.9\.9$/m);
    assert.match((await cli("ps", "--format", "{{.Names}}")).stdout, /^fake$/m);
    assert.equal((await cli("logs", "fake")).stdout, "line 1\nline 2\n");
    assert.deepEqual(await cli("exec", "-i", "fake", "tac"), {
      code: 0,
      stdout: "tneilc eht morf olleh",
      stderr: "to stderr\n",
    });
    assert.equal((await cli("exec", "fake", "false")).code, 3);
    const { code, stderr } = await cli("rm", "fake");
    assert.equal(code, 1);
    assert.match(stderr, /The policy does not allow it/);
    assert.ok(
      !daemon.requests.some((line) => line.startsWith("DELETE")),
      daemon.requests.join("\n"),
    );
    assert.ok(daemon.uids.every((uid) => uid === "0"));
  },
  tool("docker"),
  needs.oneRuntime,
);

testGuard(
  "guard works with dockerode: hijacked exec with input",
  async () => {
    const daemon = await FakeDaemon.start();
    const guard = await guardOf(daemon.path);
    const script = `
    import Docker from "dockerode";
    const docker = new Docker({ socketPath: process.argv.at(-1) });
    const exec = await docker.getContainer("fake").exec({ Cmd: ["tac"], AttachStdin: true, AttachStdout: true });
    const stream = await exec.start({ hijack: true, stdin: true });
    let text = "";
    docker.modem.demuxStream(stream, { write: (part) => text += part }, { write: () => {} });
    stream.end("hello");
    stream.on("end", () => console.log(text));
  `;
    assert.equal(await runByNode(script, guard.path), "olleh\n");
  },
  tool("node"),
  packagesOf("tests/packages"),
  needs.oneRuntime,
);
