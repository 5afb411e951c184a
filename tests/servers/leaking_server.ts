/**
 * A server in a separate process: `leaking_server.ts KIND PATH`. For each line of input it prints the
 * bytes in use after a garbage collection.
 */

import { once } from "node:events";
import type { Server } from "node:net";
import process from "node:process";
import { createInterface } from "node:readline";
import type { Duplex } from "node:stream";
import { definePolicy } from "../../mod.ts";
import { listen } from "../../servers/bun.ts";
import { withPeers } from "../../servers/deno.ts";
import { createServer as createHttpServer, serve } from "../../servers/http.ts";
import { createServer } from "../../servers/net.ts";
import { bytesInUse } from "../support/collector.ts";

/** The policy: root may do everything, 1001 everything except `/secret`, and all others nothing. */
export const POLICY = {
  version: 1,
  rules: [
    { name: "no secrets", when: { uid: 1001 }, actions: "* /secret", deny: true },
    { name: "all", when: { uid: [0, 1001] }, allow: true },
  ],
} as const;

const policy = definePolicy(POLICY);

const starts: { readonly [kind: string]: (path: string) => Promise<unknown> } = {
  "createServer() of ucred/http": async (path) => {
    const server = createHttpServer({ policy }, ({ url }, response) => {
      if (url !== "/wait") response.end("welcome");
    });
    server.on("upgrade", (_request: unknown, socket: Duplex) => {
      socket.on("error", () => {});
      socket.end("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    });
    await once(server.listen({ path, mode: 0o666 }), "listening");
  },
  "serve() by node:http": (path) => serve({ ...fetching(path), engine: "node:http" }),
  "serve() by deno": (path) => serve({ ...fetching(path), engine: "deno" }),
  "createServer() of ucred/net": async (path) => {
    const server = createServer({ policy, decideAt: "action" }, (socket) => {
      socket.once("data", () => socket.end("welcome\n"));
    });
    await once((server as unknown as Server).listen({ path, mode: 0o666 } as object), "listening");
  },
  "withPeers()": async (path) => {
    const { Deno } = globalThis as unknown as {
      Deno: {
        listen(options: object): Parameters<typeof withPeers<DenoConn>>[0];
        chmodSync(path: string, mode: number): void;
      };
    };
    const peers = withPeers(Deno.listen({ transport: "unix", path }), {
      policy,
      decideAt: "action",
    });
    Deno.chmodSync(path, 0o666);
    const run = async () => {
      for await (const { conn } of peers) {
        void conn.read(new Uint8Array(64)).then(() => conn.write(new TextEncoder().encode("hi\n")))
          .catch(() => {}).finally(() => conn.close());
      }
    };
    void run();
    await Promise.resolve();
  },
  "listen() of ucred/bun": (path) =>
    listen({
      path,
      mode: 0o666,
      policy,
      decideAt: "action",
      socket: { data: (socket) => void socket.end("welcome\n") },
    }),
};

interface DenoConn {
  read(into: Uint8Array): Promise<number | null>;
  write(bytes: Uint8Array): Promise<number>;
  close(): void;
}

function fetching(path: string) {
  return {
    path,
    mode: 0o666,
    policy,
    fetch: ({ url, signal }: Request) =>
      url.endsWith("/wait")
        ? new Promise<Response>((resolve) =>
          signal.addEventListener("abort", () => resolve(new Response("")))
        )
        : new Response("welcome"),
  };
}

const [kind = "", path = ""] = process.argv.slice(2);
await starts[kind]!(path);
console.log(JSON.stringify({ listening: path }));

createInterface({ input: process.stdin }).on("line", () => {
  console.log(JSON.stringify({ used: bytesInUse() }));
}).on("close", () => process.exit());
