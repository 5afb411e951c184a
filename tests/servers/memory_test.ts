/** Closed connections do not leak memory, in whichever way they ended. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Child, freshPath } from "../support/peers.ts";
import { compileProgram } from "../support/compile.ts";
import { type Need, needs, runtime, runtimeCommand, testWith } from "../support/suite.ts";

const here = [needs.linux, needs.cc, needs.root, needs.native];

const throngProgram: string = here.every(({ met }) => met)
  ? compileProgram(new URL("throng.c", import.meta.url))
  : "";

/** Connections of each round. */
const TIMES = 3000;

/** Maximum average leak of a connection in bytes. Deno leaked 2,400 when `destroy()` followed "end". */
const MOST = 400;

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

/** Starts the server of leaking_server.ts. */
async function start(kind: string, path: string): Promise<Child> {
  const flags = { deno: ["-A", "--v8-flags=--expose-gc"], bun: [], node: ["--expose-gc"] }[runtime];
  const script = fileURLToPath(new URL("leaking_server.ts", import.meta.url));
  const [command, ...args] = [...runtimeCommand(flags), script, kind, path] as unknown as [string];
  const server = new Child(command, args);
  await server.json();
  return server;
}

/** Returns the bytes in use. */
async function memoryOf(server: Child): Promise<number> {
  server.process.stdin!.write("\n");
  return (await server.json<{ used: number }>()).used;
}

for (const [kind, hows, list] of SERVERS) {
  testWith([...here, ...list], `${kind} does not leak memory for closed connections`, async () => {
    const path = freshPath();
    const server = await start(kind, path);
    const visits = hows.map((how) => [1001, how] as const);
    for (const [uid, how] of [...visits, [1002, "leave"] as const]) {
      await throng(uid, how, path);
      const before = await memoryOf(server);
      await throng(uid, how, path);
      const each = (await memoryOf(server) - before) / TIMES;
      assert.ok(each < MOST, `${Math.round(each)} bytes of each connection: uid ${uid}, ${how}`);
    }
    await server.end();
  });
}
