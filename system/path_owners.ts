/**
 * The owners of the folders and symbolic links that lead to a file. Each of them can replace the file.
 */

import { nodeFs } from "../adapters/builtins.ts";
import type { Ownership } from "../core/ownership.ts";

/** The members of fs.BigIntStats that are used. */
export interface BigFileStats {
  readonly dev: bigint;
  readonly ino: bigint;
  readonly uid: bigint;
  readonly gid: bigint;
  readonly mode: bigint;
  isDirectory(): boolean;
  isSymbolicLink(): boolean;
}

/** One folder, symbolic link or file that the kernel resolves for a path. */
export interface PathStep {
  /** Its absolute path, without symbolic links before the last name. */
  readonly path: string;
  /** The result of lstat(2). */
  readonly file: BigFileStats;
  /** Whether no name of the path is left to look up. */
  readonly isLast: boolean;
}

/** Owner, group and mode of a file. */
export interface FileOwnership extends Ownership {
  readonly gid: number;
}

/** Linux's limit on symbolic links in one lookup: path_resolution(7). */
const MAX_SYMLINKS = 40;

/**
 * Yields each folder and symbolic link that the kernel resolves for a path, from "/" on, and
 * then the file itself: path_resolution(7).
 *
 * Ends early after too many links, or at a file that is not a folder. A caller that relies on the last
 * step checks `isLast` and the kind of its file. A caller that checks each step before it requests
 * the next one relies only on folders that were already checked.
 *
 * @param path Absolute.
 * @throws {Error} As lstat(2) does, for example if the file does not exist.
 */
export function* pathSteps(path: string): Generator<PathStep, void, void> {
  const { lstatSync, readlinkSync } = nodeFs();
  const names = namesIn(path);
  let folder = "";
  yield { path: "/", file: lstatSync("/", { bigint: true }), isLast: names.length === 0 };
  for (let links = 0; names.length > 0;) {
    const name = names.pop()!;
    if (name === "..") { // `folder` contains no links, so its parent is the path without the last name
      folder = folder.slice(0, Math.max(0, folder.lastIndexOf("/")));
      continue;
    }
    const at = `${folder}/${name}`;
    const file = lstatSync(at, { bigint: true });
    yield { path: at, file, isLast: names.length === 0 && !file.isSymbolicLink() };
    if (file.isSymbolicLink()) {
      if (++links > MAX_SYMLINKS) return;
      const target = readlinkSync(at);
      if (target.startsWith("/")) folder = "";
      names.push(...namesIn(target));
    } else if (file.isDirectory()) {
      folder = at;
    } else {
      return;
    }
  }
}

/** The names of a path, the first one last. */
function namesIn(path: string): string[] {
  return path.split("/").filter((name) => name !== "" && name !== ".").reverse();
}

/** Returns owner, group and mode as numbers. The mode of a symbolic link has no meaning and is 0. */
export function ownershipOf(file: BigFileStats): FileOwnership {
  const mode = file.isSymbolicLink() ? 0 : Number(file.mode);
  return { uid: Number(file.uid), gid: Number(file.gid), mode };
}
