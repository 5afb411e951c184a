/** Opens the file of a command in such a way that only root can choose or change what is executed. */

import { createHash } from "node:crypto";
import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { basename, dirname } from "node:path/posix";
import { textOf } from "../../../core/text.ts";
import { ownershipOf, type PathStep, pathSteps } from "../../../system/path_owners.ts";

/** An open executable file. */
export interface Executable {
  /** Its path for the policy: the folder has no symbolic links, and the name of the file is as requested. */
  readonly command: string;
  /** Its path without symbolic links. */
  readonly path: string;
  /** A descriptor with O_PATH: it can be executed, and not read. The caller closes it. */
  readonly fd: number;
}

/** O_PATH and O_CLOEXEC of <asm-generic/fcntl.h>: x86-64 and arm64 have these values. */
const O_PATH = 0o10000000;
const O_CLOEXEC = 0o2000000;

/** Set-user-ID and set-group-ID: no_new_privs ignores them, and the command would run without warning. */
const SETID_BITS = 0o6000;

/** Returns why a path cannot be that of a command, whatever files exist; `undefined` if it can. */
export function pathProblem(path: string): string | undefined {
  if (!path.startsWith("/") || path.includes("\0")) return "the path is not absolute";
  return path.split("/").slice(1).some((name) => name === "" || name === "." || name === "..")
    ? 'the path has an empty name, "." or ".."'
    : undefined;
}

/**
 * Opens the executable file at an absolute path.
 *
 * Root owns each folder, each symbolic link and the file, and no other user can write to them. The
 * descriptor is compared with the file that was checked.
 *
 * @returns The open file, or a text: the reason why the file cannot be executed.
 */
export function openExecutable(requested: string): Executable | string {
  const problem = pathProblem(requested);
  if (problem !== undefined) return problem;
  let fd: number | undefined;
  try {
    // First the name for the policy is resolved, then the file is looked up by this name. A link that changes in
    // between, such as /proc/PID/cwd, cannot separate the two.
    const folder = resolve(dirname(requested));
    if (typeof folder === "string") return folder;
    if (!folder.file.isDirectory()) return `${folder.path} is not a folder`;
    const command = `${folder.path === "/" ? "" : folder.path}/${basename(requested)}`;
    const resolved = resolve(command);
    if (typeof resolved === "string") return resolved;
    const { path, file: checked } = resolved;
    fd = openSync(path, O_PATH | O_CLOEXEC | constants.O_NOFOLLOW);
    const file = fstatSync(fd, { bigint: true });
    const mode = Number(file.mode);
    const reason = file.dev !== checked.dev || file.ino !== checked.ino
      ? "the file was replaced while it was checked"
      : !file.isFile()
      ? "it is not a regular file"
      : file.uid !== 0n || (mode & 0o022) !== 0
      ? "users other than root can write to it"
      : (mode & 0o111) === 0
      ? "it is not executable"
      : (mode & SETID_BITS) !== 0
      ? "it has a set-user-ID or set-group-ID bit"
      : undefined;
    if (reason !== undefined) return reason;
    const opened = fd;
    fd = undefined;
    return { command, path, fd: opened };
  } catch (error) {
    return error instanceof Error ? error.message : textOf(error);
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

const CHUNK_BYTES = 1 << 20;

/** Returns digests of an open file by name, in hexadecimal. */
export function digestsOf(fd: number, names: readonly string[]): Record<string, string> {
  if (names.length === 0) return {};
  const hashes = names.map((name) => [name, createHash(name)] as const);
  const readable = openSync(`/proc/self/fd/${fd}`, constants.O_RDONLY | O_CLOEXEC);
  try {
    const chunk = new Uint8Array(CHUNK_BYTES);
    for (let size; (size = readSync(readable, chunk)) > 0;) {
      for (const [, hash] of hashes) hash.update(chunk.subarray(0, size));
    }
  } finally {
    closeSync(readable);
  }
  return Object.fromEntries(hashes.map(([name, hash]) => [name, hash.digest("hex")]));
}

/** Resolves a path, or returns the reason why a user other than root could choose the file. */
function resolve(path: string): PathStep | string {
  let last: PathStep | undefined;
  for (const step of pathSteps(path)) {
    const { uid, mode } = ownershipOf(step.file);
    if (uid !== 0) return `${step.path} does not belong to root`;
    if ((mode & 0o022) !== 0) return `users other than root can write to ${step.path}`;
    last = step;
  }
  return last?.isLast === true ? last : "the path does not lead to a file";
}
