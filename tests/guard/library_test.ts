/** `ucred/guard` as a library: a guard inside a program that prints nothing by itself. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer as createHttpServer } from "node:http";
import { connect, createServer, type Server, type Socket } from "node:net";
import process from "node:process";
import { createClient } from "../../client/mod.ts";
import { createGuard } from "../../guard/mod.ts";
import { definePolicy } from "../../mod.ts";
import { guardHere } from "../support/guard_here.ts";
import { freshPath } from "../support/peers.ts";
import { endAfterEach, needs, testWith } from "../support/suite.ts";

const here = [needs.linux];

/** Our own uid: client, guard and upstream are this process. */
const own = { uid: process.getuid?.() ?? 0 };

const servers = new Set<Server>();
endAfterEach(() => {
  for (const server of servers) server.close();
  servers.clear();
});

/** An upstream that sends back what it receives, and half-closes after the client. */
async function echo(path = freshPath("up.sock")): Promise<string> {
  return await listening(
    createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket)),
    path,
  );
}

/** An upstream whose responses have the request line and the identity headers. */
async function describingHttp(path = freshPath("up.sock")): Promise<string> {
  const server = createHttpServer(({ method, url, headers }, response) => {
    response.end(JSON.stringify({ line: `${method} ${url}`, uid: headers["x-ucred-uid"] }));
  });
  return await listening(server, path);
}

async function listening(server: Server, path: string): Promise<string> {
  servers.add(server);
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return path;
}

/** Sends text over a new connection, half-closes it, and returns the response. */
async function exchange(path: string, text: string): Promise<string> {
  const socket = connect({ path, allowHalfOpen: true });
  return await answerTo(socket, () => socket.end(text));
}

async function answerTo(socket: Socket, send: () => unknown): Promise<string> {
  let answer = "";
  socket.setEncoding("utf8").on("data", (part) => answer += part).on("error", () => {});
  const closed = new Promise((resolve) => socket.once("close", resolve));
  socket.once("end", () => socket.end());
  send();
  await closed;
  return answer;
}

const WRONG: readonly (readonly [what: string, options: object, message: RegExp])[] = [
  [
    "a misspelled option",
    { mode: "stream", upstream: "x", polciy: undefined, repotr() {} },
    /^createGuard\(\) has no option "repotr"; did you mean "report"\?$/,
  ],
  [
    "an option of the command",
    { mode: "stream", upstream: "x", "max-connections": 3 },
    /has no option "max-connections"/,
  ],
  [
    "a misspelled limit",
    { mode: "stream", upstream: "x", limits: { connection: 1 } },
    /did you mean "connections"/,
  ],
  [
    "no mode",
    { upstream: "x" },
    /^mode must be one of "stream", "http", "docker", "dbus", "mcp", not undefined$/,
  ],
  [
    "an unknown mode",
    { mode: "tcp", upstream: "x" },
    /^mode must be one of "stream", "http", "docker", "dbus", "mcp", not "tcp"$/,
  ],
  ["no upstream", { mode: "http" }, /^upstream must be the path of a socket/],
  ["an empty upstream", { mode: "http", upstream: "" }, /^upstream must be the path of a socket/],
  [
    "h2c in stream mode",
    { mode: "stream", upstream: "x", h2c: true },
    /^h2c has no effect in mode "stream"$/,
  ],
  [
    "keepHeaders in stream mode",
    { mode: "stream", upstream: "x", keepHeaders: [] },
    /^keepHeaders has no effect/,
  ],
  [
    "bodyTimeout in stream mode",
    { mode: "stream", upstream: "x", bodyTimeout: 1000 },
    /^bodyTimeout has no effect/,
  ],
  [
    "a string as asPeer",
    { mode: "stream", upstream: "x", asPeer: "no" },
    /^asPeer must be a boolean/,
  ],
  [
    "asPeer in docker mode",
    { mode: "docker", upstream: "x", asPeer: true },
    /^asPeer has no effect in mode "docker"$/,
  ],
];

for (const [what, options, message] of WRONG) {
  testWith(here, `createGuard() throws a TypeError for ${what}`, () => {
    assert.throws(() => createGuard(options as never), { name: "TypeError", message });
  });
}

testWith(here, "createGuard() throws a RangeError for a bodyTimeout that is no time", () => {
  for (const bodyTimeout of [-1, NaN, "1", null]) {
    const options = { mode: "http", upstream: "x", bodyTimeout } as never;
    assert.throws(() => createGuard(options), { name: "RangeError", message: /^bodyTimeout must/ });
  }
});

testWith(here, "createGuard() throws a TypeError without options", () => {
  assert.throws(() => createGuard(undefined as never), {
    name: "TypeError",
    message: /^createGuard\(\) takes an object of options/,
  });
});

testWith(
  here,
  "createGuard() in stream mode forwards bytes both ways, and half-closes",
  async () => {
    const lines: string[] = [];
    const options = { mode: "stream", report: (line: string) => lines.push(line) } as const;
    const { path } = await guardHere({ ...options, upstream: await echo(), expect: own });
    assert.equal(await exchange(path, "hello"), "hello");
    assert.deepEqual(lines, []);
  },
);

testWith(
  here,
  "createGuard() in stream mode closes connections that the policy denies",
  async () => {
    const rules = [{ name: "none", allow: true as const, when: { uid: own.uid + 1 } }];
    const policy = definePolicy({ version: 1, rules });
    const { path, guard } = await guardHere({ mode: "stream", upstream: await echo(), policy });
    assert.equal(await exchange(path, "hello"), "");
    assert.equal(guard.stats().refused.policy, 1);
  },
);

testWith(
  here,
  "createGuard() in http mode decides requests and sets identity headers",
  async () => {
    const rules = [{ name: "read", actions: "GET /**", allow: true as const, when: own }];
    const policy = definePolicy({ version: 1, rules });
    const { path } = await guardHere({ mode: "http", upstream: await describingHttp(), policy });
    const client = createClient({ path, expect: own });
    const headers = { "x-ucred-uid": "4711" };
    const allowed = await client.fetch("http://localhost/a?b", { headers });
    assert.deepEqual([allowed.status, await allowed.json()], [
      200,
      { line: "GET /a?b", uid: `${own.uid}` },
    ]);
    const denied = await client.fetch("http://localhost/a", { method: "DELETE" });
    assert.equal(denied.status, 403);
    await denied.text();
    client.close();
  },
);

testWith(here, "report() gets one escaped line when the upstream cannot be reached", async () => {
  const lines: string[] = [];
  const upstream = freshPath("no\u001b[31m.sock");
  const { path } = await guardHere({
    mode: "stream",
    upstream,
    report: (line) => lines.push(line),
  });
  const start = performance.now();
  assert.equal(await exchange(path, "hello"), "");
  assert.equal(await exchange(path, "hello"), "");
  const seconds = (performance.now() - start) / 1000;
  assert.ok(lines.length === 1 || lines.length <= 1 + seconds, "one line in a second at most");
  const shown = upstream.replace("\u001b", "\\u001b");
  assert.ok(lines[0]!.startsWith(`the upstream ${shown} cannot be used: `), `${lines[0]}`);
  assert.match(lines[0]!, /ENOENT/);
});

testWith(here, "report() names an abstract upstream as @name", async () => {
  const lines: string[] = [];
  const upstream = `\0ucred-none-${process.pid}`;
  const report = (line: string) => lines.push(line);
  const { path } = await guardHere({ mode: "http", upstream, report });
  const client = createClient({ path, expect: own });
  const response = await client.fetch("http://localhost/");
  assert.deepEqual([response.status, await response.text()], [
    502,
    "The upstream server cannot be reached\n",
  ]);
  client.close();
  assert.equal(lines.length, 1);
  assert.ok(lines[0]!.startsWith(`the upstream @ucred-none-${process.pid} cannot be used: `));
});

testWith(here, "report() gets a line when the upstream is not the expected one", async () => {
  const lines: string[] = [];
  const expect = { uid: own.uid + 1 };
  const upstream = await echo();
  const report = (line: string) => lines.push(line);
  const { path } = await guardHere({ mode: "stream", upstream, expect, report });
  assert.equal(await exchange(path, "secret"), "");
  assert.equal(lines.length, 1);
  assert.match(lines[0]!, /Cannot trust the server: uid \d+ where \d+ was expected/);
});

testWith(here, "without report() a guard is silent", async () => {
  const written: unknown[] = [];
  const { path } = await guardHere({ mode: "stream", upstream: freshPath("none.sock") });
  const streams = [process.stdout, process.stderr];
  const restore = streams.map((stream) => {
    const { write } = stream;
    stream.write = (...args: unknown[]) => {
      written.push(args[0]);
      return (write as (...args: unknown[]) => boolean).apply(stream, args);
    };
    return () => stream.write = write;
  });
  try {
    assert.equal(await exchange(path, "hello"), "");
  } finally {
    restore.forEach((run) => run());
  }
  assert.deepEqual(written.filter((chunk) => String(chunk).includes("cannot be used")), []);
});

for (const mode of ["stream", "http"] as const) {
  testWith(
    here,
    `close() of a guard in ${mode} mode ends connections after its timeout`,
    async () => {
      const upstream = await listening(createServer(() => {}), freshPath("up.sock"));
      const { path, guard } = await guardHere({ mode, upstream });
      const socket = connect({ path });
      await once(socket, "connect");
      const closed = answerTo(socket, () => socket.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
      while (guard.stats().open === 0) await new Promise((resolve) => setTimeout(resolve, 5));
      await guard.close({ timeout: 50 });
      await closed;
      assert.equal(guard.stats().open, 0);
      await assert.rejects(once(connect({ path }), "connect"), /ENOENT|ECONNREFUSED|connect/i);
    },
  );
}
