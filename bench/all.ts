/**
 * `npm run bench:all`: runs all benchmarks, and writes their results and charts when every one of them has
 * succeeded.
 */

import { spawn } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";

/** A benchmark, and the files that it writes. */
export interface Part {
  /** The script in package.json. */
  readonly script: string;
  /** Its program. */
  readonly program: string;
  /** Where its results belong. The files have the names of `files`. */
  readonly folder: string;
  readonly files: readonly string[];
}

const here = import.meta.dirname;

/** All benchmarks. Those that take longest are last. */
export const PARTS: readonly Part[] = [
  { script: "bench", folder: here, files: ["results.md", "results.svg"] },
  { script: "bench:policy", folder: join(here, "policy"), files: ["results.md"] },
  { script: "bench:scale", folder: join(here, "scale"), files: ["results.md", "results.svg"] },
  { script: "bench:servers", folder: join(here, "servers"), files: ["results.md"] },
  { script: "bench:guard", folder: join(here, "guard"), files: ["results.md"] },
].map((part) => ({ ...part, program: join(part.folder, "bench.ts") }));

const HELP = `Usage: npm run bench:all -- [options]

Runs ${PARTS.map(({ script }) => script).join(", ")}, and writes every result file and
chart when all have succeeded. Takes about half an hour. Rows without their program are named in the
results. If a benchmark fails, or has a wrong answer, no file is written.

  --quick  fewer and shorter rounds, for a first impression; writes no file
  --help   print this help

The exit code is 1 if a benchmark failed. Missed targets are only reported.
`;

/**
 * Runs the benchmarks one after the other, and stops at the first that fails.
 *
 * @param save Whether the results are written, after all benchmarks have succeeded.
 * @returns Whether all have succeeded.
 */
export async function runAll(parts: readonly Part[], save: boolean): Promise<boolean> {
  const staging = mkdtempSync(join(tmpdir(), "ucred-bench-all-"));
  try {
    const start = performance.now();
    for (const [index, part] of parts.entries()) {
      mkdirSync(join(staging, `${index}`));
      const minutes = ((performance.now() - start) / 60_000).toFixed(0);
      console.error(`[${index + 1}/${parts.length}] npm run ${part.script}, after ${minutes} min`);
      const code = await run(part, save ? join(staging, `${index}`) : undefined);
      if (code !== 0) {
        const left = save ? ". No result was written" : "";
        console.error(`npm run ${part.script} failed with exit code ${code}${left}`);
        return false;
      }
    }
    // Only now: a result of this run never stands beside one of an earlier run.
    if (save) {
      const copies = parts.flatMap(({ folder, files }, index) =>
        files.map((file) => ({
          from: join(staging, `${index}`, file),
          to: join(folder, file),
        }))
      );
      for (const { from } of copies) readFileSync(from); // fails before the first file is replaced
      for (const { from, to } of copies) copyFileSync(from, to);
      console.error(`Written: ${copies.map(({ to }) => to.slice(here.length + 1)).join(", ")}`);
    }
    return true;
  } finally {
    rmSync(staging, { recursive: true, force: true });
  }
}

/** Runs a benchmark. Its output goes to stdout, and its progress to stderr. */
function run({ program }: Part, results: string | undefined): Promise<number> {
  const flags = results === undefined ? ["--quick"] : ["--save", "--to", results];
  const child = spawn(
    process.execPath,
    ["--disable-warning=ExperimentalWarning", program, ...flags],
    { stdio: "inherit" },
  );
  const pass = (signal: NodeJS.Signals) => void child.kill(signal);
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, pass);
  return new Promise((resolve) => {
    child.once("error", () => resolve(1));
    child.once("exit", (code) => {
      for (const signal of ["SIGINT", "SIGTERM"] as const) process.off(signal, pass);
      resolve(code ?? 1);
    });
  });
}

if (import.meta.main) {
  const flag = { type: "boolean", default: false } as const;
  try {
    const { values } = parseArgs({ options: { quick: flag, help: { ...flag, short: "h" } } });
    if (values.help) process.stdout.write(HELP);
    else process.exitCode = await runAll(PARTS, !values.quick) ? 0 : 1;
  } catch (error) {
    console.error((error as Error).message);
    process.stderr.write(HELP);
    process.exitCode = 2;
  }
}
