/** Every example in the documents and docstrings passes the type check and runs on each runtime. */

import assert from "node:assert/strict";
import { execFile, execFileSync, spawn } from "node:child_process";
import { globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { dirname, join } from "node:path";
import process from "node:process";
import { after, describe, test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { VOCABULARIES } from "../../interop/vocabularies.ts";
import { lint, parsePolicy, runTests } from "../../policy/mod.ts";
import { isSafeFolder } from "../support/safe_folder.ts";
import { testWith } from "../support/suite.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));

interface Example {
  /** "file:line". */
  readonly name: string;
  readonly code: string;
  /** The expected output: the block without a language that follows the example. */
  readonly output?: string;
}

const SOURCES = [
  "README.md",
  "docs/**/*.md",
  "mod.ts",
  "{core,ffi,adapters,system,identity,policy,client,servers,interop,testing,guard}/**/*.ts",
];

/** Fenced blocks in Markdown or in comments, with their language and first line. */
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

/** Every `ts` block, with the output block that follows it. */
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
 * The output that the comments of an example promise, after console.log(…) or on the lines below it. Each
 * is a whole line of the output, or with a final "…" the beginning of one.
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

/** Whether the output contains these lines, in a row. */
function hasLines(output: string, promised: readonly string[]): boolean {
  const lines = output.split("\n");
  return lines.some((_, at) =>
    promised.every((text, below) => {
      const line = lines[at + below];
      return text.endsWith("…") ? line?.startsWith(text.slice(0, -1)) : line === text;
    })
  );
}

// tests/examples/servers_test.ts runs the examples of frameworks, which have packages of their own.
const examples = SOURCES.flatMap((pattern) => globSync(pattern, { cwd: root }).sort())
  .filter((file) => file !== "docs/frameworks.md")
  .flatMap(examplesIn);

// A folder inside the project: there "ucred" resolves to this package.
const folder = mkdtempSync(join(root, ".examples-"));
after(() => rmSync(folder, { recursive: true, force: true }));
const files = examples.map(({ code }, index) => {
  const file = join(folder, `${index}`, "example.ts");
  mkdirSync(dirname(file));
  writeFileSync(file, code);
  return file;
});

test("the documents and docstrings have examples", () => {
  assert.ok(examples.length >= 40);
});

test("no document has two equal headings", () => {
  for (const file of globSync(["*.md", "docs/**/*.md"], { cwd: root })) {
    if (file === "CHANGELOG.md") continue; // each release has the same ones
    const headings = readFileSync(join(root, file), "utf8").match(/^#+ .+$/gm) ?? [];
    assert.deepEqual(headings, [...new Set(headings)], file);
  }
});

test("promisesIn() finds promised output among comments, and hasLines() compares it by line", () => {
  const code =
    "console.log(1); // a\nconsole.log(2);\n// b\n// c…\nf(); // d\nconsole.log(3);\nf();";
  assert.deepEqual(promisesIn(code), [["a"], ["b", "c…"]]);
  assert.ok(hasLines("x\na\nb\ncd\n", ["b", "c…"]));
  for (const output of ["ab\nc", "b\n\nc", "b", "c\nb"]) assert.ok(!hasLines(output, ["b", "c…"]));
});

test("every policy in the documents has no findings, and its tests pass and cover each rule", () => {
  const policies = globSync(["*.md", "docs/**/*.md"], { cwd: root }).flatMap((file) =>
    blocksIn(file).filter(({ code }) => /^version: 1$/m.test(code))
      .filter(({ language }) => language === "yaml")
      .map(({ line, code }) => ({ file: `${file}:${line}`, code }))
  );
  assert.ok(policies.length > 0);
  const ids = new Map<string, number>();
  const idOf = (name: string) => ids.get(name) ?? ids.set(name, 900 + ids.size).get(name);
  for (const { file, code } of policies) {
    const accounts = { uid: idOf, gid: idOf };
    const policy = parsePolicy(code, { file, accounts, vocabularies: VOCABULARIES });
    const report = runTests(policy);
    assert.ok(report.passed, String(report));
    assert.deepEqual(report.uncovered, [], file);
    // A note is no finding: `ucred policy lint` exits with 0.
    assert.deepEqual(lint(policy).filter(({ level }) => level !== "note"), [], file);
  }
});

test("every example passes the type check", () => {
  const { exports } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  // Declarations of the built package: a check of all sources would take three times as long (measured).
  const paths = Object.fromEntries(
    Object.entries<{ types?: string }>(exports).flatMap(([entry, { types }]) =>
      types === undefined ? [] : [[join("ucred", entry), [`.${types}`]]]
    ),
  );
  const compilerOptions = { paths };
  const config = { extends: "../tsconfig.json", compilerOptions, include: ["*/example.ts"] };
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

/**
 * Runs an example. If it listens, connects to it, then ends it; if it waits for SIGTERM, sends that after
 * its first output. Returns what it printed and what it sent to a client.
 */
async function play(
  runtime: string,
  file: string,
  { socket, awaitsSigterm }: { socket: string | undefined; awaitsSigterm: boolean },
): Promise<string> {
  const [command, ...args] = RUNTIMES[runtime]!;
  const cwd = join(dirname(file), runtime); // the other runtimes run the same example
  mkdirSync(cwd);
  const child = spawn(command, [...args, file], {
    cwd,
    stdio: ["ignore", "pipe", "pipe"],
    timeout: 60_000,
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => output += text);
  }
  const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
  if (awaitsSigterm) child.stdout.once("data", () => child.kill("SIGTERM"));
  if (socket !== undefined) {
    const path = join(cwd, socket);
    // The path appears at bind(2); until listen(2) it refuses connections.
    while (child.exitCode === null && !(await converse(path, () => {}))) await setTimeout(10);
    for (let i = 0; i < 50; i++) connect(path).on("error", () => {}).on("connect", leave);
    await setTimeout(50);
    // A busy server may still have a full queue of connections, or count clients that have hung up.
    for (let answer = ""; child.exitCode === null; answer = "") {
      const isAnswered = await converse(path, (text) => answer += text);
      if (isAnswered && !answer.includes("connectionsPerUser")) {
        output += answer;
        break;
      }
      await setTimeout(10);
    }
    assert.equal(child.exitCode, null, "a client that hangs up ends the server");
    child.kill("SIGKILL");
    rmSync(path, { force: true });
    await ended;
  } else {
    assert.equal(await ended, 0, output);
  }
  return output;
}

/** Whether an example can share a process: it only computes and prints. */
const isPlain = (code: string) =>
  !/node:|\bDeno\b|\bBun\b|process\.|listen|serve\(|connect|socket|Policy\("/i.test(code);

const plain = files.filter((_, index) => isPlain(examples[index]!.code));
/** Prints a line before each example. */
const all = join(folder, "all.ts");
writeFileSync(
  all,
  plain.map((file, at) =>
    `console.log("--- example ${at}");\nawait import(${JSON.stringify(file)});\n`
  )
    .join(""),
);

/** Runtime → the outputs of the plain examples. A start takes most of the time of such an example. */
const outputs = new Map<string, Promise<readonly string[]>>();

async function playPlain(runtime: string): Promise<readonly string[]> {
  const [command, ...args] = RUNTIMES[runtime]!;
  const cwd = join(folder, runtime); // the other runtimes run the same examples
  mkdirSync(cwd);
  const { stdout, stderr } = await promisify(execFile)(command, [...args, all], { cwd });
  assert.equal(stderr, "");
  return stdout.split(/^--- example \d+\n/m).slice(1);
}

/** Returns the output of a plain example. */
async function outputOf(runtime: string, file: string): Promise<string> {
  if (!outputs.has(runtime)) outputs.set(runtime, playPlain(runtime));
  return (await outputs.get(runtime)!)[plain.indexOf(file)]!;
}

/** Hangs up before the server can answer. */
function leave(this: Socket): void {
  this.destroy();
}

/** Connects and reads to the end. Returns false if nothing listens there. */
function converse(path: string, onText: (text: unknown) => void): Promise<boolean> {
  return new Promise((resolve) => {
    const client = connect(path).setEncoding("utf8").on("data", onText);
    client.write("GET / HTTP/1.0\r\n\r\n"); // only HTTP servers read it
    client.on("error", () => resolve(false)).on("close", () => resolve(true));
  });
}

const safeCheckout = {
  name: "a checkout that no other user can write to, since the example loads a policy from there",
  met: isSafeFolder(folder),
};

// Four at a time: they are independent, and wait for sockets.
describe("examples", { concurrency: 4 }, () => {
  for (const [index, { name, code, output: printed }] of examples.entries()) {
    for (const runtime of Object.keys(RUNTIMES)) {
      const list = /loadPolicy|watchPolicy/.test(code) ? [safeCheckout] : [];
      testWith(list, `the example at ${name} works on ${runtime}`, async () => {
        const listens = /(?:\.listen\(|\bpath: )"([^"]*)"/.exec(code)?.[1];
        const socket = /\bclose\(/.test(code) ? undefined : listens;
        const awaitsSigterm = /"SIGTERM"/.test(code) && !/process\.kill\(/.test(code);
        const file = files[index]!;
        const output = isPlain(code)
          ? await outputOf(runtime, file)
          : await play(runtime, file, { socket, awaitsSigterm });
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
