/** `npm run bench:policy`: runs the policy engines and prints their times. */

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import {
  Helper,
  inTurn,
  type Options,
  prepareRuntimes,
  progress,
  runBenchmark,
  type Runtime,
  setting,
} from "../benchmark.ts";
import { CONTENDERS } from "./contenders.ts";
import type { Loaded, Task } from "./measure.ts";
import { markdown, text } from "./report.ts";
import { type Absent, type Result, rowsOf, type Samples, targetsOf } from "./result.ts";
import { KINDS_OF_PEERS } from "./workload.ts";

const HELP = `Usage: npm run bench:policy -- [options]

Times decisions by policies of 10, 100, 1,000 and 10,000 rules about uids, gids, users and groups, on
Deno, Bun and Node, beside Casbin, CASL, Cedar and json-rules-engine with the same rules and peers.
Takes about five minutes.

  --quick  two sizes and fewer rounds, for a first impression
  --json   print the result as JSON, with all rounds (npm run --silent bench:policy -- --json)
  --save   also write bench/policy/results.md
  --to X   with --save: write to the folder X instead
  --help   print this help

The exit code is 1 if an answer is wrong. Missed targets are only reported, because they depend on the
machine.
`;

/** The size of a run. */
interface Extent {
  readonly sizes: readonly number[];
  readonly rounds: number;
  /** Time to compare the answers of other engines, in ms. A slow engine decides about fewer peers. */
  readonly checking: number;
  /** CPU time, in ns. */
  readonly warmUp: number;
}

const FULL: Extent = { sizes: [10, 100, 1000, 10_000], rounds: 21, checking: 4000, warmUp: 400e6 };
const QUICK: Extent = { sizes: [10, 1000], rounds: 3, checking: 100, warmUp: 10e6 };

/** CPU time of a round. It is short, so that the load of the machine hardly changes in it. */
const ROUND_NS = 30e6;

const MEASURE = fileURLToPath(new URL("measure.ts", import.meta.url));

/** A contender's process, and the size of its policy. */
interface Entry {
  readonly runtime: Runtime;
  readonly contender: string;
  readonly rules: number;
  readonly peers: number;
  readonly helper: Helper;
}

async function bench(options: Options): Promise<Result> {
  const extent = options.quick ? QUICK : FULL;
  const before = setting("bench:policy", options);
  const versions: { [name: string]: string } = {};
  for (const { name, package: from } of CONTENDERS) {
    if (from !== undefined) versions[name] = `${from} ${versionOf(from)}`;
  }
  const entries: Entry[] = [];
  const absent: Absent[] = [];
  const helpers: Helper[] = [];
  progress("Checking answers");
  const { prepared, absent: absentRuntimes } = await prepareRuntimes(MEASURE);
  for (const [runtime, { version }] of prepared) versions[runtime] = version;
  await Promise.all([...prepared].map(async ([runtime, { command }]) => {
    for (const { name, package: from } of CONTENDERS) {
      const helper = new Helper(`${name} on ${runtime}`, [...command, name]);
      helpers.push(helper);
      for (const rules of extent.sizes) {
        const checking = from === undefined ? Number.MAX_VALUE : extent.checking;
        const loaded = await send(helper, { load: rules, checking }) as Loaded;
        if ("wrong" in loaded) throw new Error(`On ${runtime}, ${loaded.wrong}`);
        if ("absent" in loaded) {
          if (from === undefined) throw new Error(`${name} on ${runtime}: ${loaded.absent}`);
          absent.push({ runtime, contender: name, why: loaded.absent });
          break;
        }
        entries.push({ runtime, contender: name, rules, peers: loaded.peers, helper });
      }
    }
  }));
  const rows = rowsOf(await time(entries, extent));
  await Promise.all(helpers.map((helper) => helper.end()));
  const { rounds } = extent;
  return { ...before, rounds, versions, rows, absent, absentRuntimes, targets: targetsOf(rows) };
}

function versionOf(name: string): string {
  const file = new URL(`../node_modules/${name}/package.json`, import.meta.url);
  return (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version;
}

async function send(helper: Helper, task: Task): Promise<unknown> {
  return JSON.parse(await helper.request(JSON.stringify(task)));
}

/** Returns ns per decision. */
const measure = ({ helper, rules }: Entry, times: number) =>
  send(helper, { measure: rules, times }) as Promise<number>;

/** Times the contenders in turn, round by round. */
async function time(entries: readonly Entry[], extent: Extent): Promise<readonly Samples[]> {
  // Rows that are compared with each other are timed one after the other.
  const order = (a: Entry, b: Entry) => a.runtime.localeCompare(b.runtime) || a.rules - b.rules;
  const timed = [];
  for (const [index, entry] of entries.toSorted(order).entries()) {
    progress("Warming up", `${index + 1} of ${entries.length}`);
    let [times, spent] = [KINDS_OF_PEERS, 0];
    while (spent < extent.warmUp) {
      const took = await measure(entry, times);
      spent += took * times;
      // With few decisions the clock may not advance.
      const enough = Math.min(64 * times, ROUND_NS / took);
      times = KINDS_OF_PEERS * Math.ceil(enough / KINDS_OF_PEERS);
    }
    timed.push({ entry, times, samples: [] as number[] });
  }
  for (let round = 0; round < extent.rounds; round++) {
    progress("Timing", `round ${round + 1} of ${extent.rounds}`);
    for (const { entry, times, samples } of inTurn(timed, round)) {
      samples.push(await measure(entry, times));
    }
  }
  return timed.map(({ entry: { helper: _, ...entry }, samples }) => ({ ...entry, samples }));
}

await runBenchmark({
  help: HELP,
  bench,
  text,
  home: import.meta.dirname,
  files: (result) => ({ "results.md": markdown(result) }),
});
