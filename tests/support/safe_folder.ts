/** Folders on whose way nobody else can write: what policy files must stand in. */

import { chmodSync, lstatSync, mkdtempSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import type { Need } from "./suite.ts";

/** Whether the folder, and each above it, belongs to root or to us, and nobody else may write to it. */
export function isSafeFolder(folder: string): boolean {
  const { uid, mode } = lstatSync(folder);
  if ((uid !== 0 && uid !== process.geteuid?.()) || (mode & 0o022) !== 0) return false;
  return folder === "/" || isSafeFolder(dirname(folder));
}

function findPlace(): string | undefined {
  for (const place of [tmpdir(), "/run", process.env["XDG_RUNTIME_DIR"]]) {
    try {
      if (place === undefined || !isSafeFolder(realpathSync(place))) continue;
      rmSync(mkdtempSync(join(place, "ucred-")), { recursive: true });
      return realpathSync(place);
    } catch {
      // it is not there, or not ours to write to
    }
  }
  return undefined;
}

const place = findPlace();

/** That there is one. */
export const safeFolders: Need = {
  name:
    "a temporary folder that others can write to nowhere on the way (root's /run, or XDG_RUNTIME_DIR)",
  met: place !== undefined,
};

const folders: string[] = [];

/** A fresh one. Other users may enter it. Test files that call this call `afterEach(removeSafeFolders)`. */
export function safeFolder(): string {
  if (place === undefined) throw new Error(`No ${safeFolders.name}`);
  process.umask(0o022); // nor to what is made in it
  const folder = mkdtempSync(join(place, "ucred-"));
  folders.push(folder);
  chmodSync(folder, 0o755);
  return folder;
}

/** Ends what {@link safeFolder} has begun. */
export function removeSafeFolders(): void {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
}

process.on("exit", removeSafeFolders); // where the runner tells
