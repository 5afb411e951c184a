/** The demo reports correct ids, detects wrong ones, and removes its processes and files. */

import assert from "node:assert/strict";
import { execFileSync, spawn, type SpawnOptions, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { after } from "node:test";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { type Need, needs, testWith, until } from "../support/suite.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const isRoot = process.getuid?.() === 0;

interface Ids {
  readonly uid: number;
  readonly groups: readonly number[];
}

interface Output {
  readonly ok: boolean;
  readonly runtimes: readonly {
    readonly runtime: string;
    readonly version?: string;
    readonly error?: string;
    readonly skipped: readonly string[];
    readonly connections: readonly {
      readonly client: { readonly pid: number; readonly atConnect: Ids; readonly now: Ids };
      readonly peer: Ids & { readonly pid: number; readonly user?: string };
      readonly allowed: boolean;
      readonly exe?: string;
      readonly mismatches: readonly string[];
    }[];
  }[];
}

/** A new folder that other users can enter, unlike the temporary folder of the suite. */
function openFolder(): string {
  const folder = mkdtempSync(join(isRoot ? "/tmp" : tmpdir(), "ucred-demo-test-"));
  after(() => rmSync(folder, { recursive: true, force: true }));
  chmodSync(folder, 0o755);
  return folder;
}

/** Runs the demo of a checkout, and returns its exit code and output. */
function demo(options: SpawnOptions = {}, checkout: string = root): [code: number | null, Output] {
  const script = join(checkout, "examples/demo/demo.ts");
  const { status, stdout, stderr } = spawnSync(process.execPath, [script, "--json"], {
    ...options,
    stdio: ["ignore", "pipe", "pipe"],
    encoding: "utf8",
  });
  assert.ok(stdout.startsWith("{"), stderr);
  return [status, JSON.parse(stdout)];
}

function assertCorrect([code, { ok, runtimes }]: [number | null, Output]): void {
  assert.deepEqual([code, ok], [0, true], JSON.stringify(runtimes));
  assert.deepEqual(runtimes.map(({ runtime }) => runtime), ["Deno", "Bun", "Node"]);
  for (const { version, connections } of runtimes) {
    assert.match(version ?? "", /^\d+\.\d+/);
    assert.ok(connections.length >= 3, "several clients connect");
    assert.ok(connections.some(({ allowed }) => allowed), "a client is accepted");
    assert.ok(connections.some(({ allowed }) => !allowed), "a client is rejected");
    for (const { client, peer, exe } of connections) {
      assert.deepEqual([peer.pid, peer.uid], [client.pid, client.atConnect.uid]);
      assert.equal(exe !== undefined, needs.linux.met);
      if (needs.linux.met) assert.deepEqual(peer.groups, client.atConnect.groups);
    }
  }
}

const demoNeeds: readonly Need[] = [needs.node, needs.native];

/** A uid without an account. In a container that does not map it, no process can have it. */
const STRANGER = 4_000_000_000;

const canBecomeStranger: Need = {
  name: "root, with every uid mapped",
  met: isRoot && needs.node.met && // spawn() itself takes ids below 2³¹ only
    spawnSync(process.execPath, ["-e", `process.setuid(${STRANGER})`]).status === 0,
};

testWith(
  [...demoNeeds, canBecomeStranger],
  "demo.ts reports the ids of several users when root runs it",
  () => {
    const result = demo();
    assertCorrect(result);
    for (const { connections, skipped } of result[1].runtimes) {
      assert.deepEqual(skipped, []);
      assert.deepEqual(connections.map(({ allowed }) => allowed), [true, true, false, false, true]);
      assert.deepEqual(
        connections.map(({ peer }) => peer.user ?? peer.uid).filter((_, index) => index !== 2),
        ["root", "daemon", STRANGER, "root"],
      );
      assert.ok(connections[2]!.peer.groups.length > 1, "it has supplementary groups");
      assert.notEqual(
        connections[4]!.client.now.uid,
        0,
        "it has changed its user after connect(2)",
      );
    }
  },
);

const OTHER = { uid: 1000, gid: 1000 };

/** Whether OTHER can read the checkout, in a folder that it may enter, and run its programs. */
function isReadable(): boolean {
  const files = ["package.json", "examples/demo/demo.ts", "mod.ts", "core/peer.ts"];
  const programs = ["deno", "bun", "node"].map((name) => `node_modules/.bin/${name}`);
  const can = (flag: string, file: string) =>
    spawnSync("test", [flag, join(root, file)], { ...OTHER, stdio: "ignore" }).status === 0;
  return files.every((file) => can("-r", file)) && programs.every((file) => can("-x", file));
}

testWith(
  [...demoNeeds, {
    name: "a checkout that other users may read",
    met: !isRoot || isReadable(),
  }],
  "demo.ts reports the ids of its own user when another user than root runs it",
  () => {
    if (!isRoot) return assertCorrect(demo());
    const home = openFolder();
    execFileSync("chown", [`${OTHER.uid}:${OTHER.gid}`, home]);
    const env = { ...process.env, HOME: home, TMPDIR: "/tmp" };
    const result = demo({ ...OTHER, env });
    assertCorrect(result);
    for (const { connections } of result[1].runtimes) {
      assert.deepEqual(new Set(connections.map(({ peer }) => peer.uid)), new Set([OTHER.uid]));
    }
  },
);

/** A copy of the checkout, with other programs as the runtimes. */
function checkoutWith(runtimes: { readonly [name: string]: string }): string {
  const checkout = openFolder();
  for (
    const part of ["core", "ffi", "adapters", "system", "identity", "policy", "examples", "mod.ts"]
  ) {
    cpSync(join(root, part), join(checkout, part), { recursive: true });
  }
  writeFileSync(join(checkout, "package.json"), '{ "type": "module" }');
  const bin = join(checkout, "node_modules/.bin");
  mkdirSync(bin, { recursive: true });
  symlinkSync(process.execPath, join(bin, "node"));
  for (const [name, script] of Object.entries(runtimes)) {
    writeFileSync(join(bin, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  }
  return checkout;
}

testWith(
  demoNeeds,
  "demo.ts exits with 1 when a runtime cannot start, or a server reports wrong ids",
  () => {
    const checkout = checkoutWith({
      deno: "echo no such library >&2; exit 3",
      bun: `node --disable-warning=ExperimentalWarning "$@" | sed -u 's/"uid":/"uid":7/'`,
    });
    const [code, { ok, runtimes: [deno, bun, node] }] = demo({}, checkout);
    assert.deepEqual([code, ok], [1, false]);
    assert.equal(deno!.error, "Deno ended with exit code 3\nno such library");
    assert.ok(bun!.connections.length > 0);
    for (const { mismatches } of bun!.connections) assert.match(mismatches.join("\n"), /^uid: 7/);
    assert.deepEqual(node!.connections.flatMap(({ mismatches }) => mismatches), []);
  },
);

/** The processes that have this text in their command line. */
function processesWith(word: string): string[] {
  return readdirSync("/proc").filter((pid) => /^\d+$/.test(pid)).filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(word);
    } catch {
      return false; // it has ended
    }
  });
}

for (const [signal, expected] of [["SIGINT", 130], ["SIGTERM", 143]] as const) {
  testWith(
    [...demoNeeds, needs.linux],
    `demo.ts ends its processes and removes its files after ${signal}`,
    async () => {
      const folder = openFolder();
      const child = spawn(process.execPath, [join(root, "examples/demo/demo.ts")], {
        env: { ...process.env, TMPDIR: folder },
        stdio: ["ignore", "pipe", "inherit"],
      });
      const exited = once(child, "exit");
      await once(child.stdout, "data"); // the introduction, printed before the first server starts
      while (child.exitCode === null && processesWith(folder).length === 0) await setTimeout(1);
      assert.equal(readdirSync(folder).length, 1, "the folder of the socket exists");
      child.kill(signal);
      assert.deepEqual(await exited, [expected, null]);
      assert.deepEqual(readdirSync(folder), []);
      await until(() => processesWith(folder).length === 0);
    },
  );
}
