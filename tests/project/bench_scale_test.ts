/** The benchmark of scale: its options, its figures, and the copy of its results in the docs. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { AXES, type Result, rowsOf } from "../../bench/scale/result.ts";
import { packagesOf } from "../support/packages.ts";
import { needs, testWith } from "../support/suite.ts";

const bench = (...args: string[]) =>
  spawnSync(process.execPath, [
    "--disable-warning=ExperimentalWarning",
    fileURLToPath(new URL("../../bench/scale/bench.ts", import.meta.url)),
    ...args,
  ], { encoding: "utf8" });

test("rowsOf() compares each sample with the first value of the axis in the same round", () => {
  const row = { axis: "rules", runtime: "Node", isBaseline: false } as const;
  const [first, second, other] = rowsOf([
    { ...row, value: 10, samples: [100, 10, 1000] },
    { ...row, value: 100, samples: [150, 20, 1000] },
    { ...row, isBaseline: true, value: 10, samples: [1, 2, 3] },
  ]);
  assert.deepEqual(first!.ratio, { median: 1, least: 1, most: 1 });
  assert.deepEqual(second!.ratio, { median: 1.5, least: 1, most: 2 });
  assert.deepEqual(other!.ratio, { median: 1, least: 1, most: 1 });
});

testWith(
  [needs.soak, needs.linux, needs.cc, needs.root, packagesOf("bench")],
  "bench:scale --quick measures each quantity on each runtime",
  () => {
    const { status, stdout, stderr } = bench("--quick", "--json"); // fails if an answer is wrong
    assert.equal(status, 0, stderr);
    const { rows, versions, absent, rounds } = JSON.parse(stdout) as Result;
    for (const { name, title } of AXES) {
      if (absent.some(({ what }) => what === title)) continue;
      const own = rows.filter(({ axis }) => axis === name);
      assert.equal(new Set(own.map(({ runtime }) => runtime)).size, versions.length, name);
      for (const { samples } of own) {
        assert.equal(samples.length, rounds);
        assert.ok(samples.every((sample) => sample > 0), name);
      }
    }
  },
);

test("docs/scale.md shows the figures of bench/scale/results.md", () => {
  const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");
  const cells = (line: string) => line.split("|").slice(1, -1).map((cell) => cell.trim());
  /** "Node, 10,000 rules" → median and ratio. */
  const found = new Map<string, readonly [median: string, ratio: string]>();
  for (const section of read("bench/scale/results.md").split("\n## ").slice(1)) {
    const [title, ...lines] = section.split("\n");
    for (
      const [line, value, median, , ratio] of lines.filter((line) => line[0] === "|").map(cells)
    ) {
      found.set(`${title}: ${line}, ${value}`, [median!, ratio!]);
    }
  }
  const [, table] = read("docs/scale.md").split("\n## What one machine does\n");
  const rows = table!.split("\n## ")[0]!.split("\n").filter((line) => line[0] === "|").map(cells);
  const [head, , ...others] = rows;
  const runtimes = head!.slice(2);
  assert.ok(others.length >= 10);
  for (const [quantity, value, ...shown] of others) {
    const wanted = runtimes.map((runtime) => {
      const [median, ratio] = found.get(`${quantity}: ${runtime}, ${value}`) ?? ["", ""];
      return `${median} (${ratio} ×)`;
    });
    assert.deepEqual(shown, wanted, `${quantity}, ${value}`);
  }
});
