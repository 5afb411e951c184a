/** A guard in MCP mode in front of servers with one JSON message on each line. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { spawn } from "node:child_process";
import { chmodSync, existsSync } from "node:fs";
import { createServer } from "node:net";
import { test } from "node:test";
import { peerCredentials } from "../../mod.ts";
import type { ByteReader } from "../../guard/byte_streams.ts";
import { createGuard, type GuardOptions } from "../../guard/mod.ts";
import { LineMemory, lineOf, LineReader, LineTooLong } from "../../guard/mcp/lines.ts";
import { plainOf } from "../../guard/mcp/plain.ts";
import { readJson } from "../../interop/json.ts";
import { mcpVocabulary } from "../../interop/mcp/mod.ts";
import { parsePolicy, type Policy } from "../../policy/mod.ts";
import type { ServerEvent } from "../../servers/admission/events.ts";
import type { RequestReport } from "../../servers/http/request_report.ts";
import { Behind, End, Guard, policyFile, testGuard, tool } from "../support/guard.ts";
import { guardHere } from "../support/guard_here.ts";
import { Wire } from "../support/http.ts";
import { freshPath } from "../support/peers.ts";
import { soak, until } from "../support/suite.ts";

const [PERSON, OTHER] = [4001, 4002];

const POLICY = `
version: 1
about: mcp
rules:
  - { name: root, when: { uid: 0 }, allow: true }
  - name: people
    when: { uid: ${PERSON} }
    actions: [initialize, "**/list", "tools/call a", "resources/subscribe note:*"]
    allow: true
  - name: readers
    when: { uid: ${PERSON} }
    actions: tools/call read
    where: { arguments: { path: { every: /srv/*, empty: false } } }
    allow: true
  - { name: nobody, actions: tools/call delete, deny: Ask root }
`;

const policyOf = (text: string): Policy => parsePolicy(text, { vocabularies: [mcpVocabulary] });

/** Starts a guard in this process, to which every user may connect. */
async function start(options: Partial<GuardOptions> & { upstream: string }) {
  const [decided, requests, lines]: [string[], RequestReport[], string[]] = [[], [], []];
  const audit = {
    dropped: 0,
    error: undefined,
    write: (event: ServerEvent) => {
      if (event.type !== "decided") return;
      const { action, decision: { allowed, reason } } = event;
      decided.push(`${allowed ? "+" : "-"} ${action}${allowed ? "" : `: ${reason}`}`);
    },
    reopen: () => {},
    close: () => Promise.resolve(),
  };
  const { path, guard } = await guardHere({
    mode: "mcp",
    policy: policyOf(POLICY),
    audit,
    onRequest: (request) => requests.push(request),
    report: (line) => lines.push(line),
    ...options,
  }, { mode: 0o666 });
  return { path, guard, decided, requests, lines };
}

/** A message as a line, in Latin-1: one character for each byte. */
const line = (value: object) =>
  Buffer.from(`${JSON.stringify({ jsonrpc: "2.0", ...value })}\n`).toString("latin1");

const call = (id: unknown, name: unknown, more: object = {}) =>
  line({ id, method: "tools/call", params: { name, ...more } });

/** The next message that a wire or an end receives. */
async function next(from: { until(text: string): Promise<string> }): Promise<Message> {
  return JSON.parse(Buffer.from(await from.until("\n"), "latin1").toString());
}

interface Message {
  readonly id?: unknown;
  readonly method?: string;
  readonly params?: { readonly [name: string]: unknown };
  readonly result?: { readonly [name: string]: unknown };
  readonly error?: { readonly code: number; readonly message: string };
}

/** Answers each request with its own method and parameters. */
async function echo(end: End): Promise<void> {
  while (true) {
    const { id, method, params } = await next(end);
    if (id !== undefined) end.send(line({ id, result: { method, params } }));
  }
}

testGuard("mcp mode decides each message by the uid of the client", async () => {
  const behind = await Behind.start(echo);
  const { path, decided, guard, requests } = await start({ upstream: behind.path });
  const person = Wire.as(PERSON, path);
  person.send(line({ id: "i", method: "initialize", params: {} }));
  assert.equal((await next(person)).result!["method"], "initialize");
  person.send(line({ method: "notifications/initialized" }));
  person.send(call(1, "a")).send(call(2, "b")).send(call(3, "delete"));
  const answers = [await next(person), await next(person), await next(person)];
  assert.deepEqual(
    answers.map(({ id, error }) => `${id} ${error?.code} ${error?.message}`).sort(),
    ["1 undefined undefined", "2 -32003 The policy does not allow it", "3 -32003 Ask root"],
  );
  person.send(call(4, "read", { arguments: { path: "/srv/a" } }));
  assert.equal((await next(person)).id, 4);
  person.send(call(5, "read", { arguments: { path: "/etc/a" } }));
  assert.equal((await next(person)).error!.code, -32003);
  const root = Wire.as(0, path).send(call(1, "b"));
  assert.equal((await next(root)).result!["method"], "tools/call");
  // A user whom no rule mentions gets no connection.
  assert.equal(await Wire.as(OTHER, path).rest(), "");
  assert.equal(behind.count, 2);
  assert.deepEqual(decided.filter((each) => each.startsWith("-")), [
    "- tools/call b: No rule matches",
    '- tools/call delete: Rule "nobody" denies it: Ask root',
    "- tools/call read: No rule matches",
  ]);
  assert.equal(guard.stats().denied, 3);
  const outcomes = requests.map(({ outcome, method }) => `${outcome} ${method}`);
  assert.equal(outcomes.filter((each) => each === "denied tools/call").length, 3);
  assert.equal(outcomes.filter((each) => each.startsWith("allowed")).length, 4);
});

testGuard("mcp mode forwards no message that programs read differently", async () => {
  const behind = await Behind.start();
  const { path, decided } = await start({ upstream: behind.path });
  const person = Wire.as(PERSON, path).send(line({ id: 0, method: "ping" }));
  const server = await behind.next();
  assert.equal((await next(server)).method, "ping");
  const tool = (id: string, name: string) =>
    `{"jsonrpc":"2.0","id":${id},"method":"tools/call","params":{${name}}}`;
  const malformed = [
    "{",
    "[]",
    "1",
    '"a"',
    "null",
    "nul",
    "{'a':1}",
    '{"a":1,}',
    "\xff",
    '{"a":"\x01"}',
    `[${tool("1", '"name":"a"')},${tool("2", '"name":"delete"')}]`,
    tool("1", '"name":"a","name":"delete"'),
    tool("1", '"name":"a","n\\u0061me":"delete"'),
    tool("1", '"name":"a"').replace('"params"', '"params":{"name":"delete"},"params"'),
    tool("1", '"name":"a"').replace('"method"', '"method":"tools/delete","method"'),
    tool("1", '"name":"a"').replace('"method"', '"Method":"tools/delete","method"'),
    tool("1", '"name":"a"').replace('"id":1', '"id":1,"id":2'),
    ...["null", "1.5", "1e0", "1.0", "-0", "9007199254740993", "true", "[1]", "{}", "1e999"].map(
      (id) => tool(id, '"name":"a"'),
    ),
    tool("1", '"name":"a"').replace('"2.0"', "2.0"),
    tool("1", '"name":"\\ud800"'),
    tool("1", '"name":"a\\u0000"'),
    `${tool("1", '"name":"a"')}${tool("2", '"name":"delete"')}`,
    `${tool("1", '"name":"a"')}\r${tool("2", '"name":"delete"')}`,
    `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":["a"]}`,
    `${"[".repeat(10_000)}`,
  ];
  for (const text of malformed) {
    person.send(`${text}\n`);
    const { error } = await next(person);
    assert.ok(error?.code === -32700 || error?.code === -32600, `${text}: ${error?.code}`);
  }
  const denied = [
    ...[tool("1", '"name":"a","NAME":"delete"'), tool("1", '"name":"A"'), tool("1", '"name":"a "')],
    ...[tool("1", '"name":"__proto__"'), tool("1", '"__proto__":{"name":"a"}'), tool("1", "")],
    ...[tool("1", '"name":["a"]'), tool("1", '"name":"\\u0061\\u0062"')],
    tool("1", '"name":"read","arguments":{"path":"/srv/a","Path":"/etc/x"}'),
    tool("1", '"name":"read","arguments":{"path":{"path":"/etc/x"}}'),
    tool("1", '"name":"read","arguments":{"path":1e3}'),
    tool("1", '"name":"read","arguments":{"__proto__":{"path":"/srv/a"}}'),
    `{"jsonrpc":"2.0","id":1,"method":"tools/delete","params":{}}`,
    `{"jsonrpc":"2.0","id":1,"method":"constructor"}`,
    `{"jsonrpc":"2.0","id":1,"method":"logging/setLevel","params":{"level":"debug"}}`,
    `{"jsonrpc":"2.0","id":1,"method":"resources/subscribe","params":{"uri":"file:///a"}}`,
    `{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"p"}}}`,
  ];
  for (const text of denied) {
    person.send(`${text}\n`);
    const { id, error } = await next(person);
    assert.ok(id === 1 && error !== undefined, text);
  }
  // Notifications get no answer; these are dropped, as are responses that nobody requested.
  const dropped = [
    line({ method: "tools/call", params: { name: "a" } }),
    line({ method: "notifications/none" }),
    line({ id: 0, result: {} }),
    line({ id: "x", error: { code: 1, message: "" } }),
  ];
  for (const text of dropped) person.send(text);
  person.send(tool("77", '"n\\u0061me":"\\u0061"').padStart(100) + "\r\n");
  const { id, params } = await next(server);
  assert.deepEqual([id, params], [77, { name: "a" }]); // the only message that arrives
  assert.ok(decided.includes("- response: No request of the server waits for this response"));
});

testGuard("mcp mode limits the memory that a message takes", async () => {
  const behind = await Behind.start(echo);
  const { path } = await start({ upstream: behind.path });
  const person = Wire.as(PERSON, path);
  // Ids are kept, and 4 MiB of empty objects take 600 MB when they are parsed.
  person.send(call("i".repeat(1025), "a"));
  assert.equal((await next(person)).error!.code, -32600);
  person.send(call(1, "a", { arguments: { a: Array(200_000).fill({}) } }));
  assert.match((await next(person)).error!.message, /more than 200000 values/);
  person.send(call("i".repeat(1024), "a", { arguments: { a: Array(1000).fill({}) } }));
  assert.equal((await next(person)).id, "i".repeat(1024));
});

test("LineReader copies the parts of a line, which are often single bytes", async () => {
  const bytes = Buffer.from('one\n{"two":2}\n\nthree');
  const part = Buffer.alloc(1); // the same one for each byte, so that a reader that keeps parts reads "eeee"
  let at = 0;
  const some = () => {
    if (at === bytes.length) return Promise.resolve(undefined);
    part[0] = bytes[at++]!;
    return Promise.resolve(part);
  };
  const reader = new LineReader({ some } as unknown as ByteReader, 9);
  const lines: string[] = [];
  for (let line; (line = await reader.next()) !== undefined;) lines.push(line.toString());
  assert.deepEqual(lines, ["one", '{"two":2}', "", "three"]);
  at = 0;
  const short = new LineReader({ some } as unknown as ByteReader, 8);
  assert.equal((await short.next())!.toString(), "one");
  await assert.rejects(short.next(), LineTooLong);
});

test("LineReader counts the memory of a long line until the next one is read", async () => {
  const parts = [...[40_000, 40_000, 10_000].map((size) => Buffer.alloc(size, "x")), "\ny\n"];
  const calls: [from: number, to: number][] = [];
  const readerOf = (maxBytes: number, isFree: (to: number) => boolean) => {
    const left = parts.map((part) => Buffer.from(part));
    const some = () => Promise.resolve(left.shift());
    return new LineReader({ some } as unknown as ByteReader, maxBytes, (from, to) => {
      calls.push([from, to]);
      return isFree(to);
    });
  };
  const reader = readerOf(200_000, () => true);
  assert.equal((await reader.next())!.length, 90_000);
  assert.deepEqual(calls.splice(0), [[0, 0], [0, 80_000], [80_000, 160_000]]);
  assert.equal((await reader.next())!.toString(), "y");
  assert.equal(await reader.next(), undefined);
  assert.deepEqual(calls.splice(0), [[160_000, 0], [0, 0]]);
  await readerOf(95_000, () => true).next();
  assert.deepEqual(calls.splice(0).at(-1), [80_000, 95_000]); // the buffer is no longer than a line
  await assert.rejects(readerOf(89_999, () => true).next(), LineTooLong);
  await assert.rejects(readerOf(200_000, (to) => to < 100_000).next(), LineTooLong);
});

test("LineMemory limits the long lines of each user, and those of all users", () => {
  const memory = new LineMemory();
  const MIB = 1 << 20;
  assert.equal(memory.resize(1, 0, 64 * MIB), true);
  assert.equal(memory.resize(1, 0, 1), false);
  assert.equal(memory.resize(1, 5, 5), true);
  assert.equal(memory.resize(2, 0, 63 * MIB), true);
  assert.equal(memory.resize(3, 0, MIB + 1), false);
  assert.equal(memory.resize(3, 0, MIB), true);
  assert.equal(memory.resize(2, 63 * MIB, 63 * MIB + 1), false);
  assert.equal(memory.resize(3, MIB, 0), true);
  assert.equal(memory.resize(2, 63 * MIB, 64 * MIB), true);
  for (const uid of [1, 2]) assert.equal(memory.resize(uid, 64 * MIB, 0), true);
  for (const uid of [1, 2]) assert.equal(memory.resize(uid, 0, 64 * MIB), true);
});

test("lineOf() escapes the characters that end a line for some programs", () => {
  const text = "\u007f\u0085\u009f\u00a0\u2028\u2029\ufeff";
  const line = lineOf(JSON.stringify(text)).toString();
  assert.match(line, /^[^\u007f-\u009f\u2028\u2029\ufeff]*\n$/);
  assert.equal(JSON.parse(line), text);
});

test("plainOf() replaces numbers that programs round differently, at each depth", () => {
  const read = readJson(Buffer.from('{"__proto__":[1,"1",null,[1.0],{"a":1e2}],"b":true}'));
  if ("problem" in read) assert.fail(read.problem);
  const { b, ...rest } = plainOf(read.value) as { readonly [name: string]: unknown };
  const [one, text, empty, [rounded], { a }] = rest["__proto__"] as unknown as [
    ...[unknown, unknown, unknown],
    readonly [unknown],
    { readonly a: unknown },
  ];
  assert.deepEqual([one, text, empty, b, typeof rounded, typeof a], [
    ...[1, "1", null, true, "symbol", "symbol"],
  ]);
});

testGuard("mcp mode limits the long lines of a user, and counts none that has ended", async () => {
  const behind = await Behind.start(echo);
  const { path, decided } = await start({ upstream: behind.path });
  const half = `{"a":"${"a".repeat(4 << 20)}`.slice(0, 4 << 20);
  const open: Wire[] = [];
  for (let count = 0; count < 16; count++) open.push(Wire.as(PERSON, path).send(half));
  const last = Wire.as(PERSON, path).send(half);
  // The order in which the guard reads the connections is unknown: one of them is refused.
  await until(() => decided.some((each) => each.includes("too many long lines")));
  const root = Wire.as(0, path).send(call(1, "b", { arguments: { a: "a".repeat(1 << 20) } }));
  assert.equal((await next(root)).id, 1);
  for (const wire of [...open, last]) wire.destroy();
  for (let count = 0; count < 20; count++) {
    const wire = Wire.as(PERSON, path).send(call(1, "b", { arguments: { a: half.slice(9999) } }));
    assert.equal((await next(wire)).error!.code, -32003);
    wire.destroy();
  }
});

testGuard("mcp mode filters lists, page by page, and whatever their request was", async () => {
  const behind = await Behind.start();
  const { path } = await start({ upstream: behind.path });
  const person = Wire.as(PERSON, path).send(line({ id: 1, method: "tools/list" }));
  const server = await behind.next();
  const tools = ["a", "b", "read", "delete"].map((name) => ({ name, description: "\u2028" }));
  await next(server);
  server.send(line({ id: 1, result: { tools, nextCursor: "2" } }));
  const { result } = await next(person);
  assert.deepEqual(result, { tools: [tools[0], tools[2]], nextCursor: "2" });
  person.send(line({ id: 2, method: "tools/list", params: { cursor: "2" } }));
  await next(server);
  server.send(line({ id: 2, result: { tools: [{ name: "c" }] } }));
  assert.deepEqual((await next(person)).result, { tools: [] });
  // An id that is in use, one that was cancelled, and one that was never used.
  person.send(line({ id: 3, method: "tools/list" }));
  await next(server);
  person.send(call(3, "a"));
  assert.equal((await next(person)).error!.code, -32600);
  person.send(line({ method: "notifications/cancelled", params: { requestId: 3 } }));
  await next(server);
  person.send(call(3, "a"));
  await next(server);
  server.send(line({ id: 3, result: { tools } }));
  assert.deepEqual((await next(person)).result, { tools: [tools[0], tools[2]] });
  server.send(line({ id: 3, result: { tools } })).send(line({ id: "3", result: { tools } }));
  server.send("no JSON\n").send('{"a":1}\n');
  server.send(line({ method: "notifications/resources/updated", params: { uri: "file:///b" } }));
  server.send(line({ method: "notifications/resources/updated", params: { uri: "note:a" } }));
  assert.deepEqual((await next(person)).params, { uri: "note:a" });
});

testGuard("mcp mode forwards responses only to requests of the server", async () => {
  const behind = await Behind.start();
  const { path } = await start({ upstream: behind.path });
  const person = Wire.as(PERSON, path).send(call(1, "a"));
  const server = await behind.next();
  await next(server);
  const methods = ["sampling/createMessage", "elicitation/create", "roots/list", "ping"];
  for (const [at, method] of methods.entries()) {
    server.send(line({ id: 1, method }));
    assert.equal((await next(person)).method, method);
    person.send(line({ id: 1, result: { method } }))
      .send(line({ id: 1, result: { method: "again" } }))
      .send(call(2 + at, "a"));
    assert.deepEqual((await next(server)).result, { method });
    // The second response has been dropped before the server sends its next request.
    assert.equal((await next(server)).method, "tools/call");
  }
  server.send(line({ id: 1, result: { content: [] } }));
  assert.deepEqual((await next(person)).result, { content: [] });
});

testGuard(
  "mcp mode forwards texts unchanged, without line ends that other programs know",
  async () => {
    const behind = await Behind.start(echo);
    const { path } = await start({ upstream: behind.path });
    const person = Wire.as(PERSON, path);
    const texts = [
      "\u2028\u2029\u0085\u000b\f\r\n",
      '\ud83d\ude00 é "\\',
      "x".repeat(soak(1, 3) << 20),
    ];
    for (const [id, text] of texts.entries()) {
      const given = { text, big: 12 };
      person.send(call(id, "a", { arguments: given }));
      const raw = Buffer.from(await person.until("\n"), "latin1").toString();
      assert.doesNotMatch(raw, /[\u0085\u2028\u2029\r]/);
      assert.deepEqual(JSON.parse(raw).result.params.arguments, given);
    }
    person.send(
      `{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"a","arguments":{"n":12345678901234567890.5e1}}}\n`,
    );
    assert.equal((await next(person)).id, 9);
  },
);

testGuard(
  "mcp mode ends the connection of a client that sends more than 4 MiB in a line",
  async () => {
    const behind = await Behind.start(echo);
    const { path } = await start({ upstream: behind.path });
    const person = Wire.as(PERSON, path).send(call(1, "a"));
    await next(person);
    const chunk = Buffer.alloc(1 << 20, "x");
    await person.sendAll([chunk, chunk, chunk, chunk, chunk]);
    const rest = await person.rest();
    assert.match(rest, /"The message is too long"/);
  },
);

testGuard("mcp mode half-closes, and ends both connections when one ends", async () => {
  const behind = await Behind.start();
  const { path } = await start({ upstream: behind.path });
  const person = Wire.as(PERSON, path).send(call(1, "a").trimEnd()); // the last line has no end
  person.end();
  const server = await behind.next();
  assert.equal((await next(server)).id, 1);
  assert.equal(await server.rest(), "");
  server.send(line({ id: 1, result: {} })).end();
  assert.equal((await next(person)).id, 1);
  assert.equal(await person.rest(), "");

  const other = Wire.as(PERSON, path).send(call(1, "a"));
  const second = await behind.next();
  await next(second);
  second.destroy();
  assert.equal(await other.rest(), "");

  const third = Wire.as(PERSON, path).send(call(1, "a"));
  const last = await behind.next();
  await next(last);
  third.destroy();
  assert.equal(await last.rest(), "");
});

testGuard("mcp mode opens no connection to the server before a message is allowed", async () => {
  const behind = await Behind.start(echo);
  const { path } = await start({ upstream: behind.path });
  const person = Wire.as(PERSON, path).send("\n").send("{\n").send(call(1, "delete"));
  assert.equal((await next(person)).error!.code, -32700);
  assert.equal((await next(person)).error!.message, "Ask root");
  assert.equal(behind.count, 0);
  person.send(call(2, "a"));
  assert.equal((await next(person)).id, 2);
  assert.equal(behind.count, 1);
});

testGuard("mcp mode answers with an error if the server cannot be reached", async () => {
  const { path, lines } = await start({ upstream: freshPath("none.sock") });
  const person = Wire.as(PERSON, path).send(call(1, "a"));
  assert.deepEqual((await next(person)).error, {
    code: -32603,
    message: "The server cannot be reached",
  });
  assert.equal(await person.rest(), "");
  await until(() => lines.some((each) => each.includes("cannot be used")));
});

testGuard("mcp mode denies all if the policy fails", async () => {
  const behind = await Behind.start(echo);
  const broken = () => {
    throw new Error("broken");
  };
  let [fails, spelling] = [false, ""];
  const whole = policyOf(POLICY);
  const policy: Policy = {
    needsPin: false,
    admits: () => true,
    decide: (peer, request) =>
      fails || request?.action === spelling ? broken() : whole.decide(peer, request),
  };
  const { path } = await start({ upstream: behind.path, policy });
  const root = Wire.as(0, path).send(call(1, "a"));
  assert.equal((await next(root)).id, 1);
  fails = true;
  root.send(call(2, "a"));
  assert.equal((await next(root)).error!.code, -32003);
  root.send(line({ id: 3, method: "resources/read", params: { uri: "FILE:///a" } }));
  assert.equal((await next(root)).error!.code, -32003);
  // It fails only for another spelling, which no rule needs to allow.
  fails = false;
  spelling = "resources/read file:///a";
  root.send(line({ id: 4, method: "resources/read", params: { uri: "FILE:///a" } }));
  assert.equal((await next(root)).error!.code, -32003);
});

testGuard("mcp mode limits the requests of a client that wait for a response", async () => {
  const behind = await Behind.start();
  const { path } = await start({ upstream: behind.path });
  const person = Wire.as(PERSON, path);
  for (let id = 0; id < 1000; id++) person.send(call(id, "a"));
  const server = await behind.next();
  for (let id = 0; id < 1000; id++) await next(server);
  person.send(call("more", "a"));
  const { id, error } = await next(person);
  assert.deepEqual([id, error], ["more", { code: -32600, message: "Too many requests are open" }]);
  server.send(line({ id: 0, result: {} }));
  await next(person);
  person.send(call("more", "a"));
  assert.equal((await next(server)).id, "more");
});

testGuard("mcp mode with asPeer shows the server the uid of the client", async () => {
  const upstream = freshPath("up.sock");
  const uids: number[] = [];
  const server = createServer((socket) => {
    uids.push(peerCredentials(socket).uid);
    void echo(new End(socket)).catch(() => {});
  });
  await new Promise<void>((resolve) => server.listen(upstream, resolve));
  chmodSync(upstream, 0o666);
  try {
    const { path } = await start({ upstream, asPeer: true });
    const person = Wire.as(PERSON, path).send(call(1, "delete")).send(call(2, "a"));
    assert.equal((await next(person)).error!.message, "Ask root");
    assert.equal((await next(person)).id, 2);
    assert.deepEqual(uids, [PERSON]);
  } finally {
    server.close();
  }
});

testGuard("createGuard() rejects a policy about something else, and options without effect", () => {
  const make = (text: string, more: object = {}) => () =>
    createGuard({ mode: "mcp", upstream: "/x", policy: policyOf(text), ...more });
  const rule = 'rules: [{ name: a, actions: "tools/call a", allow: true }]';
  assert.throws(make(`version: 1\n${rule}`), /actions are tested without "about: mcp"/);
  for (const name of ["learn", "state", "h2c", "bodyTimeout"]) {
    const value = name === "h2c" ? true : name === "bodyTimeout" ? 1 : "/x";
    assert.throws(make(POLICY, { [name]: value }), /has no effect in mode "mcp"/);
  }
});

testGuard(
  "ucred guard --mode mcp guards a program that socat starts for each connection",
  async () => {
    const upstream = freshPath("up.sock");
    const socat = spawn("socat", [`UNIX-LISTEN:${upstream},fork`, "EXEC:cat"]);
    try {
      await until(() => existsSync(upstream));
      const guard = await Guard.start({ upstream, mode: "mcp", policy: policyFile(POLICY) });
      const person = Wire.as(PERSON, guard.path).send(call(1, "delete")).send(call(2, "a"));
      assert.deepEqual((await next(person)).error, { code: -32003, message: "Ask root" });
      const { id, params } = await next(person);
      assert.deepEqual([id, params], [2, { name: "a" }]);
    } finally {
      socat.kill();
    }
  },
  tool("socat"),
);
