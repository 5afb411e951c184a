/**
 * One server of the benchmark: `server.ts KIND WHERE`. Prints "ready", and answers each line on its
 * input with the CPU time that it has used, in µs.
 */

import { createServer as createHttpServer } from "node:http";
import { createServer as createNetServer } from "node:net";
import process from "node:process";
import { createInterface } from "node:readline";
import { NodeRequest, sendNodeResponse } from "srvx/node";
import { definePolicy } from "../../mod.ts";
import { listen as listenByBun } from "../../servers/bun_listen.ts";
import { withPeers } from "../../servers/deno.ts";
import { createServer as createUcredHttpServer, serve } from "../../servers/http.ts";
import { createServer as createUcredNetServer } from "../../servers/net.ts";
import { startJwt, startMtls } from "./alternatives.ts";

/** What is decided of each request, or of each connection. */
const policy = definePolicy({
  version: 1,
  rules: [
    { name: "contractors never", when: { gid: 970 }, deny: "Use the bastion" },
    { name: "operators", when: { gid: [971, 972] }, allow: ["read", "write"] },
    { name: "metrics", when: { uid: 990 }, actions: "GET /metrics", allow: "read" },
    {
      name: "people",
      when: { uid: "1000-59999" },
      actions: ["GET /**", "HEAD /**"],
      allow: "read",
    },
    { name: "root", when: { uid: 0 }, allow: "full" },
  ],
});

const WELCOME = "welcome\n";
const limits = { connections: 1e6, connectionsPerUser: 1e6 };

type Start = (where: string) => Promise<unknown> | unknown;

const KINDS: { readonly [kind: string]: Start } = {
  "http": (path) =>
    started(
      createHttpServer((_, response) => response.end(WELCOME)),
      (server) => server.listen(path),
    ),
  "ucred/http": (path) =>
    started(
      createUcredHttpServer({ policy, limits }, (_, response) => response.end(WELCOME)),
      (server) => server.listen(path),
    ),
  "serve": (path) => {
    const fetch = () => new Response(WELCOME);
    if ("Deno" in globalThis) return Deno.serve({ path, onListen: () => {} }, fetch);
    const bridge = createHttpServer((req, res) => {
      void new NodeRequest({ req, res });
      return sendNodeResponse(res, fetch());
    });
    return started(bridge, (server) => server.listen(path));
  },
  "ucred/http serve": (path) => serve({ path, policy, limits, fetch: () => new Response(WELCOME) }),
  "net": (path) =>
    started(
      createNetServer((socket) => {
        socket.on("error", () => {}).on("data", () => socket.write(WELCOME)).write(WELCOME);
      }),
      (server) => server.listen(path),
    ),
  "ucred/net": (path) =>
    started(
      createUcredNetServer({ policy, limits }, (socket) => {
        socket.on("data", () => socket.write(WELCOME)).write(WELCOME);
      }),
      (server) => server.listen(path),
    ),
  "Bun.listen": (path) =>
    Bun.listen({
      unix: path,
      socket: {
        open: (socket) => void socket.write(WELCOME),
        data: (socket) => void socket.write(WELCOME),
      },
    }),
  "ucred/bun": (path) =>
    listenByBun({
      path,
      policy,
      limits,
      socket: {
        open: (socket) => void socket.write(WELCOME),
        data: (socket) => void socket.write(WELCOME),
      },
    }),
  "Deno.listen": (path) => void greet(Deno.listen({ transport: "unix", path })),
  "ucred/deno": async (path) => {
    const peers = withPeers(Deno.listen({ transport: "unix", path }), { policy, limits });
    void (async () => {
      for await (const { conn } of peers) void echo(conn);
    })();
    await Promise.resolve();
  },
  "JWT": startJwt,
  "mTLS": startMtls,
};

async function greet(listener: Deno.UnixListener): Promise<void> {
  for await (const conn of listener) void echo(conn);
}

const bytes = new TextEncoder().encode(WELCOME);

async function echo(conn: Deno.UnixConn): Promise<void> {
  const buffer = new Uint8Array(1024);
  try {
    await conn.write(bytes);
    while (await conn.read(buffer) !== null) await conn.write(bytes);
  } catch { /* the client has left */ }
  conn.close();
}

function started<S extends { once(event: string, run: (error?: Error) => void): unknown }>(
  server: S,
  listen: (server: S) => unknown,
): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.once("listening", () => resolve());
    listen(server);
  });
}

const [kind = "", where = ""] = process.argv.slice(2);
await KINDS[kind]!(where);
console.log("ready");
createInterface({ input: process.stdin })
  .on("line", () => {
    const { user, system } = process.cpuUsage();
    console.log(user + system);
  })
  .on("close", () => process.exit());
