/** `npm run build:binaries`: builds the command as single files that need no runtime and no package. */

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { build } from "esbuild";
import { sbomOf } from "./sbom.ts";

const HELP = `Usage: npm run build:binaries -- [--target TARGET]... [--out FOLDER]

Bundles the command into ucred.mjs, and makes an executable of that for each target. Beside them it
writes ucred.cdx.json, the bill of materials of the bundle (CycloneDX), and SHA256SUMS, which
"sha256sum --check" reads. Exit code 1 if an executable could not be made.

  --target TARGET  bun or deno for this machine, or with the machine's name, for example
                   bun-linux-x64-musl or deno-aarch64-unknown-linux-gnu; may be repeated
                   (default: bun and deno)
  --out FOLDER     the output folder (default: build)
  --help           print this help

The build downloads the runtimes for other machines, and Deno's runtime also for this one, unless
DENORT_BIN is the path of a denort program of the same version.
`;

/** Deno requires this permission to read folders in /proc, which `ucred inspect` does. */
const DENO_PERMISSIONS = "--allow-all";

const root = join(import.meta.dirname, "..");

/** Returns the command that makes an executable. Throws for an unknown target. */
function commandFor(target: string, bundle: string, output: string): readonly string[] {
  const [, runtime, where] = /^(bun|deno)(?:-([a-z0-9_-]+))?$/.exec(target) ?? [];
  if (runtime === "bun") {
    // A .env or bunfig.toml in the working directory would set its environment or run code in it.
    const flags = ["--no-compile-autoload-dotenv", "--no-compile-autoload-bunfig"];
    const cross = where === undefined ? [] : [`--target=${target}`];
    return ["bun", "build", "--compile", ...flags, ...cross, `--outfile=${output}`, bundle];
  }
  if (runtime === "deno") {
    const cross = where === undefined ? [] : [`--target=${where}`];
    const flags = ["--quiet", "--no-config", "--no-prompt", DENO_PERMISSIONS, ...cross];
    return ["deno", "compile", ...flags, `--output=${output}`, bundle];
  }
  throw new Error(`No target "${target}": use bun, deno, or one of these with a machine`);
}

function sizeOf(file: string): string {
  return `${(statSync(file).size / 1e6).toFixed(1)} MB`;
}

/**
 * Bundles the command into one file that needs only a runtime, and returns its bill of materials.
 */
async function bundle(outfile: string): Promise<string> {
  const { metafile } = await build({
    absWorkingDir: root, // the metafile's paths are relative to it
    metafile: true,
    entryPoints: [join(root, "cli/main.ts")],
    outfile,
    bundle: true,
    format: "esm",
    platform: "node",
    target: "es2023",
    // `yaml` is CommonJS and loads Node's modules by require().
    banner: {
      js: 'import { createRequire as nodeRequire } from "node:module";\n' +
        "const require = nodeRequire(import.meta.url);",
    },
    logLevel: "warning",
  });
  return sbomOf(root, metafile);
}

/** Writes the checksums of the files, in the format of sha256sum(1). */
function writeChecksums(folder: string, files: readonly string[]): void {
  const lines = files.map((file) => {
    const sum = createHash("sha256").update(readFileSync(file)).digest("hex");
    return `${sum}  ${basename(file)}\n`;
  });
  writeFileSync(join(folder, "SHA256SUMS"), lines.join(""));
}

/** Makes an executable and prints the result. Returns whether it succeeded. */
function make(target: string, from: string, folder: string): boolean {
  const output = join(folder, `ucred-${target}`);
  const [command, ...args] = commandFor(target, from, output) as [string, ...string[]];
  process.stdout.write(`${target}: `);
  const start = performance.now();
  const path = `${join(root, "node_modules/.bin")}:${process.env["PATH"]}`;
  const { status, stderr, error } = spawnSync(command, args, {
    encoding: "utf8",
    env: { ...process.env, PATH: path, NO_COLOR: "1", DENO_NO_PACKAGE_JSON: "1" },
  });
  if (status === 0) {
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    console.log(`${output}, ${sizeOf(output)} (${seconds} s)`);
    return true;
  }
  console.log("NOT built");
  const lines = (error?.message ?? stderr).trim().split("\n");
  for (const line of lines.slice(0, 8)) console.log(`  ${line}`);
  if (/denort|download|dns error|error sending request|ConnectionRefused/i.test(lines.join("\n"))) {
    console.log("  A part of the executable could not be downloaded.");
  }
  if (target.startsWith("deno")) {
    console.log(`  With Deno installed: deno run ${DENO_PERMISSIONS} ${from}`);
  }
  return false;
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      target: { type: "string", multiple: true, default: ["bun", "deno"] },
      out: { type: "string", default: join(root, "build") },
      help: { type: "boolean" },
    },
  });
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  const folder = resolve(values.out);
  for (const target of values.target) commandFor(target, "", ""); // throws for an unknown target before the build starts
  mkdirSync(folder, { recursive: true });
  const file = join(folder, "ucred.mjs");
  process.stdout.write("bundle: ");
  const bom = join(folder, "ucred.cdx.json");
  writeFileSync(bom, await bundle(file));
  console.log(`${file}, ${sizeOf(file)}`);
  const made = values.target.map((target) => make(target, file, folder));
  const executables = values.target.filter((_, index) => made[index]);
  writeChecksums(folder, [
    file,
    bom,
    ...executables.map((target) => join(folder, `ucred-${target}`)),
  ]);
  const failed = made.filter((ok) => !ok).length;
  console.log(failed === 0 ? "All built" : `${failed} of ${made.length} not built`);
  return failed === 0 ? 0 : 1;
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error((error as Error).message);
  process.exitCode = 2;
}
