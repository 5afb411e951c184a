/** examples/datagrams, with the clients of real systems. */

import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { needs, runtimeCommand, testWith } from "../support/suite.ts";
import { Child, freshPath } from "../support/peers.ts";

const script = fileURLToPath(new URL("../../examples/datagrams/datagrams.ts", import.meta.url));
const here = [needs.linux, needs.peerPidfd];

interface Line {
  readonly pid: number;
  readonly user: string | number;
  readonly exe?: string;
  readonly text: string;
  readonly forged?: true;
}

/** Starts the example; returns its path and the lines that it prints. */
async function start(): Promise<[string, Child]> {
  const path = freshPath();
  const [command, ...args] = runtimeCommand();
  const child = new Child(command, [...args, script, path]);
  assert.equal(await child.line(), `Receiving at ${path}`);
  return [path, child];
}

async function stop(path: string, child: Child): Promise<void> {
  const ended = new Promise((resolve) => child.process.once("exit", resolve));
  process.kill(child.process.pid!, "SIGTERM"); // in Deno, ChildProcess.kill() hides the exit code
  assert.equal(await ended, 0);
  assert.equal(existsSync(path), false);
}

testWith(
  [...here, needs.systemdNotify],
  "datagrams.ts receives from systemd-notify, which ends",
  async () => {
    const [path, child] = await start();
    const env = { PATH: "/usr/bin:/bin", NOTIFY_SOCKET: path };
    const sent = promisify(execFile)("systemd-notify", ["READY=1", "STATUS=Up\nand running"], {
      env,
    });
    const { text, exe, forged } = await child.json<Line>();
    assert.match(text, /^READY=1\nSTATUS=Up/);
    assert.equal(forged, undefined);
    assert.ok(
      exe === undefined || exe.startsWith("/"),
      "systemd-notify names its parent if it may",
    );
    await sent; // it waits until its descriptor is closed
    await stop(path, child);
  },
);

testWith([...here, needs.logger], "datagrams.ts receives from logger", async () => {
  const [path, child] = await start();
  execFileSync("logger", ["--socket", path, "--tag", "ucred", "hello\n{forged}"]);
  const { text } = await child.json<Line>();
  assert.match(text, /^<\d+>.*ucred.*: hello/);
  await stop(path, child);
});

testWith(here, "datagrams.ts reports a wrong path in one line, without a stack", async () => {
  const [command, ...args] = runtimeCommand();
  const run = promisify(execFile);
  await assert.rejects(run(command, [...args, script, "/nowhere/s"]), (error) => {
    const { code, stderr } = error as unknown as { code: number; stderr: string };
    assert.equal(code, 1);
    assert.match(stderr, /^Cannot receive datagrams at "\/nowhere\/s": ENOENT: /);
    assert.doesNotMatch(stderr, /\n {4}at /);
    return true;
  });
});
