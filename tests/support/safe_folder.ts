/** Safe folders, as policy files require: no other user can write to them or to a folder above. */

import { chmodSync, lstatSync, mkdtempSync, realpathSync, rmSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import type { Need } from "./suite.ts";

/** Returns whether the folder, and each above it, belongs to root or to us, and no other user may write to it. */
export function isSafeFolder(folder: string): boolean {
  const { uid, mode } = lstatSync(folder);
  if ((uid !== 0 && uid !== process.geteuid?.()) || (mode & 0o022) !== 0) return false;
  return folder === "/" || isSafeFolder(dirname(folder));
}

function findParent(): string | undefined {
  for (const parent of [tmpdir(), "/run", process.env["XDG_RUNTIME_DIR"], homedir()]) {
    try {
      if (parent === undefined || !isSafeFolder(realpathSync(parent))) continue;
      rmSync(mkdtempSync(join(parent, "ucred-")), { recursive: true });
      return realpathSync(parent);
    } catch {
      // it does not exist, or we may not write to it
    }
  }
  return undefined;
}

const parent = findParent();

/** The need for such a folder. */
export const safeFolders: Need = {
  name: "a temporary, runtime or home folder below folders that no other user can write to",
  met: parent !== undefined,
};

const folders: string[] = [];

/** Creates a safe folder, which other users may enter. Callers also call `afterEach(removeSafeFolders)`. */
export function safeFolder(): string {
  if (parent === undefined) throw new Error(`No ${safeFolders.name}`);
  process.umask(0o022); // for files in it
  const folder = mkdtempSync(join(parent, "ucred-"));
  folders.push(folder);
  chmodSync(folder, 0o755);
  return folder;
}

/** Removes the folders of {@link safeFolder}. */
export function removeSafeFolders(): void {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
}

process.on("exit", removeSafeFolders); // if the runner emits it
