/** Thousands of users with 64 concurrent connections: each connection is identified correctly. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import type { Peer } from "../../mod.ts";
import { listen as listenByBun } from "../../servers/bun.ts";
import { withPeers } from "../../servers/deno.ts";
import { createServer as createHttpServer, peerOf, serve } from "../../servers/http.ts";
import { createServer } from "../../servers/net.ts";
import { freshPath } from "../support/peers.ts";
import { compileProgram } from "../support/compile.ts";
import { type Need, needs, soak, testWith } from "../support/suite.ts";

const CONNECTIONS = soak(2000, 10_000);
const AT_ONCE = 64;

const here = [needs.linux, needs.cc, needs.root, needs.native];
const crowd = here.every(({ met }) => met)
  ? compileProgram(new URL("crowd.c", import.meta.url))
  : "";

const name = ({ pid, uid, gid }: Peer): string => `${pid} ${uid} ${gid}\n`;
const who = { policy: "anyone" } as const;
const mode = 0o666;

interface Server {
  readonly kind: "stream" | "http";
  readonly needs?: readonly Need[];
  /**
   * Starts the server. The returned function stops it and returns the number of connections that it has
   * seen.
   */
  start(path: string): Promise<() => Promise<number>>;
}

const SERVERS: { readonly [name: string]: Server } = {
  "ucred/net": {
    kind: "stream",
    start: (path) =>
      new Promise((resolve) => {
        const server = createServer(who, (socket, peer) => socket.resume().end(name(peer)));
        server.listen({ path, mode }, () =>
          resolve(async () => {
            await server.close({ timeout: 1000 });
            return server.stats().accepted;
          }));
      }),
  },
  "ucred/http createServer()": {
    kind: "http",
    start: (path) =>
      new Promise((resolve) => {
        const server = createHttpServer(
          who,
          (request, response) => response.end(name(peerOf(request))),
        );
        server.listen({ path, mode }, () =>
          resolve(async () => {
            await server.close({ timeout: 1000 });
            return server.stats().accepted;
          }));
      }),
  },
  "ucred/http serve()": {
    kind: "http",
    start: async (path) => {
      const fetch = (_: Request, { peer }: { peer: Peer }) => new Response(name(peer));
      const server = await serve({ ...who, mode, path, fetch });
      return async () => {
        await server.close({ timeout: 1000 });
        return server.stats().accepted;
      };
    },
  },
  "ucred/deno": {
    kind: "stream",
    needs: [needs.deno],
    start: (path) => {
      const listener = Deno.listen({ transport: "unix", path });
      Deno.chmodSync(path, 0o666);
      const connections = withPeers(listener, { policy: "anyone" });
      const greet = async (conn: Deno.UnixConn, peer: Peer) => {
        await conn.write(new TextEncoder().encode(name(peer))).catch(() => {});
        try {
          conn.close();
        } catch { /* it has closed itself */ }
      };
      const done = (async () => {
        for await (const { conn, peer } of connections) void greet(conn, peer);
      })();
      return Promise.resolve(async () => {
        connections.close();
        await done;
        return connections.stats().accepted;
      });
    },
  },
  "ucred/bun": {
    kind: "stream",
    needs: [needs.bun],
    start: async (path) => {
      const open = (socket: { end(text: string): unknown }, peer: Peer) => socket.end(name(peer));
      const server = await listenByBun({ ...who, mode, path, socket: { open } });
      return async () => {
        await server.close({ timeout: 1000 });
        return server.stats().accepted;
      };
    },
  },
};

for (const [api, server] of Object.entries(SERVERS)) {
  testWith(
    [...here, ...server.needs ?? []],
    `${api} identifies the peer of each of ${CONNECTIONS} connections`,
    async () => {
      const path = freshPath();
      const stop = await server.start(path);
      const seed = Math.floor(Math.random() * 2 ** 31);
      const args = [server.kind, path, CONNECTIONS, AT_ONCE, seed].map(String);
      const { stdout } = await promisify(execFile)(crowd, args);
      const accepted = await stop();
      const { right, left, ...rest } = JSON.parse(stdout) as { [count: string]: number };
      assert.deepEqual(rest, { wrong: 0, missing: 0, failed: 0 }, `seed ${seed}`);
      assert.ok(right! + left! >= CONNECTIONS, `${right} answers, ${left} left`);
      assert.ok(accepted <= CONNECTIONS && accepted >= CONNECTIONS - left!, `${accepted}`);
    },
  );
}
