/** Shared by all benchmarks: options, the description of the machine, progress, runtimes, child processes. */

import { type ChildProcess, execFile, spawn, type StdioOptions } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { constants, cpus, loadavg, machine, release, tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import process from "node:process";
import { clearLine, createInterface, cursorTo } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";

/** The options of every benchmark. */
export interface Options {
  readonly quick: boolean;
  readonly json: boolean;
  readonly save: boolean;
}

/** The files of a result: name → content. */
export interface Files {
  readonly [name: string]: string;
}

/** One benchmark. */
export interface Benchmark<R> {
  /** The output of `--help`. */
  readonly help: string;
  /** Measures. `folder` is empty, and removed at the end. */
  bench(options: Options, folder: string): Promise<R>;
  /** Formats the result for the terminal. */
  text(result: R): string;
  /** Where `--save` writes the files, unless `--to` names another folder. */
  readonly home: string;
  /** Formats the files of the result. */
  files(result: R): Files | Promise<Files>;
  /** Whether the benchmark exits with 1 although it has a result, which is then not saved. */
  isBad?(result: R): boolean;
}

/**
 * Parses the options, runs the benchmark, and prints the result. Ends all its processes and removes
 * its files, also upon a signal. Exits with 1 if the benchmark fails, and with 2 if an option is wrong.
 */
export async function runBenchmark<R>(benchmark: Benchmark<R>): Promise<never> {
  const flag = { type: "boolean", default: false } as const;
  const options = {
    ...{ quick: flag, json: flag, save: flag, help: { ...flag, short: "h" } },
    to: { type: "string" },
  } as const;
  try {
    const { help, to = benchmark.home, ...values } = parseArgs({ options }).values;
    if (help) {
      process.stdout.write(benchmark.help);
      process.exit();
    }
    const folder = mkdtempSync(join(tmpdir(), "ucred-bench-"));
    process.once("exit", () => {
      ending.abort(new Error("The benchmark ends"));
      rmSync(folder, { recursive: true, force: true, maxRetries: 5 }); // a compiler may still write files
    });
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
      process.once(signal, () => process.exit(128 + constants.signals[signal]));
    }
    const result = await benchmark.bench(values, folder);
    progress();
    const isBad = benchmark.isBad?.(result) === true;
    if (values.save && !isBad) {
      const files = Object.entries(await benchmark.files(result));
      for (const [name, content] of files) writeFileSync(join(to, name), content);
    }
    const output = values.json ? `${JSON.stringify(result, null, 2)}\n` : benchmark.text(result);
    await new Promise((resolve) => process.stdout.write(output, resolve));
    process.exit(isBad ? 1 : 0); // contenders may still run
  } catch (error) {
    progress();
    const { message, code } = error as NodeJS.ErrnoException;
    console.error(message);
    const isWrong = code?.startsWith("ERR_PARSE_ARGS_") === true;
    if (isWrong) process.stderr.write(benchmark.help);
    process.exit(isWrong ? 2 : 1);
  }
}

/** The command, date and machine of a run. */
export interface Setting {
  /** The command that repeats the run. */
  readonly command: string;
  readonly date: string;
  readonly machine: {
    readonly cpu: string;
    readonly cores: number;
    readonly kernel: string;
    readonly architecture: string;
    /** Load average of one minute, before the first round. The run itself adds 1. */
    readonly load: number;
  };
}

/** The setting of a run that starts now. */
export function setting(script: string, { quick, save }: Options): Setting {
  const flags = [quick ? "--quick" : [], save ? "--save" : []].flat();
  return {
    command: [`npm run ${script}`, ...(flags.length > 0 ? ["--"] : []), ...flags].join(" "),
    date: new Date().toISOString().slice(0, 10),
    machine: {
      cpu: cpus()[0]?.model ?? "unknown CPU",
      cores: cpus().length,
      kernel: /^[\d.]+/.exec(release())?.[0] ?? release(), // without the name of the build
      architecture: machine(),
      load: loadavg()[0]!,
    },
  };
}

let phase: string | undefined;

/** Prints the current phase on stderr: on a terminal with details, elsewhere once per phase. */
export function progress(now?: string, detail = ""): void {
  if (process.stderr.isTTY) {
    cursorTo(process.stderr, 0);
    clearLine(process.stderr, 0);
    if (now !== undefined) process.stderr.write(`${now} ${detail}`);
  } else if (now !== undefined && now !== phase) {
    process.stderr.write(`${now}\n`);
  }
  phase = now;
}

/** Rotates a list by the round, so that each contender is first in some rounds. */
export function inTurn<T>(all: readonly T[], round: number): readonly T[] {
  const next = round % all.length;
  return [...all.slice(next), ...all.slice(0, next)];
}

/** A program's version, and the command that starts it. */
export interface Prepared {
  readonly version: string;
  readonly command: readonly [program: string, ...args: string[]];
}

/** Functions that return the command to run a file on each runtime. */
export const RUNTIMES = {
  // The runtime reports its own path: on PATH may be a script that does not pass on descriptors.
  async Deno(file: string): Promise<Prepared> {
    const code = "console.log(Deno.version.deno + ' ' + Deno.execPath())";
    const [version, program] = split(await run("deno", "eval", code));
    return { version, command: [program, "run", "--allow-all", file] };
  },
  async Bun(file: string): Promise<Prepared> {
    const code = "process.versions.bun + ' ' + process.execPath";
    const [version, program] = split(await run("bun", "--print", code));
    return { version, command: [program, file] };
  },
  Node: (file: string): Promise<Prepared> =>
    Promise.resolve({
      version: process.versions.node,
      command: [process.execPath, "--disable-warning=ExperimentalWarning", file],
    }),
} as const;
export type Runtime = keyof typeof RUNTIMES;

/** A program that is missing, or that cannot run. */
export interface Absent {
  /** The rows that are missing. */
  readonly what: string;
  readonly why: string;
}

/** The line about missing rows in a result. */
export const absentLines = (all: readonly Absent[]): readonly string[] =>
  all.map(({ what, why }) => `Not measured: ${what}: ${why}`);

/**
 * Prepares a file for each runtime.
 *
 * @param runtimes Functions that return the command; the functions of {@link RUNTIMES} in a benchmark.
 * @throws {Error} If no runtime can run.
 */
export async function prepareRuntimes(
  file: string,
  runtimes: { readonly [name in Runtime]: (file: string) => Promise<Prepared> } = RUNTIMES,
): Promise<{ readonly prepared: ReadonlyMap<Runtime, Prepared>; readonly absent: Absent[] }> {
  const prepared = new Map<Runtime, Prepared>();
  const absent: Absent[] = [];
  for (const runtime of Object.keys(runtimes) as Runtime[]) {
    try {
      prepared.set(runtime, await runtimes[runtime](file));
    } catch (error) {
      absent.push({ what: runtime, why: (error as Error).message });
    }
  }
  if (prepared.size === 0) throw new Error(absent.map(({ why }) => why).join("; "));
  return { prepared, absent };
}

/** Splits a text at its first space. */
export function split(text: string): [first: string, rest: string] {
  const at = text.indexOf(" ");
  return [text.slice(0, at), text.slice(at + 1)];
}

/** Ends every process that this file has started. */
export const ending = new AbortController();

/** An environment with the pinned versions of Deno and Bun, also if the benchmark was not started by npm. */
function environment(): NodeJS.ProcessEnv {
  const binaries = fileURLToPath(new URL("../node_modules/.bin", import.meta.url));
  return { ...process.env, PATH: [binaries, process.env["PATH"]].join(delimiter) };
}

/** Runs a command, and returns the first line of its output. */
export async function run(command: string, ...args: string[]): Promise<string> {
  try {
    const options = { signal: ending.signal, env: environment() };
    const { stdout } = await promisify(execFile)(command, args, options);
    return stdout.split("\n")[0]!.trim();
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    if ("code" in error && error.code === "ENOENT") throw new Error(`${command} is not installed`);
    const line = "stderr" in error ? String(error.stderr).trim().split("\n")[0] : "";
    const why = (line || error.message).replaceAll(/\S*\//g, ""); // without the folders of this machine
    throw new Error(`${command} failed: ${why}`);
  }
}

/** A child process that answers each line of input with a line of output. */
export class Helper {
  readonly #name: string;
  readonly #process: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #closed: Promise<void>;
  #errors = "";

  /** @param others The descriptors from 3 on. */
  constructor(
    name: string,
    [program, ...args]: readonly [program: string, ...args: string[]],
    others: readonly Exclude<StdioOptions, string>[number][] = [],
  ) {
    this.#name = name;
    this.#process = spawn(program, args, {
      stdio: ["pipe", "pipe", "pipe", ...others],
      signal: ending.signal,
      env: environment(),
    });
    this.#closed = new Promise((resolve) => this.#process.once("close", () => resolve()));
    this.#process.on("error", (error) => this.#errors ||= error.message);
    this.#process.stdin!.on("error", () => {}); // it has ended: line() reports that
    this.#process.stderr!.setEncoding("utf8").on("data", (text: string) => this.#errors += text);
    this.#lines = createInterface({ input: this.#process.stdout! })[Symbol.asyncIterator]();
  }

  /** Sends a line, and returns the answer. */
  request(line: string): Promise<string> {
    this.#process.stdin!.write(`${line}\n`);
    return this.line();
  }

  /** Returns the next line of output. */
  async line(): Promise<string> {
    const { value, done } = await this.#lines.next();
    if (!done) return value;
    await this.#closed; // then all of stderr has been read
    throw new Error(`${this.#name} ended: ${this.#errors.trim() || "without a message"}`);
  }

  /** Closes its stdin, which ends it, and waits for the end. */
  end(): Promise<void> {
    this.#process.stdin!.end();
    return this.#closed;
  }
}
