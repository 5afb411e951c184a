/**
 * `npm run mutation`: Stryker changes the code in one place at a time, and runs the tests that reach the place.
 * A change that no test notices survives: it shows a missing test, or code without effect.
 */

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";

interface Area {
  /** The files that are changed. */
  readonly code: string;
  /** The test files that must notice. */
  readonly tests: string;
  /** The folder with a `package.json` of its own, if the tests import packages of that folder. */
  readonly packages?: string;
}

const AREAS: { readonly [name: string]: Area } = {
  core: { code: "core/*.ts", tests: "tests/{core,identity,live,interop/dbus}/**/*_test.ts" },
  decide: {
    code: "core/policy/{decide/*,*}.ts",
    tests: "tests/core/policy/!(*analysis|universe)_test.ts",
  },
  document: { code: "core/policy/document/*.ts", tests: "tests/{core/policy,policy}/*_test.ts" },
  analyze: { code: "core/policy/analyze/*.ts", tests: "tests/{core/policy,policy}/*_test.ts" },
  ffi: { code: "ffi/*.ts", tests: "tests/{ffi,identity,live,system}/*_test.ts" },
  identity: { code: "identity/**/*.ts", tests: "tests/{ffi,identity,live,system}/*_test.ts" },
  dbus: { code: "interop/dbus/*.ts", tests: "tests/{interop,guard}/{dbus*/,dbus}*_test.ts" },
  docker: {
    code: "{interop,guard}/docker/*.ts",
    tests: "tests/{interop/docker/*,guard/{docker_{cases,fields,mode,routes,state},learn}}_test.ts",
  },
  mcp: {
    code: "{interop,guard}/mcp/*.ts",
    tests: "tests/{interop/mcp/*,guard/mcp}_test.ts",
    packages: "examples/servers",
  },
  polkit: { code: "interop/polkit/*.ts", tests: "tests/interop/polkit/*_test.ts" },
  // Without the code that starts and signals commands: a mutant could run anything as root.
  sudoers: {
    code: "interop/sudoers/{*,helper/!(client|command_process|helper|mod)}.ts",
    tests: "tests/interop/sudoers/{import,differential,helper_parts}_test.ts",
  },
  opa: { code: "interop/opa/*.ts", tests: "tests/interop/opa/*_test.ts" },
  interop: {
    code: "interop/*.ts",
    tests: "tests/interop/{*,docker/{json,suggest},{dbus,sudoers}/import,opa/opa}_test.ts",
  },
  http: {
    code: "guard/{http/!(llhttp_wasm),headers}.ts",
    tests:
      "tests/guard/{http,framing,attack,fuzz,parser,upgrade,upstream,headers,limits,filtered_response,docker_mode}_test.ts",
  },
  http2: { code: "guard/http2/*.ts", tests: "tests/guard/http2{,_fields,_fuzz}_test.ts" },
  // as_peer.ts changes the ids of a thread: a mutant might not change them back.
  guard: {
    code: "guard/!(as_peer|headers).ts",
    tests:
      "tests/guard/{byte_streams,learn,library,limits,metrics,recorder,stream,upstream}_test.ts",
  },
};

const HELP = `Usage: npm run mutation -- [OPTION...] [AREA...]

Changes the code in one place at a time, and runs the tests that reach this place. Prints the changes
that no test notices, and for each area the share of changes that some test notices. Results are kept in
.mutation/, and used again for code and tests that are the same; a second run continues the first one.

Run it on a disposable machine: a change can make tests remove files or signal processes.

  --sample N       change only one of N pieces of ten lines; the same ones in each run (default: 1)
  --file GLOB      change only these files of the area
  --test-ms MS     leave out tests that take longer than this (default: 250)
  --jobs N         run N processes at a time (default: 1)
  --json           print one JSON document
  --help           print this text

Areas: ${Object.keys(AREAS).join(", ")}`;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    sample: { type: "string", default: "1" },
    file: { type: "string" },
    "test-ms": { type: "string", default: "250" },
    jobs: { type: "string", default: "1" },
    json: { type: "boolean" },
    help: { type: "boolean" },
  },
});

if (values.help) {
  console.log(HELP);
  process.exit();
}

function fail(problem: string): never {
  console.error(problem);
  process.exit(2);
}

function countOf(option: "sample" | "test-ms" | "jobs"): number {
  const count = Number(values[option]);
  if (Number.isInteger(count) && count > 0) return count;
  return fail(`--${option} must be an integer of at least 1, not "${values[option]}"`);
}

const sample = countOf("sample");
const jobs = countOf("jobs");
const testMs = countOf("test-ms");
const unknown = positionals.find((name) => !Object.hasOwn(AREAS, name));
if (unknown !== undefined) fail(`No area "${unknown}". Areas: ${Object.keys(AREAS).join(", ")}`);

const root = join(import.meta.dirname, "../..");
process.chdir(root);
const MAX_PIECE_LINES = 10;

/** Selects files, or lines of files, in the form that Stryker takes. */
function piecesOf(files: readonly string[]): string[] {
  if (sample === 1) return [...files];
  return files.flatMap((file) => {
    const lines = readFileSync(file, "utf8").split("\n").length;
    return Array.from({ length: Math.ceil(lines / MAX_PIECE_LINES) }, (_, at) => at)
      .filter((at) =>
        createHash("sha256").update(`${file} ${at}`).digest().readUInt32BE() % sample === 0
      )
      .map((at) => `${file}:${at * MAX_PIECE_LINES + 1}-${(at + 1) * MAX_PIECE_LINES}`);
  });
}

interface Mutant {
  readonly status: string;
  readonly mutatorName: string;
  readonly replacement?: string;
  readonly location: {
    readonly start: { readonly line: number; readonly column: number };
    readonly end: { readonly line: number; readonly column: number };
  };
}
interface Report {
  readonly files: {
    readonly [file: string]: { readonly source: string; readonly mutants: readonly Mutant[] };
  };
}

/** The text that a mutant replaces. */
function original(source: string, { location: { start, end } }: Mutant): string {
  const lines = source.split("\n").slice(start.line - 1, end.line);
  lines[lines.length - 1] = lines.at(-1)!.slice(0, end.column - 1);
  lines[0] = lines[0]!.slice(start.column - 1);
  return lines.join("\n");
}

const short = (text: string) => {
  const line = text.replace(/\s+/g, " ");
  return line.length > 100 ? `${line.slice(0, 97)}...` : line;
};

interface Result {
  readonly area: string;
  readonly noticed: number;
  readonly survived: number;
  readonly unreached: number;
  /** Changes of constants when a module is loaded, and of sentences. They are not tried. */
  readonly ignored: number;
  readonly survivors: readonly string[];
}

function resultOf(area: string, { files }: Report): Result {
  const all = Object.entries(files).flatMap(([file, { source, mutants }]) =>
    mutants.map((mutant) => ({ file, source, mutant }))
  );
  const count = (...statuses: string[]) =>
    all.filter(({ mutant }) => statuses.includes(mutant.status)).length;
  const survivors = all.filter(({ mutant: { status } }) =>
    /^(?:Survived|NoCoverage)$/.test(status)
  );
  return {
    area,
    noticed: count("Killed", "Timeout", "RuntimeError"),
    survived: count("Survived"),
    unreached: count("NoCoverage"),
    ignored: count("Ignored"),
    survivors: survivors.map(({ file, source, mutant }) => {
      const { line, column } = mutant.location.start;
      const from = short(original(source, mutant));
      const to = short(mutant.replacement ?? "");
      const why = mutant.status === "NoCoverage" ? " (no test reaches it)" : "";
      return `${file}:${line}:${column} ${mutant.mutatorName}${why}: ${from} → ${to}`;
    }),
  };
}

const folder = mkdtempSync(join(tmpdir(), "ucred-mutation-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
mkdirSync(".mutation", { recursive: true });

/** Prints how many tests took no part, and why those that are not slow did not. */
function printLeftOut(lines: string): void {
  const tests = lines.split("\n").filter(Boolean)
    .map((line): { readonly name: string; readonly why: string } => JSON.parse(line));
  const others = tests.filter(({ why }) => why !== "slow");
  console.error(`Left out: ${tests.length - others.length} tests that take more than ${testMs} ms`);
  for (const { name, why } of others) console.error(`Left out: ${name}: ${why}`);
}

/** Tests of a guard are slow, and the first test that notices a mutant ends its run. */
function fastFirst(one: string, other: string): number {
  const [isOne, isOther] = [one, other].map((file) => file.startsWith("tests/guard/"));
  return isOne === isOther ? (one < other ? -1 : 1) : isOne ? 1 : -1;
}

function run(name: string): Result {
  const area = AREAS[name]!;
  const files = globSync(area.code).sort()
    .filter((file) => values.file === undefined || globSync(values.file).includes(file));
  const leftOut = join(folder, `${name}-left-out`);
  writeFileSync(leftOut, "");
  const report = join(folder, `${name}.json`);
  const config = join(folder, `${name}.config.json`);
  writeFileSync(
    config,
    JSON.stringify({
      testRunner: "mocha",
      plugins: ["@stryker-mutator/mocha-runner", join(root, "tests/mutation/ignore_texts.ts")],
      mochaOptions: { spec: globSync(area.tests).sort(fastFirst) },
      testRunnerNodeArgs: [
        "--disable-warning=ExperimentalWarning",
        "--import=./tests/mutation/hooks.ts",
      ],
      mutate: piecesOf(files),
      ignorers: ["texts"],
      buildCommand: area.packages &&
        `ln -s "${root}/${area.packages}/node_modules" ${area.packages}`,
      ignorePatterns: ["**/node_modules", "dist", ".git", ".mutation", ".stryker-tmp"],
      coverageAnalysis: "perTest",
      ignoreStatic: true,
      // State that a mutant leaves behind must not decide about many others.
      maxTestRunnerReuse: 100,
      concurrency: jobs,
      timeoutMS: 3000,
      dryRunTimeoutMinutes: 30,
      incremental: true,
      // A result with fewer tests is no result with more of them.
      incrementalFile: `.mutation/${name}-${sample}-${testMs}ms.json`,
      tempDirName: ".stryker-tmp",
      reporters: ["json", "progress-append-only"],
      jsonReporter: { fileName: report },
      clearTextReporter: { allowColor: false },
      allowConsoleColors: false,
    }),
  );
  const stryker = "tests/mutation/node_modules/@stryker-mutator/core/bin/stryker.js";
  const { status } = spawnSync(process.execPath, [stryker, "run", config], {
    stdio: ["ignore", 2, 2],
    env: {
      ...process.env,
      UCRED_MUTATION: "1",
      UCRED_MUTATION_LEFT_OUT: leftOut,
      UCRED_MUTATION_TEST_MS: String(testMs),
    },
  });
  if (status !== 0) fail(`Stryker ended with ${status} in the area "${name}"`);
  printLeftOut(readFileSync(leftOut, "utf8"));
  return resultOf(name, JSON.parse(readFileSync(report, "utf8")));
}

const results = (positionals.length > 0 ? positionals : Object.keys(AREAS)).map(run);
if (values.json) console.log(JSON.stringify(results, null, 2));
else {
  for (const { survivors } of results) for (const survivor of survivors) console.log(survivor);
  console.log("\nArea        Noticed  Survived  Unreached  Not tried  Score");
  for (const { area, noticed, survived, unreached, ignored } of results) {
    const score = (100 * noticed / (noticed + survived + unreached)).toFixed(1);
    console.log(
      area.padEnd(10) + String(noticed).padStart(9) + String(survived).padStart(10) +
        String(unreached).padStart(11) + String(ignored).padStart(11) + `${score} %`.padStart(9),
    );
  }
}
