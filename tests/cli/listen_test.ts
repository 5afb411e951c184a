/** Tests of `ucred listen`: clients and decisions as lines, as JSON, and as a table. */

import assert from "node:assert/strict";
import { chmodSync, copyFileSync, mkdirSync, renameSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Child, freshPath } from "../support/peers.ts";
import { visit, visitAs, visitProgram } from "../support/servers.ts";
import { temporaryFolder } from "../support/compile.ts";
import { needs, testWith } from "../support/suite.ts";
import { assertPrintable, file, RunningCommand, Terminal, tools } from "../support/command.ts";

const visitors = [needs.linux, needs.cc, needs.root, needs.native];

const POLICY = `version: 1
rules:
  - { name: root, when: { uid: 0 }, allow: full }
  - { name: one, when: { uid: 4001 }, allow: read }
  - { name: two, when: { uid: 4002 }, deny: "two is not welcome" }
`;

/** Starts the command, and waits until it listens. */
async function listening(...args: string[]): Promise<RunningCommand & { path: string }> {
  const path = freshPath();
  const running = new RunningCommand(["listen", path, ...args]);
  await running.says("err", "listening at");
  return Object.assign(running, { path });
}

testWith(
  visitors,
  "listen prints a line for each client, and sends it a response",
  async () => {
    const listener = await listening();
    const texts = [];
    for (const uid of [4001, 4002, 0]) texts.push(await visitAs(uid, listener.path));
    for (const [at, uid] of [4001, 4002].entries()) {
      assert.match(texts[at]!, new RegExp(`^you are uid ${uid}, pid [0-9]+\n$`));
    }
    const { code, out } = await listener.end();
    assert.equal(code, 0);
    const rows = out.slice(0, -1).split("\n").map((line) => line.split("\t"));
    assert.deepEqual(rows.map((cells) => cells[2]), ["4001", "4002", "0 (root)"]);
    for (const [at, cells] of rows.entries()) {
      assert.equal(cells.length, 9);
      assert.match(cells[0]!, /^[0-9]{2}:[0-9]{2}:[0-9]{2}$/);
      assert.ok(texts[at]!.includes(`pid ${cells[1]}`));
      assert.deepEqual([cells[4], cells[7], cells[8]], [visitProgram, "-", ""]);
    }
  },
);

testWith(
  visitors,
  "listen --policy prints the decision about each client, with the reason",
  async () => {
    const policy = file("policy.yaml", POLICY);
    const listener = await listening("--policy", policy);
    const uids = [0, 4001, 4002, 4003];
    const texts = [];
    for (const uid of uids) texts.push(await visitAs(uid, listener.path));
    const { out } = await listener.end();
    const verdicts = out.trimEnd().split("\n").map((line) => line.split("\t").slice(7));
    assert.deepEqual(verdicts, [
      ["allow", 'Rule "root" allows it: full'],
      ["allow", 'Rule "one" allows it: read'],
      ["deny", 'Rule "two" denies it: two is not welcome'],
      ["deny", "No rule matches"],
    ]);
    const responses = texts.map((text) => text.trimEnd().split(": ")[1]);
    assert.deepEqual(responses, ["allowed", "allowed", "denied", "denied"]);
  },
);

testWith(visitors, "listen --json prints each client with the decision in one line", async () => {
  const policy = file("policy.yaml", POLICY);
  const listener = await listening("--json", "--policy", policy);
  await visitAs(4001, listener.path);
  await visitAs(4003, listener.path);
  const { out } = await listener.end();
  const [one, other] = out.trimEnd().split("\n").map((line) => JSON.parse(line));
  assert.ok(Math.abs(Date.parse(one.time) - Date.now()) < 3_600_000);
  assert.deepEqual([one.uid, one.gid, one.groups], [4001, 4001, [4001]]);
  assert.equal(one.process.exe, visitProgram);
  assert.deepEqual(one.decision, {
    allowed: true,
    rule: "one",
    grants: ["read"],
    reason: 'Rule "one" allows it: read',
  });
  assert.deepEqual([other.uid, other.decision.allowed], [4003, false]);
});

testWith(
  visitors,
  "listen reloads its policy, and keeps it if the new one is wrong",
  async () => {
    const policy = file("policy.yaml", POLICY);
    const listener = await listening("--policy", policy);
    const replace = (text: string) => {
      writeFileSync(`${policy}.new`, text, { mode: 0o644 });
      renameSync(`${policy}.new`, policy);
    };
    replace("version: 1\nrules: [{ name: all, allow: sure }]\n");
    process.kill(listener.process.pid!, "SIGHUP");
    await listener.says("err", "policy reloaded");
    assert.match(await visitAs(4003, listener.path), /: allowed$/m);
    replace("version: 1\nrules: [{ name: all, alow: sure }]\n");
    process.kill(listener.process.pid!, "SIGHUP");
    await listener.says("err", /policy\.yaml:2:[0-9]+.*alow/);
    assert.match(await visitAs(4003, listener.path), /: allowed$/m);
    assertPrintable(listener.err);
    assert.equal((await listener.end()).code, 0);
  },
);

testWith(
  visitors,
  "listen escapes the names of programs",
  async () => {
    const hostile = "pro\u001b[2J\ngram\t\u202e";
    const folder = temporaryFolder();
    mkdirSync(join(folder, "bin"));
    const program = join(folder, "bin", hostile);
    copyFileSync(visitProgram, program);
    chmodSync(program, 0o755);
    const listener = await listening();
    const child = new Child(program, [listener.path]);
    await child.json();
    await child.json();
    await child.end();
    const { out } = await listener.end();
    assert.equal(out.split("\n").length, 2, out);
    assert.equal(out.split("\t").length, 9);
    assertPrintable(out);
    assert.ok(out.includes("pro\\u001b[2J\\u000agram\\u0009\\u202e"), out);
  },
);

testWith(
  [...visitors, tools.tmux],
  "listen prints a table on terminals of 80 and 120 columns",
  async () => {
    const policy = file("policy.yaml", POLICY);
    for (const columns of [80, 120]) {
      const path = freshPath();
      using terminal = new Terminal(columns, ["listen", path, "--policy", policy]);
      await terminal.shows("listening at");
      for (const uid of [0, 4001, 4003]) await visitAs(uid, path);
      await terminal.shows("No rule matches");
      terminal.press("C-c");
      const { text, code } = await terminal.ended();
      assert.equal(code, 0);
      const lines = text.split("\n");
      const head = lines.findIndex((line) => line.startsWith("TIME"));
      assert.match(lines[head]!, /^TIME +PID +USER +GROUPS +EXE +WHERE$/);
      const at = lines[head]!.indexOf("USER");
      const table = lines.slice(head + 1, head + 7);
      assert.deepEqual(table.filter((_, row) => row % 2 === 1).map((line) => line.trim()), [
        'Rule "root" allows it: full',
        'Rule "one" allows it: read',
        "No rule matches",
      ]);
      const rows = table.filter((_, row) => row % 2 === 0);
      assert.deepEqual(rows.map((line) => line.slice(at - 6, at).trim()), [
        "allow",
        "allow",
        "deny",
      ]);
      assert.deepEqual(rows.map((line) => parseInt(line.slice(at))), [0, 4001, 4003]);
      for (const row of rows) assert.match(row, /[…/]visit /);
    }
  },
);

testWith(visitors, "listen --json escapes the names of programs", async () => {
  const name = "p\u009b31m\u202e\u{e0041}\u2028";
  const program = join(temporaryFolder(), name);
  copyFileSync(visitProgram, program);
  chmodSync(program, 0o755);
  const listener = await listening("--json");
  const child = new Child(program, [listener.path]);
  await child.json();
  await child.json();
  await child.end();
  const { out } = await listener.end();
  assertPrintable(out);
  assert.ok(out.includes("p\\u009b31m\\u202e\\udb40\\udc41\\u2028"), out);
  assert.equal(JSON.parse(out).process.exe, program);
});

testWith(visitors, "listen --socket-mode sets the mode of the socket", async () => {
  const listener = await listening("--socket-mode", "0600");
  assert.equal(await visitAs(4001, listener.path), "EACCES");
  assert.match(await visit(listener.path), /you are uid 0/);
  assert.equal((await listener.end()).code, 0);
});

testWith(
  [needs.linux, needs.cc],
  "listen binds an abstract name, and fails if it is taken",
  async () => {
    const name = `@ucred-listen-${process.pid}`;
    const running = new RunningCommand(["listen", name]);
    await running.says("err", "listening at");
    assert.match(await visit(`\0${name.slice(1)}`), /you are uid/);
    const second = await new RunningCommand(["listen", name]).done;
    assert.equal(second.code, 2);
    assert.match(second.err, /Cannot listen at .*EADDRINUSE/);
    assert.equal((await running.end("SIGINT")).code, 0);
  },
);

test("listen ends and removes its socket when its pipe closes", async () => {
  const path = freshPath();
  const running = new RunningCommand(["listen", path, "--json"]);
  await running.says("err", "listening at");
  running.process.stdout!.destroy();
  // The first line that cannot be written ends the command.
  while (running.process.exitCode === null) {
    await connectOnce(path);
    await sleep(5);
  }
  assert.equal(running.process.exitCode, 0);
  await assert.rejects(connectOnce(path, true), /ENOENT/);
});

/** Connects, and waits until the connection closes. */
function connectOnce(path: string, mustConnect = false): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(path).on("close", () => resolve());
    socket.on("error", (error) => mustConnect ? reject(error) : resolve()).resume();
  });
}
