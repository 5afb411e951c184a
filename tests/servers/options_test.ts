/** Every public function rejects unknown options, and suggests the probable one. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { connect as connectTo, createServer as createNetServer } from "node:net";
import { test } from "node:test";
import { connect } from "../../client/connect.ts";
import { createClient } from "../../client/mod.ts";
import { requireOptions } from "../../core/options.ts";
import { definePolicy, identify, type PolicyDocument, verifyServer } from "../../mod.ts";
import { receive } from "../../servers/datagram.ts";
import { lint, loadPolicy, parsePolicy, shadowPolicy, watchPolicy } from "../../policy/mod.ts";
import { listen as listenOnBun } from "../../servers/bun.ts";
import { requirePeer as forExpress } from "../../servers/express.ts";
import { requirePeer } from "../../servers/hono.ts";
import { requirePeer as forKoa } from "../../servers/koa.ts";
import { createServer as createHttpServer, serve } from "../../servers/http.ts";
import { withPeers } from "../../servers/listen/deno_peers.ts";
import { createServer } from "../../servers/net.ts";
import { auditLog } from "../../servers/audit.ts";
import { freshPath } from "../support/peers.ts";
import { needs, testWith } from "../support/suite.ts";

const document: PolicyDocument = { version: 1, rules: [{ name: "all", allow: true }] };
const policy = definePolicy(document);
const net = createServer();
const http = createHttpServer();

/** Options without type checks, as in JavaScript. */
const any = (options: object) => options as never;
const fetch = () => new Response("");

const MISTAKES: readonly [name: string, call: () => unknown, message: RegExp][] = [
  [
    "definePolicy()",
    () => definePolicy(document, any({ acounts: {} })),
    /^definePolicy\(\) has no option "acounts"; did you mean "accounts"\?$/,
  ],
  ["decide()", () => policy.decide({ uid: 1 }, any({ actoin: "GET /" })), /did you mean "action"/],
  ["explain()", () => policy.explain({ uid: 1 }, any({ actions: "GET /" })), /mean "action"/],
  ["lint()", () => lint(policy, any({ abstract: true })), /did you mean "abstractSocket"/],
  ["shadowPolicy()", () => shadowPolicy(policy, policy, any({ ondifference() {} })), /onDiffer/],
  ["parsePolicy()", () => parsePolicy("", any({ runTest: true })), /did you mean "runTests"/],
  [
    "loadPolicy()",
    () => loadPolicy("/none", any({ allowUnsafeOwners: true })),
    /did you mean "allowUnsafeOwner"/,
  ],
  ["loadPolicy() with a name", () => loadPolicy("/none", any({ file: "x" })), /no option "file"/],
  ["watchPolicy()", () => watchPolicy("/none", any({ onreload() {} })), /did you mean "onReload"/],
  ["receive()", () => receive("/none/s", any({ maxbytes: 1 })), /did you mean "maxBytes"/],
  ["auditLog()", () => auditLog(any({ path: "/none" })), /has no option "path"; it has "file", /],
  ["createServer() of net", () => createServer(any({ polciy: policy })), /did you mean "policy"/],
  ["its limits", () => createServer({ limits: any({ connection: 1 }) }), /^limits has .*"connec/],
  ["createServer() of http", () => createHttpServer(any({ polciy: policy })), /mean "policy"/],
  ["its Node options", () => createHttpServer(any({ headerTimeout: 1 })), /mean "headersTimeout"/],
  ["listen()", () => net.listen(any({ path: freshPath(), mod: 0o600 })), /did you mean "mode"/],
  ["listen() of http", () => http.listen(any({ path: freshPath(), exclusive: true })), /exclusive/],
  ["close()", () => net.close(any({ timout: 1 })), /did you mean "timeout"/],
  ["close() of http", () => http.close(any({ timout: 1 })), /did you mean "timeout"/],
  ["serve()", () => serve(any({ path: freshPath(), fetch, polciy: policy })), /mean "policy"/],
  [
    "connect()",
    () => connect(any({ path: "/none", expected: { uid: 0 } })),
    /did you mean "expect/,
  ],
  [
    "createClient()",
    () => createClient(any({ path: "/none", except: {} })),
    /did you mean "expect/,
  ],
  [
    "withPeers()",
    () => withPeers(any({ addr: { transport: "unix", path: "/none" } }), any({ polciy: policy })),
    /did you mean "policy"/,
  ],
  ["requirePeer()", () => requirePeer(any({ policy })), /requires a Policy/],
  ["requirePeer() of express", () => forExpress(any({ policy })), /requires a Policy/],
  ["requirePeer() of undefined", () => requirePeer(undefined as never), /requires a Policy/],
  ["requirePeer() of express, too", () => forExpress(undefined as never), /requires a Policy/],
  ["requirePeer() of koa, too", () => forKoa(undefined as never), /requires a Policy/],
  ["requirePeer() of koa", () => forKoa(any({ policy })), /requires a Policy/],
  ["a handler that is none", () => createServer({}, any({})), /The handler must be a function/],
  ["options that are none", () => createServer(any("app.sock" as never)), /object of options/],
];

for (const [name, call, message] of MISTAKES) {
  test(`${name} rejects an unknown option`, async () => {
    await assert.rejects(async () => void await call(), { name: "TypeError", message });
  });
}

testWith([needs.bun], "listen() of ucred/bun rejects an unknown option", async () => {
  const path = freshPath();
  for (
    const [options, message] of [
      [{ path, socket: {}, polciy: policy }, /did you mean "policy"/],
      [{ path, socket: { opne() {} } }, /socket of listen\(\) has .*"open"/],
    ] as const
  ) await assert.rejects(listenOnBun(any(options)), { name: "TypeError", message });
});

testWith([needs.linux], "identify() and verifyServer() reject unknown options", async () => {
  const path = freshPath();
  const server = createNetServer((socket) => void socket.on("error", () => {}).resume());
  server.listen(path);
  await once(server, "listening");
  const client = connectTo(path);
  await once(client, "connect");
  assert.throws(() => identify(client, any({ pinned: true })), {
    name: "TypeError",
    message: 'identify() has no option "pinned"; did you mean "pin"?',
  });
  assert.throws(() => verifyServer(client, any({ usr: "root" })), { message: /mean "user"/ });
  assert.equal(client.destroyed, true);
  await new Promise((resolve) => server.close(resolve));
});

test("requireOptions() accepts undefined, inherited and known options, and nothing else", () => {
  const names = { one: true, two: true } as const;
  const check = (options: unknown) => requireOptions("f()", options, names);
  check({});
  check({ one: 1, two: undefined, three: undefined });
  check(Object.create({ three: 3 }));
  for (const wrong of [null, undefined, "one", 1, () => {}]) {
    const found = typeof wrong === "function" ? "a function" : JSON.stringify(wrong) ?? "undefined";
    const message = `f() takes an object of options, not ${found}`;
    assert.throws(() => check(wrong), { name: "TypeError", message });
  }
  for (const name of ["toString", "__proto__", "constructor", "three", ""]) {
    const options = Object.defineProperty({}, name, { value: 1, enumerable: true });
    assert.throws(() => check(options), { name: "TypeError", message: /no option/ }, name);
  }
  assert.throws(() => check({ "\u202eone": 1 }), {
    message: /no option "\\u202eone"; did you mean/,
  });
});

testWith([needs.linux], "createServer() accepts only a handler", async () => {
  const server = createServer((socket) => void socket.end("welcome"));
  const path = freshPath();
  server.listen(path);
  await once(server, "listening");
  const client = connectTo(path).setEncoding("utf8");
  assert.deepEqual(await once(client, "data"), ["welcome"]);
  await server.close({ timeout: 0 });
});

testWith([needs.linux], "createServer() of ucred/http accepts only a handler", async () => {
  const server = createHttpServer((_, response) => void response.end("welcome"));
  const path = freshPath();
  server.listen(path);
  await once(server, "listening");
  const client = createClient({ path, expect: { uid: process.geteuid!() } });
  assert.equal(await (await client.fetch("http://localhost/")).text(), "welcome");
  client.close();
  await server.close({ timeout: 0 });
});
