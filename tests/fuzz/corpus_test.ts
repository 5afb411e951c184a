/** The readers of `npm run fuzz`: each reads its corpus, and a few changed files. Findings stay in the corpus. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import fc from "../support/properties.ts";
import { cases, needs, testWith } from "../support/suite.ts";
import { changedCases, corpusOf } from "./cases.ts";
import { searchIn } from "./search.ts";
import { TARGETS } from "./targets.ts";

for (const target of TARGETS) {
  test(`the reader of ${target.name} returns, or throws an error of its own, for its corpus`, async () => {
    const files = corpusOf(target);
    assert.ok(files.length >= 2);
    for (const { name, bytes } of files) {
      assert.ok(bytes.length <= 4096, `${name} is small`);
      await target.read(bytes);
    }
    const changed = changedCases(target, files.map(({ bytes }) => bytes));
    await fc.assert(fc.asyncProperty(changed, async (bytes) => await target.read(bytes)), {
      numRuns: cases(200),
    });
  });
}

test("each folder of the corpus belongs to a reader", () => {
  const folders = readdirSync(new URL("corpus", import.meta.url)).sort();
  assert.deepEqual(folders, TARGETS.map(({ name }) => name).sort());
});

const FAULTY = new URL("faulty_targets.ts", import.meta.url);
/** A limit that is not reached: the search ends with the first finding. */
const SOON = () => Date.now() + 600_000;

testWith(
  [needs.node, needs.native],
  "searchIn() finds exceptions, contradictions and endless readers",
  async () => {
    const thrown = await searchIn(FAULTY, "opa", 1, SOON());
    assert.match(thrown.error!, /it has an exclamation mark/);
    assert.ok(thrown.bytes!.includes(33));
    const wrong = await searchIn(FAULTY, "proc", 1, SOON());
    assert.match(wrong.error!, /it has been allowed/);
    // On a busy machine, the thread may not run for a second: then it has another case.
    for (let isFound = false; !isFound;) {
      const endless = await searchIn(FAULTY, "sasl", 1, SOON(), { maxCaseMs: 1000 });
      assert.equal(endless.error, "It does not end within 1 s");
      isFound = endless.bytes!.includes(63);
    }
    const none = await searchIn(FAULTY, "http", 1, Date.now() + 500);
    assert.equal(none.error, undefined);
  },
);

testWith(
  [needs.node, needs.native],
  "npm run fuzz -- --help prints the targets, and another target is an error",
  () => {
    const fuzz = (...args: string[]) =>
      spawnSync(process.execPath, [
        "--disable-warning=ExperimentalWarning",
        fileURLToPath(new URL("fuzz.ts", import.meta.url)),
        ...args,
      ], { encoding: "utf8" });
    const help = fuzz("--help");
    assert.equal(help.status, 0);
    for (const { name } of TARGETS) assert.ok(help.stdout.includes(name), name);
    const { status, stderr } = fuzz("--only", "x");
    assert.equal(status, 2);
    assert.match(stderr, /^There is no target "x"\nUsage: npm run fuzz/);
  },
);
