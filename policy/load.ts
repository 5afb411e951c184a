/** File → policy, if the file is as safe from others as what it protects. */

import { readFileSync, statSync } from "node:fs";
import process from "node:process";
import { UcredError } from "../core/errors.ts";
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
 * to them.
 *
 * @throws {UcredError} `ERR_UCRED_POLICY` if the file cannot be read, may be written by others, or
 * anything is wrong in it.
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
  const { anyOwner = false } = options;
  let text: string;
  try {
    if (!anyOwner) requireSafe(path);
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (error instanceof UcredError) throw error;
    const why = (error as Error).message;
    const message = `Cannot use the policy: ${path}: ${why}`;
    const hint = "Check the path, and that the server may read it";
    throw new UcredError("ERR_UCRED_POLICY", message, { hint, cause: error });
  }
  return parsePolicy(text, { ...options, file: path });
}

/** Group and others may not write. */
const WRITABLE = 0o022;
const STICKY = 0o1000;

function requireSafe(path: string): void {
  const folder = path.includes("/") ? path.slice(0, path.lastIndexOf("/")) || "/" : ".";
  for (
    const [name, { uid, mode }] of [[path, statSync(path)], [folder, statSync(folder)]] as const
  ) {
    const isFolder = name === folder;
    // In a sticky folder (/tmp) others can add files, but not replace this one.
    const isWritable = (mode & WRITABLE) !== 0 && !(isFolder && (mode & STICKY) !== 0);
    const isForeign = uid !== 0 && uid !== process.geteuid?.();
    if (!isWritable && !isForeign) continue;
    const why = isForeign ? `belongs to uid ${uid}` : "may be written by others";
    const message = `Cannot use the policy: ${path}: ${
      isFolder ? `its folder ${name}` : "it"
    } ${why}`;
    const hint = `Run chown root and chmod go-w on ${name}, or set anyOwner`;
    throw new UcredError("ERR_UCRED_POLICY", message, { hint });
  }
}
