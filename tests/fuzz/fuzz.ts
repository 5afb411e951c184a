/** `npm run fuzz`: searches for bytes that make a reader fail, and prints how to repeat what it finds. */

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { corpusFolder } from "./cases.ts";
import { searchIn } from "./search.ts";
import { TARGETS } from "./targets.ts";

/** Test files that send generated messages to a guard. */
const GUARDS: { readonly [name: string]: string } = {
  "guard-http": "tests/guard/fuzz_test.ts",
  "guard-http2": "tests/guard/http2_fuzz_test.ts",
};

/** The approximate time of one case of each property in these files, in ms. */
const CASE_MS: { readonly [name: string]: number } = { "guard-http": 40, "guard-http2": 20 };

/** With fewer cases, a guard may forward no message, and its test would fail. */
const MIN_CASES = 300;

const names = [...TARGETS.map(({ name }) => name), ...Object.keys(GUARDS)];

const HELP = `Usage: npm run fuzz -- [options]

Changes the files in tests/fuzz/corpus at random, and passes them to the readers in
tests/fuzz/targets.ts. Then it sends generated messages to guards. A reader may return, or throw an
error of its own. Findings are every other exception, a reading that contradicts itself, and a case
that does not end. Findings about readers are written to the corpus, where npm test repeats them.

  --minutes N    run for about N minutes, divided among the targets (default: 5)
  --only TARGET  run only this target; repeatable
  --seed N       try the cases of this seed (default: at random)
  --help         print this help

Targets: ${names.join(", ")}

The exit code is 1 if something was found.
`;

function fail(message: string): never {
  console.error(message);
  process.stderr.write(HELP);
  process.exit(2);
}

function optionsIn(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      options: {
        minutes: { type: "string", default: "5" },
        only: { type: "string", multiple: true },
        seed: { type: "string", default: String(Math.floor(Math.random() * 2 ** 31)) },
        help: { type: "boolean", short: "h", default: false },
      },
    }).values;
  } catch (error) {
    fail((error as Error).message);
  }
}

const { minutes: minutesText, only = names, seed: seedText, help } = optionsIn(
  process.argv.slice(2),
);
if (help) {
  process.stdout.write(HELP);
  process.exit();
}
const [minutes, seed] = [Number(minutesText), Number(seedText)];
if (!(minutes > 0 && minutes < 10_000)) fail(`--minutes must be above 0, not "${minutesText}"`);
if (!Number.isInteger(seed) || seed < 0 || seed >= 2 ** 31) {
  fail(`--seed must be an integer from 0 to ${2 ** 31 - 1}, not "${seedText}"`);
}
const wrong = only.find((name) => !names.includes(name));
if (wrong !== undefined) fail(`There is no target "${wrong}"`);

const msForEach = minutes * 60_000 / only.length;
console.log(`seed ${seed}, ${only.length} targets, ${(msForEach / 1000).toFixed(0)} s for each`);
let findings = 0;
for (const name of names.filter((name) => only.includes(name))) {
  const start = performance.now();
  const took = () => `${((performance.now() - start) / 1000).toFixed(0)} s`;
  if (Object.hasOwn(GUARDS, name)) {
    const cases = Math.max(MIN_CASES, Math.ceil(msForEach / CASE_MS[name]!));
    const env = {
      ...process.env,
      UCRED_SOAK: "1",
      UCRED_SEED: String(seed),
      UCRED_CASES: String(cases),
    };
    const flags = ["--disable-warning=ExperimentalWarning", "--test", "--test-timeout=3600000"];
    const { status, stdout } = spawnSync(process.execPath, [...flags, GUARDS[name]!], {
      cwd: join(import.meta.dirname, "../.."),
      env,
      encoding: "utf8",
      maxBuffer: 1 << 28,
    });
    const result = status === 0 ? "no finding" : `FAILED\n${stdout}`;
    console.log(`${name}: ${cases.toLocaleString("en")} cases of each kind, ${result} (${took()})`);
    if (status !== 0) findings++;
    continue;
  }
  let shown = 0;
  const { cases, bytes, error } = await searchIn(
    new URL("targets.ts", import.meta.url),
    name,
    seed,
    Date.now() + msForEach,
    {
      onCases: (cases) => {
        if (!process.stderr.isTTY && performance.now() - shown < 30_000) return;
        shown = performance.now();
        const line = `${name}: ${cases.toLocaleString("en")} cases`;
        process.stderr.write(process.stderr.isTTY ? `\r\x1b[2K${line}` : `${line}\n`);
      },
    },
  );
  if (process.stderr.isTTY) process.stderr.write("\r\x1b[2K");
  if (error === undefined) {
    console.log(`${name}: ${cases.toLocaleString("en")} cases, no finding (${took()})`);
    continue;
  }
  findings++;
  console.log(`${name}: FOUND after ${cases.toLocaleString("en")} cases (${took()})\n${error}`);
  if (bytes === undefined) continue;
  const hash = createHash("sha256").update(bytes).digest("hex").slice(0, 12);
  const file = join(corpusFolder(name), `found-${hash}`);
  writeFileSync(file, bytes);
  console.log(`bytes: ${JSON.stringify(Buffer.from(bytes).toString("latin1"))}\nfile: ${file}`);
}
console.log(`seed ${seed}: ${findings === 0 ? "no finding" : `${findings} findings`}`);
process.exit(findings === 0 ? 0 : 1);
