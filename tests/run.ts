/** `npm test` and `npm run check`: runs all checks and the suite on three runtimes, and prints a summary. */

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

const HELP = `Usage: npm test [-- OPTION...]

Runs all checks and the test suite on Node, Deno and Bun. The last line is
"N passed, N failed, N skipped". The exit code is 1 if anything failed.

  --check          run only the quick checks: format, lint, types, structure, docs
  --only STEP      run only this step, or all steps of this runtime, and the steps that
                   they need; repeatable
  --jobs N         run N steps at a time (default: the number of processors plus two,
                   because tests wait about as long as they compute)
  --soak           run the test files that have long forms, at full length: gigabytes,
                   ten thousand connections, all tests and cases on Deno and Bun
  --node MAJOR     run the test suite on Node 22 or 24, where ucred calls libc through koffi
  --emulate FOLDER start node, deno and bun through the scripts in this folder, which run
                   another CPU's builds under user-mode emulation; runs only tests with
                   results that depend on the CPU
  --help           print this text

Steps: `;

interface Step {
  readonly name: string;
  readonly command: readonly string[];
  /** The JUnit report that the command writes. A command without a report counts as one test. */
  readonly report?: string;
  /** The steps that must end before this step starts. */
  readonly after?: readonly string[];
}

interface Count {
  passed: number;
  failed: number;
  /** Reason → number of skipped tests. */
  readonly skipped: Map<string, number>;
}

const { values } = parseArgs({
  options: {
    check: { type: "boolean" },
    only: { type: "string", multiple: true },
    jobs: { type: "string", default: String(availableParallelism() + 2) },
    soak: { type: "boolean" },
    node: { type: "string" },
    emulate: { type: "string" },
    help: { type: "boolean" },
  },
});

if (values.node !== undefined && !["22", "24"].includes(values.node)) {
  console.error(`--node must be 22 or 24, not "${values.node}"`);
  process.exit(2);
}

process.chdir(join(import.meta.dirname, ".."));
const temporary = mkdtempSync(join(tmpdir(), "ucred-test-"));
chmodSync(temporary, 0o755); // other users connect to sockets in this folder
const compileCache = join(temporary, "compile-cache");
mkdirSync(compileCache);
chmodSync(compileCache, 0o1777); // other users also start the command
const compiled = join(temporary, "compiled");
mkdirSync(compiled);
/** The npm package. The step "build" writes it. */
const { version } = JSON.parse(readFileSync("package.json", "utf8"));
const tarball = join(temporary, `ucred-${version}.tgz`);
const report = (name: string) => join(temporary, `${name.replace(":", "_")}.xml`);

/** Lane → test files. Each lane runs on each runtime, in one process. Those that take longest are first. */
const LANES: { readonly [lane: string]: string } = {
  fuzz: "tests/{guard/fuzz,fuzz/corpus}_test.ts",
  guard: "tests/guard/!(fuzz)*_test.ts",
  servers: "tests/{servers,client}/*_test.ts",
  pure: "tests/{core,policy,testing}/**/*_test.ts",
  cli: "tests/cli/*_test.ts",
  native: "tests/{ffi,identity,live}/*_test.ts",
  interop: "tests/interop/**/*_test.ts",
  system: "tests/system/*_test.ts",
  faults: "tests/faults/*_test.ts",
};
/**
 * The tests under emulation: struct layouts, calls to libc, the sockets of each API, and guards. The results
 * of the other tests do not depend on the CPU, and an emulated runtime takes ten times as long.
 */
const EMULATED =
  "tests/{ffi/{decode,headers,message},identity/failing_calls,system/{accounts,private_group}," +
  "live/{credentials,datagram,descriptors,facts_on_demand,pins,policy,process,sockets,verify}," +
  "guard/library}_test.ts";
/** The test files that also run on an older Node in each run: those that depend on how libc is called. */
const LTS_FILES = "tests/{ffi/*,identity/*,live/*,client/*,servers/{net,http_who_asks}}_test.ts";
/** Lane → test files that test the project itself, on Node only. */
const PROJECT_LANES: { readonly [lane: string]: string } = {
  docs: "tests/project/docs_test.ts",
  site: "tests/project/site_test.ts",
  project: "tests/project/!(docs|site|structure)*_test.ts",
  examples: "tests/examples/*_test.ts",
};
/** Folders with packages of their own. `npm ci` installs none of them. */
const PACKAGES = ["bench", "examples/nitro", "examples/servers", "tests/packages", "tools/site"];

/** The files of a lane. With --soak, only those of which `npm test` runs less on this runtime. */
function filesOf(pattern: string, runtime: string): string[] {
  const files = globSync(pattern).sort();
  if (values.soak !== true) return files;
  const long = runtime === "node"
    ? /\bsoak\(|\bRUNS\b|needs\.soak\b/
    : /\b(?:soak|cases|sample)\(|\bRUNS\b|needs\.(?:soak|oneRuntime)\b/;
  return files.filter((file) => long.test(readFileSync(file, "utf8")));
}

/** The time limit of one test. Long runs take minutes. */
const MAX_TEST_MS = values.soak === true ? 20 * 60_000 : 5 * 60_000;
const junit = [
  "--test",
  `--test-timeout=${MAX_TEST_MS}`,
  "--test-reporter=spec",
  "--test-reporter-destination=stdout",
];
const nodeTest = (name: string, node = "node") => [
  node,
  "--disable-warning=ExperimentalWarning",
  ...junit,
  // An emulated build of Node cannot start a process for each file.
  "--test-isolation=none",
  "--test-reporter=junit",
  `--test-reporter-destination=${report(name)}`,
];

/** Runtime → function that returns the command that runs test files and writes a report. */
const RUNNERS: { readonly [runtime: string]: (name: string, files: string[]) => string[] } = {
  node: (name, files) => [...nodeTest(name), ...files],
  deno: (name, files) => {
    return ["deno", "test", "-A", "--no-check", `--junit-path=${report(name)}`, ...files];
  },
  bun: (name, files) => {
    const reporter = ["--reporter=junit", `--reporter-outfile=${report(name)}`];
    return [
      "bun",
      "test",
      `--timeout=${MAX_TEST_MS}`,
      ...reporter,
      ...files.map((file) => `./${file}`),
    ];
  },
};

/** Returns the step that runs test files on an older Node, which calls libc through koffi. */
function ltsStep(major: string, lane: string, files: readonly string[]): Step {
  const name = `node-${major}:${lane}`;
  const executable = `tests/packages/node_modules/node-${major}/bin/node`;
  const command = [...nodeTest(name, join(process.cwd(), executable)), ...files];
  return { name, command, report: report(name), after: ["command", "install"] };
}

/** The steps of the suite: each lane on each runtime. */
function suite(): Step[] {
  const lanes = values.emulate === undefined ? LANES : { emulated: EMULATED };
  return Object.entries(lanes).flatMap(([lane, pattern]) =>
    Object.entries(RUNNERS).flatMap(([runtime, commandFor]): Step[] => {
      const files = filesOf(pattern, runtime);
      if (files.length === 0) return [];
      const name = `${runtime}:${lane}`;
      const needs = ["command", "install"];
      const after = { guard: needs, faults: needs, interop: needs, cli: ["command"] }[lane] ?? [];
      return [{ name, command: commandFor(name, files), report: report(name), after }];
    })
  );
}

function projectSteps(): Step[] {
  return Object.entries(PROJECT_LANES).flatMap(([name, pattern]) => {
    const files = filesOf(pattern, "node");
    const command = [...nodeTest(name), ...files];
    const after = values.soak === true ? ["install"] : ["build", "install"];
    return files.length === 0 ? [] : [{ name, command, report: report(name), after }];
  });
}

/** The entry points without types of other packages. tests/project/reference_test.ts covers all of them. */
const documented = Object.values<string>(JSON.parse(readFileSync("deno.json", "utf8")).exports)
  .filter((file) => !/\/(?:hono|otel)\.ts$/.test(file));

/** The steps of `npm run check`: none needs a build or the network. */
const CHECKS: readonly Step[] = [
  { name: "types", command: ["tsc"] },
  { name: "format", command: ["deno", "fmt", "--check"] },
  { name: "lint", command: ["deno", "lint"] },
  {
    name: "structure",
    command: [...nodeTest("structure"), "tests/project/structure_test.ts"],
    report: report("structure"),
  },
  { name: "doc", command: ["deno", "doc", "--lint", ...documented] },
];

const install: Step = { name: "install", command: ["node", "tools/install.ts", ...PACKAGES] };

/** The folder of the bundled command. */
const commandFolder = join(temporary, "command");
const command: Step = {
  name: "command",
  command: [
    "esbuild",
    "cli/main.ts",
    "--bundle",
    "--splitting",
    "--format=esm",
    "--platform=neutral",
    "--main-fields=module,main",
    "--external:node:*",
    "--out-extension:.js=.mjs",
    `--outdir=${commandFolder}`,
    "--log-level=warning",
  ],
};

function steps(): readonly Step[] {
  if (values.check) return CHECKS;
  if (values.emulate !== undefined) return suite();
  if (values.node !== undefined) {
    const lanes = Object.entries(LANES);
    return [
      command,
      install,
      ...lanes.map(([lane, pattern]) => ltsStep(values.node!, lane, filesOf(pattern, "node"))),
    ];
  }
  if (values.soak) return [command, install, ...projectSteps(), ...suite()];
  return [
    // Other steps wait for these.
    command,
    // `npm pack` builds, as in a fresh clone.
    { name: "build", command: ["npm", "pack", "--silent", "--pack-destination", temporary] },
    install,
    // Long steps are first, so that all processors are busy until the end.
    ...projectSteps(),
    ...suite(),
    ltsStep("24", "native", filesOf(LTS_FILES, "node")),
    { name: "types", command: ["tsc", "--project", "tsconfig.all.json"], after: ["install"] },
    ...CHECKS.filter(({ name }) => name !== "types"),
    { name: "publint", command: ["publint", tarball, "--strict"], after: ["build"] },
    { name: "attw", command: ["attw", tarball, "--profile", "esm-only"], after: ["build"] },
    // tests/project/package_test.ts checks the types of each entry point with `deno check`, and
    // jsr_test.ts the package for JSR.
  ];
}

/** All steps. A step starts as soon as a job is free, in this order, unless another step must end first. */
const STEPS = steps();

/** Reports whether --only selects a step: "node:cli" and "node" both select the step "node:cli". */
const isSelected = ({ name }: Step, by: string) => name === by || name.startsWith(`${by}:`);

const names = STEPS.map(({ name }) => name);
if (values.help) {
  console.log(HELP + names.join(", "));
  process.exit();
}
const wrong = values.only?.find((by) => !STEPS.some((step) => isSelected(step, by)));
if (wrong !== undefined) {
  console.error(`No step "${wrong}". Steps: ${names.join(", ")}`);
  process.exit(2);
}

const jobs = Number(values.jobs);
if (!Number.isInteger(jobs) || jobs < 1) {
  console.error(`--jobs must be an integer of at least 1, not "${values.jobs}"`);
  process.exit(2);
}

const path = [join(process.cwd(), "node_modules/.bin"), process.env["PATH"]];
if (values.emulate !== undefined) path.unshift(resolvePath(values.emulate));
const env = {
  ...process.env,
  TMPDIR: temporary, // removed at the end, with everything that tests leave in it
  PATH: path.join(":"),
  NO_COLOR: "1",
  NODE_COMPILE_CACHE: compileCache,
  UCRED_COMPILED: compiled,
  ...(values.emulate === undefined
    ? { UCRED_COMMAND: join(commandFolder, "main.mjs") }
    : { UCRED_EMULATED: "1" }),
  ...(values.soak === true && { UCRED_SOAK: "1" }),
};

/** The time limit of a step: a test that hangs is a failure. */
const MAX_STEP_MS = (values.soak === true || values.emulate !== undefined ? 40 : 15) * 60_000;

/** Runs a command and returns its exit code and its output. */
function run([command, ...args]: readonly string[]): Promise<[code: number, output: string]> {
  const child = spawn(command!, args, {
    env,
    stdio: ["ignore", "pipe", "pipe"],
    timeout: MAX_STEP_MS,
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
      if (signal !== null) output += `\nEnded by ${signal}. The time limit is ${MAX_STEP_MS} ms.\n`;
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

/** Counts the test cases of a JUnit report. All three runners use the same elements. */
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
  // A runner that crashed or found no test has failed, whatever its report contains.
  const hasTests = count.passed > 0 || count.skipped.size > 0;
  if (count.failed === 0 && (code !== 0 || !hasTests)) count.failed = 1;
  return count;
}

const totals: Count = { passed: 0, failed: 0, skipped: new Map() };

/** Runs a step, adds its result to the totals and prints it. */
async function perform(step: Step): Promise<void> {
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
  console.log(`${step.name.padEnd(14)} ${failed === 0 ? "ok" : "FAILED"} (${seconds} s${cases})`);
  if (failed > 0) console.log(`\n$ ${step.command.join(" ")}\n${output}`);
}

/** The steps that --only selects, and the steps that they need. */
const selected = new Set(
  STEPS.filter((step) => values.only?.some((by) => isSelected(step, by)) ?? true)
    .flatMap(({ name, after = [] }) => [...after, name]),
);
const waiting = STEPS.filter(({ name }) => selected.has(name));
/** The names of the steps that have not ended. */
const pending = new Set(waiting.map(({ name }) => name));

/** Runs one step after the other, until none is left. */
async function work(): Promise<void> {
  while (waiting.length > 0) {
    const at = waiting.findIndex(({ after = [] }) => !after.some((name) => pending.has(name)));
    if (at < 0) {
      await Promise.race(ends);
      continue;
    }
    const [step] = waiting.splice(at, 1);
    const end = perform(step!).finally(() => {
      pending.delete(step!.name);
      ends.delete(end);
    });
    ends.add(end);
    await end;
  }
}

/** The ends of the running steps. */
const ends = new Set<Promise<void>>();
await Promise.all(Array.from({ length: jobs }, work));
cleanUp();

if (totals.skipped.size > 0) console.log("\nSkipped:");
for (const [why, count] of totals.skipped) console.log(`  ${count} × ${why}`);
console.log(
  `\n${totals.passed} passed, ${totals.failed} failed, ${sum(totals.skipped.values())} skipped`,
);
process.exitCode = totals.failed === 0 ? 0 : 1;
