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
import { availableParallelism, tmpdir } from "node:os";
import { join, resolve as resolvePath } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { XMLParser } from "fast-xml-parser";

const HELP = `Usage: npm test [-- --only STEP]...

Runs every check and the test suite on Node, Deno and Bun. Ends with a line
"N passed, N failed, N skipped"; exit code 1 if anything failed.

  --only STEP      run only this step, or all steps of this runtime; may be given again
  --jobs N         run N steps at a time (default: two more than there are processors,
                   since the tests wait about as much as they compute)
  --soak           run only the test files that have long runs, at full length: gigabytes,
                   ten thousand connections, every random case on each runtime
  --emulate FOLDER start node, deno and bun by the scripts of this folder, which run another
                   CPU's builds of them under user-mode emulation: only tests that call C
  --help           show this text

Steps: `;

interface Step {
  readonly name: string;
  readonly command: readonly string[];
  /** The JUnit report that the command writes; without one the command counts as one test. */
  readonly report?: string;
  /** The step that has to end before this one starts. */
  readonly after?: string;
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
    jobs: { type: "string", default: String(availableParallelism() + 2) },
    soak: { type: "boolean" },
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
const report = (name: string) => join(temporary, `${name.replace(":", "_")}.xml`);

/** Test files that run on each runtime, in processes of their own, about equally long. */
const LANES: { readonly [lane: string]: string } = {
  guard: "tests/guard/*_test.ts",
  cli: "tests/cli/*_test.ts",
  servers: "tests/{servers,client}/*_test.ts",
  pure: "tests/{core,policy}/**/*_test.ts",
  /** What another CPU can change. */
  native: "tests/{ffi,adapters,system,identity,live}/*_test.ts",
};
/** Node's alone: tests about the project itself. */
const PROJECT_LANES: { readonly [lane: string]: string } = {
  docs: "tests/project/docs_test.ts",
  project: "tests/project/!(docs)*_test.ts",
  examples: "tests/examples/*_test.ts",
};

/** Files of a lane; of those, with --soak, the ones that have more to do then. */
function filesOf(pattern: string): string[] {
  const files = globSync(pattern).sort();
  return values.soak !== true
    ? files
    : files.filter((file) =>
      /\b(?:soak|cases)\(|\bRUNS\b|needs\.soak\b/.test(readFileSync(file, "utf8"))
    );
}

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

/** Runtime → the command that runs test files and writes a report. */
const RUNNERS: { readonly [runtime: string]: (name: string, files: string[]) => string[] } = {
  node: (name, files) => [...nodeTest(name), ...files],
  deno: (name, files) => {
    return ["deno", "test", "-A", "--no-check", `--junit-path=${report(name)}`, ...files];
  },
  bun: (name, files) => {
    const reporter = ["--reporter=junit", `--reporter-outfile=${report(name)}`];
    return ["bun", "test", "--timeout=120000", ...reporter, ...files.map((file) => `./${file}`)];
  },
};

/** The suite: each lane on each runtime. */
function suite(): Step[] {
  const lanes = values.emulate === undefined ? Object.keys(LANES) : ["native"];
  return lanes.flatMap((lane) => {
    const files = filesOf(LANES[lane]!);
    return files.length === 0 ? [] : Object.entries(RUNNERS).map(([runtime, commandFor]): Step => {
      const name = `${runtime}:${lane}`;
      return { name, command: commandFor(name, files), report: report(name) };
    });
  });
}

function projectSteps(): Step[] {
  return Object.entries(PROJECT_LANES).flatMap(([name, pattern]) => {
    const files = filesOf(pattern);
    const command = [...nodeTest(name), ...files];
    const isReady = values.soak === true; // those files need no build
    const step: Step = { name, command, report: report(name), ...(!isReady && { after: "build" }) };
    return files.length === 0 ? [] : [step];
  });
}

/** Entry points whose types are all ours: tests/project/reference_test.ts has the others, too. */
const documented = Object.values<string>(JSON.parse(readFileSync("deno.json", "utf8")).exports)
  .filter((file) => !/\/(?:hono|otel)\.ts$/.test(file));

/** In the order in which they start, as far as there is room. */
const STEPS: readonly Step[] = values.soak === true ? [...suite(), ...projectSteps()] : [
  // As in a fresh clone: packing builds.
  { name: "build", command: ["npm", "pack", "--silent", "--pack-destination", temporary] },
  { name: "format", command: ["deno", "fmt", "--check"] },
  { name: "lint", command: ["deno", "lint"] },
  ...suite(),
  ...projectSteps(),
  { name: "types", command: ["tsc"] },
  { name: "publint", command: ["publint", tarball, "--strict"], after: "build" },
  { name: "attw", command: ["attw", tarball, "--profile", "esm-only"], after: "build" },
  { name: "jsr", command: ["deno", "publish", "--dry-run", "--allow-dirty"] },
  { name: "doc", command: ["deno", "doc", "--lint", ...documented] },
];

/** "node:cli" is chosen by its name, or by "node". */
const isChosen = ({ name }: Step, by: string) => name === by || name.startsWith(`${by}:`);

const names = STEPS.map(({ name }) => name);
if (values.help) {
  console.log(HELP + names.join(", "));
  process.exit();
}
const wrong = values.only?.find((by) => !STEPS.some((step) => isChosen(step, by)));
if (wrong !== undefined) {
  console.error(`No step "${wrong}". Steps: ${names.join(", ")}`);
  process.exit(2);
}

const jobs = Number(values.jobs);
if (!Number.isInteger(jobs) || jobs < 1) {
  console.error(`--jobs is a number of steps, at least 1, not "${values.jobs}"`);
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
  ...(values.soak === true && { UCRED_SOAK: "1" }),
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
  console.log(`${step.name.padEnd(12)} ${failed === 0 ? "ok" : "FAILED"} (${seconds} s${cases})`);
  if (failed > 0) console.log(`\n$ ${step.command.join(" ")}\n${output}`);
}

const waiting = STEPS.filter((step) => values.only?.some((by) => isChosen(step, by)) ?? true);
const pending = new Set(waiting.map(({ name }) => name));

/** Takes one step after the other, of those that need not wait. */
async function work(): Promise<void> {
  while (waiting.length > 0) {
    const at = waiting.findIndex(({ after }) => after === undefined || !pending.has(after));
    if (at < 0) {
      await Promise.race(ends);
      continue;
    }
    const [step] = waiting.splice(at, 1);
    const end = take(step!).finally(() => {
      pending.delete(step!.name);
      ends.delete(end);
    });
    ends.add(end);
    await end;
  }
}

/** Of the steps that run. */
const ends = new Set<Promise<void>>();
await Promise.all(Array.from({ length: jobs }, work));
cleanUp();

if (totals.skipped.size > 0) console.log("\nSkipped:");
for (const [why, count] of totals.skipped) console.log(`  ${count} × ${why}`);
console.log(
  `\n${totals.passed} passed, ${totals.failed} failed, ${sum(totals.skipped.values())} skipped`,
);
process.exitCode = totals.failed === 0 ? 0 : 1;
