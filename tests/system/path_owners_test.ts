/** The folders and links of a path, in the order in which the kernel resolves them. */

import assert from "node:assert/strict";
import { mkdirSync, realpathSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { ownershipOf, pathSteps } from "../../system/path_owners.ts";
import { temporaryFolder } from "../support/compile.ts";
import { testWith } from "../support/suite.ts";

/** Returns the steps below a folder, as "name", or "name (last)". */
function stepsBelow(root: string, path: string): string[] {
  return [...pathSteps(path)].filter((step) => step.path.startsWith(`${root}/`))
    .map(({ path, isLast }) => path.slice(root.length + 1) + (isLast ? " (last)" : ""));
}

testWith([], "pathSteps() yields each folder from / on, and then the file", () => {
  const root = realpathSync(temporaryFolder());
  mkdirSync(join(root, "a/b"), { recursive: true });
  writeFileSync(join(root, "a/b/file"), "");
  assert.equal([...pathSteps(join(root, "a"))][0]!.path, "/");
  assert.deepEqual(stepsBelow(root, join(root, "a/b/file")), ["a", "a/b", "a/b/file (last)"]);
  assert.deepEqual(stepsBelow(root, `${root}//a/./b/../b`), ["a", "a/b", "a/b (last)"]);
});

testWith([], "pathSteps() yields a link, and then every folder of its target", () => {
  const root = realpathSync(temporaryFolder());
  mkdirSync(join(root, "a/b"), { recursive: true });
  mkdirSync(join(root, "c"));
  writeFileSync(join(root, "c/file"), "");
  symlinkSync("../../c", join(root, "a/b/relative"));
  symlinkSync(join(root, "a/b"), join(root, "absolute"));
  assert.deepEqual(stepsBelow(root, join(root, "absolute/relative/file")), [
    ...["absolute", "a", "a/b", "a/b/relative", "c", "c/file (last)"],
  ]);
});

testWith([], "pathSteps() resolves .. after a link by the target, as the kernel does", () => {
  const root = realpathSync(temporaryFolder());
  mkdirSync(join(root, "deep/er"), { recursive: true });
  symlinkSync("deep/er", join(root, "link"));
  mkdirSync(join(root, "deep/beside"));
  symlinkSync("link/../beside", join(root, "through"));
  assert.deepEqual(stepsBelow(root, join(root, "through")), [
    ...["through", "link", "deep", "deep/er", "deep/beside (last)"],
  ]);
});

testWith([], "pathSteps() ends without a last step when links form a circle", () => {
  const root = realpathSync(temporaryFolder());
  symlinkSync("circle", join(root, "circle"));
  const steps = [...pathSteps(join(root, "circle"))];
  assert.ok(steps.every(({ isLast }) => !isLast));
  assert.ok(steps.length < 60);
});

testWith([], "pathSteps() ends at a file that the path uses as a folder", () => {
  const root = realpathSync(temporaryFolder());
  writeFileSync(join(root, "file"), "");
  assert.deepEqual(stepsBelow(root, join(root, "file/beyond")), ["file"]);
});

testWith([], "pathSteps() throws when a folder of the path does not exist", () => {
  const root = realpathSync(temporaryFolder());
  assert.throws(() => [...pathSteps(join(root, "missing/file"))], { code: "ENOENT" });
});

testWith(
  [],
  "ownershipOf() returns mode 0 for a link, since the mode of a link has no meaning",
  () => {
    const root = realpathSync(temporaryFolder());
    symlinkSync("/", join(root, "link"));
    const { file } = [...pathSteps(join(root, "link"))].find(({ path }) => path.endsWith("/link"))!;
    assert.equal(ownershipOf(file).mode, 0);
    assert.equal(ownershipOf(file).uid, process.getuid!());
  },
);
