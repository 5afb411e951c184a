/** Clients that make sure of the server: nothing goes out to another one, whatever is asked of them. */

import assert from "node:assert/strict";
import { unlinkSync } from "node:fs";
import { request as requestOf } from "node:http";
import process from "node:process";
import { test } from "node:test";
import type { UcredError } from "../../mod.ts";
import { connect, createClient, type ServerExpectation } from "../../servers/client.ts";
import { createServer as createHttpServer, peerOf } from "../../servers/http.ts";
import type { HttpServer } from "../../servers/node_http.ts";
import { createServer } from "../../servers/net.ts";
import { Child, freshPath } from "../live/harness.ts";
import { compileProgram } from "../support/compile.ts";
import { needs, testWith, until } from "../support/suite.ts";
import { listening, openDescriptors } from "./harness.ts";

const here = [needs.linux, needs.cc];
const asRoot = [...here, needs.root];

const impostorProgram = asRoot.every(({ met }) => met)
  ? compileProgram(new URL("impostor.c", import.meta.url))
  : "";

const own = { uid: process.getuid?.() ?? 0 };

/** A server of another user's. */
async function impostor(path: string, uid = 1000): Promise<Child> {
  const child = new Child(impostorProgram, [`${uid}`, path]);
  assert.deepEqual(await child.json(), { listening: true });
  return child;
}

/** What came to it over the next connection. */
const received = async (child: Child) => (await child.json<{ bytes: number }>()).bytes;

const refused = { code: "ERR_UCRED_REFUSED" };

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

testWith([needs.linux], "connect() gives a socket to the server that is expected", async () => {
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
  "connect() rejects, when the server is another or is not there",
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

testWith(asRoot, "connect() sends nothing to a server of another user's", async () => {
  const path = freshPath();
  const child = await impostor(path);
  await assert.rejects(connect({ path, expect: { uid: 0 } }), refused);
  assert.equal(await received(child), 0);
  const socket = await connect({ path, expect: { uid: 1000 } });
  socket.end("a secret");
  assert.equal(await received(child), 8);
  await child.end();
});

testWith(asRoot, "fetch() sends nothing to a server of another user's, body or not", async () => {
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
  // Nor what is built on the agent.
  const error = await new Promise((resolve) => {
    requestOf({ agent: client.agent, path: "/secret", method: "POST" })
      .on("error", resolve).on("response", () => resolve("answered")).end("a secret");
  });
  assert.equal((error as UcredError).code, "ERR_UCRED_REFUSED");
  assert.equal(await received(child), 0);
  client.close();
  await child.end();
});

testWith(
  asRoot,
  "fetch() notices that the server is another user's, when it was started anew meanwhile",
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
    // Bun 1.4.5 may not have heard yet that the connection it kept has ended.
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

testWith([needs.linux], "fetch() speaks HTTP as the global one does", async () => {
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

testWith([needs.linux], "fetch() keeps its connection for the next request", async () => {
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

testWith([needs.linux], "fetch() ends the request, when it is aborted", async () => {
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

testWith([needs.linux], "fetch() rejects, when the server ends the connection", async () => {
  await served((request) => void request.socket.destroy(), async (path) => {
    const client = createClient({ path, expect: own });
    await assert.rejects(client.fetch("http://localhost/"));
    client.close();
  });
});

test("fetch() rejects, when nobody listens", async () => {
  const client = createClient({ path: "/nowhere/s", expect: own });
  await assert.rejects(client.fetch("http://localhost/"), { code: "ENOENT" });
  client.close();
});
