/**
 * Decisions by a server that answers as OPA's REST API is documented, and by servers that answer otherwise:
 * everything except `true` denies.
 */

import assert from "node:assert/strict";
import { Hono } from "hono";
import { createServer as createRawServer, type Socket } from "node:net";
import process from "node:process";
import { test } from "node:test";
import { createClient } from "../../../client/mod.ts";
import type { UcredError } from "../../../mod.ts";
import { identify } from "../../../identity/identify.ts";
import {
  createOpaClient,
  type DeniedByOpa,
  type OpaClient,
  type OpaOptions,
  type OpaQuery,
  requireOpa,
} from "../../../interop/opa/mod.ts";
import { decisionIn } from "../../../interop/opa/client.ts";
import { bodyOf } from "../../../interop/opa/input.ts";
import { createServer as createHttpServer, serve } from "../../../servers/http.ts";
import { fakePeer } from "../../../testing/mod.ts";
import { compileProgram } from "../../support/compile.ts";
import { Child, freshPath, meet } from "../../support/peers.ts";
import { listening } from "../../support/servers.ts";
import { endAfterEach, needs, testWith, until } from "../../support/suite.ts";

const own = { uid: process.getuid?.() ?? 0 };
const live = [needs.linux];

const endings: (() => unknown)[] = [];
endAfterEach(async () => {
  for (const end of endings.splice(0)) await end();
});

/** A request that a server received. */
interface Received {
  readonly line: string;
  readonly headers: string;
  readonly body: { readonly input: Input };
}

interface Input {
  readonly peer: { readonly [fact: string]: unknown };
  readonly action: string | null;
  readonly attributes: { readonly [name: string]: unknown };
}

/** Writes the bytes of an answer. */
type Answer = (socket: Socket, request: Received, count: number) => unknown;

/** Starts a server that reads each request, and answers with any bytes. */
async function startOpa(answer: Answer) {
  const path = freshPath("opa.sock");
  const received: Received[] = [];
  const sockets: Socket[] = [];
  const server = createRawServer((socket) => {
    sockets.push(socket.on("error", () => {}));
    let text = "";
    socket.setEncoding("utf8").on("data", (part: string) => {
      text += part;
      for (;;) {
        const end = text.indexOf("\r\n\r\n");
        const length = Number(/^content-length: (\d+)/im.exec(text.slice(0, end))?.[1]);
        if (end === -1 || text.length < end + 4 + length) return; // the tests send ASCII
        const [line = "", ...headers] = text.slice(0, end).split("\r\n");
        const body = JSON.parse(text.slice(end + 4, end + 4 + length));
        text = text.slice(end + 4 + length);
        const request = { line, headers: headers.join("\n"), body };
        answer(socket, request, received.push(request));
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  endings.push(() => {
    for (const socket of sockets) socket.destroy();
    return new Promise((resolve) => server.close(resolve));
  });
  return { path, received, sockets };
}

const json = (body: string, status = "200 OK") =>
  `HTTP/1.1 ${status}\r\nContent-Type: application/json\r\nContent-Length: ${
    Buffer.byteLength(body)
  }\r\n\r\n${body}`;

/** Answers with `result`, as OPA does. */
const results = (decide: (input: Input) => unknown): Answer => (socket, { body }) =>
  socket.write(json(JSON.stringify({ decision_id: "4ca636c1", result: decide(body.input) })));

function clientOf(path: string, options: Partial<OpaOptions> = {}): OpaClient {
  const client = createOpaClient({ path, expect: own, rule: "ucred/allow", ...options });
  endings.push(() => client.close());
  return client;
}

const ANNA = fakePeer({
  ...{ uid: 1000, gid: 100, groups: [27], user: "anna", groupNames: { 27: "sudo" }, pid: null },
  process: {
    unit: "web.service",
    container: null,
    namespaces: { pid: { id: 7, ours: true } } as never,
  },
});

/** The outcome of a decision, or the code of its error. */
async function outcomeOf(client: OpaClient, query?: OpaQuery, peer = ANNA): Promise<string> {
  try {
    const { allowed, outcome } = await client.decide(peer, query);
    assert.equal(allowed, outcome === "allowed");
    return outcome;
  } catch (error) {
    return (error as UcredError).code ?? String(error);
  }
}

testWith(
  live,
  "decide() sends facts, action and attributes, and returns OPA's decision",
  async () => {
    const opa = await startOpa(results(({ action }) => action === "restart"));
    const client = clientOf(opa.path, {
      facts: [
        "pid",
        "uid",
        "gid",
        "groups",
        "user",
        "groupNames",
        "unit",
        "container",
        "namespaces",
      ],
    });
    const attributes = { force: false, names: ["a", "b"], limit: 5, nested: { none: null } };
    assert.deepEqual(await client.decide(ANNA, { action: "restart", attributes }), {
      allowed: true,
      outcome: "allowed",
      decisionId: "4ca636c1",
    });
    assert.equal(await outcomeOf(client, { action: "stop" }), "denied");
    assert.equal(await outcomeOf(client), "denied");
    const [first, , third] = opa.received;
    assert.equal(first!.line, "POST /v1/data/ucred/allow?strict-builtin-errors=true HTTP/1.1");
    assert.match(first!.headers, /^content-type: application\/json$/im);
    const peer = {
      ...{ pid: null, uid: 1000, gid: 100, groups: [27, 100], user: "anna" },
      ...{ groupNames: ["sudo", null], unit: "web.service", container: null },
      namespaces: { pid: { id: 7, ours: true } },
    };
    assert.deepEqual(first!.body, { input: { peer, action: "restart", attributes } });
    assert.deepEqual(third!.body, { input: { peer, action: null, attributes: {} } });
    assert.equal(opa.sockets.length, 1, "the connection is kept");
  },
);

testWith([...live, needs.cc], "decide() sends the facts of a real peer", async () => {
  const opa = await startOpa(results(() => true));
  const client = clientOf(opa.path, { facts: ["pid", "uid", "gid", "groups", "comm"] });
  const [[outcome, unpinned], self] = await meet([], async (socket) => {
    const peer = identify(socket, { pin: true });
    const found = await outcomeOf(client, {}, peer as never);
    peer.close();
    return [found, await outcomeOf(client, {}, identify(socket) as never)];
  }).then(async ([found, self]) => [await found, self] as const);
  assert.equal(outcome, "allowed");
  assert.equal(unpinned, "ERR_UCRED_POLICY", "comm is unknown without a pin");
  assert.equal(opa.received.length, 1);
  const { comm, groups, ...ids } = opa.received[0]!.body.input.peer;
  assert.deepEqual([ids, comm], [{ pid: self.pid, uid: self.uid, gid: self.gid }, "peer"]);
  assert.ok((groups as number[]).includes(self.gid));
});

/** An answer in Latin-1, with a boundary of chunks after the second part. */
function inTwoChunks(start: string, byte: string, end: string): Buffer {
  const chunk = (text: string) => `${text.length.toString(16)}\r\n${text}\r\n`;
  const head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  return Buffer.from(`${head}${chunk(start + byte)}${chunk(end)}0\r\n\r\n`, "latin1");
}

/** Answer → outcome. */
const ANSWERS: readonly (readonly [answer: string | Buffer, outcome: string])[] = [
  [json('{"result":true}'), "allowed"],
  [
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nf\r\n{"result":true}\r\n0\r\n\r\n',
    "allowed",
  ],
  [json('{"result":false}'), "denied"],
  [json("{}"), "undefined"],
  [json('{"warning":{"code":"api_usage_warning","message":"..."}}'), "undefined"],
  [json('{"__proto__":{"result":true}}'), "undefined"],
  ...['"true"', "1", "null", "{}", "[]", "[true]", '{"allow":true}', '""'].map((result) =>
    [json(`{"result":${result}}`), "ERR_UCRED_POLICY"] as const
  ),
  ...["", "true", "null", "[]", '[{"result":true}]', '{"result":true', '{"result":true}}', "<html>"]
    .map((body) => [json(body), "ERR_UCRED_POLICY"] as const),
  [json('{"result":true,"explanation":"\\ud800"}'), "allowed"],
  [inTwoChunks('{"result":true,"explanation":"', "\xc3", '\xa9"}'), "allowed"],
  [inTwoChunks('{"result":true,"explanation":"', "\xc3", '"}'), "ERR_UCRED_POLICY"],
  [json(`{"result":true,"metrics":"${"x".repeat((64 << 10) - 28)}"}`), "allowed"],
  [json(`{"result":true,"metrics":"${"x".repeat((64 << 10) - 27)}"}`), "ERR_UCRED_POLICY"],
  ...[
    "500 Internal Server Error",
    "400 Bad Request",
    "404 Not Found",
    "401 Unauthorized",
    "503 Service Unavailable",
    "201 Created",
    "206 Partial Content",
    "203 Non-Authoritative Information",
    "302 Found\r\nLocation: /v1/data/other/allow",
    "101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade",
    "600 Unknown",
  ].map((status) => [json('{"result":true}', status), "ERR_UCRED_POLICY"] as const),
  ["HTTP/1.1 204 No Content\r\n\r\n", "ERR_UCRED_POLICY"],
  [json(`{"result":true,"metrics":"${"x".repeat(64 << 10)}"}`), "ERR_UCRED_POLICY"],
  ['HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"result":true}', "ERR_UCRED_POLICY"], // then it closes
  [
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nf\r\n{"result":true}\r\n',
    "ERR_UCRED_POLICY",
  ],
  ["", "ERR_UCRED_POLICY"],
  ["SSH-2.0-OpenSSH_9.2\r\n", "ERR_UCRED_POLICY"],
  ["\0\0\x12\x04\0\0\0\0\0", "ERR_UCRED_POLICY"],
];

testWith(live, "decide() allows only what OPA answers with `true`", async () => {
  const opa = await startOpa((socket, _, count) => socket.end(ANSWERS[count - 1]![0]));
  for (const [answer, outcome] of ANSWERS) {
    const client = clientOf(opa.path, { timeoutMs: 60_000 });
    assert.equal(await outcomeOf(client), outcome, String(answer).slice(0, 200));
  }
  assert.equal(opa.received.length, ANSWERS.length);
});

test("decisionIn() reports what OPA answered", () => {
  const rows: readonly (readonly [status: number, text: string, why: string])[] = [
    [200, "[]", "the answer is not an object of JSON"],
    [200, "null", "the answer is not an object of JSON"],
    [200, '{"result":5}', "the rule is 5, not true or false"],
    [500, "<html>", "status 500"],
    [500, '{"message":5}', "status 500"],
    [404, '{"message":"none"}', 'status 404, "none"'],
  ];
  for (const [status, text, why] of rows) {
    assert.throws(() => decisionIn(status, text), (error: UcredError) => {
      assert.equal(error.code, "ERR_UCRED_POLICY");
      assert.equal(error.message, `Cannot get a decision from OPA: ${why}`);
      assert.match(error.hint, /^Check that OPA runs/);
      assert.equal(error.cause, undefined);
      return true;
    });
  }
  const allowed = { allowed: true, outcome: "allowed", decisionId: undefined };
  assert.deepEqual(decisionIn(200, '{"decision_id":5,"result":true}'), allowed);
});

testWith(live, "decide() reports the error of OPA", async () => {
  const error = {
    code: "internal_error",
    message: "error(s) occurred while evaluating query\u202e",
    errors: [{ code: "eval_builtin_error", message: "div: divide by zero" }],
  };
  const opa = await startOpa((socket) =>
    socket.write(json(JSON.stringify(error), "500 Internal Server Error"))
  );
  await assert.rejects(clientOf(opa.path).decide(ANNA), {
    code: "ERR_UCRED_POLICY",
    message: "Cannot get a decision from OPA: status 500, " +
      '"error(s) occurred while evaluating query\\u202e"',
  });
});

/** Servers that do not answer, or not in time. */
const SLOW: { readonly [name: string]: Answer } = {
  "is silent": () => {},
  "sends a head alone": (socket) => socket.write("HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n"),
  "sends a body without an end": (socket) =>
    socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nf\r\n{"result":true}\r\n'),
  "sends a byte at a time": (socket) => {
    const timer = setInterval(() => socket.write("H"), 5);
    socket.on("close", () => clearInterval(timer));
  },
  "sends interim responses": (socket) => {
    const timer = setInterval(() => socket.write("HTTP/1.1 102 Processing\r\n\r\n"), 5);
    socket.on("close", () => clearInterval(timer));
  },
};

for (const [name, answer] of Object.entries(SLOW)) {
  testWith(live, `decide() rejects after the time limit if OPA ${name}`, async () => {
    const opa = await startOpa(answer);
    assert.equal(await outcomeOf(clientOf(opa.path, { timeoutMs: 50 })), "ERR_UCRED_POLICY");
    await until(() => opa.sockets.every(({ destroyed }) => destroyed));
  });
}

testWith(live, "decide() rejects if nothing listens, and works again when OPA does", async () => {
  const client = clientOf(freshPath());
  await assert.rejects(client.decide(ANNA), (error: UcredError) => {
    assert.deepEqual([error.code, error.name], ["ERR_UCRED_POLICY", "UcredError"]);
    return error.cause instanceof Error;
  });
  let isUp = false;
  const opa = await startOpa((socket, { body }, count) =>
    isUp ? results(() => true)(socket, { body } as Received, count) : socket.destroy()
  );
  const other = clientOf(opa.path);
  assert.equal(await outcomeOf(other), "ERR_UCRED_POLICY");
  isUp = true;
  assert.equal(await outcomeOf(other), "allowed");
});

testWith(
  [...live, needs.cc, needs.root],
  "decide() sends nothing to a server of another user",
  async () => {
    const path = freshPath();
    const program = compileProgram(new URL("../../client/impostor.c", import.meta.url));
    const child = new Child(program, ["1000", path]);
    assert.deepEqual(await child.json(), { listening: true });
    const client = clientOf(path);
    assert.equal(await outcomeOf(client), "ERR_UCRED_REFUSED");
    assert.deepEqual(await child.json(), { bytes: 0 });
    await child.end();
  },
);

testWith(live, "decide() never takes the answer to another query", async () => {
  // Each server would allow what must be denied, if an answer could reach the next query.
  const yes = json('{"result":true}');
  const no = json('{"result":false}');
  const twoAtOnce = await startOpa((socket, _, count) => socket.write(count === 1 ? no + yes : no));
  const first = clientOf(twoAtOnce.path);
  await outcomeOf(first); // denied, or an error
  assert.equal(await outcomeOf(first), "denied");

  const later = await startOpa((socket, _, count) => {
    socket.write(no);
    if (count === 1) setImmediate(() => setImmediate(() => socket.write(yes)));
  });
  const second = clientOf(later.path);
  assert.equal(await outcomeOf(second), "denied");
  await until(() => later.sockets[0]!.destroyed); // the client has closed the connection
  assert.equal(await outcomeOf(second), "denied");

  const late = await startOpa((socket, _, count) => {
    if (count > 1) socket.write(no);
    for (const other of late.sockets) if (other !== socket) other.write(yes);
  });
  const third = clientOf(late.path, { timeoutMs: 50 });
  assert.equal(await outcomeOf(third), "ERR_UCRED_POLICY");
  assert.equal(await outcomeOf(clientOf(late.path)), "denied");
});

testWith(live, "decide() returns each of many peers its own decision", async () => {
  const opa = await startOpa((socket, request, count) => {
    const reply = () =>
      results(({ peer }) => Number(peer["uid"]) % 2 === 0)(socket, request, count);
    count % 3 === 0 ? setImmediate(reply) : reply();
  });
  const client = clientOf(opa.path, { facts: ["uid"], timeoutMs: 60_000 });
  const found = await Promise.all(
    Array.from({ length: 100 }, (_, uid) => outcomeOf(client, {}, fakePeer({ uid }))),
  );
  assert.deepEqual(found, found.map((_, uid) => uid % 2 === 0 ? "allowed" : "denied"));
});

testWith(live, "decide() queries nothing if a fact is unknown", async () => {
  const opa = await startOpa(results(() => true));
  const known = { uid: 0, gid: 0, groups: [], user: "root", groupNames: {} };
  const cases: readonly (readonly [OpaOptions["facts"], Parameters<typeof fakePeer>[0]])[] = [
    [undefined, { ...known, gid: undefined }],
    [undefined, { ...known, groups: undefined }],
    [undefined, { ...known, user: undefined }],
    [["pid"], known],
    [["label"], known],
    [["unit"], known],
    [["uid", "container"], { ...known, process: { unit: "a.service" } }],
    [["namespaces"], known],
  ];
  for (const [facts, peer] of cases) {
    const client = clientOf(opa.path, { facts });
    assert.equal(await outcomeOf(client, {}, fakePeer(peer)), "ERR_UCRED_POLICY");
  }
  const gone = fakePeer({ ...known, process: { unit: "a.service" } });
  gone.end();
  const client = clientOf(opa.path, { facts: ["unit"] });
  await assert.rejects(client.decide(gone), {
    code: "ERR_UCRED_POLICY",
    message: "Cannot query OPA: unit is unknown",
    hint: "See the cause, or remove unit from `facts`",
  });
  assert.equal(opa.received.length, 0);
});

test("bodyOf() reads no facts of the process unless they are sent", () => {
  const { facts } = fakePeer({ uid: 5 });
  const peer = {
    facts,
    get process(): never {
      return assert.fail("the process is read");
    },
  };
  const body = bodyOf(peer as never, ["uid"], undefined, {});
  assert.deepEqual(JSON.parse(body).input, { peer: { uid: 5 }, action: null, attributes: {} });
});

testWith(live, "decide() queries nothing if attributes would change in JSON", async () => {
  const opa = await startOpa(results(() => true));
  const client = clientOf(opa.path);
  const cyclic: { [name: string]: unknown } = {};
  cyclic["self"] = cyclic;
  for (
    const value of [
      ...[undefined, NaN, Infinity, 1n, () => {}, Symbol("x"), "\ud800", new Date(0), new Map()],
      ...[[undefined], [, 1], { a: undefined }, { "\ud800": 1 }, cyclic, { toJSON: () => "other" }],
    ]
  ) {
    await assert.rejects(client.decide(ANNA, { attributes: { value } }), TypeError);
  }
  await assert.rejects(client.decide(ANNA, { attributes: { value: cyclic } }), {
    message: /^Cannot send attributes\.value\S* to OPA: /,
  });
  await assert.rejects(client.decide(ANNA, { action: "\udc00" }), TypeError);
  await assert.rejects(client.decide(ANNA, { action: 5 as never }), TypeError);
  await assert.rejects(client.decide(ANNA, { attributes: [] as never }), TypeError);
  assert.equal(opa.received.length, 0);
});

testWith(live, "decide() rejects with the reason of its signal", async () => {
  const opa = await startOpa(() => {});
  const client = clientOf(opa.path, { timeoutMs: 60_000 });
  const reason = new Error("the client hung up");
  await assert.rejects(client.decide(ANNA, { signal: AbortSignal.abort(reason) }), reason);
  const control = new AbortController();
  const pending = client.decide(ANNA, { signal: control.signal });
  await until(() => opa.received.length === 1);
  control.abort(reason);
  await assert.rejects(pending, reason);
  const closed = client.decide(ANNA);
  await until(() => opa.received.length === 2);
  client.close();
  await assert.rejects(closed, { code: "ERR_UCRED_POLICY" });
});

test("createOpaClient(), decide() and requireOpa() reject wrong options", async () => {
  const right = { path: "/opa.sock", expect: own, rule: "ucred/allow" };
  const wrong = [
    ...[{ rule: "" }, { rule: "/ucred/allow" }, { rule: "ucred/allow/" }, { rule: "a//b" }],
    ...[{ rule: "a/../b" }, { rule: "a?x=y" }, { rule: "a%2fb" }, { rule: "a.b" }, { rule: 1 }],
    ...[{ facts: [] }, { facts: "uid" }, { facts: ["uid", "name"] }, { facts: ["toString"] }],
    ...[{ facts: [["uid"]] }, { rule: ["a"] }],
    ...[{ timeoutMs: 0 }, { timeoutMs: NaN }, { timeoutMs: 2 ** 31 }, { timeoutMs: "5" }],
    { facst: ["uid"] },
  ] as unknown as Partial<OpaOptions>[];
  for (const options of wrong) {
    assert.throws(
      () => createOpaClient({ ...right, ...options }),
      TypeError,
      JSON.stringify(options),
    );
  }
  for (const timeoutMs of [1, 2 ** 31 - 1]) createOpaClient({ ...right, timeoutMs }).close();
  const facts = ["uid", "name"] as never;
  assert.throws(
    () => createOpaClient({ ...right, facts }),
    /^TypeError: createOpaClient\(\) .*"name"$/,
  );
  const client = createOpaClient(right);
  requireOpa(client, { onDenied: undefined, attributes: undefined });
  await assert.rejects(client.decide(ANNA, { attribute: {} } as never), TypeError);
  for (const options of [{ onDenied: 1 }, { attributes: {} }, { ondenied: () => {} }]) {
    assert.throws(() => requireOpa(client, options as never), TypeError);
  }
  assert.throws(() => requireOpa({} as never), TypeError);
  client.close();
});

/** Serves with a handler, and returns a function that requests a path. */
async function served(
  fetch: (request: Request) => Response | Promise<Response>,
): Promise<(path: string, init?: RequestInit) => Promise<Response>> {
  const server = await serve({ path: freshPath(), policy: "anyone", fetch });
  const client = createClient({ path: server.path, expect: own });
  endings.push(() => client.close(), () => server.close({ timeout: 0 }));
  return (path, init) => client.fetch(`http://localhost${path}`, init);
}

testWith(live, "requireOpa() runs the handler for requests that OPA allows", async () => {
  const opa = await startOpa(
    results(({ peer, action, attributes }) =>
      peer["uid"] === own.uid && action === "GET /a b" && attributes["kind"] === "fetch"
    ),
  );
  const denied: DeniedByOpa[] = [];
  const gate = requireOpa(clientOf(opa.path), {
    attributes: () => Promise.resolve({ kind: "fetch" }),
    onDenied: (each) => denied.push(each),
  });
  const runs: string[] = [];
  const ask = await served((request) =>
    gate(request, () => {
      runs.push(request.url);
      return new Response("done");
    })
  );
  assert.equal(await (await ask("/a%20b?c=d")).text(), "done");
  for (const [path, method] of [["/b", "GET"], ["/a/b", "GET"], ["/a%20b", "POST"]] as const) {
    const response = await ask(path, { method });
    assert.equal(response.status, 403);
    assert.match(await response.text(), /"detail":"The policy does not allow it"/);
  }
  assert.deepEqual(runs.map((url) => new URL(url).pathname), ["/a%20b"]);
  assert.deepEqual(
    denied.map(({ action, decision, error, peer }) => [action, decision?.outcome, error, peer.uid]),
    ["GET /b", "GET /a/b", "POST /a b"].map((action) => [action, "denied", undefined, own.uid]),
  );
});

testWith(live, "requireOpa() runs no handler without a decision", async () => {
  const opa = await startOpa(results(() => true));
  const errors: unknown[] = [];
  const onDenied = ({ error }: DeniedByOpa) => errors.push((error as UcredError).code ?? "other");
  const gates = [
    requireOpa(clientOf(freshPath()), { onDenied }), // nothing listens
    requireOpa(clientOf(opa.path, { facts: ["unit"] }), { onDenied }), // the peer is not pinned
    requireOpa(clientOf(opa.path), { onDenied, attributes: () => Promise.reject(new Error("no")) }),
    requireOpa(clientOf(opa.path), { onDenied, attributes: () => ({ size: NaN }) }),
  ];
  const ask = await served((request) => {
    const gate = gates[Number(new URL(request.url).pathname.slice(1))]!;
    return gate(request, () => assert.fail("the handler ran"));
  });
  for (const index of gates.keys()) assert.equal((await ask(`/${index}`)).status, 403);
  assert.deepEqual(errors, ["ERR_UCRED_POLICY", "ERR_UCRED_POLICY", "other", "other"]);
  assert.equal(opa.received.length, 0);
  const [gate] = gates;
  await assert.rejects(
    gate!(new Request("http://localhost/"), () => assert.fail("the handler ran")),
    {
      code: "ERR_UCRED_NO_PEER",
    },
  );
});

testWith(live, "requireOpa() is a middleware of Hono, and works with createServer()", async () => {
  const opa = await startOpa(results(({ action }) => action === "GET /yes"));
  const gate = requireOpa(clientOf(opa.path));
  const app = new Hono();
  app.use("*", gate);
  app.get("*", (context) => context.text("done"));
  const ask = await served((request) => app.fetch(request) as Promise<Response>);
  assert.equal(await (await ask("/yes")).text(), "done");
  assert.equal((await ask("/no")).status, 403);

  const server = createHttpServer({ policy: "anyone" }, async (request, response) => {
    const result = await gate(request, () => "done");
    response.end(typeof result === "string" ? result : `status ${result.status}`);
  });
  const path = freshPath();
  await listening(server as never, path);
  const client = createClient({ path, expect: own });
  endings.push(() => client.close(), () => server.close({ timeout: 0 }));
  const text = async (path: string) => await (await client.fetch(`http://localhost${path}`)).text();
  assert.equal(await text("/yes"), "done");
  assert.equal(await text("/no"), "status 403");
});

testWith(
  live,
  "requireOpa() decides the whole path when a router has shortened the URL",
  async () => {
    const opa = await startOpa(results(({ action }) => action === "GET /"));
    const gate = requireOpa(clientOf(opa.path));
    const server = createHttpServer({ policy: "anyone" }, async (request, response) => {
      // As Express does for app.use("/admin", …).
      const originalUrl = request.url === "/none" ? "none" : request.url;
      Object.assign(request, { originalUrl, url: request.url!.replace("/admin", "") });
      const result = await gate(request, () => "done");
      response.end(typeof result === "string" ? result : `status ${result.status}`);
    });
    const path = freshPath();
    await listening(server as never, path);
    const client = createClient({ path, expect: own });
    endings.push(() => client.close(), () => server.close({ timeout: 0 }));
    const text = async (path: string) =>
      await (await client.fetch(`http://localhost${path}`)).text();
    assert.equal(await text("/"), "done");
    assert.equal(await text("/admin/"), "status 403");
    assert.equal(opa.received.at(-1)!.body.input.action, "GET /admin/");
    assert.equal(await text("/none"), "status 400", "the target is no path");
    assert.equal(opa.received.length, 2);
  },
);

testWith(live, "decide() sends facts that no attribute can replace", async () => {
  const opa = await startOpa(results(({ peer }) => peer["uid"] === 0));
  const client = clientOf(opa.path);
  const forged = { uid: 0, gid: 0, groups: [0], user: "root" };
  for (const name of ["peer", "input", "__proto__", "action", "attributes"]) {
    const attributes = JSON.parse(
      JSON.stringify({ [name]: null }).replace("null", JSON.stringify(forged)),
    );
    assert.equal(await outcomeOf(client, { action: "x", attributes }), "denied", name);
  }
  for (const { body: { input } } of opa.received) {
    assert.deepEqual([input.peer["uid"], input.action], [1000, "x"]);
    assert.deepEqual(Object.keys(input), ["peer", "action", "attributes"]);
  }
});
