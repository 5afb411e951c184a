/** The benchmark of the policies: its workload, its checks of answers, and the copy of its results in the docs. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { RUNTIMES } from "../../bench/benchmark.ts";
import { loadChecked, WrongAnswer } from "../../bench/policy/check.ts";
import { CONTENDERS } from "../../bench/policy/contenders.ts";
import { type Result, rowsOf, targetsOf } from "../../bench/policy/result.ts";
import { packagesOf } from "../support/packages.ts";
import { needs, testWith } from "../support/suite.ts";
import { firstMatch, KINDS_OF_PEERS, PEERS, workload } from "../../bench/policy/workload.ts";

const packages = packagesOf("bench");
const soak = [packages, needs.soak];

test("workload() makes peers that match a rule of the first, middle or last tenth, or no rule", () => {
  for (const count of [10, 1000]) {
    const { rules, peers } = workload(count);
    assert.equal(peers.length, PEERS);
    assert.equal(new Set(rules.map(({ id }) => id)).size, count, "each rule has another id");
    const met = new Set(peers.map((peer, index) => {
      const rule = firstMatch(rules, peer);
      const position = rule === undefined ? -1 : rules.indexOf(rule);
      if (rule === undefined) {
        assert.equal(index % KINDS_OF_PEERS, 3);
        return -1;
      }
      const tenth = Math.floor(10 * position / count);
      assert.ok([[0], [4, 5], [9]][index % KINDS_OF_PEERS]?.includes(tenth), `${position}`);
      return position;
    }));
    assert.ok(met.size >= (count === 10 ? 4 : 200), `${met.size} rules decide`);
  }
});

testWith(
  [packages],
  "loadChecked() fails if a contender gives another answer or another rule",
  async () => {
    const [ours, casl] = [CONTENDERS[0]!, CONTENDERS.find(({ name }) => name === "CASL")!];
    for (const contender of [ours, casl]) {
      const { requests } = await loadChecked(contender, 10, Infinity);
      assert.equal(requests.length, PEERS);
      const load = (change: object): typeof ours => ({
        ...contender,
        load: async (rules) => ({ ...await contender.load(rules), ...change }),
      });
      const allowing = load({ allowed: () => true });
      await assert.rejects(loadChecked(allowing, 10, Infinity), WrongAnswer);
      await assert.rejects(loadChecked(load({ rule: () => "other" }), 10, Infinity), WrongAnswer);
    }
  },
);

test("targetsOf() reports a missed target if one size is slow, or if sizes differ too much", () => {
  const row = { runtime: "Node", peers: PEERS } as const;
  const rows = rowsOf([
    { ...row, contender: "ucred", rules: 10, samples: [80, 90, 100] },
    { ...row, contender: "ucred", rules: 1000, samples: [190, 170, 200] },
    { ...row, contender: "ucred, peers", rules: 10, samples: [201, 201, 201] },
    { ...row, contender: "ucred, peers", rules: 1000, samples: [199, 199, 199] },
    { ...row, contender: "ucred, attributes", rules: 10, samples: [160, 180, 220] },
    { ...row, contender: "ucred, attributes", rules: 1000, samples: [399, 399, 399] },
  ]);
  assert.deepEqual(rows[3]!.ratio.median, 199 / 190);
  assert.deepEqual(targetsOf(rows).map(({ found, isMet }) => [found, isMet]), [
    [190, true],
    [190 / 90, false],
    [201, false],
    [201 / 199, true],
    [399 / 190, false],
  ]);
});

testWith(soak, "bench:policy --quick compares each contender on each runtime", () => {
  const file = fileURLToPath(new URL("../../bench/policy/bench.ts", import.meta.url));
  const output = execFileSync(process.execPath, [file, "--quick", "--json"], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  }); // fails if an answer is wrong
  const { rows, absent, rounds, targets, versions } = JSON.parse(output) as Result;
  const sizes = [...new Set(rows.map(({ rules }) => rules))];
  assert.ok(sizes.length >= 2);
  assert.deepEqual(absent, [], "all contenders run on all runtimes");
  for (const runtime of Object.keys(RUNTIMES)) {
    assert.match(versions[runtime]!, /^\d+\.\d+\.\d+/);
    for (const contender of CONTENDERS) {
      const own = rows.filter((row) => row.runtime === runtime && row.contender === contender.name);
      assert.deepEqual(own.map(({ rules }) => rules), sizes);
      for (const { peers, samples, ratio } of own) {
        assert.equal(peers % KINDS_OF_PEERS, 0);
        assert.ok(contender.package === undefined ? peers === PEERS : peers > 0);
        assert.equal(samples.length, rounds);
        assert.ok(samples.every((nanoseconds) => nanoseconds > 0), `${samples}`);
        if (contender.name === "ucred") assert.deepEqual(ratio, { median: 1, least: 1, most: 1 });
      }
    }
    assert.equal(targets.filter(({ text }) => text.startsWith(`${runtime}, ucred`)).length, 5);
  }
});

test("docs/policy.md shows the figures of bench/policy/results.md", () => {
  const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");
  const cells = (line: string) => line.split("|").slice(1, -1).map((cell) => cell.trim());
  const found = new Map<string, string>();
  for (const section of read("bench/policy/results.md").split("\n## ")) {
    const [runtime, ...lines] = section.split("\n");
    for (const line of lines) {
      const [contender, rules, nanoseconds] = cells(line);
      if (nanoseconds !== undefined) found.set(`${contender}, ${runtime}: ${rules}`, nanoseconds);
    }
  }
  const [, section] = read("docs/policy.md").split("\n## Cost\n");
  const [, , ...rows] = section!.split("\n## ")[0]!.split("\n").filter((line) => line[0] === "|");
  assert.ok(rows.length >= 3);
  for (const [name, ...told] of rows.map(cells)) {
    const sizes = ["10", "100", "1,000", "10,000"];
    assert.deepEqual(told, sizes.map((rules) => found.get(`${name}: ${rules}`)), name!);
  }
});
