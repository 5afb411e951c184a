/** File → policy, if the file is as safe from others as what it protects. */

import {
  type BigIntStats,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readlinkSync,
  readSync,
  statSync,
} from "node:fs";
import process from "node:process";
import { NO_ID } from "../core/credentials.ts";
import { UcredError } from "../core/errors.ts";
import { isSticky, type Ownership, whoElseReplaces, whoElseWrites } from "../core/ownership.ts";
import type { Policy } from "../core/policy/policy.ts";
import { type ParseOptions, parsePolicy } from "./parse.ts";

/** How a file is to be read. */
export interface LoadOptions extends Omit<ParseOptions, "file"> {
  /**
   * Whether the file may belong to, or be written by, others than root and the server's own user. By
   * default `false`, since whoever can write the policy can let himself in.
   */
  readonly anyOwner?: boolean | undefined;
}

/**
 * Reads a policy from a file, YAML or JSON.
 *
 * The file and its folder must belong to root or to the server's own user, and nobody else may write
 * to them. Where the path is a link, that goes for the folder of the link and for that of the file,
 * and for any between. The folders above these are not looked at.
 *
 * @throws {UcredError} `ERR_UCRED_POLICY` if the file cannot be read, may be written by others, is
 * not in UTF-8, changes while it is read, or anything is wrong in it.
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
export function loadPolicy(path: string, options: LoadOptions = {}): Policy {
  const file = readPolicyFile(path, options);
  if (file === undefined) throw changing(path);
  return parsePolicy(file.text, { ...options, file: path });
}

/** What a file held. */
export interface PolicyFile {
  readonly text: string;
  /** {@link stampOf} the file, before it was read and after. */
  readonly stamp: string;
}

/** What differs if a file was replaced, written to, or given to others. */
export function stampOf(file: BigIntStats): string {
  const { dev, ino, size, mtimeNs, ctimeNs, mode, uid } = file;
  return [dev, ino, size, mtimeNs, ctimeNs, mode, uid].join(" ");
}

/**
 * Reads a file that is safe from others; `undefined` if it changes meanwhile, or is not the one with
 * the stamp that is expected.
 *
 * @throws {UcredError} `ERR_UCRED_POLICY`
 */
export function readPolicyFile(
  path: string,
  { anyOwner = false }: LoadOptions,
  expected?: string,
): PolicyFile | undefined {
  let fd: number | undefined;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK); // waits for no writer of a pipe
    const file = fstatSync(fd, { bigint: true });
    const stamp = stampOf(file);
    if (expected !== undefined && stamp !== expected) return undefined;
    if (!anyOwner && !isSafe(path, file)) return undefined;
    const bytes = readAll(path, fd, file);
    if (stampOf(fstatSync(fd, { bigint: true })) !== stamp || BigInt(bytes.length) !== file.size) {
      return undefined;
    }
    return { text: decode(path, bytes), stamp };
  } catch (error) {
    throw error instanceof UcredError ? error : unusable(path, error);
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

/** More than the longest text that is parsed takes in UTF-8. */
const MOST_BYTES = 16 << 20;

/** What is in the file; a byte more than its size if it has grown. */
function readAll(path: string, fd: number, file: BigIntStats): Uint8Array {
  // A folder is told by read(2).
  if (!file.isFile() && !file.isDirectory()) throw because(path, "it is no regular file");
  if (file.size > MOST_BYTES) throw because(path, `longer than ${MOST_BYTES} bytes`);
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
    throw because(path, "it is not in UTF-8");
  }
}

/** As many links as Linux follows. */
const MOST_LINKS = 40;

/** Throws if others can replace the file or write to it; `false` if the path leads elsewhere now. */
function isSafe(path: string, file: BigIntStats): boolean {
  const ownUid = process.geteuid?.() ?? NO_ID;
  requireSafe(path, "it", path, whoElseWrites(ownershipOf(file), ownUid));
  let at = path;
  for (let links = 0; links <= MOST_LINKS; links++) {
    const folder = at.includes("/") ? at.slice(0, at.lastIndexOf("/")) || "/" : ".";
    const inside = ownershipOf(statSync(folder, { bigint: true }));
    const entry = lstatSync(at, { bigint: true });
    const isLink = entry.isSymbolicLink();
    requireSafe(path, `its folder ${folder}`, folder, whoElseReplaces(inside, ownUid));
    if (isLink && isSticky(inside)) {
      const link = { uid: Number(entry.uid), mode: 0 }; // a link's own mode says nothing
      requireSafe(path, `the link ${at}`, at, whoElseWrites(link, ownUid));
    }
    if (!isLink) return entry.dev === file.dev && entry.ino === file.ino;
    const target = readlinkSync(at);
    at = target.startsWith("/") ? target : `${folder}/${target}`;
  }
  return false;
}

function ownershipOf({ uid, mode }: BigIntStats): Ownership {
  return { uid: Number(uid), mode: Number(mode) };
}

function requireSafe(path: string, what: string, name: string, why: string | undefined): void {
  if (why === undefined) return;
  const hint = `Run chown root and chmod go-w on ${name}, or set anyOwner`;
  throw because(path, `${what} ${why}`, hint);
}

/** The error for a file that cannot be used for a reason of its own. */
export function because(
  path: string,
  why: string,
  hint = "Mend what the message names",
): UcredError {
  return new UcredError("ERR_UCRED_POLICY", `Cannot use the policy: ${path}: ${why}`, { hint });
}

/** The error for a file that does not keep still. */
export function changing(path: string): UcredError {
  const hint = "Write to another file, and rename it to this one";
  return because(path, "it is being changed", hint);
}

/** The error for a file that something else keeps from being used. */
export function unusable(path: string, cause: unknown): UcredError {
  const why = cause instanceof Error ? cause.message : String(cause);
  const message = `Cannot use the policy: ${path}: ${why}`;
  const hint = "Check the path, and that the server may read it";
  return new UcredError("ERR_UCRED_POLICY", message, { hint, cause });
}
