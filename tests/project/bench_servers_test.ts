/** The servers' benchmark: that it runs every kind of server, and gets right answers. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { PAIRS, type Result, RIVALS } from "../../bench/servers/result.ts";
import { needs, testWith } from "../support/suite.ts";

testWith(
  [needs.linux, needs.cc, needs.openssl],
  "npm run bench:servers compares every server with the same without, and with its rivals",
  () => {
    const file = fileURLToPath(new URL("../../bench/servers/bench.ts", import.meta.url));
    const flags = ["--disable-warning=ExperimentalWarning", file, "--quick", "--json"];
    const output = execFileSync(process.execPath, flags, {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    });
    const { pairs, rivals }: Result = JSON.parse(output);
    const names = (all: readonly { runtime: string; name: string }[]) =>
      all.map(({ runtime, name }) => `${runtime}, ${name}`);
    assert.deepEqual(names(pairs), names(PAIRS));
    assert.deepEqual(names(rivals), names(RIVALS));
    const measured = pairs.flatMap(({ plainSamples, leastSamples, oursSamples }) => [
      ...plainSamples,
      ...leastSamples,
      ...oursSamples,
    ]);
    for (const { perSecond, cpu } of measured) assert.ok(perSecond > 0 && cpu > 0);
    for (const { rows } of rivals) for (const { cpu } of rows) assert.ok(cpu.median > 0);
  },
);
