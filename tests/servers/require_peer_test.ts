/** `requirePeer()` of `ucred/express`, `ucred/koa` and `ucred/fastify`, without the frameworks. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer as createPlainServer, type IncomingMessage } from "node:http";
import { test } from "node:test";
import { requireOpa } from "../../interop/opa/mod.ts";
import { parsePolicy } from "../../policy/mod.ts";
import { wholeUrlOf } from "../../servers/admission/attach.ts";
import { requirePeer as forExpress } from "../../servers/express.ts";
import { requirePeer as forFastify } from "../../servers/fastify.ts";
import { requirePeer as forHono } from "../../servers/hono.ts";
import { createServer, peerOf } from "../../servers/http.ts";
import { type KoaContext, requirePeer as forKoa } from "../../servers/koa.ts";
import { eventsOf, running, Wire } from "../support/http.ts";
import { freshPath } from "../support/peers.ts";

const policy = parsePolicy(`
version: 1
about: http
rules:
  - name: only here
    actions: ["GET /admin/**", "POST /admin/**"]
    where: { host: app.test, query: { dry: { every: "1" } } }
    allow: true
`);

/** Starts a server that allows everyone, with this handler for requests. */
async function start(...[options, app]: Parameters<typeof createServer>): Promise<string> {
  const path = freshPath();
  const server = createServer(options, app);
  server.listen({ path, mode: 0o666 });
  await once(server, "listening");
  return running(server, path).path;
}

async function statusOf(path: string, head: string, body = ""): Promise<number> {
  const wire = await Wire.open(path);
  try {
    wire.send(`${head}\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
    return (await wire.response()).status;
  } finally {
    wire.destroy();
  }
}

/** Requests, and whether the policy allows them. */
const REQUESTS: readonly (readonly [head: string, allowed: boolean])[] = [
  ["GET /admin/users?dry=1 HTTP/1.1\r\nHost: app.test", true],
  ["POST /admin/users?dry=1 HTTP/1.1\r\nHost: app.test", true],
  ["GET /x/../admin//users?dry=1 HTTP/1.1\r\nHost: app.test", true],
  ["GET /admin/users?dry=1 HTTP/1.1\r\nHost: other.test", false],
  ["GET /admin/users?dry=1&dry=0 HTTP/1.1\r\nHost: app.test", false],
  ["GET /admin/users HTTP/1.1\r\nHost: app.test", true], // every one of no values
  ["DELETE /admin/users?dry=1 HTTP/1.1\r\nHost: app.test", false],
  ["GET /users?dry=1 HTTP/1.1\r\nHost: app.test", false],
  ["GET /admin/../users?dry=1 HTTP/1.1\r\nHost: app.test", false],
];

test("requirePeer() of ucred/express decides by the whole path and the attributes, and calls next() once", async () => {
  const check = forExpress(policy);
  let calls = 0;
  const path = await start({ policy: "anyone" }, (request, response) => {
    // A router that is mounted at a path removes that path from request.url.
    Object.assign(request, { originalUrl: request.url, url: "/admin/users?dry=1" });
    check(request, response, () => {
      calls++;
      response.end(`uid ${peerOf(request).uid}`);
    });
  });
  for (const [head, allowed] of REQUESTS) {
    const before = calls;
    assert.equal(await statusOf(path, head), allowed ? 200 : 403, head);
    assert.equal(calls - before, Number(allowed), head);
  }
});

test("requirePeer() of ucred/express answers a denied request while its body arrives, and the connection has no second request", async () => {
  const check = forExpress(policy);
  const path = await start({ policy: "anyone" }, (request, response) => {
    check(request, response, () => response.end("secret"));
  });
  const wire = await Wire.open(path);
  const inner = "GET /admin/users?dry=1 HTTP/1.1\r\nHost: app.test\r\n\r\n";
  wire.send(`POST /users HTTP/1.1\r\nHost: app.test\r\nContent-Length: ${inner.length}\r\n\r\n`);
  const { status, headers } = await wire.response();
  assert.deepEqual([status, headers["content-type"]], [403, "application/problem+json"]);
  const rest = await wire.send(inner).rest();
  assert.doesNotMatch(rest, /secret/);
});

test("requirePeer() of ucred/koa decides by originalUrl, and adds the peer to the state", async () => {
  const check = forKoa(policy);
  const path = await start({ policy: "anyone" }, async (request, response) => {
    const headers: { [name: string]: string } = {};
    const context: KoaContext = {
      req: request,
      originalUrl: request.url!,
      state: {},
      status: 404,
      body: undefined,
      set: (more) => Object.assign(headers, more),
    };
    await check(context, () => {
      assert.deepEqual(Object.keys(context.state), ["peer", "decision"]);
      context.status = 200;
      context.body = "x";
      return Promise.resolve();
    });
    response.writeHead(context.status, headers).end(context.body);
  });
  for (const [head, allowed] of REQUESTS) {
    assert.equal(await statusOf(path, head), allowed ? 200 : 403, head);
  }
});

test("requirePeer() of ucred/hono and requireOpa() decide by the whole path below mount()", async () => {
  const check = forHono(policy);
  const seen: string[] = [];
  const opa = requireOpa({
    decide: (_, { action = "" } = {}) => {
      seen.push(action);
      return Promise.resolve({ allowed: true, outcome: "allowed", decisionId: undefined });
    },
    close: () => {},
  });
  const path = await start({ policy: "anyone" }, async (incoming, response) => {
    // What @hono/node-server passes to an application that is mounted at the first segment.
    const url = `http://app.test${incoming.url!.replace(/^\/[^/?]+/, "") || "/"}`;
    const { method = "" } = incoming;
    const raw = new Request(url, { method, headers: { host: incoming.headers.host! } });
    const context = { req: { raw }, env: { incoming }, set: () => {} };
    await opa(context, () => {});
    let isAllowed = false;
    const next = () => Promise.resolve(void (isAllowed = true));
    await check(context as unknown as Parameters<typeof check>[0], next);
    response.writeHead(isAllowed ? 200 : 403).end();
  });
  for (const [head, allowed] of REQUESTS) {
    assert.equal(await statusOf(path, head), allowed ? 200 : 403, head);
  }
  assert.deepEqual(seen.slice(0, 2), ["GET /admin/users", "POST /admin/users"]);
  // A request that the application has made itself, with another path or method.
  const made = new Request("http://h/other", { method: "DELETE" });
  const received = { method: "POST", url: "/admin/users?dry=1" };
  assert.equal(wholeUrlOf(made, received), "http://h/other");
});

test("requirePeer() throws for a request of a server that is not of ucred/http", async () => {
  const errors: unknown[] = [];
  const server = createPlainServer((request, response) => {
    for (const check of [forExpress(), forExpress(policy)]) {
      try {
        check(request, response, () => errors.push("next"));
      } catch (error) {
        errors.push((error as { code?: string }).code);
      }
    }
    response.end();
  });
  const path = freshPath();
  await once(server.listen(path), "listening");
  try {
    assert.equal(await statusOf(path, "GET /admin/users?dry=1 HTTP/1.1\r\nHost: app.test"), 200);
    assert.deepEqual(errors, ["ERR_UCRED_NO_PEER", "ERR_UCRED_NO_PEER"]);
  } finally {
    server.closeAllConnections();
    server.close();
  }
});

test("requirePeer() throws for an object in the form of a request", async () => {
  const fake = { method: "GET", url: "/admin/users", rawHeaders: [], socket: {} };
  const request = fake as unknown as IncomingMessage;
  const noPeer = { code: "ERR_UCRED_NO_PEER" };
  const next = () => assert.fail("next() was called");
  assert.throws(() => forExpress(policy)(request, {} as never, next), noPeer);
  const context = { req: request, originalUrl: "/admin/users", state: {} } as KoaContext;
  await assert.rejects(forKoa(policy)(context, () => Promise.resolve(next())), noPeer);
  assert.deepEqual(context.state, {});
});

test("a policy that throws in requirePeer() leads to 500, and to no call of next()", async () => {
  const broken = {
    ...{ needsPin: false, admits: () => true },
    decide: () => {
      throw new Error("broken");
    },
  };
  const check = forExpress(broken);
  const path = freshPath();
  const server = createServer({ policy: "anyone" }, (request, response) => {
    check(request, response, () => response.end("secret"));
  });
  server.listen({ path });
  await once(server, "listening");
  using events = eventsOf(running(server, path));
  assert.equal(await statusOf(path, "GET /admin/users HTTP/1.1\r\nHost: app.test"), 500);
  assert.equal(events.filter(({ type }) => type === "failed").length, 1);
});

/** Registers the plugin in an instance that records its calls. */
async function register(options: object): Promise<string[]> {
  const calls: string[] = [];
  await forFastify({
    hasRequestDecorator: (name) => calls.includes(`decorate ${name}`),
    decorateRequest: (name) => calls.push(`decorate ${name}`),
    addHook: (name) => calls.push(`hook ${name}`),
  }, options);
  return calls;
}

test("requirePeer() of ucred/fastify accepts the options of register(), and no others", async () => {
  const calls = ["decorate peer", "decorate decision", "hook onRequest"];
  assert.deepEqual(await register({ policy, prefix: "/a", logLevel: "info" }), calls);
  await assert.rejects(register({ polciy: policy }), /requirePeer\(\) .*did you mean "policy"/);
  for (const wrong of [{}, undefined, null]) {
    await assert.rejects(register({ policy: wrong }), /requires a Policy/);
  }
});
