/** `npm run bench:scale`: measures what grows with connections, users, rules, groups and containers. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { connect } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { createClient } from "../../client/mod.ts";
import { peerCredentials } from "../../mod.ts";
import {
  type Absent,
  ending,
  Helper,
  inTurn,
  type Options,
  prepareRuntimes,
  progress,
  run,
  runBenchmark,
  type Runtime,
  RUNTIMES,
  setting,
} from "../benchmark.ts";
import { NoResult, runRounds } from "../rounds.ts";
import { markdown, text } from "./report.ts";
import { AXES, type Axis, type Fact, type Result, rowsOf, type Samples } from "./result.ts";
import type { Task } from "./subject.ts";

const HELP = `Usage: npm run bench:scale -- [options]

Measures on Deno, Bun and Node what grows with the number of open connections (10 to 10,000), users,
rules of a policy (10 to 10,000), groups of a peer (0 to 65,536), and containers of an engine. Needs
Linux and cc, root for the users and groups, and 11,000 descriptors for the connections. Takes about
four minutes.

  --quick  few and short rounds and small numbers, for a first impression
  --json   print the result as JSON, with all rounds (npm run --silent bench:scale -- --json)
  --save   also write bench/scale/results.md and results.svg
  --to X   with --save: write to the folder X instead
  --help   print this help

The exit code is 1 if an answer is wrong.
`;

/** The size of a run. */
interface Extent {
  readonly rounds: number;
  /** Rounds before, in which compilers optimize. */
  readonly warmUps: number;
  /** Duration of a round with new connections. */
  readonly seconds: number;
  /** CPU time of a round in a process, in ns. */
  readonly roundNs: number;
  /** Lists of containers in a round. */
  readonly lists: number;
  /** The values of an axis that are measured. */
  readonly values: number;
}

const FULL: Extent = { rounds: 9, warmUps: 3, seconds: 0.25, roundNs: 40e6, lists: 20, values: 9 };
const QUICK: Extent = { rounds: 2, warmUps: 1, seconds: 0.05, roundNs: 5e6, lists: 3, values: 2 };

/** New connections at once. */
const AT_ONCE = 8;
/** Connections that are open while users are counted. */
const OPEN = 1000;
/** Descriptors of a server beside its connections. */
const SPARE_DESCRIPTORS = 500;

const file = (name: string) => fileURLToPath(new URL(name, import.meta.url));

/** One thing that is measured, round by round. */
interface Entry extends Omit<Samples, "samples"> {
  /** Returns one sample. */
  readonly measure: () => Promise<number>;
}

/** The parts that {@link PREPARE} needs on one runtime. */
interface Bench {
  readonly runtime: Runtime;
  readonly folder: string;
  readonly extent: Extent;
  readonly server: readonly [string, ...string[]];
  readonly subject: Helper;
  /** Ends what was started. */
  readonly endings: (() => unknown)[];
}

async function bench(options: Options, folder: string): Promise<Result> {
  const extent = options.quick ? QUICK : FULL;
  const before = setting("bench:scale", options);
  progress("Building");
  chmodSync(folder, 0o755); // the users connect in it
  await run("cc", "-O2", "-o", join(folder, "load"), file("../servers/load.c"));
  await run("cc", "-O2", "-o", join(folder, "crowd"), file("crowd.c"));
  const versions: string[] = [];
  const samples: Samples[] = [];
  const facts: Fact[] = [];
  const { prepared, absent } = await prepareRuntimes(file("subject.ts"));
  absent.push(...absentAxes());
  const axes = AXES.filter(({ title }) => !absent.some(({ what }) => what === title));
  for (const [runtime, subject] of prepared) {
    const endings: (() => unknown)[] = [];
    const server = await RUNTIMES[runtime](file("../servers/server.ts"));
    versions.push(`${runtime} ${subject.version}`);
    const helper = new Helper(`the subject on ${runtime}`, subject.command);
    endings.push(() => helper.end());
    const on: Bench = {
      ...{ runtime, folder, extent, endings, server: server.command, subject: helper },
    };
    for (const axis of axes) {
      progress(`${runtime}, ${axis.title.toLowerCase()}`);
      const values = axis.values.slice(0, extent.values);
      const prepared = await PREPARE[axis.name](on, axis, values);
      facts.push(...prepared.facts.map((fact) => ({ runtime, ...fact })));
      samples.push(...await time(prepared.entries, extent));
    }
    for (const end of endings.reverse()) await end();
  }
  const { rounds } = extent;
  return { ...before, rounds, versions, rows: rowsOf(samples), facts, absent };
}

/** The axes that cannot be measured here. */
function absentAxes(): Absent[] {
  const isRoot = process.getuid?.() === 0;
  const limit = Number(
    /^Max open files +(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1],
  );
  const needed = Math.max(...AXES[0]!.values) + SPARE_DESCRIPTORS;
  return AXES.flatMap(({ name, title, needsRoot = false }) => {
    if (needsRoot && !isRoot) return [{ what: title, why: "needs root" }];
    if (name !== "connections" || limit >= needed) return [];
    return [{ what: title, why: `the limit on open files is ${limit}, and ${needed} are needed` }];
  });
}

/** Measures all entries in turn, round by round. */
async function time(
  entries: readonly Entry[],
  { rounds, warmUps }: Extent,
): Promise<readonly Samples[]> {
  for (const { measure } of entries) await runRounds(warmUps, measure);
  const { results } = await runRounds(rounds, async (round) => {
    const found = new Map<Entry, number>();
    for (const entry of inTurn(entries, round)) found.set(entry, await entry.measure());
    return found;
  });
  return entries.map((entry) => {
    const { measure: _, ...described } = entry;
    return { ...described, samples: results.map((round) => round.get(entry)!) };
  });
}

type Prepare = (on: Bench, axis: Axis, values: readonly number[]) => Promise<{
  readonly entries: readonly Entry[];
  readonly facts: readonly Omit<Fact, "runtime">[];
}>;

const PREPARE: { readonly [name in Axis["name"]]: Prepare } = {
  async connections(on, axis, values) {
    const entries: Entry[] = [];
    const memory = new Map<string, number>();
    for (const isBaseline of [true, false]) {
      for (const value of values) {
        const kind = isBaseline ? "net" : "ucred/net";
        const server = await startServer(on, kind, value, 0);
        memory.set(`${isBaseline} ${value}`, server.kibibytes);
        entries.push(entryOf(on, axis, value, isBaseline, server.measure));
      }
    }
    const [least, most] = [values[0]!, values.at(-1)!];
    const each = (isBaseline: boolean) => {
      const [before = 0, after = 0] = [least, most].map((at) => memory.get(`${isBaseline} ${at}`));
      return ((after - before) / (most - least)).toFixed(1);
    };
    const value = `${each(false)} KiB; without ucred ${each(true)} KiB`;
    return {
      entries,
      facts: [{ what: "resident memory of a server for an open connection", value }],
    };
  },
  async users(on, axis, values) {
    const entries: Entry[] = [];
    for (const value of values) {
      const { measure } = await startServer(on, "ucred/net", OPEN, value);
      entries.push(entryOf(on, axis, value, false, measure));
    }
    return { entries, facts: [] };
  },
  async rules(on, axis, values) {
    const facts: Omit<Fact, "runtime">[] = [];
    const entries: Entry[] = [];
    for (const value of values) {
      const ms = await ask<number>(on.subject, { load: value });
      facts.push({
        what: `CPU time for reading a policy of ${value.toLocaleString("en")} rules, once`,
        value: `${ms.toFixed(1)} ms`,
      });
      const measure = await repeated(on, (times) => ({ decide: value, times }), 1);
      entries.push(entryOf(on, axis, value, false, measure));
    }
    return { entries, facts };
  },
  async groups(on, axis, values) {
    const entries: Entry[] = [];
    for (const value of values) {
      const path = join(on.folder, `${on.runtime}-groups-${value}`);
      const task: Task = { accept: path, groups: value };
      if (await ask(on.subject, task) !== "listening") throw new Error("it does not listen");
      const crowd = await startCrowd(on, path, 1, 0, value);
      if (JSON.parse(await on.subject.line()) !== "accepted") {
        throw new Error("it has not accepted");
      }
      on.endings.push(() => end(crowd));
      const measure = await repeated(on, (times) => ({ identify: value, times }), 1000);
      entries.push(entryOf(on, axis, value, false, measure));
    }
    return { entries, facts: [] };
  },
  async containers(on, axis, values) {
    const entries: Entry[] = [];
    for (const value of values) {
      const [upstream, path] = ["engine", "guard"].map((name) =>
        join(on.folder, `${on.runtime}-${name}-${value}`)
      ) as [string, string];
      on.endings.push(await startEngine(upstream, value));
      if (await ask(on.subject, { guard: path, upstream }) !== "listening") {
        throw new Error("it does not listen");
      }
      const client = createClient({ path, expect: { uid: process.getuid!() } });
      on.endings.push(() => client.close());
      const list = async () => {
        const response = await client.fetch("http://docker/containers/json");
        const found = await response.json() as readonly { readonly Names: readonly string[] }[];
        const isRight = found.length === Math.ceil(value / 2) &&
          found.every(({ Names }) => Names[0]!.startsWith("/own-"));
        if (!isRight) {
          throw new Error(`${on.runtime}: a list of ${found.length} of ${value} containers`);
        }
      };
      const measure = async () => {
        const before = await ask<number>(on.subject, "cpu");
        for (let at = 0; at < on.extent.lists; at++) await list();
        return (await ask<number>(on.subject, "cpu") - before) / on.extent.lists;
      };
      entries.push(entryOf(on, axis, value, false, measure));
    }
    return { entries, facts: [] };
  },
};

const entryOf = (
  { runtime }: Bench,
  { name: axis }: Axis,
  value: number,
  isBaseline: boolean,
  measure: Entry["measure"],
): Entry => ({ axis, runtime, isBaseline, value, measure });

async function ask<T>(subject: Helper, task: Task): Promise<T> {
  return JSON.parse(await subject.request(JSON.stringify(task))) as T;
}

/** Returns a measurement that repeats a task for about the time of a round. */
async function repeated(
  { subject, extent }: Bench,
  task: (times: number) => Task,
  nsPerUnit: number,
): Promise<() => Promise<number>> {
  let times = 1;
  for (let spent = 0; spent < extent.roundNs;) {
    const took = await ask<number>(subject, task(times)) * nsPerUnit;
    spent = took * times;
    // With few repetitions the clock may not advance.
    times = Math.ceil(Math.min(16 * times, took > 0 ? extent.roundNs / took : Infinity));
  }
  return () => ask<number>(subject, task(times));
}

/** Starts a server and opens connections to it. */
async function startServer(on: Bench, kind: string, open: number, users: number) {
  const { runtime, folder, extent } = on;
  const path = join(folder, `${runtime}-${kind.replace("/", "-")}-${open}-${users}`);
  const server = new Helper(`${kind} on ${runtime}`, [...on.server, kind, path]);
  if (await server.line() !== "ready") throw new Error(`${kind} on ${runtime} does not listen`);
  on.endings.push(() => server.end());
  chmodSync(path, 0o666);
  const crowd = await startCrowd(on, path, open, users, 0);
  on.endings.push(() => end(crowd));
  const cpu = async () => Number(await server.request(""));
  const measure = async () => {
    const before = await cpu();
    const args = ["hello", path, `${AT_ONCE}`, `${extent.seconds}`, "awake"];
    const { answers, answer } = JSON.parse(await run(join(folder, "load"), ...args));
    // On a busy machine a server may not be scheduled within a round.
    if (answers === 0) throw new NoResult(`${kind} on ${runtime} gave no answer`);
    if (answer !== "welcome") throw new Error(`${kind} on ${runtime} answered ${answer}`);
    return (await cpu() - before) / answers;
  };
  return { measure, kibibytes: residentOf(await pidAt(path)) };
}

/** The process that listens at a path. */
async function pidAt(path: string): Promise<number> {
  const socket = connect(path);
  await once(socket, "connect");
  const { pid } = peerCredentials(socket);
  socket.destroy();
  if (pid === undefined) throw new Error("the pid of a server is unknown");
  return pid;
}

function residentOf(pid: number): number {
  return Number(/^VmRSS:\s*(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);
}

/** Starts a process with open connections, and waits until all are open. */
async function startCrowd(
  { folder }: Bench,
  path: string,
  connections: number,
  users: number,
  groups: number,
): Promise<ChildProcess> {
  const args = [path, connections, users, groups].map(String);
  const child = spawn(join(folder, "crowd"), args, {
    stdio: ["pipe", "pipe", "pipe"],
    signal: ending.signal,
  });
  child.on("error", () => {}); // aborted
  let errors = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => errors += text);
  for await (const line of createInterface({ input: child.stdout })) {
    if (line === "ready") return child;
  }
  throw new Error(`The connections cannot be opened: ${errors.trim()}`);
}

async function end(child: ChildProcess): Promise<void> {
  const closed = once(child, "exit");
  child.stdin!.end();
  await closed;
}

/** Starts an engine with containers. Every second one, from the first on, is the client's. */
async function startEngine(path: string, count: number): Promise<() => void> {
  const list = Array.from({ length: count }, (_, at) => ({
    Id: at.toString(16).padStart(64, "0"),
    Names: [`/${at % 2 === 0 ? "own" : "other"}-${at}`],
    Image: "alpine",
    ImageID: `sha256:${"0".repeat(64)}`,
    Labels: {},
    State: "running",
    Status: "Up 2 hours",
  }));
  const body = JSON.stringify(list);
  const server = createServer((_, response) => {
    response.writeHead(200, { "content-type": "application/json" }).end(body);
  });
  server.listen(path);
  await once(server, "listening");
  return () => {
    server.close();
    server.closeAllConnections();
  };
}

await runBenchmark({
  help: HELP,
  bench,
  text,
  home: import.meta.dirname,
  async files(result) {
    const { chart } = await import("./chart.ts"); // imports a large package
    return { "results.svg": chart(result), "results.md": markdown(result) };
  },
});
