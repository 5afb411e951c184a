/** Engines of serve(), sockets of the service manager, and notifications to it. */

import assert from "node:assert/strict";
import { chmodSync, existsSync } from "node:fs";
import process from "node:process";
import { serve } from "../../servers/http.ts";
import { Child, freshPath } from "../support/peers.ts";
import { needs, runtime, runtimeCommand, testWith, until } from "../support/suite.ts";
import { policy, testHere, testServe, Wire } from "../support/http.ts";

testServe("continues and warns when it cannot notify the service manager", async (kind) => {
  const { NOTIFY_SOCKET: before } = process.env;
  const warnings: string[] = [];
  const note = (warning: Error) => void warnings.push(warning.message);
  process.on("warning", note);
  const hasWarned = (what: string) =>
    warnings.some((each) => each.includes(`that a server ${what}`));
  try {
    process.env.NOTIFY_SOCKET = freshPath("nobody");
    const server = await kind.start({ policy, notify: true }, ({ url }) => ({ body: url }));
    await until(() => hasWarned("listens"));
    assert.equal((await Wire.as(0, server.path).get("/a")).body, "/a");
    await server.close({ timeout: 0 });
    await until(() => hasWarned("stops"));
    assert.equal(existsSync(server.path), false);
  } finally {
    process.off("warning", note);
    if (before === undefined) delete process.env.NOTIFY_SOCKET;
    else process.env.NOTIFY_SOCKET = before;
  }
});

testWith(
  [needs.linux],
  "serve() reports its engine, and rejects an unavailable one",
  async () => {
    const path = freshPath();
    const fetch = () => new Response("");
    const engines = runtime === "deno" ? ["node:http", "deno"] : ["node:http"];
    for (const engine of ["node:http", "deno", "bun", ""] as never[]) {
      const start = async () => await serve({ path, engine, fetch });
      if (!engines.includes(engine)) await assert.rejects(start, TypeError);
      else {
        await using server = await start();
        assert.equal(server.engine, engine);
      }
    }
    await using server = await serve({ path, fetch });
    assert.equal(server.engine, engines.at(-1));
  },
);

testWith([needs.bun], "Bun.serve still hides the descriptor of its connections", async () => {
  const { Bun } = globalThis as unknown as {
    Bun: { serve(options: object): { stop(now: boolean): Promise<void>; requestFD?: unknown } };
  };
  const server = Bun.serve({ unix: freshPath(), fetch: () => new Response("") });
  const hidden = server.requestFD === undefined;
  await server.stop(true);
  assert.ok(hidden, "Bun.serve has requestFD: build the Bun.serve engine");
});

const activation = {
  name: "systemd-socket-activate (Debian: systemd)",
  met: existsSync("/usr/bin/systemd-socket-activate"),
};

for (const kind of ["createServer", "serve"] as const) {
  testHere(`${kind}() listens on a socket of the service manager`, async () => {
    const path = freshPath();
    const command = runtimeCommand();
    const script = new URL("http_activated.ts", import.meta.url).pathname;
    const args = ["-l", path, "-E", "PATH", "-E", "HOME", ...command, script, kind];
    const child = new Child("systemd-socket-activate", args);
    try {
      let own!: Wire;
      const wake = () => Wire.open(path).then((wire) => own = wire);
      await until(() => wake().catch(() => undefined)); // until it listens
      assert.deepEqual(await child.json(), { path, engine: "node:http" });
      for (let at = 0; at < 3; at++) assert.equal((await own.get("/a")).body, "0 GET /a");
      chmodSync(path, 0o666);
      const other = Wire.as(1001, path);
      assert.equal((await other.get("/open")).body, "1001 GET /open");
      assert.equal((await other.get("/secret")).status, 403);
      assert.equal((await other.get("/open")).body, "1001 GET /open");
      assert.equal((await Wire.as(1003, path).get("/open")).status, 403);
      own.destroy();
      other.destroy();
      await child.end();
      assert.ok(existsSync(path), "the socket file of the service manager still exists");
    } finally {
      child.process.kill("SIGKILL");
    }
  }, activation);
}
