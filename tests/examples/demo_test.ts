/** The demo shows the right peers, fails when a server reports wrong ones, and leaves nothing behind. */

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
import { type Need, needs, testWith } from "../support/suite.ts";

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
    readonly leftOut: readonly string[];
    readonly connections: readonly {
      readonly said: { readonly pid: number; readonly then: Ids; readonly now: Ids };
      readonly peer: Ids & { readonly pid: number; readonly user?: string };
      readonly allowed: boolean;
      readonly exe?: string;
      readonly wrong: readonly string[];
    }[];
  }[];
}

/** A folder beside the temporary one of this suite, which other users may be unable to enter. */
function openFolder(): string {
  const folder = mkdtempSync(join(isRoot ? "/tmp" : tmpdir(), "ucred-demo-test-"));
  after(() => rmSync(folder, { recursive: true, force: true }));
  chmodSync(folder, 0o755);
  return folder;
}

/** Runs the demo of a checkout to its end. */
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

function checkTruth([code, { ok, runtimes }]: [number | null, Output]): void {
  assert.deepEqual([code, ok], [0, true], JSON.stringify(runtimes));
  assert.deepEqual(runtimes.map(({ runtime }) => runtime), ["Deno", "Bun", "Node"]);
  for (const { version, connections } of runtimes) {
    assert.match(version ?? "", /^\d+\.\d+/);
    assert.ok(connections.length >= 3, "several processes connected");
    assert.ok(connections.some(({ allowed }) => allowed), "somebody was let in");
    assert.ok(connections.some(({ allowed }) => !allowed), "somebody was refused");
    for (const { said, peer, exe } of connections) {
      assert.deepEqual([peer.pid, peer.uid], [said.pid, said.then.uid]);
      assert.equal(exe !== undefined, needs.linux.met);
      if (needs.linux.met) assert.deepEqual(peer.groups, said.then.groups);
    }
  }
}

const demoNeeds: readonly Need[] = [needs.node, needs.native];

/** A uid without an account. A container may not map it, and then no process can change to it. */
const STRANGER = 4_000_000_000;

const becomeAnyone: Need = {
  name: "root, with every uid mapped",
  met: isRoot && needs.node.met && // spawn() itself takes ids below 2³¹ only
    spawnSync(process.execPath, ["-e", `process.setuid(${STRANGER})`]).status === 0,
};

testWith([...demoNeeds, becomeAnyone], "demo.ts shows several users when root runs it", () => {
  const result = demo();
  checkTruth(result);
  for (const { connections, leftOut } of result[1].runtimes) {
    assert.deepEqual(leftOut, []);
    assert.deepEqual(connections.map(({ allowed }) => allowed), [true, true, false, false, true]);
    assert.deepEqual(
      connections.map(({ peer }) => peer.user ?? peer.uid).filter((_, index) => index !== 2),
      ["root", "daemon", STRANGER, "root"],
    );
    assert.ok(connections[2]!.peer.groups.length > 1, "with supplementary groups");
    assert.notEqual(connections[4]!.said.now.uid, 0, "root had become somebody else by then");
  }
});

const OTHER = { uid: 1000, gid: 1000 };

/** This user reads the checkout and runs its programs. */
function isReadable(): boolean {
  const files = ["package.json", "examples/demo/demo.ts", "mod.ts", "core/peer.ts"];
  const programs = ["deno", "bun", "node"].map((name) => `node_modules/.bin/${name}`);
  const test = [...files.map((file) => `-r ${file}`), ...programs.map((file) => `-x ${file}`)];
  const options = { ...OTHER, cwd: root, stdio: "ignore" } as const;
  return spawnSync("test", test.join(" -a ").split(" "), options).status === 0;
}

testWith(
  [...demoNeeds, {
    name: "a checkout that other users may read",
    met: !isRoot || isReadable(),
  }],
  "demo.ts shows its own user when another user than root runs it",
  () => {
    if (!isRoot) return checkTruth(demo());
    const home = openFolder();
    execFileSync("chown", [`${OTHER.uid}:${OTHER.gid}`, home]);
    const env = { ...process.env, HOME: home, TMPDIR: "/tmp" };
    const result = demo({ ...OTHER, env });
    checkTruth(result);
    for (const { connections } of result[1].runtimes) {
      assert.deepEqual(new Set(connections.map(({ peer }) => peer.uid)), new Set([OTHER.uid]));
    }
  },
);

/** Creates a checkout with other runtimes. */
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
  "demo.ts fails when a runtime cannot start, or a server reports wrong peers",
  () => {
    const checkout = checkoutWith({
      deno: "echo no such library >&2; exit 3",
      bun: `node --disable-warning=ExperimentalWarning "$@" | sed -u 's/"uid":/"uid":7/'`,
    });
    const [code, { ok, runtimes: [deno, bun, node] }] = demo({}, checkout);
    assert.deepEqual([code, ok], [1, false]);
    assert.equal(deno!.error, "Deno ended with exit code 3\nno such library");
    assert.ok(bun!.connections.length > 0);
    for (const { wrong } of bun!.connections) assert.match(wrong.join("\n"), /^uid: 7/);
    assert.deepEqual(node!.connections.flatMap(({ wrong }) => wrong), []);
  },
);

/** Returns the processes with a word in their command line. */
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
    `demo.ts ends with all its processes and files after ${signal}`,
    async () => {
      const folder = openFolder();
      const child = spawn(process.execPath, [join(root, "examples/demo/demo.ts")], {
        env: { ...process.env, TMPDIR: folder },
        stdio: ["ignore", "pipe", "inherit"],
      });
      const exited = once(child, "exit");
      await once(child.stdout, "data"); // the introduction, printed before the first server starts
      while (child.exitCode === null && processesWith(folder).length === 0) await setTimeout(1);
      assert.equal(readdirSync(folder).length, 1, "the socket's folder is there");
      child.kill(signal);
      assert.deepEqual(await exited, [expected, null]);
      assert.deepEqual(readdirSync(folder), []);
      for (let tries = 0; tries < 100 && processesWith(folder).length > 0; tries++) {
        await setTimeout(20);
      }
      assert.deepEqual(processesWith(folder), []);
    },
  );
}
