/** `npm run build:jsr`: writes the package for JSR to build/jsr, and checks that it can be published. */

import { execFileSync } from "node:child_process";
import { cpSync, globSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dirname, "..");
const folder = join(root, "build/jsr");

const config = JSON.parse(readFileSync(join(root, "deno.json"), "utf8"));
const { name, imports, publish } = config;

/**
 * Replaces the specifiers of the npm package in examples by those of JSR. The source itself imports by path.
 */
function forJsr(text: string): string {
  return text.replaceAll(/(\b(?:from|import) )"ucred((?:\/[a-z]+)?)"/g, `$1"${name}$2"`)
    .replaceAll(/(\bimport\()"ucred((?:\/[a-z]+)?)"/g, `$1"${name}$2"`)
    .replaceAll(/"ucred((?:\/[a-z]+)?)": "jsr:/g, `"${name}$1": "jsr:`); // import maps
}

rmSync(folder, { recursive: true, force: true });
const files = globSync(publish.include, { cwd: root }).flatMap((path) =>
  statSync(join(root, path)).isDirectory()
    ? globSync("**/*", { cwd: join(root, path), exclude: ["**/node_modules/**"] })
      .map((below) => join(path, below))
    : [path]
).filter((path) => statSync(join(root, path)).isFile());
for (const path of files) {
  const target = join(folder, path);
  cpSync(join(root, path), target);
  if (/\.(?:ts|md)$/.test(path)) writeFileSync(target, forJsr(readFileSync(target, "utf8")));
}
const packages = Object.entries(imports).filter(([key]) => !/^ucred(?:\/|$)/.test(key));
const written = { ...config, imports: Object.fromEntries(packages), publish: undefined };
writeFileSync(join(folder, "deno.json"), `${JSON.stringify(written, null, 2)}\n`);
const check = ["publish", "--dry-run", "--allow-dirty", "--no-check"];
execFileSync("deno", check, { cwd: folder, stdio: ["ignore", "inherit", "inherit"] });
console.log(`Wrote ${files.length} files to ${folder}. Publish with: cd build/jsr && deno publish`);
