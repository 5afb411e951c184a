/** Loads a policy from a file that only root and the server's user can change. */

import {
  type BigIntStats,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readSync,
  realpathSync,
  statSync,
} from "node:fs";
import process from "node:process";
import { UcredError } from "../core/errors.ts";
import { type OptionNames, requireOptions } from "../core/options.ts";
import { isSticky, unsafeFileReason } from "../core/ownership.ts";
import { ownOf } from "../core/policy/document/plain_copy.ts";
import { fixFileHint, policyError } from "../core/policy/document/problems.ts";
import type { RulePolicy } from "../core/policy/policy.ts";
import { textOf, visible } from "../core/text.ts";
import { type FileOwnership, ownershipOf, pathSteps } from "../system/path_owners.ts";
import { permissionHint } from "../system/runtime_permission.ts";
import { hasOwnGroupOnly, isTrusted } from "../system/trusted_owner.ts";
import { parse, type ParseOptions } from "./parse.ts";

/** Options of {@link loadPolicy}. */
export interface LoadOptions extends Omit<ParseOptions, "file"> {
  /**
   * Whether to accept a file, or a folder on its path, that users other than root and the server's own user
   * own or can write to. Default: `false`, since users who can replace the policy can allow themselves
   * everything.
   */
  readonly allowUnsafeOwner?: boolean | undefined;
}

/** The option names of {@link LoadOptions}. */
export const LOAD_OPTIONS: OptionNames<LoadOptions> = {
  accounts: true,
  vocabularies: true,
  runTests: true,
  allowUnsafeOwner: true,
};

/**
 * Reads a policy from a file, YAML or JSON.
 *
 * The file and every folder on its path, from `/` on, must belong to root or to the server's own user,
 * and no other user may write to them, as with sshd's `StrictModes`. A group may write if the server's own
 * user is certainly its only member, as with umask 002. The folders of symbolic links on the path, and the
 * folders that the links lead through, are checked as well. A folder that every user can add files to,
 * such as /tmp, is rejected.
 *
 * @throws {UcredError} `ERR_UCRED_POLICY` if the file cannot be read, may be written or replaced by
 * others, is not a regular file, is longer than 16 MiB, is not in UTF-8, changes while it is read, or
 * has mistakes.
 * @throws {TypeError} If an option is unknown.
 *
 * @example A policy file
 * ```ts
 * import { writeFileSync } from "node:fs";
 * import { loadPolicy } from "ucred/policy";
 *
 * writeFileSync("policy.yaml", "version: 1\nrules: [{ name: root, when: { uid: 0 }, allow: full }]\n", {
 *   mode: 0o600,
 * });
 * const policy = loadPolicy("policy.yaml");
 * console.log(policy.decide({ uid: 1 }).reason); // No rule matches
 * ```
 */
export function loadPolicy(path: string, options: LoadOptions = {}): RulePolicy {
  requireOptions("loadPolicy()", options, LOAD_OPTIONS);
  const file = readPolicyFile(path, options);
  if (file === undefined) throw changing(path);
  return parse(file.text, { ...options, file: path });
}

/** The contents of a file. */
export interface PolicyFile {
  readonly text: string;
  /** The stamp of the file, which was the same before and after it was read: {@link stampOf}. */
  readonly stamp: string;
}

/** A text that changes when the file is replaced or written to, or its owner or mode changes. */
export function stampOf(file: BigIntStats): string {
  const { dev, ino, size, mtimeNs, ctimeNs, mode, uid } = file;
  return [dev, ino, size, mtimeNs, ctimeNs, mode, uid].join(" ");
}

/**
 * Reads a file after checking its owners. Returns `undefined` if the file changes meanwhile, or has
 * another stamp than `expected`.
 *
 * @throws {UcredError} `ERR_UCRED_POLICY`
 */
export function readPolicyFile(
  path: string,
  options: LoadOptions,
  expected?: string,
): PolicyFile | undefined {
  const { allowUnsafeOwner = false } = ownOf(options);
  let fd: number | undefined;
  try {
    requireFile(path, statSync(path, { bigint: true })); // opening a device can have side effects
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK); // does not wait for the writer of a pipe
    const file = fstatSync(fd, { bigint: true });
    const stamp = stampOf(file);
    if (expected !== undefined && stamp !== expected) return undefined;
    if (!allowUnsafeOwner && !isSafe(path, file)) return undefined;
    const bytes = readAll(path, fd, file);
    if (stampOf(fstatSync(fd, { bigint: true })) !== stamp || BigInt(bytes.length) !== file.size) {
      return undefined;
    }
    return { text: decode(path, bytes), stamp };
  } catch (error) {
    throw error instanceof UcredError ? error : unreadable(path, error);
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

/** Maximum size of a file. The longest text that is parsed, 4 Mi characters, has at most 12 MiB in UTF-8. */
const MAX_FILE_BYTES = 16 << 20;

/** Reads a file. Reads one byte more than its size if it has grown, so that the caller notices. */
function readAll(path: string, fd: number, file: BigIntStats): Uint8Array {
  requireFile(path, file);
  if (file.size > MAX_FILE_BYTES) {
    throw unusableFile(path, `it has ${file.size} bytes; the maximum is ${MAX_FILE_BYTES}`);
  }
  const bytes = new Uint8Array(Number(file.size) + 1);
  let length = 0;
  while (length < bytes.length) {
    const read = readSync(fd, bytes, length, bytes.length - length, null);
    if (read === 0) break;
    length += read;
  }
  return bytes.subarray(0, length);
}

function decode(path: string, bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw unusableFile(path, "it is not in UTF-8");
  }
}

function requireFile(path: string, file: BigIntStats): void {
  if (file.isFile()) return;
  const what = file.isDirectory()
    ? "a folder"
    : file.isFIFO()
    ? "a pipe"
    : file.isSocket()
    ? "a socket"
    : "a device";
  throw unreadable(path, new Error(`it is ${what} and not a regular file`));
}

/**
 * Walks the path name by name. Throws if other users can write to the file or to a folder on the path;
 * returns `false` if the path now leads to another file.
 */
function isSafe(path: string, file: BigIntStats): boolean {
  requireSafe(path, "it", path, ownershipOf(file));
  // Links need no check: only the owners of the checked folders can have created them.
  for (const step of pathSteps(path.startsWith("/") ? path : `${process.cwd()}/${path}`)) {
    const { path: at, file: entry } = step;
    if (entry.isDirectory()) requireSafe(path, `its folder ${at}`, at, ownershipOf(entry));
    else if (!entry.isSymbolicLink()) {
      return step.isLast && entry.dev === file.dev && entry.ino === file.ino;
    }
  }
  return false;
}

/** @param name Path of the file or folder that `what` describes. */
function requireSafe(path: string, what: string, name: string, entry: FileOwnership): void {
  // If other users can change the target of the path, the check of the folders fails later.
  const why = unsafeFileReason(entry, isTrusted, () => hasOwnGroupOnly(realpathSync(name), entry));
  if (why === undefined) return;
  const isOwned = isTrusted(entry.uid); // then the mode is unsafe
  const move = "Move the policy to a folder of root, such as /etc/ucred, or ";
  // The hint does not suggest chown of a folder, which may be a home directory or a shared one.
  const hint = name !== path && isKubernetesVolume(name)
    ? KUBERNETES
    : name === path
    ? `Run ${isOwned ? "chmod go-w" : "chown root"} on ${name}, or ${ALLOW}`
    : isOwned && !isSticky(entry)
    ? `${move}run chmod go-w on ${name}`
    : `${move}${ALLOW}`;
  throw unusableFile(path, `${what} ${why}`, hint);
}

/** The option that disables the check, in the library and on the command line. */
const ALLOW = "set allowUnsafeOwner (--allow-unsafe-owner)";

/** The folder of a ConfigMap, Secret or projected volume has mode 0777 or 1777, which cannot be configured. */
const KUBERNETES = "In Kubernetes mount the file by subPath, have an init container copy it, or " +
  `${ALLOW}; ` +
  "docs/troubleshooting.md shows each";

/** Returns whether a folder is a volume of the kubelet: its files are symbolic links through "..data". */
function isKubernetesVolume(folder: string): boolean {
  return lstatSync(`${folder}/..data`, { throwIfNoEntry: false })?.isSymbolicLink() === true;
}

/** Builds the error for a file with contents, an owner or a mode that cannot be used. */
export function unusableFile(path: string, why: string, hint = fixFileHint(path)): UcredError {
  const problem = { message: visible(why), path: [], file: path };
  const problems = [{ ...problem, line: undefined, column: undefined }];
  return policyError(problems, 0, { hint: visible(hint) });
}

/** Builds the error for a file that changes while it is read. */
export function changing(path: string): UcredError {
  return unusableFile(
    path,
    "it is being changed",
    "Write to another file, and rename it to this one",
  );
}

/** Builds the error for a file that could not be read. */
export function unreadable(path: string, cause: unknown): UcredError {
  const why = cause instanceof Error ? cause.message : textOf(cause);
  const message = `Cannot use the policy: ${visible(`${path}: ${why}`)}`;
  const hint = permissionHint(cause, { deno: "--allow-read", node: "--allow-fs-read=*" }) ??
    "Check the path, and that the server may read it";
  return new UcredError("ERR_UCRED_POLICY", message, { hint, cause });
}
