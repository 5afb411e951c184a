/** Tests of the progress of long computations. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { temporaryFolder } from "../support/compile.ts";
import { runtimeCommand } from "../support/suite.ts";

const folder = temporaryFolder();
const large = join(folder, "large");
writeFileSync(large, "x".repeat(200_000));

/** Runs a computation that ends when stderr has this many bytes. Returns stdout and stderr. */
function compute(file: string, bytes: number): readonly [out: string, err: string] {
  const path = join(folder, "stderr");
  const stderr = openSync(path, "w");
  const script = fileURLToPath(new URL("compute.ts", import.meta.url));
  const [command, ...args] = runtimeCommand();
  const { stdout } = spawnSync(command, [...args, script, path, file, String(bytes)], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", stderr],
  });
  closeSync(stderr);
  return [stdout, readFileSync(path, "utf8")];
}

test("withProgress() shows the time while the main thread computes, and erases it at the end", () => {
  const [out, err] = compute(large, 1);
  const [start, first, ...more] = err.split("\r");
  assert.deepEqual([start, first, more.at(-1)], ["", "still working, 2 s", "\u001b[K"]);
  // The line is erased before the result is printed.
  assert.equal(out, `computed ${err.length}\n`);
});

test("withProgress() writes nothing for a short computation, a small file, or stdin", () => {
  for (const file of [large, fileURLToPath(import.meta.url), "-"]) {
    assert.deepEqual(compute(file, 0), ["computed 0\n", ""], file);
  }
});
