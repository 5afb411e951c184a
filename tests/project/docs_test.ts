/** Every example in the docs and docstrings: it checks, and does what it says on each runtime. */

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { dirname, join } from "node:path";
import process from "node:process";
import { after, describe, test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parsePolicy, runTests } from "../../policy/mod.ts";
import { isSafeFolder } from "../support/safe_folder.ts";
import { testWith } from "../support/suite.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));

interface Example {
  /** Where it stands: "file:line". */
  readonly name: string;
  readonly code: string;
  /** What the block without a language that follows it says that it prints. */
  readonly output?: string;
}

const SOURCES = [
  "README.md",
  "docs/**/*.md",
  "mod.ts",
  "{core,ffi,adapters,system,identity,policy,client,servers,guard}/**/*.ts",
];

/** Fenced blocks, in Markdown or within a comment: their language, and the line that they begin at. */
function blocksIn(file: string): { language: string; line: number; code: string }[] {
  const lines = readFileSync(join(root, file), "utf8").split("\n");
  const blocks: { language: string; line: number; code: string }[] = [];
  let open: { language: string; line: number; code: string[] } | undefined;
  for (const [index, raw] of lines.entries()) {
    const line = raw.replace(/^\s*\* ?/, (prefix) => file.endsWith(".ts") ? "" : prefix);
    const fence = /^`{3,}([a-z]*)$/.exec(line);
    if (open === undefined) {
      if (fence !== null) open = { language: fence[1]!, line: index + 1, code: [] };
    } else if (fence !== null && fence[1] === "") {
      blocks.push({ ...open, code: open.code.join("\n") });
      open = undefined;
    } else {
      open.code.push(line);
    }
  }
  assert.equal(open, undefined, `${file}: a block is not closed`);
  return blocks;
}

/** Every block that is marked `ts`, with the output that stands below it. */
function examplesIn(file: string): Example[] {
  const blocks = blocksIn(file);
  return blocks.flatMap(({ language, line, code }, index) => {
    if (language !== "ts") return [];
    const next = blocks[index + 1];
    const isOutput = next?.language === "" && next.line === line + code.split("\n").length + 3;
    return [{ name: `${file}:${line}`, code, ...(isOutput && { output: next.code }) }];
  });
}

/**
 * The lines that the comments of an example promise: behind console.log(…), or below it. Each is a
 * whole line of the output; what ends with "…" is the beginning of one.
 */
function promisesIn(code: string): string[][] {
  const lines = code.split("\n");
  return lines.flatMap((line, index) => {
    const [, behind] = /console\.log\(.*\);(?: \/\/ (.*))?$/.exec(line) ?? [undefined, undefined];
    if (!/console\.log\(.*\);/.test(line)) return [];
    if (behind !== undefined) return [[behind]];
    const end = lines.findIndex((below, at) => at > index && !/^\s*\/\/ /.test(below));
    const below = lines.slice(index + 1, end < 0 ? undefined : end);
    return below.length === 0 ? [] : [below.map((line) => line.replace(/^\s*\/\/ /, ""))];
  });
}

/** Whether the lines stand in the output, one below the other. */
function hasLines(output: string, promised: readonly string[]): boolean {
  const lines = output.split("\n");
  return lines.some((_, at) =>
    promised.every((text, below) => {
      const line = lines[at + below];
      return text.endsWith("…") ? line?.startsWith(text.slice(0, -1)) : line === text;
    })
  );
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

test("promised output is told from other comments, and compared line by line", () => {
  const code =
    "console.log(1); // a\nconsole.log(2);\n// b\n// c…\nf(); // d\nconsole.log(3);\nf();";
  assert.deepEqual(promisesIn(code), [["a"], ["b", "c…"]]);
  assert.ok(hasLines("x\na\nb\ncd\n", ["b", "c…"]));
  for (const output of ["ab\nc", "b\n\nc", "b", "c\nb"]) assert.ok(!hasLines(output, ["b", "c…"]));
});

test("every policy in the docs is right, and does what its tests say", () => {
  const policies = globSync(["*.md", "docs/**/*.md"], { cwd: root }).flatMap((file) =>
    blocksIn(file).filter(({ code }) => /^version: 1$/m.test(code))
      .filter(({ language }) => language === "yaml")
      .map(({ line, code }) => ({ file: `${file}:${line}`, code }))
  );
  assert.ok(policies.length > 0);
  const ids = new Map<string, number>();
  const idOf = (name: string) => ids.get(name) ?? ids.set(name, 900 + ids.size).get(name);
  for (const { file, code } of policies) {
    const report = runTests(parsePolicy(code, { file, accounts: { uid: idOf, gid: idOf } }));
    assert.ok(report.passed, String(report));
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
  const cwd = join(dirname(file), runtime); // others run the same example
  mkdirSync(cwd);
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

const safeCheckout = {
  name: "a checkout that others can write to nowhere on the way, as the example's policy must be",
  met: isSafeFolder(folder),
};

// A few at a time: they are independent, and wait for sockets.
describe("examples", { concurrency: 4 }, () => {
  for (const [index, { name, code, output: printed }] of examples.entries()) {
    for (const runtime of Object.keys(RUNTIMES)) {
      const list = /loadPolicy|watchPolicy/.test(code) ? [safeCheckout] : [];
      testWith(list, `the example at ${name} works on ${runtime}`, async () => {
        const listens = /(?:\.listen\(|\bpath: )"([^"]*)"/.exec(code)?.[1];
        const socket = /\bclose\(/.test(code) ? undefined : listens;
        const output = await play(runtime, files[index]!, socket);
        for (const lines of promisesIn(code)) {
          assert.ok(hasLines(output, lines), `"${lines.join("\n")}" in: ${output}`);
        }
        if (printed !== undefined) assert.equal(output.trimEnd(), printed);
        if (socket !== undefined) {
          assert.match(output, process.getuid!() === 0 ? /welcome/ : /welcome|no/);
        }
        assert.doesNotMatch(output, /error/i);
        assert.notEqual(output, "");
      });
    }
  }
});
