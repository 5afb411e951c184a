/** Clients that verify the server, and send nothing to another one. */

import assert from "node:assert/strict";
import { unlinkSync } from "node:fs";
import { request as requestOf } from "node:http";
import { createServer as createPlainServer, type Socket } from "node:net";
import { dirname } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { connect } from "../../client/connect.ts";
import { createClient, type ServerExpectation, type VerifyingClient } from "../../client/mod.ts";
import type { UcredError } from "../../mod.ts";
import { createServer as createHttpServer, peerOf } from "../../servers/http.ts";
import type { HttpServer } from "../../servers/http/node.ts";
import { createServer } from "../../servers/net.ts";
import { Child, freshPath } from "../support/peers.ts";
import { compileProgram } from "../support/compile.ts";
import { needs, runtime, testWith, until } from "../support/suite.ts";
import { listening, openDescriptors } from "../support/servers.ts";

const here = [needs.linux, needs.cc];
const asRoot = [...here, needs.root];

const impostorProgram = asRoot.every(({ met }) => met)
  ? compileProgram(new URL("impostor.c", import.meta.url))
  : "";

const own = { uid: process.getuid?.() ?? 0 };

/** A server that runs as another user. */
async function impostor(path: string, uid = 1000): Promise<Child> {
  const child = new Child(impostorProgram, [`${uid}`, path]);
  assert.deepEqual(await child.json(), { listening: true });
  return child;
}

/** Returns the number of bytes that the impostor received on its next connection. */
const received = async (child: Child) => (await child.json<{ bytes: number }>()).bytes;

const refused = { code: "ERR_UCRED_REFUSED" };

/** A connection of {@link recorded}, and every byte that it received. */
interface Recorded {
  readonly socket: Socket;
  text: string;
  closed: boolean;
}

/** Runs a function while a server records what it receives, without sending anything. */
async function recorded(
  run: (path: string, connections: readonly Recorded[]) => Promise<void>,
): Promise<void> {
  const path = freshPath();
  const connections: Recorded[] = [];
  const server = createPlainServer((socket) => {
    const connection: Recorded = { socket, text: "", closed: false };
    connections.push(connection);
    socket.on("data", (bytes) => connection.text += bytes.toString("latin1"))
      .on("error", () => {}).on("close", () => connection.closed = true);
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  try {
    await run(path, connections);
  } finally {
    connections.forEach(({ socket }) => socket.destroy());
    server.close();
  }
}

const OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/** Sends a request to a recording server, which answers once it has these last bytes. */
async function bytesOf(
  request: (fetch: VerifyingClient["fetch"]) => Promise<Response>,
  end: string,
): Promise<string> {
  let text = "";
  await recorded(async (path, connections) => {
    const client = createClient({ path, expect: own });
    const answer = request(client.fetch);
    await until(() => connections[0]?.text.endsWith(end));
    const hasBody = !connections[0]!.text.startsWith("HEAD");
    connections[0]!.socket.write(hasBody ? OK : OK.slice(0, -2));
    const response = await answer;
    assert.deepEqual([response.status, await response.text()], [200, hasBody ? "ok" : ""]);
    text = connections[0]!.text;
    client.close();
  });
  return text;
}

/** Returns the request line and the headers, sorted and with names in lower case. */
function headOf(text: string): readonly string[] {
  const [line, ...headers] = text.slice(0, text.indexOf("\r\n\r\n")).split("\r\n");
  const lower = (header: string) => header.replace(/^[^:]*/, (name) => name.toLowerCase());
  return [line!, ...headers.map(lower).sort()];
}

/** Returns a body that arrives in parts. */
function streamOf(...parts: readonly string[]): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  return new ReadableStream({
    start(controller) {
      parts.forEach((part) => controller.enqueue(encoder.encode(part)));
      controller.close();
    },
  });
}

const streaming = (...parts: readonly string[]) =>
  ({ body: streamOf(...parts), duplex: "half" }) as RequestInit;

/** Headers with which a client could turn one forwarded request into two. */
const FRAMING: readonly Readonly<Record<string, string>>[] = [
  { "content-length": "26" },
  { "content-length": "0", "transfer-encoding": "chunked" },
  { "transfer-encoding": "chunked" },
  { "transfer-encoding": "gzip, chunked" },
  { connection: "close, x-kept", "keep-alive": "timeout=9", "proxy-connection": "keep-alive" },
  { upgrade: "h2c", connection: "upgrade, http2-settings", "http2-settings": "AAMAAABkAAQAAP__" },
  { te: "trailers", trailer: "x-checksum", expect: "100-continue" },
  { host: "elsewhere" },
];

type Listener = Parameters<typeof createHttpServer>[1];

/** Runs something while an HTTP server of ours listens. */
async function served<T>(
  listener: NonNullable<Listener>,
  run: (path: string, server: HttpServer) => Promise<T>,
  path = freshPath(),
): Promise<T> {
  const server = createHttpServer({}, listener);
  server.listen(path);
  await new Promise((resolve) => server.once("listening", resolve));
  try {
    return await run(path, server);
  } finally {
    await server.close({ timeout: 0 });
  }
}

testWith([needs.linux], "connect() returns a socket to the expected server", async () => {
  const path = freshPath();
  const server = createServer({}, (socket) => {
    socket.on("data", (data) => socket.end(`got ${data}`));
  });
  await listening(server, path);
  const expectations: ServerExpectation[] = [
    own,
    { uid: [12345, own.uid] },
    { gid: process.getgid!() },
    { uid: own.uid, gid: process.getgid!() },
  ];
  for (const expect of expectations) {
    const socket = await connect({ path, expect });
    let text = "";
    socket.setEncoding("utf8").on("data", (part) => text += part).write("it");
    await new Promise((resolve) => socket.once("close", resolve));
    assert.equal(text, "got it");
  }
  await server.close({ timeout: 0 });
});

testWith(
  [needs.linux],
  "connect() rejects when the server is another one or does not exist",
  async () => {
    const path = freshPath();
    await assert.rejects(connect({ path, expect: own }), { code: "ENOENT" });
    let bytes = 0;
    const server = createServer(
      {},
      (socket) => void socket.on("data", (data) => bytes += data.length),
    );
    await listening(server, path);
    const before = openDescriptors();
    for (
      const expect of [{ uid: own.uid + 1 }, { uid: own.uid, gid: 54321 }, { user: "no-such" }]
    ) {
      await assert.rejects(connect({ path, expect }), (error: UcredError) => {
        assert.equal(error.code, "ERR_UCRED_REFUSED");
        assert.match(error.message, /^Cannot trust the server: /);
        return true;
      });
    }
    for (const expect of [{}, { uid: [] }, { uid: "0" }, { pid: 1 }, { uid: undefined }]) {
      await assert.rejects(connect({ path, expect: expect as ServerExpectation }), TypeError);
    }
    await until(() => server.stats().open === 0 && server.stats().accepted === 8);
    await until(() => openDescriptors() <= before);
    assert.equal(bytes, 0);
    await server.close({ timeout: 0 });
  },
);

testWith(asRoot, "connect() sends nothing to a server of another user", async () => {
  const path = freshPath();
  const child = await impostor(path);
  await assert.rejects(connect({ path, expect: { uid: 0 } }), refused);
  assert.equal(await received(child), 0);
  const socket = await connect({ path, expect: { uid: 1000 } });
  socket.end("a secret");
  assert.equal(await received(child), 8);
  await child.end();
});

testWith(
  asRoot,
  "fetch() sends nothing to a server of another user, with or without a body",
  async () => {
    const path = freshPath();
    const child = await impostor(path);
    const client = createClient({ path, expect: { uid: 0 } });
    const secret = { headers: { authorization: "a secret" } };
    for (
      const init of [
        secret,
        { ...secret, method: "POST", body: "a secret" },
        { ...secret, method: "POST", body: new Uint8Array(1 << 20) },
      ]
    ) {
      await assert.rejects(client.fetch("http://localhost/secret", init), refused);
      assert.equal(await received(child), 0);
    }
    // The agent sends nothing, either.
    const error = await new Promise((resolve) => {
      requestOf({ agent: client.agent, path: "/secret", method: "POST" })
        .on("error", resolve).on("response", () => resolve("answered")).end("a secret");
    });
    assert.equal((error as UcredError).code, "ERR_UCRED_REFUSED");
    assert.equal(await received(child), 0);
    client.close();
    await child.end();
  },
);

testWith(
  asRoot,
  "fetch() rejects when another user has started a server at the path in the meantime",
  async () => {
    const path = freshPath();
    const client = createClient({ path, expect: { uid: 0 } });
    const get = async () => await (await client.fetch("http://localhost/")).text();
    await served(
      (_, response) => response.end("one"),
      async () => assert.equal(await get(), "one"),
      path,
    );
    const child = await impostor(path);
    // Bun 1.4.5 may not have noticed yet that its idle connection has ended.
    const isStale = (error: NodeJS.ErrnoException) => /^(EPIPE|ECONNRESET)$/.test(error.code ?? "");
    const first = await get().catch((error) => error);
    assert.equal(
      ((isStale(first) ? await get().catch((error) => error) : first) as UcredError).code,
      refused.code,
    );
    assert.equal(await received(child), 0);
    await child.end();
    unlinkSync(path);
    await served(
      (_, response) => response.end("two"),
      async () => assert.equal(await get(), "two"),
      path,
    );
    client.close();
  },
);

testWith([needs.linux], "fetch() sends and receives like the global fetch()", async () => {
  await served(async (request, response) => {
    const { method, url, headers } = request;
    if (url === "/none") return void response.writeHead(204).end();
    if (url === "/away") {
      return void response.writeHead(302, { location: "http://elsewhere/" }).end();
    }
    let body = "";
    for await (const part of request) body += part;
    response.setHeader("set-cookie", ["a=1", "b=2"]);
    response.statusCode = url === "/teapot" ? 418 : 200;
    response.end(JSON.stringify({
      ...{ method, url, body, host: headers.host, extra: headers["x-extra"] },
      uid: peerOf(request).uid,
    }));
  }, async (path) => {
    const client = createClient({ path, expect: own });
    const got = await client.fetch("http://localhost/a%20b?c=d", { headers: { "x-extra": "1" } });
    assert.equal(got.status, 200);
    assert.deepEqual(got.headers.getSetCookie(), ["a=1", "b=2"]);
    assert.deepEqual(await got.json(), {
      ...{ method: "GET", url: "/a%20b?c=d", body: "", host: "localhost", extra: "1" },
      uid: own.uid,
    });
    const posted = await client.fetch(
      new Request("http://example.com:8080/x", { method: "POST", body: "hello" }),
    );
    const { body, host } = await posted.json() as { body: string; host: string };
    assert.deepEqual([body, host], ["hello", "example.com:8080"]);
    const big = "x".repeat(1 << 20);
    const put = await client.fetch("http://localhost/", { method: "PUT", body: big });
    assert.equal((await put.json() as { body: string }).body.length, big.length);
    const none = await client.fetch("http://localhost/none");
    assert.deepEqual([none.status, none.body, await none.text()], [204, null, ""]);
    assert.equal((await client.fetch("http://localhost/teapot")).status, 418);
    const away = await client.fetch("http://localhost/away");
    assert.deepEqual([away.status, away.headers.get("location")], [302, "http://elsewhere/"]);
    const head = await client.fetch("http://localhost/", { method: "HEAD" });
    assert.deepEqual([head.status, await head.text()], [200, ""]);
    client.close();
  });
});

testWith([needs.linux], "fetch() reuses its connection for the next request", async () => {
  await served((_, response) => response.end("hello"), async (path, server) => {
    const client = createClient({ path, expect: own });
    for (let times = 0; times < 5; times++) {
      assert.equal(await (await client.fetch("http://localhost/")).text(), "hello");
    }
    assert.equal(server.stats().accepted, 1);
    client.close();
    await until(() => server.stats().open === 0);
  });
});

testWith([needs.linux], "fetch() closes the request when it is aborted", async () => {
  let hasCome: () => void;
  const come = new Promise<void>((resolve) => hasCome = resolve);
  await served(() => hasCome(), async (path, server) => {
    const client = createClient({ path, expect: own });
    const aborter = new AbortController();
    const answer = client.fetch("http://localhost/", { signal: aborter.signal });
    await come;
    aborter.abort();
    await assert.rejects(answer, { name: "AbortError" });
    await until(() => server.stats().open === 0);
    await assert.rejects(
      client.fetch("http://localhost/", { signal: AbortSignal.abort() }),
      { name: "AbortError" },
    );
    client.close();
  });
});

testWith([needs.linux], "fetch() rejects when the server closes the connection", async () => {
  await served((request) => void request.socket.destroy(), async (path) => {
    const client = createClient({ path, expect: own });
    await assert.rejects(client.fetch("http://localhost/"));
    client.close();
  });
});

test("fetch() rejects when no server listens", async () => {
  const client = createClient({ path: "/nowhere/s", expect: own });
  await assert.rejects(client.fetch("http://localhost/"), { code: "ENOENT" });
  client.close();
});

testWith(
  [needs.linux],
  "fetch() frames each request itself and ignores framing headers",
  async () => {
    const smuggled = "GET /admin HTTP/1.1\r\n\r\n";
    for (const headers of FRAMING) {
      const all = { ...headers, "x-kept": "1" };
      for (const method of ["GET", "HEAD", "OPTIONS", "DELETE", "PATCH", "POST", "PUT"]) {
        const text = await bytesOf(
          (fetch) => fetch("http://localhost/a", { method, headers: all }),
          "\r\n\r\n",
        );
        const end = text.indexOf("\r\n\r\n") + 4;
        assert.equal(text.slice(end), "", text);
        const [line, ...fields] = headOf(text);
        assert.equal(line, `${method} /a HTTP/1.1`);
        const isEmptied = fields.includes("content-length: 0");
        assert.ok(!isEmptied || /^P/.test(method), text);
        if (method === "POST" || method === "PUT") assert.ok(isEmptied, text);
        assert.deepEqual(
          fields.filter((field) =>
            !/^(?:content-length: 0|accept|user-agent|sec-fetch)/.test(field)
          ),
          [
            `connection: ${method === "HEAD" ? "close" : "keep-alive"}`,
            "host: localhost",
            "x-kept: 1",
          ],
          text,
        );
      }
      for (const method of ["OPTIONS", "DELETE", "PATCH", "POST", "PUT"]) {
        const whole = await bytesOf(
          (fetch) => fetch("http://localhost/", { method, headers: all, body: smuggled }),
          smuggled,
        );
        assert.ok(headOf(whole).includes(`content-length: ${smuggled.length}`), whole);
        assert.doesNotMatch(whole, /transfer-encoding|^expect|^te:/im);
        const inParts = await bytesOf(
          (fetch) =>
            fetch("http://localhost/", { method, headers: all, ...streaming(smuggled, smuggled) }),
          "\r\n0\r\n\r\n",
        );
        assert.equal(
          headOf(inParts).filter((field) => /^transfer-/.test(field)).length,
          1,
          inParts,
        );
        assert.ok(headOf(inParts).includes("transfer-encoding: chunked"), inParts);
        assert.doesNotMatch(inParts, /content-length|^expect|^te:/im);
        assert.match(inParts, /\r\n\r\n(?:17|2e)\r\nGET /);
      }
    }
  },
);

testWith([needs.linux], "fetch() sends each kind of body completely, once", async () => {
  const bodies: readonly [unknown, string][] = [
    ["h\u00e9\ud800", "h\u00c3\u00a9\u00ef\u00bf\u00bd"],
    [new TextEncoder().encode("bytes").subarray(1), "ytes"],
    [new TextEncoder().encode("bytes").buffer, "bytes"],
    [new URLSearchParams({ a: "b c" }), "a=b+c"],
    ["", ""],
  ];
  for (const [body, sent] of bodies) {
    const text = await bytesOf(
      (fetch) => fetch("http://localhost/", { method: "POST", body: body as string }),
      `\r\n\r\n${sent}`,
    );
    assert.ok(headOf(text).includes(`content-length: ${sent.length}`), text);
  }
  for (const body of [new Blob(["blob"]), streamOf("bl", "ob")]) {
    const text = await bytesOf(
      (fetch) =>
        fetch(new Request("http://localhost/", { method: "POST", body, duplex: "half" } as never)),
      "\r\n0\r\n\r\n",
    );
    assert.match(text, /\r\n\r\n(?:4\r\nblob|2\r\nbl\r\n2\r\nob)\r\n0\r\n\r\n$/);
  }
});

testWith([needs.linux], "fetch() rejects schemes and methods that it cannot send", async () => {
  await recorded(async (path, connections) => {
    const client = createClient({ path, expect: own });
    const urls = [
      "file:///etc/passwd",
      "data:,x",
      "ftp://localhost/",
      "ws://localhost/",
      "x:y",
      "/x",
    ];
    for (const url of urls) await assert.rejects(client.fetch(url), TypeError, url);
    for (const method of ["CONNECT", "TRACE", "TRACK", "GE T", "GET\r\n", ""]) {
      const answer = client.fetch("http://localhost/", { method });
      await assert.rejects(answer, TypeError, method);
    }
    for (const method of ["GET", "HEAD"]) {
      for (const init of [{ body: "x" }, streaming("x")]) {
        const answer = client.fetch("http://localhost/", { method, ...init });
        await assert.rejects(answer, TypeError, method);
      }
    }
    assert.equal(connections.length, 0);
    client.close();
  });
});

testWith(
  [needs.linux],
  "fetch() rejects an unusable response, and the next request works",
  async () => {
    await recorded(async (path, connections) => {
      const client = createClient({ path, expect: own });
      const last = () => connections.at(-1)!;
      const answers = [
        ...["000", "099", "101", "600", "999", "1000"].map((status) =>
          `HTTP/1.1 ${status} X\r\nContent-Length: 0\r\n\r\n`
        ),
        "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nbytes",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nna me: x\r\nContent-Length: 0\r\n\r\n",
        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
      ];
      for (const answer of answers) {
        const count = connections.length;
        const response = client.fetch("http://localhost/");
        await until(() => connections.length > count && last().text.endsWith("\r\n\r\n"));
        last().socket.write(answer);
        await assert.rejects(response.then((good) => good.text()), answer);
        await until(() => last().closed);
      }
      const good = client.fetch("http://localhost/");
      await until(() => last().text.endsWith("\r\n\r\n") && !last().closed);
      last().socket.write(`HTTP/1.1 102 X\r\n\r\nHTTP/1.1 199 X\r\n\r\n${OK}`);
      assert.equal(await (await good).text(), "ok");
      client.close();
    });
  },
);

testWith(
  [needs.linux],
  "fetch() sends a POST once when the server closes the idle connection instead of answering",
  async () => {
    await recorded(async (path, connections) => {
      const client = createClient({ path, expect: own });
      const first = client.fetch("http://localhost/");
      await until(() => connections[0]?.text.endsWith("\r\n\r\n"));
      connections[0]!.socket.write(OK);
      assert.equal(await (await first).text(), "ok");
      const post = client.fetch("http://localhost/", { method: "POST", body: "pay" });
      const rejected = assert.rejects(post);
      // A repeated request on another connection is closed, too: the test compares the number of requests.
      let ended = false;
      rejected.finally(() => ended = true).catch(() => {});
      await until(() => {
        for (const { socket, text } of connections) if (text.endsWith("pay")) socket.destroy();
        return ended;
      });
      await rejected;
      const posts = connections.map(({ text }) => text.split("POST / ").length - 1);
      assert.deepEqual(posts, [1]);
      client.close();
    });
  },
);

testWith(
  [needs.linux],
  "agent reports that a connection is reused, except on Deno",
  async () => {
    await served((_, response) => response.end("hello"), async (path) => {
      const { agent, close } = createClient({ path, expect: own });
      const isReused = () =>
        new Promise<boolean>((resolve, reject) => {
          const request = requestOf(
            { agent },
            (response) =>
              response.resume().on("end", () => setImmediate(resolve, request.reusedSocket)),
          );
          request.on("error", reject).end();
        });
      assert.equal(await isReused(), false);
      assert.equal(await isReused(), runtime !== "deno");
      close();
    });
  },
);

testWith([needs.linux], "fetch() removes the hop-by-hop headers of a response", async () => {
  await recorded(async (path, connections) => {
    const client = createClient({ path, expect: own });
    const answer = client.fetch("http://localhost/");
    await until(() => connections[0]?.text.endsWith("\r\n\r\n"));
    connections[0]!.socket.write(
      "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n" +
        "Transfer-Encoding: chunked\r\nTrailer: x-sum\r\nX-Kept: 1\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    );
    const response = await answer;
    assert.deepEqual([...response.headers], [["x-kept", "1"]]);
    assert.equal(await response.text(), "ok");
    client.close();
  });
});

testWith(
  [needs.linux],
  "fetch() rejects with the reason of its signal, before and after the response",
  async () => {
    await recorded(async (path, connections) => {
      const client = createClient({ path, expect: own });
      const timedOut = client.fetch("http://localhost/", { signal: AbortSignal.timeout(20) });
      await assert.rejects(timedOut, { name: "TimeoutError" });
      await until(() => connections.length === 1 && connections[0]!.closed);
      const aborter = new AbortController();
      const answer = client.fetch("http://localhost/", { signal: aborter.signal });
      await until(() => connections[1]?.text.endsWith("\r\n\r\n"));
      connections[1]!.socket.write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart");
      const response = await answer;
      aborter.abort(new Error("enough"));
      await assert.rejects(response.text(), /enough/);
      await until(() => connections[1]!.closed);
      client.close();
    });
  },
);

testWith(
  [needs.linux],
  "fetch() closes only its own connection when the request body fails",
  async () => {
    await recorded(async (path, connections) => {
      const client = createClient({ path, expect: own });
      const failing = (parts: number) => {
        let given = 0;
        const body = new ReadableStream({
          pull(controller) {
            if (given++ < parts) controller.enqueue(new TextEncoder().encode("part"));
            else controller.error(new Error("no more"));
          },
        });
        return client.fetch("http://localhost/", { method: "POST", body, duplex: "half" } as never);
      };
      for (const parts of [0, 1, 5]) await assert.rejects(failing(parts), /no more/);
      const many = await Promise.allSettled(Array.from({ length: 100 }, () => failing(1)));
      assert.ok(many.every(({ status }) => status === "rejected"));
      await until(() => connections.every(({ closed }) => closed));
      client.close();
    });
  },
);

testWith([needs.linux], "fetch() does not reuse a connection that still sends a body", async () => {
  await recorded(async (path, connections) => {
    const client = createClient({ path, expect: own });
    const { readable, writable } = new TransformStream();
    const writer = writable.getWriter();
    const encoder = new TextEncoder();
    writer.write(encoder.encode("one"));
    const early = client.fetch(
      "http://localhost/",
      { method: "POST", body: readable, duplex: "half" } as never,
    );
    await until(() => connections[0]?.text.endsWith("one\r\n"));
    connections[0]!.socket.write(OK);
    assert.equal(await (await early).text(), "ok");
    const next = client.fetch("http://localhost/next");
    await until(() => connections[1]?.text.endsWith("\r\n\r\n"));
    connections[1]!.socket.write(OK);
    assert.equal(await (await next).text(), "ok");
    writer.write(encoder.encode("two"));
    await until(() => connections[0]!.text.endsWith("two\r\n"));
    writer.abort(new Error("no more"));
    await until(() => connections[0]!.closed);
    assert.doesNotMatch(connections[0]!.text, /next|\r\n0\r\n/);
    client.close();
  });
});

testWith([needs.linux], "fetch() closes an idle connection after a timeout", async () => {
  await recorded(async (path, connections) => {
    const client = createClient({ path, expect: own });
    const answer = client.fetch("http://localhost/");
    await until(() => connections[0]?.text.endsWith("\r\n\r\n"));
    connections[0]!.socket.write(OK);
    assert.equal(await (await answer).text(), "ok");
    await until(() => connections[0]!.closed);
    client.close();
  });
});

testWith([needs.linux], "fetch() ignores a response that was sent before its request", async () => {
  await recorded(async (path, connections) => {
    const client = createClient({ path, expect: own });
    const last = () => connections.at(-1)!;
    const forged = OK.replace(/ok$/, "no");
    const get = async (method: string, answer: string) => {
      const count = connections.length;
      const response = client.fetch("http://localhost/", { method });
      await until(() => connections.length > count && last().text.endsWith("\r\n\r\n"));
      last().socket.write(answer);
      return await (await response).text();
    };
    // A body after the response to HEAD, at once and later; and a second response to one request.
    await assert.rejects(get("HEAD", OK));
    await until(() => last().closed);
    assert.equal(await get("HEAD", OK.slice(0, -2)), "");
    last().socket.write(forged);
    await until(() => last().closed);
    assert.equal(await get("GET", OK), "ok");
    last().socket.write(forged);
    await until(() => last().closed);
    assert.equal(await get("GET", OK), "ok");
    client.close();
  });
});

testWith(
  [needs.linux],
  "connect() uses digits as a path, and rejects an empty path or a NUL",
  async () => {
    const tcp = createPlainServer((socket) => socket.end("tcp"));
    await new Promise<void>((resolve) => tcp.listen(0, "127.0.0.1", resolve));
    const { port } = tcp.address() as { port: number };
    const path = freshPath();
    const folder = process.cwd();
    process.chdir(dirname(path));
    try {
      for (const name of [`${port}`, ` ${port}`, "0x50", "1e3"]) {
        await assert.rejects(connect({ path: name, expect: own }), { code: "ENOENT" });
        const client = createClient({ path: name, expect: own });
        await assert.rejects(client.fetch("http://localhost/"), { code: "ENOENT" });
      }
      const server = createServer({}, (socket) => socket.end("unix"));
      await listening(server, `${port}`);
      const socket = await connect({ path: `${port}`, expect: own });
      let text = "";
      socket.on("data", (bytes) => text += bytes);
      await new Promise((resolve) => socket.once("close", resolve));
      assert.equal(text, "unix");
      for (const wrong of ["", "\0", `${path}\0`, `${port}\0x`, undefined, 80, {}, null]) {
        const connecting = connect({ path: wrong as string, expect: own });
        await assert.rejects(connecting, TypeError, `${wrong}`);
      }
      await server.close({ timeout: 0 });
    } finally {
      process.chdir(folder);
      tcp.close();
    }
  },
);
