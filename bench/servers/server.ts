/**
 * One server of the benchmark: `server.ts KIND WHERE`. Prints "ready", and answers each line on its
 * input with the CPU time that it has used, in µs.
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

/** One look at who is there: what the rest of the library's work is compared with. */
function lookOnce(fd: number): void {
  const { abi: { options }, libc, value, size } = openedSystem();
  size.words[0] = UCRED.size;
  const { SOL_SOCKET, SO_PEERCRED } = options as LinuxOptions;
  const errno = libc.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, value, size);
  if (errno !== 0) throw new Error(`getsockopt failed with ${errno}`);
}

const fdIn = (socket: Socket): number | undefined =>
  (socket as unknown as { _handle?: { fd?: number } })._handle?.fd;

/** The descriptor of a connection, to be looked at where that of the accepted one is hidden. */
let known = -1;

/** Opens that. */
function knock(path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(path, () => {
      known = fdIn(socket)!;
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
      const fd = fdIn(socket) ?? known; // Bun's http hides it
      if (fd !== -1) lookOnce(fd); // else it is that one
    });
  }
  const start = started(server, () => server.listen(path));
  return look ? start.then(() => knock(path)) : start;
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
      if (known !== -1) lookOnce(known);
      serve(conn, new AbortController().signal, answer, fails, () => {}).finished.catch(() => {});
    });
    return knock(path);
  },
  "ucred/http serve": (path) => serve({ path, policy, limits, fetch: () => new Response(WELCOME) }),
  "Deno.listen": (path) => void onDeno(path, echo),
  "Deno.listen least": (path) => {
    void onDeno(path, (conn) => {
      if (known !== -1) lookOnce(known);
      return echo(conn);
    });
    return knock(path);
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
  } catch { /* the client has left */ }
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
