/** Tests that servers keep no memory of closed connections, in whichever way they ended. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { type Child, freshPath, startScript } from "../support/peers.ts";
import { compileProgram } from "../support/compile.ts";
import { assertFreed } from "../support/leak.ts";
import { type Need, needs, soak, testWith } from "../support/suite.ts";

const here = [needs.linux, needs.cc, needs.root, needs.native];

const throngProgram: string = here.every(({ met }) => met)
  ? compileProgram(new URL("throng.c", import.meta.url))
  : "";

/** Connections of each round that end in one way. */
const TIMES = soak(150, 3000);

/** Maximum average leak of a connection that ends in one way, in bytes. Deno leaked 2,400 when `destroy()` followed "end". */
const MAX_LEAK = 400;

const HTTP = ["leave", "request", "early", "upgrade", "denied", "behind"] as const;
const LINES = ["leave", "hello"] as const;

const SERVERS:
  readonly (readonly [kind: string, hows: readonly string[], list: readonly Need[]])[] = [
    ["createServer() of ucred/http", HTTP, []],
    ["serve() by node:http", HTTP, []],
    ["serve() by deno", HTTP, [needs.deno]],
    ["createServer() of ucred/net", LINES, []],
    ["withPeers()", LINES, [needs.deno]],
    ["listen() of ucred/bun", LINES, [needs.bun]],
  ];

async function throng(uid: number, how: string, path: string): Promise<void> {
  const { stdout } = await promisify(execFile)(throngProgram, [`${uid}`, how, `${TIMES}`, path]);
  assert.equal(JSON.parse(stdout).connected, TIMES);
}

/** Returns the bytes in use. */
async function memoryOf(server: Child): Promise<number> {
  server.process.stdin!.write("\n");
  return (await server.json<{ used: number }>()).used;
}

for (const [kind, hows, list] of SERVERS) {
  testWith([...here, ...list], `${kind} does not leak memory for closed connections`, async () => {
    const path = freshPath();
    const server = startScript([], "servers/leaking_server.ts", kind, path);
    await server.json();
    const visits = [...hows.map((how) => [1001, how] as const), [1002, "leave"] as const];
    // `npm test` looks for a leak of all ways together, and `npm run test:soak` of each way.
    for (const round of needs.soak.met ? visits.map((visit) => [visit]) : [visits]) {
      await assertFreed({
        pid: server.process.pid!,
        round: async () => {
          for (const [uid, how] of round) await throng(uid, how, path);
        },
        times: TIMES,
        used: () => memoryOf(server),
        maxHeap: MAX_LEAK,
        maxResident: 2000,
      });
    }
    await server.end();
  });
}
