/** The benchmark of the guard: its options, its figures, and the copy of its results in the docs. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { RUNTIMES } from "../../bench/benchmark.ts";
import { CONTENDERS } from "../../bench/guard/contenders.ts";
import { isConnectionError, LOADS, type Result, rowsOf } from "../../bench/guard/result.ts";
import { needs, testWith } from "../support/suite.ts";

const bench = (...args: string[]) =>
  spawnSync(process.execPath, [
    "--disable-warning=ExperimentalWarning",
    fileURLToPath(new URL("../../bench/guard/bench.ts", import.meta.url)),
    ...args,
  ], { encoding: "utf8" });

test("bench:guard --help prints the options, and an unknown option is an error", () => {
  assert.match(
    bench("--help").stdout,
    /^Usage: npm run bench:guard[^]*--quick[^]*--json[^]*--save/,
  );
  const { status, stderr } = bench("--quik");
  assert.equal(status, 2);
  assert.match(stderr, /--quik/);
});

test("rowsOf() compares each sample with the sample without a guard in the same round", () => {
  const samples = (...all: number[]) =>
    all.map((perSecond) => ({ perSecond, p50: 1, p99: 2, cpu: 3 }));
  const [none, ours] = rowsOf(LOADS[0]!, [
    { contender: "no guard", isOurs: false, samples: samples(100, 10, 1000) },
    { contender: "ours", isOurs: true, samples: samples(50, 4, 600) },
  ]);
  assert.deepEqual(none!.ratio, { median: 1, least: 1, most: 1 });
  assert.deepEqual(ours!.ratio, { median: 0.5, least: 0.4, most: 0.6 });
  assert.deepEqual(ours!.perSecond, { median: 50, least: 4, most: 600 });
});

test("isConnectionError() matches closed connections and does not match wrong bytes", () => {
  for (
    const text of [
      "load: the server has closed a connection",
      "ends: read: Connection reset by peer",
      "load: write: Broken pipe",
    ]
  ) assert.ok(isConnectionError(text), text);
  for (const text of ["load: another answer: x", "ends: other bytes came back, from 7 on", ""]) {
    assert.ok(!isConnectionError(text), text);
  }
});

testWith(
  [needs.soak, needs.linux, needs.cc],
  "bench:guard --quick compares the guard with each installed proxy",
  () => {
    const { status, stdout, stderr } = bench("--quick", "--json"); // fails if an answer is wrong
    assert.equal(status, 0, stderr);
    const { rows, versions, absent, rounds } = JSON.parse(stdout) as Result;
    for (const runtime of Object.keys(RUNTIMES)) {
      assert.match(versions[`ucred guard on ${runtime}`]!, /^\d+\.\d+\.\d+/);
    }
    const present = CONTENDERS.filter(({ name }) => name in versions);
    assert.deepEqual(
      CONTENDERS.filter((contender) => !present.includes(contender)).map(({ name }) => name),
      absent.map(({ contender }) => contender),
    );
    for (const { name, mode } of LOADS) {
      const own = rows.filter(({ load }) => load === name);
      assert.deepEqual(own.map(({ contender }) => contender), [
        "no guard",
        ...present.filter(({ modes }) => modes.includes(mode)).map(({ name }) => name),
      ]);
      for (const { samples } of own) {
        assert.equal(samples.length, rounds);
        assert.ok(samples.every(({ perSecond }) => perSecond > 0));
      }
    }
  },
);

test("docs/guard.md shows the figures of bench/guard/results.md", () => {
  const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");
  const cells = (line: string) => line.split("|").slice(1, -1).map((cell) => cell.trim());
  const found = new Map<string, string>();
  for (const section of read("bench/guard/results.md").split("\n## ").slice(1)) {
    const [load, ...lines] = section.split("\n");
    const [head, , ...rows] = lines.filter((line) => line[0] === "|").map(cells);
    const cpu = head!.indexOf("CPU µs");
    for (const row of rows) found.set(`${load}: ${row[0]}`, row[cpu]!);
  }
  const [, section] = read("docs/guard.md").split("\n## What it costs\n");
  const [head, , ...rows] = section!.split("\n").filter((line) => line[0] === "|").map(cells);
  assert.ok(rows.length >= 4);
  for (const [load, ...told] of rows) {
    const names = head!.slice(1).map((name) => name.replace("guard,", "ucred guard on"));
    const wanted = names.map((name) => found.get(`${load}: ${name}`) ?? "");
    assert.deepEqual(told, wanted, load!);
  }
});
