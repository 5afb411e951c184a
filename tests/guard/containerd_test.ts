/** The guard with HTTP/2 in front of containerd, with its own client. */

import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { temporaryFolder } from "../support/compile.ts";
import { Guard, policyFile, testGuard, tool, USERS } from "../support/guard.ts";
import { withIds } from "../support/peers.ts";
import { safeFolder } from "../support/safe_folder.ts";
import { endAfterEach, needs, until } from "../support/suite.ts";

const programs = { name: "containerd and ctr", met: tool("containerd").met && tool("ctr").met };

let daemon: ChildProcess | undefined;
endAfterEach(async () => {
  if (daemon === undefined) return;
  const closed = once(daemon, "close");
  daemon.kill("SIGKILL");
  await closed;
  daemon = undefined;
});

/** Starts a containerd with its own folders, without the CRI. Returns its socket. */
async function startContainerd(): Promise<string> {
  const folder = temporaryFolder();
  const path = (name: string) => JSON.stringify(join(folder, name));
  const config = join(folder, "config.toml");
  writeFileSync(
    config,
    `version = 2
root = ${path("root")}
state = ${path("state")}
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = ${path("grpc")}
[ttrpc]
address = ${path("ttrpc")}
`,
  );
  daemon = spawn("containerd", ["--config", config], { stdio: "ignore" });
  const socket = join(folder, "grpc");
  await until(() =>
    new Promise((resolve) => {
      assert.equal(daemon!.exitCode, null, "containerd runs");
      const probe = connect(socket).once("error", () => resolve(false));
      probe.once("connect", () => probe.destroy()).once("connect", () => resolve(true));
    })
  );
  return socket;
}

const POLICY = `version: 1
rules:
  - { name: root, when: { uid: 0 }, allow: full }
  - name: monitoring
    when: { uid: ${USERS.one} }
    actions:
      - POST /containerd.services.version.v1.Version/Version
      - POST /containerd.services.introspection.v1.Introspection/Server
      - POST /containerd.services.namespaces.v1.Namespaces/List
      - POST /containerd.services.namespaces.v1.Namespaces/Get
      - POST /containerd.services.images.v1.Images/List
    allow: list
`;

testGuard(
  "guard --http2 in front of containerd decides each method of ctr",
  async () => {
    const upstream = await startContainerd();
    const log = join(safeFolder(), "audit.log");
    const args = ["--http2", "--upstream-user", "root", "--audit", log];
    const guard = await Guard.start({ upstream, mode: "http", policy: policyFile(POLICY), args });
    const ctr = (uid: number, ...command: string[]) => {
      const words = [...withIds({ uid, gid: uid, groups: [] }), "ctr", "--address", guard.path];
      return promisify(execFile)(words[0]!, [...words.slice(1), "--timeout", "60s", ...command]);
    };
    const denied = (uid: number, ...command: string[]) =>
      assert.rejects(ctr(uid, ...command), { stderr: /The policy does not allow it/ });

    await ctr(0, "namespaces", "create", "blue");
    for (const uid of [0, USERS.one]) {
      assert.match((await ctr(uid, "version")).stdout, /Server:\n +Version: +\d[^]*UUID: \S+/);
      assert.match((await ctr(uid, "namespaces", "ls")).stdout, /^blue\b/m);
      assert.match((await ctr(uid, "images", "ls")).stdout, /^REF\b/);
    }
    await denied(USERS.one, "namespaces", "create", "red");
    await denied(USERS.one, "images", "rm", "x");
    await denied(USERS.one, "plugins", "ls");
    await denied(USERS.one, "containers", "ls");
    assert.doesNotMatch((await ctr(0, "namespaces", "ls")).stdout, /red/);

    // A user whom no rule allows has no connection.
    await assert.rejects(ctr(USERS.nobody, "--connect-timeout", "1s", "version"), {
      stderr: /failed to dial|connection/,
    });

    // Streams: an upload in both directions, a download, and events.
    const content = Buffer.alloc(3_000_000, "ucred");
    const file = join(safeFolder(), "content");
    writeFileSync(file, content);
    const script = `exec ctr --address "$1" content ingest ref < "$2"`;
    await promisify(execFile)("sh", ["-c", script, "sh", guard.path, file]);
    const { stdout } = await ctr(0, "content", "ls", "--quiet");
    const options = { maxBuffer: 1 << 23, encoding: "latin1" } as const;
    const get = ["--address", guard.path, "content", "get", stdout.trim()];
    const got = await promisify(execFile)("ctr", get, options);
    assert.ok(Buffer.from(got.stdout, "latin1").equals(content), "the same content");
    await denied(USERS.one, "content", "get", stdout.trim());

    const events = spawn("ctr", ["--address", guard.path, "events"], {
      stdio: ["ignore", "pipe", "ignore"],
    });
    try {
      let text = "";
      events.stdout.on("data", (bytes: Buffer) => text += bytes);
      await until(() => /Events\/Subscribe/.test(readFileSync(log, "utf8")));
      let count = 0;
      await until(async () => { // the subscription takes effect after the decision
        if (count++ % 50 === 0) await ctr(0, "namespaces", "create", `green${count}`);
        return /namespaces\/create.*green/.test(text);
      });
    } finally {
      events.kill("SIGKILL");
    }
  },
  needs.http2,
  programs,
);
