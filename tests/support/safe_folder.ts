/** Safe folders, as policy files require: no other user can write to them or to a folder above. */

import { chmodSync, lstatSync, mkdtempSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import type { Need } from "./suite.ts";

/** Returns whether the folder, and each above it, belongs to root or to us, and no other user may write to it. */
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
      // it does not exist, or we may not write to it
    }
  }
  return undefined;
}

const place = findPlace();

/** The need for such a folder. */
export const safeFolders: Need = {
  name:
    "a temporary folder that others can write to nowhere on the way (root's /run, or XDG_RUNTIME_DIR)",
  met: place !== undefined,
};

const folders: string[] = [];

/** Creates a safe folder, which other users may enter. Callers also call `afterEach(removeSafeFolders)`. */
export function safeFolder(): string {
  if (place === undefined) throw new Error(`No ${safeFolders.name}`);
  process.umask(0o022); // for files in it
  const folder = mkdtempSync(join(place, "ucred-"));
  folders.push(folder);
  chmodSync(folder, 0o755);
  return folder;
}

/** Removes the folders of {@link safeFolder}. */
export function removeSafeFolders(): void {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
}

process.on("exit", removeSafeFolders); // if the runner emits it
