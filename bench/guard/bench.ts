/** `npm run bench:guard`: runs the guard and other proxies between a client and a server in C. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { inTurn, type Options, progress, run, runBenchmark, setting } from "../benchmark.ts";
import { type Contender, CONTENDERS } from "./contenders.ts";
import { NoResult, runRounds } from "../rounds.ts";
import { markdown, text } from "./report.ts";
import {
  isConnectionError,
  type Load,
  LOADS,
  type Result,
  type Row,
  rowsOf,
  type Sample,
} from "./result.ts";

const HELP = `Usage: npm run bench:guard -- [options]

Compares ucred guard on Deno, Bun and Node with a direct connection, and with socat,
systemd-socket-proxyd and HAProxy, if they are installed: bytes, lines, requests and new connections
per second, latency, and CPU time, and in front of a Docker engine. Needs Linux and cc. Takes about
ten minutes.

  --quick  few and short rounds, for a first impression
  --json   print the result as JSON, with all rounds (npm run --silent bench:guard -- --json)
  --save   also write bench/guard/results.md
  --to X   with --save: write to the folder X instead
  --help   print this help

The exit code is 1 if a byte or an answer is wrong.
`;

const children = new Set<ChildProcess>();

async function bench(options: Options, folder: string): Promise<Result> {
  process.once("exit", () => children.forEach((child) => child.kill("SIGKILL")));
  const programs = await compile(folder);
  const versions: { [name: string]: string } = {};
  const absent: { contender: string; why: string }[] = [];
  for (const { name, version } of CONTENDERS) {
    try {
      versions[name] = await version();
    } catch (error) {
      absent.push({ contender: name, why: (error as Error).message });
    }
  }
  const present = CONTENDERS.filter(({ name }) => name in versions);
  const [rounds, seconds, mebibytes] = options.quick ? [2, 0.2, 16] : [9, 0.5, 1024];
  const described = setting("bench:guard", options);
  const rows: Row[] = [];
  const skipped: string[] = [];
  for (const load of LOADS) {
    progress(load.name);
    const found = await compare(load, present, { folder, programs, rounds, seconds, mebibytes });
    rows.push(...found.rows);
    skipped.push(...found.skipped);
  }
  return { ...described, versions, absent, rounds, seconds, rows, skipped };
}

interface Programs {
  readonly docker: string;
  readonly ends: string;
  readonly load: string;
}

async function compile(folder: string): Promise<Programs> {
  const build = async (name: string, source: string) => {
    const program = join(folder, name);
    await run(
      "cc",
      "-O2",
      "-pthread",
      "-o",
      program,
      fileURLToPath(new URL(source, import.meta.url)),
    );
    return program;
  };
  return {
    docker: await build("docker", "docker.c"),
    ends: await build("ends", "ends.c"),
    load: await build("load", "../servers/load.c"),
  };
}

interface Run {
  readonly folder: string;
  readonly programs: Programs;
  readonly rounds: number;
  readonly seconds: number;
  /** The size of an archive. */
  readonly mebibytes: number;
}

interface Side {
  readonly contender: string;
  readonly isOurs: boolean;
  readonly path: string;
  /** The proxy; `undefined` without one. */
  readonly child?: ChildProcess;
  readonly samples: Sample[];
}

/** Measures all contenders under one load, in turn, round by round. */
async function compare(
  load: Load,
  contenders: readonly Contender[],
  { folder, programs, rounds, seconds, mebibytes }: Run,
): Promise<{ readonly rows: readonly Row[]; readonly skipped: readonly string[] }> {
  const own = mkdtempSync(join(folder, "load-"));
  const upstream = join(own, "upstream");
  const server = load.mode === "docker" ? programs.docker : programs.ends;
  const started = [await start([server, load.serves, upstream], upstream)];
  const sides: Side[] = [{ contender: "no guard", isOurs: false, path: upstream, samples: [] }];
  for (const [at, { name, isOurs, modes, command }] of contenders.entries()) {
    if (!modes.includes(load.mode)) continue;
    const path = join(own, `${at}`);
    mkdirSync(`${path}.d`, { mode: 0o755 });
    const options = { mode: load.mode, listen: path, upstream, folder: `${path}.d` };
    const child = await start(command(options), path);
    started.push(child);
    sides.push({ contender: name, isOurs, path, child, samples: [] });
  }
  const answers = new Set<string>();
  const take = async (side: Side, length: number): Promise<Sample> => {
    const { answer, ...sample } = await measure(programs, load, side, length, mebibytes);
    answers.add(answer);
    return sample;
  };
  for (const side of sides) { // compilers optimize in this time
    await runRounds(1, () => take(side, 4 * seconds));
  }
  const { results, skipped } = await runRounds(rounds, async (round) => {
    const found = [];
    for (const side of inTurn(sides, round)) {
      found.push({ side, sample: await take(side, seconds) });
    }
    return found;
  });
  for (const { side, sample } of results.flat()) side.samples.push(sample);
  if (answers.size !== 1) throw new Error(`${load.name}: answers differ: ${[...answers]}`);
  await Promise.all(started.map(end));
  return { rows: rowsOf(load, sides), skipped };
}

async function measure(
  { docker, ends, load: loader }: Programs,
  { name, client, connections, mode }: Load,
  { contender, isOurs, path, child: proxy }: Side,
  length: number,
  mebibytes: number,
): Promise<Sample & { readonly answer: string }> {
  const before = cpuTime(proxy);
  const idle = client === "copy" ? memoryOf(proxy, "VmRSS") : 0;
  if (client === "copy" && proxy !== undefined) writeFileSync(`/proc/${proxy.pid}/clear_refs`, "5"); // resets VmHWM
  const child = mode === "docker"
    ? spawn(docker, [client, path, client === "copy" ? `${mebibytes}` : `${length}`])
    : client === "move"
    ? spawn(ends, [client, path, `${length}`])
    : spawn(loader, [client, path, `${connections}`, `${length}`]);
  children.add(child);
  let output = "", errors = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => output += text);
  child.stderr.setEncoding("utf8").on("data", (text: string) => errors += text);
  const [code] = await once(child, "close");
  children.delete(child);
  if (code !== 0) {
    const why = `${name}, ${contender}: ${errors.trim()}`;
    // A wrong answer is always an error. A closed connection of another program is only reported.
    const isForeign = !isOurs && proxy !== undefined;
    throw isForeign && isConnectionError(errors) ? new NoResult(why) : new Error(why);
  }
  const { answers, seconds, p50, p99, answer } = JSON.parse(output);
  if (!(answers > 0)) throw new NoResult(`${name}, ${contender}: no answer`);
  const cpu = (cpuTime(proxy) - before) / answers;
  const memory = client === "copy" ? memoryOf(proxy, "VmHWM") - idle : undefined;
  return { perSecond: answers / seconds, p50, p99, cpu, memory, answer };
}

/** Memory of a process in MiB, from proc(5). */
function memoryOf(child: ChildProcess | undefined, field: "VmRSS" | "VmHWM"): number {
  if (child === undefined) return 0;
  const status = readFileSync(`/proc/${child.pid}/status`, "utf8");
  return Number(new RegExp(`^${field}:\\s*(\\d+) kB`, "m").exec(status)?.[1]) / 1024;
}

/** The CPU time of a process and its children in µs, with a resolution of 10 ms: proc(5). */
function cpuTime(child: ChildProcess | undefined): number {
  if (child === undefined) return 0;
  let ticks = 0;
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ").map(Number); // from the third field on
      // The process leads its group. The fields are utime and stime, of it and of its ended children.
      if (fields[2] === child.pid) { for (const at of [11, 12, 13, 14]) ticks += fields[at]!; }
    } catch {
      // the process has ended
    }
  }
  return ticks * 10_000;
}

/** Starts a program, and waits until it listens. */
async function start([program, ...args]: readonly string[], path: string): Promise<ChildProcess> {
  const child = spawn(program!, args, { stdio: ["ignore", "ignore", "pipe"], detached: true });
  children.add(child);
  let errors = "";
  child.stderr.setEncoding("utf8").on(
    "data",
    (text: string) => errors = (errors + text).slice(-999),
  );
  child.on("error", (error) => errors += error.message);
  const end = performance.now() + 20_000;
  while (!await answers(path)) {
    if (child.exitCode !== null || performance.now() > end) {
      throw new Error(`${program} does not listen: ${errors.trim()}`);
    }
    await sleep(20);
  }
  return child;
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
    socket.once("connect", () => socket.destroy());
  });
}

/** Kills a process and its children. */
async function end(child: ChildProcess): Promise<void> {
  const closed = once(child, "exit");
  process.kill(-child.pid!, "SIGKILL");
  await closed;
  children.delete(child);
}

await runBenchmark({
  help: HELP,
  bench,
  text,
  home: import.meta.dirname,
  files: (result) => ({ "results.md": markdown(result) }),
});
