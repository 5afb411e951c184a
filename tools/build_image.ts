/** `npm run build:image`: builds a container image of the guard from scratch, without a base image. */

import { spawnSync } from "node:child_process";
import { chmodSync, copyFileSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";

const HELP = `Usage: npm run build:image -- [--engine PROGRAM] [--tag NAME]

Builds the executable of Bun for this machine, copies it and the libraries that it loads into a
folder, and builds an image of that folder with examples/container/Containerfile. Needs ldd(1).

  --engine PROGRAM  podman or docker (default: podman); none: only prepare build/image
  --tag NAME        name of the image (default: ucred)
  --help            print this help
`;

const root = join(import.meta.dirname, "..");
const build = join(root, "build");
const context = join(build, "image");

function run(command: string, args: readonly string[], stdio: "inherit" | "pipe" = "pipe"): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd: root,
    encoding: "utf8",
    stdio: ["ignore", stdio, stdio],
  });
  if (status === 0) return stdout;
  throw new Error(`${command} failed: ${error?.message ?? stderr ?? `exit code ${status}`}`);
}

/** Returns the libraries that the dynamic loader of this machine loads for a program, with the loader. */
function librariesOf(program: string): readonly string[] {
  return [...run("ldd", [program]).matchAll(/(\/\S+) \(0x/g)].map(([, path]) => path!);
}

function prepare(): void {
  const args = ["tools/build_binaries.ts", "--target", "bun", "--out", build];
  run(process.execPath, args, "inherit");
  rmSync(context, { recursive: true, force: true });
  const add = (from: string, to: string, mode: number) => {
    const path = join(context, to);
    mkdirSync(dirname(path), { recursive: true });
    copyFileSync(from, path);
    chmodSync(path, mode);
  };
  const executable = join(build, "ucred-bun");
  add(executable, "usr/bin/ucred", 0o755);
  for (const path of librariesOf(executable)) add(path, path, 0o755);
  for (const name of ["etc", "tmp", "run/ucred"]) {
    mkdirSync(join(context, name), { recursive: true });
  }
}

function main(): void {
  const { values } = parseArgs({
    options: {
      engine: { type: "string", default: "podman" },
      tag: { type: "string", default: "ucred" },
      help: { type: "boolean" },
    },
  });
  if (values.help) return console.log(HELP);
  const { engine, tag } = values;
  if (!["podman", "docker", "none"].includes(engine)) {
    throw new Error(`No engine "${engine}": use podman, docker or none`);
  }
  prepare();
  console.log(`context: ${context}`);
  if (engine === "none") return;
  const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const file = join(root, "examples/container/Containerfile");
  const tags = ["--tag", `${tag}:${version}`, "--tag", `${tag}:latest`];
  run(engine, ["build", ...tags, "--file", file, context], "inherit");
}

process.umask(0o022);
try {
  main();
} catch (error) {
  console.error((error as Error).message);
  process.exitCode = 2;
}
