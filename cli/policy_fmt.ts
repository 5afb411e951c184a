/** `ucred policy fmt`: formats policy files. Comments, the order of fields, and quotes stay. */

import {
  chownSync,
  closeSync,
  fchmodSync,
  fsyncSync,
  openSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import process from "node:process";
import { isDeepStrictEqual } from "node:util";
import { parseDocument } from "yaml";
import { readData } from "../policy/parse.ts";
import { type ExitCode, logError, print, printable, UsageError, write } from "./output.ts";
import { readStdin, utf8Text } from "./policy.ts";

/** Columns of a line, beyond which lists and objects in one line are broken. */
const MAX_COLUMNS = 100;

/** Runs the command. With `check`, exit code 1: a file is not formatted. */
export function format(
  files: readonly string[],
  { check = false }: { readonly check?: boolean },
): ExitCode {
  const codes = files.map((file) => {
    try {
      return file === "-" ? formatStdin(check) : formatFile(file, check);
    } catch (error) {
      return logError(error);
    }
  });
  return Math.max(...codes) as ExitCode;
}

function formatStdin(check: boolean): ExitCode {
  const before = utf8Text(readStdin(), "stdin");
  const after = formatted(before, "stdin");
  if (!check) write(after);
  return check && after !== before ? 1 : 0;
}

function formatFile(file: string, check: boolean): ExitCode {
  const before = utf8Text(readFileSync(file), file);
  const after = formatted(before, file);
  if (after === before) return 0;
  if (!check) replace(realpathSync(file), after);
  print(printable(file));
  return check ? 1 : 0;
}

/** The formatted text. Its data is the same: this is checked. */
function formatted(text: string, file: string): string {
  const before = readData(text);
  if ("problem" in before) {
    const { line, column, message } = before.problem;
    throw new UsageError(`${file}:${line}:${column}: ${message}`);
  }
  const after = parseDocument(text).toString({ lineWidth: MAX_COLUMNS });
  if (isDeepStrictEqual(readData(after), before)) return after;
  // For example, the library writes an escaped character as itself.
  throw new UsageError(`${file}: the file cannot be formatted, because its meaning would change`);
}

/** Replaces a file in one step: a server that watches it never reads a part. */
function replace(file: string, text: string): void {
  const { mode, uid, gid } = statSync(file);
  const temporary = join(dirname(file), `.${basename(file)}.${process.pid}.tmp`);
  const fd = openSync(temporary, "wx", 0o600);
  try {
    try {
      writeFileSync(fd, text); // writeSync() may write only a part
      const created = statSync(temporary);
      if (created.uid !== uid || created.gid !== gid) chownSync(temporary, uid, gid);
      fchmodSync(fd, mode & 0o7777);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(temporary, file);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}
