/** The benchmark of the servers: its rows, its rounds, and the copy of its results in the docs. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { skipped as skippedRounds } from "../../bench/servers/report.ts";
import { NoResult, runRounds } from "../../bench/rounds.ts";
import { PAIRS, type Result, RIVALS } from "../../bench/servers/result.ts";
import { packagesOf } from "../support/packages.ts";
import { needs, testWith } from "../support/suite.ts";

testWith(
  [needs.soak, needs.linux, needs.cc, needs.openssl, packagesOf("bench")],
  "bench:servers --quick compares each server with the same server without ucred, and with its rivals",
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

test("runRounds() repeats a round in which a server gave no answer, and the report counts it", async () => {
  const played: number[] = [];
  const { results, skipped } = await runRounds(3, (round) => {
    played.push(round);
    return round % 2 === 1
      ? Promise.reject(new NoResult("http gave no answer"))
      : Promise.resolve(round);
  });
  assert.deepEqual([results, played], [[0, 2, 4], [0, 1, 2, 3, 4]]);
  const pair = { ...PAIRS[0]!, skipped } as unknown as Result["pairs"][number];
  assert.deepEqual(skippedRounds({ pairs: [pair, { ...pair, skipped: [] }] }), [
    `${pair.runtime}, ${pair.name}: 2 rounds without a result: http gave no answer`,
  ]);
});

test("runRounds() fails if no round gives a result, or if an answer is wrong", async () => {
  const starved = () => Promise.reject(new NoResult("http gave no answer"));
  await assert.rejects(
    runRounds(2, starved),
    /^Error: 11 rounds gave no result: http gave no answer$/,
  );
  await assert.rejects(runRounds(2, () => Promise.reject(new Error("wrong"))), /^Error: wrong$/);
});

test("docs/servers.md and docs/why.md show the figures of bench/servers/results.md", () => {
  const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");
  const tables = (text: string) =>
    text.split("\n\n").filter((part) => part.startsWith("|")).map((part) =>
      part.trim().split("\n").map((line) => line.split("|").slice(1, -1).map((cell) => cell.trim()))
    );
  const [pairs, rivals] = tables(read("bench/servers/results.md")) as [string[][], string[][]];
  const [ratio, look] = [pairs[0]!.indexOf("ratio"), pairs[0]!.indexOf("one getsockopt")];
  const found = new Map(pairs.map((row) => [row[0]!, [row[ratio], row[look]]]));
  const tablesBelow = (path: string, heading: string) =>
    tables(read(path).split(`\n## ${heading}\n`)[1]!);
  const shown = tablesBelow("docs/servers.md", "Cost")[0]!;
  const shownRivals = tablesBelow("docs/why.md", "What it costs beside tokens and mutual TLS")[0]!;
  for (const [name, ...numbers] of shown.slice(2)) {
    const answers = found.get(`${name}, requests`) ?? found.get(`${name}, lines`);
    assert.deepEqual(numbers, [...answers!, ...found.get(`${name}, connections`)!], name!);
  }
  assert.equal(shown.length - 2, PAIRS.length / 2);
  assert.deepEqual(shownRivals.slice(2), rivals.slice(2).map((row) => row.slice(0, 4)));
});
