/** HTTP handlers and policies that throw: the client receives 500, and the server continues. */

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import type { Peer } from "../../mod.ts";
import { serve } from "../../servers/http.ts";
import { freshPath } from "../support/peers.ts";
import { eventsOf, policy, testEach, testServe, Wire } from "../support/http.ts";

testEach("answers 500 and continues when a handler throws before the response", async (kind) => {
  const failures: { [url: string]: () => never | Promise<never> } = {
    "/throws": () => {
      throw new Error("thrown");
    },
    "/rejects": () => Promise.reject(new Error("rejected")),
    "/rejects-later": async () => {
      await sleep(1);
      throw new Error("rejected");
    },
    "/throws-nothing": () => {
      throw undefined;
    },
    "/throws-odd": () => {
      throw Object.create(null);
    },
  };
  const server = await kind.start({ policy }, ({ url }) => failures[url]?.() ?? { body: "fine" });
  using events = eventsOf(server);
  const urls = Object.keys(failures);
  for (const url of urls) {
    const wire = Wire.as(1001, server.path);
    assert.equal((await wire.get(url)).status, 500, url);
    assert.equal((await Wire.as(1001, server.path).get("/fine")).body, "fine");
  }
  assert.equal(server.stats().failed, urls.length);
  assert.equal(events.filter(({ type }) => type === "failed").length, urls.length);
});

testEach("closes the connection when the response stream fails", async (kind) => {
  const server = await kind.start({ policy }, () => ({
    body: (async function* () {
      yield Buffer.from("begun");
      await sleep(10);
      throw new Error("no more");
    })(),
  }));
  const text = await Wire.as(1001, server.path).send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n").rest();
  assert.match(text, /^HTTP\/1\.1 200/);
  assert.doesNotMatch(text, /\r\n0\r\n\r\n$/, "the response is incomplete to any client");
  assert.equal((await Wire.as(1001, server.path).get("/secret")).status, 403);
});

testServe("answers 500 when fetch() returns no Response or one that was read", async (kind) => {
  const used = new Response("used");
  await used.text();
  const odd: { [path: string]: unknown } = {
    "/nothing": undefined,
    "/null": null,
    "/text": "text",
    "/object": { status: 200 },
    "/error": Response.error(),
    "/used": used,
  };
  const path = freshPath();
  await using server = await serve({
    path,
    engine: kind.name.endsWith("deno") ? "deno" : "node:http",
    fetch: ({ url }) => {
      const { pathname } = new URL(url);
      const answer = pathname.slice(1) in {} ? undefined : odd[pathname.replace("/later", "")];
      if (pathname === "/fine") return new Response("fine");
      return (pathname.startsWith("/later") ? sleep(1, answer) : answer) as Response;
    },
  });
  const paths = Object.keys(odd).flatMap((path) => [path, `/later${path}`]);
  for (const target of paths) {
    assert.equal((await Wire.as(0, path).get(target)).status, 500, target);
  }
  assert.equal((await Wire.as(0, path).get("/fine")).body, "fine");
  assert.equal(server.stats().failed, paths.length);
});

testEach("answers 500 and runs no handler when the policy throws", async (kind) => {
  let handled = 0;
  const throwing = {
    needsPin: false,
    admits: (peer: Peer) => policy.admits(peer),
    decide: (peer: Peer, about?: { action?: string }) => {
      if (about?.action === "GET /fails") throw new Error("no accounts today");
      return policy.decide(peer, about);
    },
  };
  const server = await kind.start({ policy: throwing }, () => {
    handled++;
    return { body: "handled" };
  });
  using events = eventsOf(server);
  const wire = Wire.as(1001, server.path);
  const { status, body, headers } = await wire.get("/fails");
  assert.equal(status, 500);
  assert.equal(headers["content-type"], "application/problem+json");
  assert.doesNotMatch(body, /accounts/);
  assert.equal(handled, 0);
  assert.equal((await wire.get("/a")).body, "handled");
  const { failed, denied, allowed } = server.stats();
  assert.deepEqual([failed, denied, allowed], [1, 1, 1]);
  const failures = events.filter((event) => event.type === "failed");
  assert.match(String(failures[0]?.error), /no accounts today/);
});
