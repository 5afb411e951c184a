/** All benchmarks together: a failure or a wrong answer leaves every result file as it was. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { type Part, PARTS, runAll } from "../../bench/all.ts";
import { absentLines, prepareRuntimes } from "../../bench/benchmark.ts";
import { markdown as policyMarkdown } from "../../bench/policy/report.ts";
import type { Result as PolicyResult } from "../../bench/policy/result.ts";
import { markdown as serversMarkdown } from "../../bench/servers/report.ts";
import type { Result as ServersResult } from "../../bench/servers/result.ts";
import { temporaryFolder } from "../support/compile.ts";
import { needs, testWith } from "../support/suite.ts";

const benchmark = new URL("../../bench/benchmark.ts", import.meta.url).href;

/** Writes a benchmark that has an old result. */
function partIn(folder: string, name: string, bench: string, more = ""): Part {
  const home = join(folder, name);
  mkdirSync(home);
  writeFileSync(join(home, "results.md"), "old");
  const program = join(home, "bench.ts");
  writeFileSync(
    program,
    `import { runBenchmark } from ${JSON.stringify(benchmark)};
await runBenchmark({
  help: "help",
  home: import.meta.dirname,
  bench: ${bench},
  text: (result) => result,
  files: (result) => ({ "results.md": result }),
  ${more}
});
`,
  );
  return { script: `bench:${name}`, program, folder: home, files: ["results.md"] };
}

const resultOf = ({ folder }: Part) => readFileSync(join(folder, "results.md"), "utf8");

const WRONG = `() => { throw new Error("it answered 5, not 4"); }`;

test("runAll() writes the results when all benchmarks have succeeded", async () => {
  const folder = temporaryFolder();
  const parts = [
    partIn(folder, "one", `() => Promise.resolve("first")`),
    partIn(folder, "two", `() => Promise.resolve("second")`),
  ];
  assert.equal(await runAll(parts, false), true);
  assert.deepEqual(parts.map(resultOf), ["old", "old"]);
  assert.equal(await runAll(parts, true), true);
  assert.deepEqual(parts.map(resultOf), ["first", "second"]);
});

for (
  const [what, bench, more] of [
    ["a wrong answer", WRONG, ""],
    ["a bad result", `() => Promise.resolve("leaks")`, "isBad: () => true,"],
    ["a missing file", `() => Promise.resolve("third")`, "files: () => ({}),"],
    ["a crash", `() => process.exit(7)`, ""],
  ] as const
) {
  test(`runAll() writes nothing after ${what}`, async () => {
    const folder = temporaryFolder();
    const parts = [
      partIn(folder, "one", `() => Promise.resolve("first")`),
      partIn(folder, "two", bench, more),
      partIn(folder, "three", `() => Promise.resolve("third")`),
    ];
    const run = what === "a missing file"
      ? await runAll(parts, true).catch((error) => error.code)
      : await runAll(parts, true);
    assert.equal(run, what === "a missing file" ? "ENOENT" : false);
    assert.deepEqual(parts.map(resultOf), ["old", "old", "old"]);
    const left = readdirSync(tmpdir()).filter((name) => name.startsWith("ucred-bench-all-"));
    assert.deepEqual(left, []);
  });
}

test("runBenchmark() --save writes nothing after a wrong answer or with a bad result", () => {
  const folder = temporaryFolder();
  const parts = [
    partIn(folder, "wrong", WRONG),
    partIn(folder, "bad", `() => Promise.resolve("leaks")`, "isBad: () => true,"),
    partIn(folder, "right", `() => Promise.resolve("new")`),
  ];
  const ran = parts.map(({ program }) =>
    spawnSync(process.execPath, [program, "--save"], { encoding: "utf8" })
  );
  assert.deepEqual(ran.map(({ status }) => status), [1, 1, 0]);
  assert.match(ran[0]!.stderr, /^it answered 5, not 4$/m);
  assert.deepEqual(parts.map(resultOf), ["old", "old", "new"]);
});

test("each benchmark has its result files", () => {
  for (const part of PARTS) {
    for (const name of part.files) assert.ok(readFileSync(join(part.folder, name)).length > 0);
  }
});

for (const { script, program } of PARTS.filter(({ script }) => script !== "bench:policy")) {
  testWith([needs.linux], `${script} ends with 1 and names cc when PATH has no program`, () => {
    const { status, stderr } = spawnSync(
      process.execPath,
      ["--disable-warning=ExperimentalWarning", program, "--quick"],
      { encoding: "utf8", env: { ...process.env, PATH: "/nonexistent" } },
    );
    assert.equal(status, 1);
    assert.match(stderr, /cc is not installed/);
  });
}

test("prepareRuntimes() names the runtimes that are missing, and fails without any", async () => {
  const missing = () => Promise.reject(new Error("deno is not installed"));
  const found = () => Promise.resolve({ version: "1", command: ["x"] as const });
  const { prepared, absent } = await prepareRuntimes("f", {
    ...{ Deno: missing, Bun: found, Node: found },
  });
  assert.deepEqual([...prepared.keys()], ["Bun", "Node"]);
  assert.deepEqual(absentLines(absent), ["Not measured: Deno: deno is not installed"]);
  const none = { Deno: missing, Bun: missing, Node: missing };
  await assert.rejects(prepareRuntimes("f", none), /deno is not installed/);
});

test("results name what was not measured", () => {
  const setting = {
    ...{ command: "npm run x", date: "2026-01-01", rounds: 1 },
    machine: { cpu: "a", cores: 1, kernel: "6", architecture: "x86_64", load: 0 },
  };
  const absent = [{ what: "Deno", why: "deno is not installed" }];
  const policy = { ...setting, versions: {}, rows: [], targets: [], absent: [] };
  const text = policyMarkdown({ ...policy, absentRuntimes: absent } as PolicyResult);
  assert.match(text, /^Not measured: Deno: deno is not installed$/m);
  const servers = {
    ...setting,
    versions: [],
    pairs: [],
    rivals: [],
    absent,
    starts: 1,
    seconds: 1,
  };
  const page = serversMarkdown({ ...servers, connections: 1 } as ServersResult);
  assert.match(page, /^Not measured: Deno: deno is not installed$/m);
  assert.doesNotMatch(page, /## Compared/);
});

test("bench:all --help prints the benchmarks, and an unknown option is an error", () => {
  const all = (...args: string[]) =>
    spawnSync(process.execPath, [
      fileURLToPath(new URL("../../bench/all.ts", import.meta.url)),
      ...args,
    ], { encoding: "utf8" });
  const { stdout } = all("--help");
  for (const { script } of PARTS) assert.ok(stdout.includes(script), script);
  assert.equal(all("--quik").status, 2);
});
