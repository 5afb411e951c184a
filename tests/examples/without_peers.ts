/**
 * Serves an application of each framework without a server of ucred, sends requests with forged headers, and
 * prints the statuses as JSON. The argument is the path at which a server of ucred may listen.
 */

import { createServer, type RequestListener } from "node:http";
import { createRequire } from "node:module";
import type { AddressInfo } from "node:net";
import process from "node:process";
import { createClient } from "../../client/mod.ts";
import { definePolicy } from "../../mod.ts";
import { requirePeer as forExpress } from "../../servers/express.ts";
import { requirePeer as forFastify } from "../../servers/fastify.ts";
import { requirePeer as forHono } from "../../servers/hono.ts";
import { peerOf, serve } from "../../servers/http.ts";
import { requirePeer as forKoa } from "../../servers/koa.ts";

const require = createRequire(new URL("../../examples/servers/package.json", import.meta.url));

/** Allows every peer, so that only the missing peer can lead to a rejection. */
const everyone = definePolicy({ version: 1, rules: [{ name: "all", allow: true }] });

const headers = {
  "x-ucred-uid": "0",
  "x-ucred-user": "root",
  forwarded: "for=unix:",
  "x-forwarded-for": "127.0.0.1",
  "x-real-ip": "127.0.0.1",
};

/** How often a handler ran. */
let ran = 0;
const handler = (): string => {
  ran++;
  return "secret";
};

const statuses: { [name: string]: number } = {};

async function overTcp(
  name: string,
  app: RequestListener,
  path = "/",
  ...requests: RequestInit[]
): Promise<void> {
  const server = createServer(app);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  if (requests.length === 0) requests = [{ headers }, { headers, method: "POST" }];
  for (const request of requests) {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, request);
    await response.body?.cancel();
    statuses[`${name} over TCP, ${request.method ?? "GET"}`] = response.status;
  }
  server.closeAllConnections();
  server.close();
}

for (const policy of [undefined, everyone]) {
  const which = policy === undefined ? "" : " with a policy";

  const express = require("express")();
  express.set("env", "test"); // does not print errors
  express.use(policy === undefined ? forExpress() : forExpress(policy)).all(
    "/",
    (_: unknown, response: { send(text: string): void }) => {
      response.send(handler());
    },
  );
  await overTcp(`Express${which}`, express);

  const koa = new (require("koa"))({ silent: true });
  koa.silent = true;
  koa.use(policy === undefined ? forKoa() : forKoa(policy)).use((context: { body: string }) => {
    context.body = handler();
  });
  await overTcp(`Koa${which}`, koa.callback());

  // The routes are defined before the plugin and after it.
  const fastify = require("fastify")();
  const plugin =
    (path: string) =>
    (inner: { get(path: string, run: () => string): void }, _: object, done: () => void) => {
      inner.get(path, handler);
      done();
    };
  fastify.register(plugin("/earlier"));
  fastify.get("/", handler);
  fastify.register(forFastify, policy === undefined ? {} : { policy });
  fastify.post("/", handler);
  fastify.register(plugin("/later"));
  await fastify.ready();
  await overTcp(`Fastify${which}`, fastify.routing);
  for (const url of ["/", "/earlier", "/later", "/none"]) {
    const { statusCode } = await fastify.inject({ url, headers });
    statuses[`Fastify${which}, inject() of ${url}`] = statusCode;
  }

  const hono = new (require("hono").Hono)();
  hono.onError((_: unknown, context: { text(text: string, status: number): Response }) =>
    context.text("", 500)
  );
  hono.use(policy === undefined ? forHono() : forHono(policy)).all(
    "/",
    (context: { text(text: string): Response }) => context.text(handler()),
  );
  statuses[`Hono${which}, request()`] = (await hono.request("/", { headers })).status;
  await overCopies(`Hono${which}`, hono);
}

const { createContextKey, createContextValues } = require("@connectrpc/connect");
const { Hall } = await import("../../examples/servers/hall_pb.ts");
const kRequest = createContextKey({});
const connect = require("@connectrpc/connect-node").connectNodeAdapter({
  contextValues: (request: object) => createContextValues().set(kRequest, request),
  interceptors: [
    (next: (call: object) => unknown) =>
    (call: { contextValues: { get(key: object): object } }) => {
      peerOf(call.contextValues.get(kRequest));
      return next(call);
    },
  ],
  routes: (router: { service(service: object, methods: object): void }) =>
    router.service(Hall, { welcome: () => ({ text: handler() }) }),
});
await overTcp("Connect-RPC", connect, "/hall.Hall/Welcome", {
  method: "POST",
  headers: { ...headers, "content-type": "application/json" },
  body: "{}",
});

const { H3 } = require("h3");
const h3 = new H3({ silent: true });
h3.use(({ req }: { req: Request }) => void peerOf(req));
h3.all("/", handler);
statuses["h3, request()"] = (await h3.request("/", { headers })).status;
await overCopies("h3", h3);

/** Serves copies of the requests, as a proxy inside the program would. */
async function overCopies(
  name: string,
  app: { fetch(request: Request): Response | Promise<Response> },
): Promise<void> {
  const server = await serve({
    path: process.argv[2]!,
    fetch: ({ url, method, headers }) => app.fetch(new Request(url, { method, headers })),
  });
  const client = createClient({ path: server.path, expect: { uid: process.geteuid!() } });
  statuses[`${name}, a copy`] = (await client.fetch("http://localhost/", { headers })).status;
  client.close();
  await server.close({ timeout: 0 });
}

console.log(JSON.stringify({ statuses, ran }));
process.exit();
