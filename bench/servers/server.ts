/**
 * `server.ts KIND WHERE`: one server of the benchmark. It prints "ready", and answers each line of input
 * with its CPU time so far, in µs.
 */

import { createServer as createHttpServer } from "node:http";
import { connect, createServer as createNetServer, type Socket } from "node:net";
import process from "node:process";
import { createInterface } from "node:readline";
import { openedSystem } from "../../adapters/select.ts";
import { type LinuxOptions, UCRED } from "../../ffi/linux.ts";
import { definePolicy } from "../../mod.ts";
import { listen as listenByBun } from "../../servers/bun.ts";
import { withPeers } from "../../servers/deno.ts";
import { denoHttpHook } from "../../servers/http/deno.ts";
import { createServer as createUcredHttpServer, serve } from "../../servers/http.ts";
import { createServer as createUcredNetServer } from "../../servers/net.ts";
import { startJwt, startMtls } from "./alternatives.ts";

/** The policy of the servers with ucred. */
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

/** Makes one getsockopt(SO_PEERCRED). The rest of ucred's work is compared with it. */
function lookOnce(fd: number): void {
  const { abi: { options }, libc, value, size } = openedSystem();
  size.words[0] = UCRED.size;
  const { SOL_SOCKET, SO_PEERCRED } = options as LinuxOptions;
  const errno = libc.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, value, size);
  if (errno !== 0) throw new Error(`getsockopt failed with ${errno}`);
}

const fdIn = (socket: Socket): number | undefined =>
  (socket as unknown as { _handle?: { fd?: number } })._handle?.fd;

/** A descriptor for lookOnce() on runtimes that hide the descriptor of an accepted connection. */
let spareFd = -1;

/** Opens the connection of `spareFd`. */
function openSpare(path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(path, () => {
      spareFd = fdIn(socket)!;
      resolve();
    }).on("error", reject).resume();
  });
}

const http = (path: string, look: boolean) => {
  const server = createHttpServer((request, response) => {
    if (look) void (request.method + request.url!);
    response.end(WELCOME);
  });
  if (look) {
    server.on("connection", (socket) => {
      const fd = fdIn(socket) ?? spareFd; // Bun's http hides it
      if (fd !== -1) lookOnce(fd); // -1: this is the spare connection itself
    });
  }
  const start = started(server, () => server.listen(path));
  return look ? start.then(() => openSpare(path)) : start;
};

const net = (path: string, look: boolean) => {
  const server = createNetServer((socket) => {
    if (look) lookOnce(fdIn(socket)!);
    socket.on("error", () => {}).on("data", () => socket.write(WELCOME)).write(WELCOME);
  });
  return started(server, () => server.listen(path));
};

const onBun = (unix: string, look: boolean) =>
  Bun.listen({
    unix,
    socket: {
      open: (socket) => {
        if (look) lookOnce((socket as unknown as { fd: number }).fd);
        socket.write(WELCOME);
      },
      data: (socket) => void socket.write(WELCOME),
    },
  });

async function onDeno(path: string, serve: (conn: Deno.UnixConn) => unknown): Promise<void> {
  for await (const conn of Deno.listen({ transport: "unix", path })) void serve(conn);
}

const KINDS: { readonly [kind: string]: Start } = {
  "http": (path) => http(path, false),
  "http least": (path) => http(path, true),
  "ucred/http": (path) => {
    const server = createUcredHttpServer({ policy, limits }, (_, response) => {
      response.end(WELCOME);
    });
    return started(server, () => server.listen(path));
  },
  "net": (path) => net(path, false),
  "net least": (path) => net(path, true),
  "ucred/net": (path) => {
    const server = createUcredNetServer({ policy, limits }, (socket) => {
      socket.on("data", () => socket.write(WELCOME)).write(WELCOME);
    });
    return started(server, () => server.listen(path));
  },
  "Deno.serve": (path) =>
    void Deno.serve({ path, onListen: () => {} }, () => new Response(WELCOME)),
  "Deno.serve least": (path) => {
    const serve = denoHttpHook()!;
    const answer = ({ method, url }: Request) => new Response(method + url ? WELCOME : null);
    const fails = () => new Response(null, { status: 500 });
    void onDeno(path, (conn) => {
      if (spareFd !== -1) lookOnce(spareFd);
      serve(conn, new AbortController().signal, answer, fails, () => {}).finished.catch(() => {});
    });
    return openSpare(path);
  },
  "ucred/http serve": (path) => serve({ path, policy, limits, fetch: () => new Response(WELCOME) }),
  "Deno.listen": (path) => void onDeno(path, echo),
  "Deno.listen least": (path) => {
    void onDeno(path, (conn) => {
      if (spareFd !== -1) lookOnce(spareFd);
      return echo(conn);
    });
    return openSpare(path);
  },
  "ucred/deno": (path) => {
    const peers = withPeers(Deno.listen({ transport: "unix", path }), { policy, limits });
    void (async () => {
      for await (const { conn } of peers) void echo(conn);
    })();
  },
  "Bun.listen": (path) => onBun(path, false),
  "Bun.listen least": (path) => onBun(path, true),
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
  "JWT": startJwt,
  "mTLS": startMtls,
};

const bytes = new TextEncoder().encode(WELCOME);

async function echo(conn: Deno.UnixConn): Promise<void> {
  const buffer = new Uint8Array(1024);
  try {
    await conn.write(bytes);
    while (await conn.read(buffer) !== null) await conn.write(bytes);
  } catch { /* the client has hung up */ }
  conn.close();
}

function started(
  server: { once(event: string, run: (error?: Error) => void): unknown },
  listen: () => unknown,
): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.once("listening", () => resolve());
    listen();
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
