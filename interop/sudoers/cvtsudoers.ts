/** Runs cvtsudoers(1), sudo's own parser of sudoers files. */

import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import process from "node:process";
import { UcredError } from "../../core/errors.ts";
import { textOf } from "../../core/text.ts";

/** A sudoers file as cvtsudoers(1) exports it. */
export interface SudoersExport {
  /** The output of `cvtsudoers -f json`. */
  readonly json: string;
  /** The output of `cvtsudoers -f sudoers`: it has words that the JSON of sudo 1.9.13 lacks. */
  readonly sudoers: string;
  /** The file itself, for the lines of problems. */
  readonly text?: string;
  /** The name of the file in problems. */
  readonly file?: string;
}

/** Larger exports are rejected. */
const MAX_EXPORT_BYTES = 64 * 1024 * 1024;

/**
 * Reads a sudoers file, with the files that it includes, by cvtsudoers(1). sudo 1.9 or later is required.
 *
 * @param file The path of the file.
 * @throws {UcredError} `ERR_UCRED_POLICY` if cvtsudoers is missing or reports a problem, also a warning.
 *
 * @example Import the rules of this machine
 * ```ts
 * import { importSudoers, readSudoers, UcredError } from "ucred/sudoers";
 *
 * try {
 *   console.log(importSudoers(readSudoers("/etc/sudoers")).rules.length, "rules");
 * } catch (error) {
 *   if (!(error instanceof UcredError)) throw error;
 *   console.log(error.code, error.hint);
 * }
 * ```
 */
export function readSudoers(file: string): SudoersExport {
  const [json, sudoers] = [exportAs("json", file), exportAs("sudoers", file)];
  return { json, sudoers, text: readFileSync(file, "utf8"), file };
}

function exportAs(format: "json" | "sudoers", file: string): string {
  // A file in /etc could leave parts out: `match`, `suppress` and `prune_matches` of cvtsudoers.conf(5).
  const args = ["-c", "/dev/null", "-f", format, "--", file];
  const { status, stdout, stderr, error } = spawnSync("cvtsudoers", args, {
    encoding: "utf8",
    env: { PATH: `${process.env["PATH"] ?? "/usr/bin"}:/usr/sbin:/usr/local/sbin`, LC_ALL: "C" },
    maxBuffer: MAX_EXPORT_BYTES,
  });
  const failed = (why: string, hint: string) =>
    new UcredError("ERR_UCRED_POLICY", `Cannot import the sudoers file ${file}: ${why}`, {
      hint,
      cause: error,
    });
  if ((error as NodeJS.ErrnoException | undefined)?.code === "ENOENT") {
    throw failed("cvtsudoers is missing", "Install sudo 1.9 or later, which has cvtsudoers");
  }
  if (error !== undefined) throw failed(textOf(error), "Run cvtsudoers by hand to see why");
  if (status !== 0 || stderr !== "") {
    const why = stderr.trimEnd() || `cvtsudoers ended with ${status}`;
    throw failed(why, "Fix the file: visudo -c -f FILE reports its mistakes");
  }
  return stdout;
}
