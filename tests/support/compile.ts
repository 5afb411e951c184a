/** Builds the C programs and libraries that the tests use. */

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const folders: string[] = [];
// Only Node's runner emits "exit" at its end. For the others, `npm test` removes the TMPDIR that it
// sets. after() would not do: Bun shares modules among test files, and runs it after the first one.
process.on("exit", () => folders.forEach((path) => rmSync(path, { recursive: true, force: true })));

/** Creates a folder that is removed when this process ends. Other users may enter it. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "ucred-"));
  folders.push(folder);
  chmodSync(folder, 0o755);
  return folder;
}

/** The folder of the code that child processes on Node keep compiled. `npm test` has one for all its steps. */
export const compileCache: string = process.env["NODE_COMPILE_CACHE"] ?? temporaryFolder();

/**
 * The command's program. `npm test` bundles it once: to start it takes 0.06 to 0.14 s of CPU instead of 0.12
 * to 0.22. A test file that runs alone starts the source.
 */
export const commandFile: string = process.env["UCRED_COMMAND"] ??
  fileURLToPath(new URL("../../cli/main.ts", import.meta.url));

/** Compiles a program for this machine and returns its path. */
export function compileProgram(source: URL): string {
  return compile("cc", source, "", ["-pthread"]);
}

/** Compiles a shared library for the runtime under test and returns its path. */
export function compileLibrary(source: URL, ...flags: string[]): string {
  return compile(process.env["UCRED_LIBRARY_CC"] ?? "cc", source, ".so", [
    "-shared",
    "-fPIC",
    ...flags,
  ]);
}

/** Compiles a program without shared libraries; `undefined` if this machine has no static libc. */
export function compileStatic(source: URL): string | undefined {
  try {
    return compile("cc", source, "", ["-static"]);
  } catch {
    return undefined;
  }
}

/** The folder of compiled programs. `npm test` has one for all its steps, which compile each program once. */
const compiled: string | undefined = process.env["UCRED_COMPILED"];

function compile(compiler: string, source: URL, suffix: string, flags: string[]): string {
  const file = fileURLToPath(source);
  const name = basename(file, ".c");
  const args = ["-O1", "-Wall", "-Werror", ...flags, file];
  const hash = createHash("sha256").update(JSON.stringify([compiler, ...args])).digest("hex");
  // Tests read the program's name in /proc, so it stays.
  const kept = compiled === undefined ? undefined : join(compiled, hash, name + suffix);
  if (kept !== undefined && existsSync(kept)) return kept;
  const output = join(temporaryFolder(), name + suffix);
  execFileSync(compiler, [...args, "-o", output], { stdio: ["ignore", "ignore", "inherit"] });
  if (kept === undefined) return output;
  mkdirSync(dirname(kept), { recursive: true });
  renameSync(output, kept); // several steps may compile at the same time
  return kept;
}
