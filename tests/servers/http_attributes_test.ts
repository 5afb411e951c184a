/** Attributes of HTTP requests: how they are read, and that each server passes them to its policy. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect as connectHttp2 } from "node:http2";
import { connect } from "node:net";
import { test } from "node:test";
import { Hono } from "hono";
import { definePolicy, type Policy } from "../../mod.ts";
import { parsePolicy, shadowPolicy } from "../../policy/mod.ts";
import { auditLog } from "../../servers/audit.ts";
import { type PeerEnv, requirePeer } from "../../servers/hono.ts";
import { serve } from "../../servers/http.ts";
import { attributesOf } from "../../servers/http/request_attributes.ts";
import { answerAll, answerOf, Behind } from "../support/guard.ts";
import { guardHere } from "../support/guard_here.ts";
import { eventsOf, onDeno, testEach, testHere, Wire } from "../support/http.ts";
import { freshPath } from "../support/peers.ts";
import { needs } from "../support/suite.ts";

const headersOf = (host: readonly string[], type: readonly string[] = []) => {
  return (name: string) => name === "host" ? host : type;
};

const hostOf = (...values: string[]) => attributesOf("/", headersOf(values))["host"];
const typeOf = (...values: string[]) => attributesOf("/", headersOf([], values))["contentType"];
const queryOf = (query: string) => {
  const parameters = attributesOf(`/a?${query}`, headersOf([]))["query"];
  return parameters === undefined
    ? undefined
    : Object.fromEntries(Object.entries(parameters as { [name: string]: string[] }));
};

test("attributesOf() returns the host in lower case, without the port", () => {
  assert.equal(hostOf(), null);
  assert.equal(hostOf("example.com"), "example.com");
  assert.equal(hostOf("EXAMPLE.com:8080"), "example.com");
  assert.equal(hostOf("x:65535"), "x");
  assert.equal(hostOf("x:"), "x");
  assert.equal(hostOf("127.0.0.1:80"), "127.0.0.1");
  assert.equal(hostOf("[::1]:80"), "[::1]");
});

test("attributesOf() treats a host that programs read in different ways as unknown", () => {
  for (const host of ["ex%61mple.com", "example.com.", "0x7f.1", "127.1", "[::0:1]", "\u00e9.de"]) {
    assert.equal(hostOf(host), undefined, host);
  }
  assert.equal(hostOf("a", "a"), undefined);
});

test("attributesOf() returns the media type in lower case, without parameters", () => {
  assert.equal(typeOf(), null);
  assert.equal(typeOf("Application/JSON"), "application/json");
  assert.equal(typeOf("text/plain; charset=utf-8"), "text/plain");
  assert.equal(typeOf("application/vnd.docker.raw-stream"), "application/vnd.docker.raw-stream");
  for (
    const type of [
      "",
      "text",
      "text/plain, application/json",
      "a/b;c=d,e/f",
      "a/b c",
      "a/\u00e9",
      "a/b\u00a0",
      "\u00a0a/b;c",
    ]
  ) {
    assert.equal(typeOf(type), undefined, type);
  }
  assert.equal(typeOf("text/plain", "text/plain"), undefined);
});

test("attributesOf() returns the decoded query parameters", () => {
  assert.deepEqual(attributesOf("/a", headersOf([]))["query"], Object.create(null));
  assert.deepEqual(queryOf(""), {});
  assert.deepEqual(queryOf("a=1&b=2&&a=3&c&=d"), { a: ["1", "3"], b: ["2"], c: [""], "": ["d"] });
  assert.deepEqual(queryOf("%61=%C3%A9+1=2"), { a: ["\u00e9 1=2"] });
  assert.deepEqual(queryOf("__proto__=1&constructor=2"), {
    ...{ ["__proto__"]: ["1"], constructor: ["2"] },
  });
  assert.deepEqual(queryOf("a?b=1"), { "a?b": ["1"] });
});

test("attributesOf() counts a parameter under each name that programs read", () => {
  assert.deepEqual(queryOf("a[]=1&a[b]=2&a%5Bc%5D=3")!["a"], ["1", "2", "3"]);
  assert.deepEqual(queryOf("a.b=1&a+b=2&a.b[c]=3")!["a_b"], ["1", "2", "3"]);
});

test("attributesOf() treats a query that programs read in different ways as unknown", () => {
  const long = Array.from({ length: 1001 }, () => "a").join("&");
  for (
    const query of [
      "a=1;b=2",
      "a=%zz",
      "a=%",
      "%ff=1",
      "a%00=1",
      "a=1%00",
      "+a=1",
      "a%0a=1",
      "\xe9=1",
      ...["[a]=1", "%5Ba%5D=1", "[a][b]=1", "[[a]]=1", "]a=1", "a]=1", "a%5D=1", "a[b=1", "a[[b=1"],
      ...["a=b]=c", "a=b%5D=c", "a=[b]=c", "=[a]=1", "?a=1"],
    ]
      .concat(long)
  ) assert.equal(queryOf(query), undefined, query);
  assert.equal(queryOf(long.slice(2))!["a"]!.length, 1000);
});

test("attributesOf() agrees with URLSearchParams on queries with one reading", () => {
  const parts = ["a", "=", "&", "%20", "+", "%C3%A9", "1", "b", "-"];
  let seed = 1;
  for (let round = 0; round < 500; round++) {
    let query = "";
    for (let at = 0; at < 12; at++) {
      seed = seed * 48271 % 0x7fffffff;
      query += parts[seed % parts.length];
    }
    const found = queryOf(query);
    if (found === undefined) continue; // a name that begins with a space
    const expected: { [name: string]: string[] } = {};
    for (const [name, value] of new URLSearchParams(query)) (expected[name] ??= []).push(value);
    for (const [name, values] of Object.entries(expected)) {
      assert.deepEqual(found[name], values, query);
    }
  }
});

const TEXT = `
version: 1
about: http
rules:
  - name: no dry runs of others
    actions: POST /**
    where: { not: { query: { dry: { every: "1", empty: false } } } }
    deny: only dry runs
  - name: no forms
    where: { contentType: "multipart/**" }
    deny: no forms
  - name: on this host
    where: { host: [app.test, localhost] }
    allow: here
`;

/** Request head and body, and the status of the response. */
const REQUESTS: readonly (readonly [request: string, status: number])[] = [
  ["GET /a HTTP/1.1\r\nHost: app.test\r\n\r\n", 200],
  ["GET /a HTTP/1.1\r\nHost: APP.test:80\r\n\r\n", 200],
  ["GET /a HTTP/1.1\r\nHost: other.test\r\n\r\n", 403],
  ["GET http://app.test/a HTTP/1.1\r\nHost: other.test\r\n\r\n", 403],
  ["GET /a HTTP/1.1\r\nHost: app%2etest\r\n\r\n", 403],
  [
    "GET /a HTTP/1.1\r\nHost: app.test\r\nContent-Type: multipart/form-data; boundary=x\r\n\r\n",
    403,
  ],
  ["GET /a HTTP/1.1\r\nHost: app.test\r\nContent-Type: text/a, multipart/b\r\n\r\n", 403],
  [
    "GET /a HTTP/1.1\r\nHost: app.test\r\ncontent-type: text/a\r\nContent-Type: multipart/b\r\n\r\n",
    403,
  ],
  ["POST /a?dry=1 HTTP/1.1\r\nHost: app.test\r\nContent-Length: 0\r\n\r\n", 200],
  ["POST /a?dry=1&dry=0 HTTP/1.1\r\nHost: app.test\r\nContent-Length: 0\r\n\r\n", 403],
  ["POST /a?dry=1&dry[]=0 HTTP/1.1\r\nHost: app.test\r\nContent-Length: 0\r\n\r\n", 403],
  ["POST /a?dry=1;dry=0 HTTP/1.1\r\nHost: app.test\r\nContent-Length: 0\r\n\r\n", 403],
  ["POST /a HTTP/1.1\r\nHost: app.test\r\nContent-Length: 0\r\n\r\n", 403],
];

async function statusOf(path: string, request: string): Promise<number> {
  const wire = await Wire.open(path);
  wire.send(request);
  const { status } = await wire.response();
  wire.destroy();
  return status;
}

testEach("passes attributes to a policy with `about: http`", async (kind) => {
  const server = await kind.start({ policy: parsePolicy(TEXT) }, () => ({ body: "x" }));
  const events = eventsOf(server);
  for (const [request, status] of REQUESTS) {
    assert.equal(await statusOf(server.path, request), status, request);
  }
  const seen = events.flatMap((event) => event.type === "decided" ? [event.attributes] : []);
  assert.deepEqual(seen[0], { host: "app.test" });
  assert.deepEqual(seen[2], { "query.dry": 0, contentType: null, host: "other.test" });
  assert.deepEqual(seen[5], { contentType: "multipart/form-data" });
  assert.deepEqual(seen[9], { "query.dry": 2 });
});

testEach(
  "passes attributes to a candidate policy, and to a policy of the application",
  async (kind) => {
    const about = parsePolicy(TEXT);
    const without = definePolicy({ version: 1, rules: [{ name: "all", allow: true }] });
    const denied: unknown[] = [];
    const shadow = shadowPolicy(without, about, {
      onDifference: ({ action, candidate }) => {
        if (action !== undefined && !candidate.allowed) denied.push(action);
      },
    });
    const wrapped: Policy = {
      needsPin: false,
      decide: (peer, options) => about.decide(peer, options),
      admits: () => true,
    };
    for (const policy of [shadow, wrapped]) {
      const { path } = await kind.start({ policy }, () => ({ body: "x" }));
      for (const [request, status] of REQUESTS) {
        assert.equal(await statusOf(path, request), policy === shadow ? 200 : status, request);
      }
    }
    assert.equal(denied.length, REQUESTS.filter(([, status]) => status === 403).length);
  },
);

testHere("serve() by deno passes no host of HTTP/2, which has no Host header", async () => {
  const server = await onDeno.start({ policy: parsePolicy(TEXT) }, () => ({ body: "x" }));
  const client = connectHttp2("http://app.test", { createConnection: () => connect(server.path) });
  try {
    const [headers] = await once(client.request({ ":path": "/a" }), "response");
    assert.equal(headers[":status"], 403);
  } finally {
    client.destroy();
  }
}, needs.deno);

testHere("requirePeer() passes attributes to its policy", async () => {
  const app = new Hono<PeerEnv>();
  app.use(requirePeer(parsePolicy(TEXT)));
  app.all("/a", (context) => context.text("x"));
  await using server = await serve({ path: freshPath(), fetch: (request) => app.fetch(request) });
  for (const [request, status] of REQUESTS) {
    assert.equal(await statusOf(server.path, request), status, request);
  }
});

testHere("createGuard() passes attributes, and writes them to the audit log", async () => {
  const behind = await Behind.start((end) => answerAll(end, () => answerOf("x")));
  const file = freshPath("audit.log");
  const audit = auditLog({ file });
  const policy = parsePolicy(TEXT);
  const { path, guard } = await guardHere({ mode: "http", upstream: behind.path, policy, audit });
  const requests: typeof REQUESTS = [
    ...REQUESTS,
    ["GET /a HTTP/1.0\r\n\r\n", 200], // forwarded with "Host: localhost"
    // CGI treats both as one header. The first is not forwarded.
    ["GET /a HTTP/1.1\r\nHost: app.test\r\nContent_Type: multipart/b\r\n\r\n", 403],
    [
      "GET /a HTTP/1.1\r\nHost: app.test\r\nConnection: content-type\r\nContent-Type: multipart/b\r\n\r\n",
      200,
    ],
  ];
  for (const [request, status] of requests) {
    assert.equal(await statusOf(path, request), status, request);
  }
  await guard.close({ timeout: 0 });
  await audit.close();
  const records = readFileSync(file, "utf8").trim().split("\n").map((line) => JSON.parse(line))
    .filter(({ event }) => event === "decided");
  assert.deepEqual(
    records.map(({ allowed }) => allowed ? 200 : 403),
    requests.map(([, status]) => status),
  );
  assert.deepEqual(records[0].attributes, { host: "app.test" });
  assert.deepEqual(records[9].attributes, { "query.dry": 2 });
});
