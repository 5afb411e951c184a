/** Tests of `--watch`: in a pipe and on a terminal. */

import assert from "node:assert/strict";
import { renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { frameOf } from "../../cli/watch.ts";
import {
  assertPrintable,
  RunningCommand,
  serve,
  Terminal,
  tools,
  ucred,
} from "../support/command.ts";
import { temporaryFolder } from "../support/compile.ts";
import { needs, testWith } from "../support/suite.ts";

const policyFor = (uid: number) =>
  `version: 1
rules: [{ name: root, when: { uid: 0 }, allow: true }]
tests: [{ peer: { uid: ${uid} }, expect: { allow: true } }]
`;

test("policy test --watch runs the tests again when a file is written, replaced, removed or broken", async () => {
  const path = join(temporaryFolder(), "p.yaml");
  writeFileSync(path, policyFor(0));
  const running = new RunningCommand(["policy", "test", "--watch", path]);
  await running.says("out", "1 passed, 0 failed");
  writeFileSync(path, policyFor(1));
  await running.says("out", "0 passed, 1 failed");
  writeFileSync(path, "version: 1\nrules: nothing\n");
  await running.says("out", /p\.yaml:2:[0-9]+: .*rules/);
  rmSync(path);
  await running.says("out", "ENOENT");
  writeFileSync(`${path}.new`, policyFor(0).replace("root", "again"));
  renameSync(`${path}.new`, path);
  await running.says("out", /ENOENT[^]*1 passed, 0 failed/);
  const { code, out, err } = await running.end("SIGINT");
  assert.deepEqual([code, err], [0, ""]);
  assertPrintable(out);
  assert.equal(out.match(/passed, /g)!.length, 3, out);
});

test("policy test --watch needs files", async () => {
  const { code, err } = await ucred(["policy", "test", "--watch", "-"]);
  assert.equal(code, 2);
  assert.match(err, /--watch requires files: stdin cannot change/);
});

testWith(
  [needs.linux, needs.native, tools.tmux],
  "sockets --watch shows sockets as they appear, and leaves its last list on the terminal",
  async () => {
    using terminal = new Terminal(200, ["sockets", "--watch"]);
    await terminal.shows("with findings");
    using server = await serve();
    await terminal.shows(server.path);
    terminal.press("C-c");
    const { text, code } = await terminal.ended();
    assert.equal(code, 0);
    assert.equal(text.match(/ with findings\. /g)!.length, 1);
    assert.ok(text.includes(server.path));
  },
);

testWith(
  [needs.linux, needs.native],
  "sockets --watch --json prints JSON, and ends on SIGTERM",
  async () => {
    const running = new RunningCommand(["sockets", "--watch", "--json"]);
    await running.says("out", /\]\n$/);
    const { code, out, err } = await running.end("SIGTERM");
    assert.deepEqual([code, err], [0, ""]);
    assertPrintable(out);
    assert.ok(Array.isArray(JSON.parse(out.split(/\n\n/)[0]!)));
  },
);

test("frameOf() overwrites each line without clearing the screen, and fits the terminal", () => {
  assert.equal(frameOf("a\nb\n", 10, 80), "\x1b[Ha\x1b[K\r\nb\x1b[K\r\n\x1b[J");
  const long = Array.from({ length: 30 }, (_, at) => `line ${at}`).join("\n");
  for (const rows of [2, 3, 10, 31]) {
    const frame = frameOf(long, rows, 80);
    assert.ok(frame.split("\r\n").length <= rows, `${rows}`);
    assert.ok(!frame.includes("\x1b[2J"));
    const shown = frame.match(/line /g)?.length ?? 0;
    const [, hidden = "0"] = /… (\d+) more lines/.exec(frame) ?? [];
    assert.equal(shown + Number(hidden), 30, `${rows}`);
  }
});
