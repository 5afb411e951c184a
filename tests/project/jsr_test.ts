/** The package for JSR: its specifiers, and the criteria of the score that JSR shows. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, globSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const folder = join(root, "build/jsr");
const config = JSON.parse(readFileSync(join(root, "deno.json"), "utf8"));
const entryPoints: { readonly [subpath: string]: string } = config.exports;

const { status, stdout, stderr } = spawnSync("node", ["tools/build_jsr.ts"], {
  cwd: root,
  encoding: "utf8",
  env: { ...process.env, NO_COLOR: "1" },
});

const files = globSync("**/*.{ts,md}", { cwd: folder });
const read = (name: string) => readFileSync(join(folder, name), "utf8");

test("build:jsr writes a package that deno publish accepts, without slow types", () => {
  assert.equal(status, 0, stderr);
  assert.match(stderr + stdout, /Dry run complete/);
  assert.match(stderr + stdout, /Checking for slow types/);
  assert.doesNotMatch(stderr + stdout, /(?:error|warning)\[/);
});

test("examples in the package for JSR import from @ucred/ucred, and modules of the package by path", () => {
  assert.ok(files.length > 300);
  let examples = 0;
  for (const name of files) {
    const text = read(name);
    assert.doesNotMatch(text, /\b(?:from|import|import\() ?["']ucred(?:\/[a-z]+)?["']/, name);
    for (const [, subpath] of text.matchAll(/from "@ucred\/ucred(\/[a-z]+)?"/g)) {
      examples++;
      assert.ok(`.${subpath ?? ""}` in entryPoints, `${name}: ${subpath}`);
    }
  }
  assert.ok(examples > 150, `${examples}`);
  const { imports } = JSON.parse(read("deno.json"));
  assert.deepEqual(Object.keys(imports).filter((key) => key.startsWith("ucred")), []);
});

test("each entry point has a docstring of its module, and that of the package an example", () => {
  for (const [subpath, file] of Object.entries(entryPoints)) {
    const [docstring = ""] = /^\/\*\*[^]*?\*\//.exec(read(file).replace(/^#!.*\n/, "")) ?? [];
    assert.ok(docstring.length > 40, file);
    if (subpath !== "./cli") assert.match(docstring, /\n \* @module\n/, file);
  }
  assert.match(read("mod.ts"), /@example .+\n \* ```ts\n[^]*\n \* ```\n/);
});

test("the package for JSR has a README with an example, a licence, and every file that its documents link to", () => {
  assert.match(read("README.md"), /```ts\n[^]*@ucred\/ucred/);
  assert.ok(existsSync(join(folder, "LICENSE")));
  for (const name of files.filter((each) => each.endsWith(".md"))) {
    for (const [, to] of read(name).matchAll(/\]\((?!https?:)([^)#\s]+)/g)) {
      assert.ok(existsSync(join(folder, dirname(name), to!)), `${name}: ${to}`);
    }
  }
});
