/** `npm run bench`: runs the contenders and prints their times. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { readlinkSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import process from "node:process";
import {
  type Files,
  inTurn,
  type Options,
  type Prepared,
  progress,
  runBenchmark,
  setting,
} from "./benchmark.ts";
import { Contender, type Lookup, SOCKET, type Tool, TOOLS } from "./contenders.ts";
import { markdown, text } from "./report.ts";
import {
  hasLeaked,
  type Leak,
  type Participant,
  type Result,
  rowsOf,
  type Samples,
  targetsOf,
} from "./result.ts";

const HELP = `Usage: npm run bench -- [options]

Times peerCredentials() and identify() on Deno, Bun and Node against the same system calls in C,
Rust, Go, Python and Java, if these are installed. Needs a C compiler (cc) and Linux 6.13 or later.
Takes about two minutes.

  --quick  fewer rounds, for a first impression
  --json   print the result as JSON, with the samples of all rounds (npm run --silent bench -- --json)
  --save   also write bench/results.md and bench/results.svg
  --to X   with --save: write to the folder X instead
  --help   print this help

The exit code is 1 if an answer is wrong or if lookups leak. Missed targets are only reported,
because they depend on the machine.
`;

const ROUNDS = 21;
const QUICK_ROUNDS = 5;
/** A round is short, so that the load of the machine hardly changes in it. */
const ROUND_NS = 40e6;
/** After this time no compiler optimizes any further (measured). */
const WARM_UP_NS = 300e6;
/** V8's heap grows by up to 130 MiB in these lookups, and not in the next 6 million (measured). */
const SETTLING_LOOKUPS = 600_000;
/** Number of lookups in the leak check; slow lookups have fewer. */
const LEAK_LOOKUPS: { readonly [lookup in Lookup]: number } = {
  again: 1_000_000,
  first: 1_000_000,
  accepted: 1_000_000,
  identify: 500_000,
  pin: 500_000,
  live: 500_000,
  exe: 200_000,
  snapshot: 20_000,
};

async function bench(options: Options, folder: string): Promise<Result> {
  if (process.platform !== "linux") {
    const why = "all contenders query SO_PEERCRED, which only Linux has";
    throw new Error(`There is nothing to time on ${process.platform}: ${why}`);
  }
  process.env["TMPDIR"] = folder; // interrupted compilers leave files in it
  const rounds = options.quick ? QUICK_ROUNDS : ROUNDS;
  const before = { ...setting("bench", options), rounds };
  const { participants, prepared } = await prepare(folder);
  const connection = await connectHere(join(folder, SOCKET));
  const contenders = [...prepared].flatMap(([tool, how]) =>
    tool.lookups.map((lookup) => new Contender(tool, how, lookup, connection.accepted, folder))
  );
  await check(contenders);
  const rows = rowsOf(await time(contenders, rounds));
  const leaks = await leak(contenders);
  await Promise.all(contenders.map((contender) => contender.end()));
  connection.end();
  return { ...before, participants, rows, targets: targetsOf(rows), leaks };
}

/** Builds all contenders. A contender that cannot be built does not take part; the report has the reason. */
async function prepare(
  folder: string,
): Promise<{ participants: Participant[]; prepared: Map<Tool, Prepared> }> {
  progress("Building");
  const outcomes = await Promise.allSettled(TOOLS.map((tool) => tool.prepare(folder)));
  const prepared = new Map<Tool, Prepared>();
  const participants = TOOLS.map((tool, index): Participant => {
    const { name } = tool;
    const outcome = outcomes[index]!;
    if (outcome.status === "rejected") {
      return { name, absent: (outcome.reason as Error).message };
    }
    prepared.set(tool, outcome.value);
    return { name, version: outcome.value.version };
  });
  const why = participants[0]!.absent;
  if (why !== undefined) throw new Error(`The baseline needs a C compiler: ${why}`);
  return { participants, prepared };
}

/**
 * Opens a connection with this process as the peer. A contender cannot be its own peer: ucred caches
 * no descriptor of a connection to its own process.
 */
async function connectHere(path: string): Promise<{ accepted: Socket; end(): void }> {
  const sockets: Socket[] = [];
  const server = createServer({ pauseOnConnect: true }, (socket) => sockets.push(socket));
  await once(server.listen(path), "listening");
  const accepting = once(server, "connection");
  sockets.push(connect(path));
  const [accepted] = await accepting as [Socket];
  return {
    accepted,
    end() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

/** Fails if a contender gives a wrong answer. Wrong answers are never timed. */
async function check(contenders: readonly Contender[]): Promise<void> {
  progress("Checking answers");
  const ids = { pid: process.pid, uid: process.geteuid!(), gid: process.getegid!() };
  const names = { user: nameOf("--user"), group: nameOf("--group") };
  const groups = ascending(process.getgroups!());
  const exe = readlinkSync("/proc/self/exe");
  let label: string | undefined;
  for (const contender of contenders) {
    const { tool, lookup } = contender;
    const answer = await contender.answer();
    // SO_PEERGROUPS contains the gid only if it is also a supplementary group.
    if (answer.groups) answer.groups = ascending([...answer.groups, ids.gid]);
    label ??= answer.label; // C's answer: other sources of the label differ between security modules
    const expected = tool.returnsNames ? names : {
      ...{ again: ids, first: ids, accepted: ids, pin: ids, identify: { ...ids, groups, label } },
      ...{ live: { uid: ids.uid, gid: ids.gid }, exe: { exe }, snapshot: { exe } },
    }[lookup];
    assert.deepEqual(
      answer,
      expected,
      `${tool.name} answered ${JSON.stringify(answer)}, not ${JSON.stringify(expected)}`,
    );
  }
}

function ascending(numbers: readonly number[]): number[] {
  return [...new Set(numbers)].sort((a, b) => a - b);
}

/** The name of the effective user or group, or its number if it has no name, as in Java. */
function nameOf(what: "--user" | "--group"): string {
  return spawnSync("id", [what, "--name"], { encoding: "utf8" }).stdout.trim();
}

/** Times the contenders in turn, round by round. */
async function time(contenders: readonly Contender[], rounds: number): Promise<Samples[]> {
  const entries = [];
  for (const [index, contender] of contenders.entries()) {
    progress("Warming up", `${index + 1} of ${contenders.length}`);
    let [times, took, spent] = [100, 0, 0];
    while (spent < WARM_UP_NS) {
      took = await contender.measure(times);
      spent += took * times;
      times = Math.ceil(ROUND_NS / took);
    }
    entries.push({ contender, lookupsPerRound: times, samples: [] as number[] });
  }
  for (let round = 0; round < rounds; round++) {
    progress("Timing", `round ${round + 1} of ${rounds}`);
    for (const { contender, lookupsPerRound, samples } of inTurn(entries, round)) {
      samples.push(await contender.measure(lookupsPerRound));
    }
  }
  return entries.map(({ contender: { tool, lookup }, ...rest }) => ({ tool, lookup, ...rest }));
}

/** Compares the descriptors and the memory of each runtime before and after many lookups. */
function leak(contenders: readonly Contender[]): Promise<Leak[]> {
  progress("Looking for leaks");
  const ours = contenders.filter(({ tool }) => tool.isOurs);
  return Promise.all(ours.map(async (contender) => {
    const { tool: { name }, lookup } = contender;
    const lookups = LEAK_LOOKUPS[lookup];
    await contender.measure(Math.min(SETTLING_LOOKUPS, 2 * lookups));
    const before = await contender.usage();
    await contender.measure(lookups);
    const after = await contender.usage();
    return { name, lookup, lookups, before, after, hasLeaked: hasLeaked(before, after) };
  }));
}

async function files(result: Result): Promise<Files> {
  const { chart } = await import("./chart.ts"); // imports a large package
  return { "results.svg": chart(result), "results.md": markdown(result) };
}

await runBenchmark({
  help: HELP,
  bench,
  text,
  home: import.meta.dirname,
  files,
  isBad: ({ leaks }) => leaks.some(({ hasLeaked }) => hasLeaked),
});
