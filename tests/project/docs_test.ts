/** Every example in the docs and docstrings: it checks, and does what it says on each runtime. */

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { dirname, join } from "node:path";
import process from "node:process";
import { after, test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));

interface Example {
  /** Where it stands: "file:line". */
  readonly name: string;
  readonly code: string;
}

const SOURCES = [
  "README.md",
  "docs/**/*.md",
  "mod.ts",
  "{core,ffi,adapters,identity,policy,servers}/**/*.ts",
];

/** Every fenced block that is marked `ts`, in Markdown or within a comment. */
function examplesIn(file: string): Example[] {
  const lines = readFileSync(join(root, file), "utf8").split("\n");
  const examples: Example[] = [];
  let open: { line: number; code: string[] } | undefined;
  for (const [index, raw] of lines.entries()) {
    const line = raw.replace(/^\s*\* ?/, (prefix) => file.endsWith(".ts") ? "" : prefix);
    if (open === undefined) {
      if (line === "```ts") open = { line: index + 1, code: [] };
    } else if (line === "```") {
      examples.push({ name: `${file}:${open.line}`, code: open.code.join("\n") });
      open = undefined;
    } else {
      open.code.push(line);
    }
  }
  assert.equal(open, undefined, `${file}: a block is not closed`);
  return examples;
}

const examples = SOURCES.flatMap((pattern) => globSync(pattern, { cwd: root }).sort())
  .flatMap(examplesIn);

// In the project, so that "ucred" means this package.
const folder = mkdtempSync(join(root, ".examples-"));
after(() => rmSync(folder, { recursive: true, force: true }));
const files = examples.map(({ code }, index) => {
  const file = join(folder, `${index}`, "example.ts");
  mkdirSync(dirname(file));
  writeFileSync(file, code);
  return file;
});

test("there are examples", () => {
  assert.ok(examples.length >= 5);
});

test("no document has a heading twice", () => {
  for (const file of globSync(["*.md", "docs/**/*.md"], { cwd: root })) {
    if (file === "CHANGELOG.md") continue; // each release has the same ones
    const headings = readFileSync(join(root, file), "utf8").match(/^#+ .+$/gm) ?? [];
    assert.deepEqual(headings, [...new Set(headings)], file);
  }
});

test("every example passes the type check", () => {
  const config = { extends: "../tsconfig.json", include: ["*/example.ts"] };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(config));
  execFileSync("tsc", ["--project", folder], {
    cwd: root,
    stdio: ["ignore", "inherit", "inherit"],
  });
});

const RUNTIMES: { readonly [name: string]: readonly [command: string, ...args: string[]] } = {
  node: ["node", "--disable-warning=ExperimentalWarning"],
  deno: ["deno", "run", "-A"],
  bun: ["bun"],
};

/** Runs an example; if it listens, connects to it, then ends it. What it printed and replied. */
async function play(runtime: string, file: string, socket: string | undefined): Promise<string> {
  const [command, ...args] = RUNTIMES[runtime]!;
  const cwd = dirname(file);
  const child = spawn(command, [...args, file], {
    cwd,
    stdio: ["ignore", "pipe", "pipe"],
    timeout: 20_000,
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => output += text);
  }
  const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
  if (socket !== undefined) {
    const path = join(cwd, socket);
    // The path appears at bind(2); until listen(2) it refuses.
    while (child.exitCode === null && !(await converse(path, () => {}))) await setTimeout(10);
    for (let i = 0; i < 50; i++) connect(path).on("error", () => {}).on("connect", leave);
    await setTimeout(50);
    assert.ok(await converse(path, (text) => output += text), "clients that leave do not end it");
    child.kill("SIGKILL");
    rmSync(path, { force: true });
    await ended;
  } else {
    assert.equal(await ended, 0, output);
  }
  return output;
}

/** Leaves before the server can answer. */
function leave(this: Socket): void {
  this.destroy();
}

/** Connects and reads to the end; false if nothing listens there. */
function converse(path: string, onText: (text: unknown) => void): Promise<boolean> {
  return new Promise((resolve) => {
    const client = connect(path).setEncoding("utf8").on("data", onText);
    client.write("GET / HTTP/1.0\r\n\r\n"); // what does not speak HTTP does not read it either
    client.on("error", () => resolve(false)).on("close", () => resolve(true));
  });
}

for (const [index, { name, code }] of examples.entries()) {
  for (const runtime of Object.keys(RUNTIMES)) {
    test(`the example at ${name} works on ${runtime}`, async () => {
      const listens = /(?:\.listen\(|\bpath: )"([^"]*)"/.exec(code)?.[1];
      const socket = /\bclose\(/.test(code) ? undefined : listens;
      const output = await play(runtime, files[index]!, socket);
      // A comment behind console.log(…) promises what is printed.
      const promised = [...code.matchAll(/console\.log\(.*\); \/\/ (.*)$/gm)].map(([, text]) =>
        text!
      );
      for (const text of promised) assert.ok(output.includes(text), `"${text}" in: ${output}`);
      if (socket !== undefined) {
        assert.match(output, process.getuid!() === 0 ? /welcome/ : /welcome|no/);
      }
      assert.doesNotMatch(output, /error/i);
      assert.notEqual(output, "");
    });
  }
}
