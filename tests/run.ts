/** `npm test`: every check and the suite on the three runtimes, then one summary. */

import { spawn } from "node:child_process";
import {
  chmodSync,
  existsSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve as resolvePath } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { XMLParser } from "fast-xml-parser";

const HELP = `Usage: npm test [-- --only STEP]...

Runs every check and the test suite on Node, Deno and Bun. Ends with a line
"N passed, N failed, N skipped"; exit code 1 if anything failed.

  --only STEP      run only this step; may be given again
  --emulate FOLDER start node, deno and bun by the scripts of this folder, which run another
                   CPU's builds of them under user-mode emulation: only tests that call C
  --help           show this text

Steps: `;

interface Step {
  readonly name: string;
  readonly command: readonly string[];
  /** The JUnit report that the command writes; without one the command counts as one test. */
  readonly report?: string;
  /** Runs beside others that do: the suites of the runtimes wait more than they compute. */
  readonly isBeside?: true;
}

interface Count {
  passed: number;
  failed: number;
  /** Why, and how many. */
  readonly skipped: Map<string, number>;
}

const { values } = parseArgs({
  options: {
    only: { type: "string", multiple: true },
    emulate: { type: "string" },
    help: { type: "boolean" },
  },
});

process.chdir(join(import.meta.dirname, ".."));
const temporary = mkdtempSync(join(tmpdir(), "ucred-test-"));
chmodSync(temporary, 0o755); // peers of other uids connect to sockets in it
const compileCache = join(temporary, "compile-cache");
mkdirSync(compileCache);
chmodSync(compileCache, 0o1777); // other uids start the command too
/** The package as npm makes it; the step "build" writes it. */
const { version } = JSON.parse(readFileSync("package.json", "utf8"));
const tarball = join(temporary, `ucred-${version}.tgz`);
const report = (runtime: string) => join(temporary, `${runtime}.xml`);

/** What another CPU can change. */
const nativeFolders = "ffi,adapters,identity,live";
/** Run on every runtime; tests/project/ is about the project itself, and Node's alone. */
const folders = values.emulate === undefined
  ? `core,policy,servers,cli,${nativeFolders}`
  : nativeFolders;
const files = globSync(`tests/{${folders}}/*_test.ts`).sort();
const projectFiles = globSync("tests/{project,examples}/*_test.ts").sort();

const node = ["node", "--disable-warning=ExperimentalWarning"];
const junit = [
  "--test",
  "--test-timeout=300000",
  "--test-reporter=spec",
  "--test-reporter-destination=stdout",
];
const nodeTest = (name: string) => [
  ...node,
  ...junit,
  // One process: Node starts others as itself, which an emulated build cannot do.
  "--test-isolation=none",
  "--test-reporter=junit",
  `--test-reporter-destination=${report(name)}`,
];

// Without hono.ts and otel.ts, whose types are other packages': the check would have those documented.
const servers = ["net", "http", "deno", "bun_listen", "client"]
  .map((name) => `servers/${name}.ts`);

const STEPS: readonly Step[] = [
  { name: "format", command: ["deno", "fmt", "--check"] },
  { name: "lint", command: ["deno", "lint"] },
  { name: "types", command: ["tsc"] },
  // As in a fresh clone: packing builds.
  { name: "build", command: ["npm", "pack", "--silent", "--pack-destination", temporary] },
  { name: "publint", command: ["publint", tarball, "--strict"] },
  { name: "attw", command: ["attw", tarball, "--profile", "esm-only"] },
  { name: "jsr", command: ["deno", "publish", "--dry-run", "--allow-dirty"] },
  { name: "doc", command: ["deno", "doc", "--lint", "mod.ts", "policy/mod.ts", ...servers] },
  {
    name: "node",
    isBeside: true,
    command: [...nodeTest("node"), ...files],
    report: report("node"),
  },
  {
    name: "deno",
    isBeside: true,
    command: ["deno", "test", "-A", "--no-check", `--junit-path=${report("deno")}`, ...files],
    report: report("deno"),
  },
  {
    name: "bun",
    isBeside: true,
    command: [
      "bun",
      "test",
      "--timeout=120000",
      "--reporter=junit",
      `--reporter-outfile=${report("bun")}`,
      ...files.map((file) => `./${file}`),
    ],
    report: report("bun"),
  },
  {
    name: "project",
    command: [...nodeTest("project"), ...projectFiles],
    report: report("project"),
  },
];

const names = STEPS.map(({ name }) => name);
if (values.help) {
  console.log(HELP + names.join(", "));
  process.exit();
}
const wrong = values.only?.find((name) => !names.includes(name));
if (wrong !== undefined) {
  console.error(`No step "${wrong}". Steps: ${names.join(", ")}`);
  process.exit(2);
}

const path = [join(process.cwd(), "node_modules/.bin"), process.env["PATH"]];
if (values.emulate !== undefined) path.unshift(resolvePath(values.emulate));
const env = {
  ...process.env,
  TMPDIR: temporary, // one folder for all that tests leave behind
  PATH: path.join(":"),
  NO_COLOR: "1",
  NODE_COMPILE_CACHE: compileCache, // as tests/support/compile.ts has it for a file that runs alone
  ...(values.emulate !== undefined && { UCRED_EMULATED: "1" }),
};

/** Above what any step takes, even under emulation: a test that hangs is a failure. */
const STEP_LIMIT_MS = 15 * 60_000;

/** Runs a command and returns its exit code and everything that it printed. */
function run([command, ...args]: readonly string[]): Promise<[code: number, output: string]> {
  const child = spawn(command!, args, {
    env,
    stdio: ["ignore", "pipe", "pipe"],
    timeout: STEP_LIMIT_MS,
    killSignal: "SIGKILL",
  });
  running.add(child);
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => output += text);
  }
  return new Promise((resolve) => {
    child.once("error", (error) => resolve([1, `${error}\n`]));
    child.once("close", (code, signal) => {
      running.delete(child);
      if (signal !== null) output += `\nEnded by ${signal}; a step may take ${STEP_LIMIT_MS} ms.\n`;
      resolve([code ?? 1, output]);
    });
  });
}

const running = new Set<ReturnType<typeof spawn>>();
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => {
    for (const child of running) child.kill(signal);
    cleanUp();
    process.exit(128 + (signal === "SIGINT" ? 2 : 15));
  });
}

function cleanUp(): void {
  rmSync(temporary, { recursive: true, force: true, maxRetries: 3 });
}

/** Counts the cases of a JUnit report: every runner spells these three elements alike. */
function countReport(file: string): Count {
  const count: Count = { passed: 0, failed: 0, skipped: new Map() };
  const parser = new XMLParser({ ignoreAttributes: false, attributeNamePrefix: "" });
  const visit = (name: string, node: unknown): void => {
    if (Array.isArray(node)) return node.forEach((item) => visit(name, item));
    if (typeof node !== "object" || node === null) return;
    if (name !== "testcase") return Object.entries(node).forEach(([key, item]) => visit(key, item));
    const title = "name" in node ? String(node.name) : "";
    if ("failure" in node || "error" in node) count.failed++;
    else if ("skipped" in node) {
      const why = /\[skipped: (.*)\]$/.exec(title)?.[1] ?? "no reason given";
      count.skipped.set(why, (count.skipped.get(why) ?? 0) + 1);
    } else count.passed++;
  };
  visit("", parser.parse(readFileSync(file, "utf8")));
  return count;
}

const sum = (counts: Iterable<number>) => [...counts].reduce((total, count) => total + count, 0);

function outcome(step: Step, code: number): Count {
  if (step.report === undefined) {
    return { passed: Number(code === 0), failed: Number(code !== 0), skipped: new Map() };
  }
  const count: Count = existsSync(step.report)
    ? countReport(step.report)
    : { passed: 0, failed: 0, skipped: new Map() };
  // A runner that crashed, or found nothing to run, is a failure whatever its report says.
  if (count.failed === 0 && (code !== 0 || count.passed === 0)) count.failed = 1;
  return count;
}

const totals: Count = { passed: 0, failed: 0, skipped: new Map() };

async function take(step: Step): Promise<void> {
  const start = performance.now();
  const [code, output] = await run(step.command);
  const { passed, failed, skipped } = outcome(step, code);
  totals.passed += passed;
  totals.failed += failed;
  for (const [why, count] of skipped) {
    totals.skipped.set(why, (totals.skipped.get(why) ?? 0) + count);
  }
  const cases = step.report === undefined
    ? ""
    : `, ${passed} passed, ${failed} failed, ${sum(skipped.values())} skipped`;
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  console.log(`${step.name.padEnd(8)} ${failed === 0 ? "ok" : "FAILED"} (${seconds} s${cases})`);
  if (failed > 0) console.log(`\n$ ${step.command.join(" ")}\n${output}`);
}

const steps = STEPS.filter(({ name }) => values.only?.includes(name) ?? true);
for (const [index, step] of steps.entries()) {
  if (step.isBeside !== true) await take(step);
  else if (steps[index - 1]?.isBeside !== true) {
    await Promise.all(steps.filter(({ isBeside }) => isBeside).map(take));
  }
}
cleanUp();

if (totals.skipped.size > 0) console.log("\nSkipped:");
for (const [why, count] of totals.skipped) console.log(`  ${count} × ${why}`);
console.log(
  `\n${totals.passed} passed, ${totals.failed} failed, ${sum(totals.skipped.values())} skipped`,
);
process.exitCode = totals.failed === 0 ? 0 : 1;
