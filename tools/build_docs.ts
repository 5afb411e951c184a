/** `npm run docs`: writes the API reference of all entry points from their docstrings, as HTML in build/docs. */

import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";

process.chdir(join(import.meta.dirname, ".."));
const { exports } = JSON.parse(readFileSync("deno.json", "utf8")) as {
  exports: { readonly [entry: string]: string };
};
// The command is not a module: its reference is the manual page.
const files = Object.entries(exports).flatMap(([entry, file]) => entry === "./cli" ? [] : [file]);
const output = "build/docs";
rmSync(output, { recursive: true, force: true });
mkdirSync("build", { recursive: true });
const args = ["doc", "--quiet", "--html", "--name=ucred", `--output=${output}`, ...files];
execFileSync("deno", args, { stdio: "inherit" });
console.log(`Wrote the reference of ${files.length} entry points: ${output}/index.html`);
