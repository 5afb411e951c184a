/** `node tools/install.ts FOLDER...`: installs the packages of folders with their own package.json. */

import { spawnSync } from "node:child_process";
import { statSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";

const root = join(import.meta.dirname, "..");

/** When a file was last written, in ms; 0 if it does not exist. */
function writtenAt(file: string): number {
  return statSync(join(root, file), { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

/** npm writes this file when an installation is complete. */
function isInstalled(folder: string): boolean {
  const installed = writtenAt(`${folder}/node_modules/.package-lock.json`);
  return installed > writtenAt(`${folder}/package-lock.json`);
}

for (const folder of process.argv.slice(2).filter((folder) => !isInstalled(folder))) {
  console.error(`npm ci --prefix ${folder}`);
  const args = ["ci", "--prefix", folder, "--no-audit", "--no-fund"];
  // Output goes to stderr: the stdout of `npm run --silent bench -- --json` is one JSON document.
  const { status, error } = spawnSync("npm", args, { cwd: root, stdio: ["inherit", 2, 2] });
  if (status === 0) continue;
  console.error(`Cannot install the packages of ${folder}${error ? `: ${error.message}` : ""}`);
  process.exit(1);
}
