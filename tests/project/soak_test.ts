/** `npm run soak`: a short run with each server, runtime and event. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { needs, testWith } from "../support/suite.ts";

testWith(
  [needs.soak, needs.linux, needs.root, needs.cc, needs.mountNamespace],
  "npm run soak finds no problem in each server on each runtime",
  () => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [
      "--disable-warning=ExperimentalWarning",
      fileURLToPath(new URL("../soak/soak.ts", import.meta.url)),
      "--minutes=1",
    ], { encoding: "utf8", maxBuffer: 1 << 28 });
    assert.equal(status, 0, `${stdout}\n${stderr}`);
    const rows = [...stdout.matchAll(/^(node|deno|bun) [a-z0-9-]+: ([0-9]+) events/gm)];
    assert.equal(rows.length, Number(/ ([0-9]+) servers$/m.exec(stdout)![1]), stdout);
    assert.ok(rows.every(([, , events]) => Number(events) >= 2), stdout);
    const events = (runtime: string) =>
      stdout.match(new RegExp(`event: ${runtime}, `, "g"))!.length;
    assert.deepEqual([events("node"), events("deno"), events("bun")], [12, 12, 12]);
  },
);
