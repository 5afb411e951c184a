/** What conductors of benchmarks share: options, the machine, progress, processes that are told what to time. */

import { type ChildProcess, execFile, spawn, type StdioOptions } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { constants, cpus, loadavg, machine, release, tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import process from "node:process";
import { clearLine, createInterface, cursorTo } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";

/** What every benchmark can be told. */
export interface Options {
  readonly quick: boolean;
  readonly json: boolean;
  readonly save: boolean;
}

/** What a benchmark does, and how it tells what it found. */
export interface Benchmark<R> {
  /** What `--help` prints. */
  readonly help: string;
  /** Finds a result; `folder` is empty, and removed at the end. */
  bench(options: Options, folder: string): Promise<R>;
  /** For the terminal. */
  text(result: R): string;
  /** Writes it to files, for `--save`. */
  save(result: R): void | Promise<void>;
  /** Whether something is wrong with it all the same. */
  isBad?(result: R): boolean;
}

/**
 * The whole of a benchmark: reads the options, finds a result, and prints it. Whatever ends it, no
 * process and no file is left. Exits with 1 if it fails, and with 2 if an option is wrong.
 */
export async function conduct<R>(benchmark: Benchmark<R>): Promise<never> {
  const flag = { type: "boolean", default: false } as const;
  const options = { quick: flag, json: flag, save: flag, help: { ...flag, short: "h" } } as const;
  try {
    const { help, ...values } = parseArgs({ options }).values;
    if (help) {
      process.stdout.write(benchmark.help);
      process.exit();
    }
    const folder = mkdtempSync(join(tmpdir(), "ucred-bench-"));
    process.once("exit", () => {
      ending.abort(new Error("The benchmark ends"));
      rmSync(folder, { recursive: true, force: true, maxRetries: 5 }); // a compiler may still write
    });
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
      process.once(signal, () => process.exit(128 + constants.signals[signal]));
    }
    const result = await benchmark.bench(values, folder);
    progress();
    if (values.save) await benchmark.save(result);
    const output = values.json ? `${JSON.stringify(result, null, 2)}\n` : benchmark.text(result);
    await new Promise((resolve) => process.stdout.write(output, resolve));
    process.exit(benchmark.isBad?.(result) ? 1 : 0); // contenders may still run
  } catch (error) {
    progress();
    const { message, code } = error as NodeJS.ErrnoException;
    console.error(message);
    const isWrong = code?.startsWith("ERR_PARSE_ARGS_") === true;
    if (isWrong) process.stderr.write(benchmark.help);
    process.exit(isWrong ? 2 : 1);
  }
}

/** Where and how a result was found. */
export interface Setting {
  /** The command that makes such a result. */
  readonly command: string;
  readonly date: string;
  readonly machine: {
    readonly cpu: string;
    readonly cores: number;
    readonly kernel: string;
    readonly architecture: string;
    /** Load average over a minute, before the first round; the run itself adds one. */
    readonly load: number;
  };
}

/** The setting of a run that begins now. */
export function setting(script: string, { quick, save }: Options): Setting {
  const flags = [quick ? "--quick" : [], save ? "--save" : []].flat();
  return {
    command: [`npm run ${script}`, ...(flags.length > 0 ? ["--"] : []), ...flags].join(" "),
    date: new Date().toISOString().slice(0, 10),
    machine: {
      cpu: cpus()[0]?.model ?? "unknown CPU",
      cores: cpus().length,
      kernel: /^[\d.]+/.exec(release())?.[0] ?? release(), // what follows names who built it
      architecture: machine(),
      load: loadavg()[0]!,
    },
  };
}

let phase: string | undefined;

/** Shows what is going on, on standard error; where that is no terminal, only each new phase. */
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

/** All of them, beginning with another one each round: nobody is always the first after a pause. */
export function inTurn<T>(all: readonly T[], round: number): readonly T[] {
  const next = round % all.length;
  return [...all.slice(next), ...all.slice(0, next)];
}

/** How to start a program, and which version it is. */
export interface Prepared {
  readonly version: string;
  readonly command: readonly [program: string, ...args: string[]];
}

/** How to run a file on each runtime. */
export const RUNTIMES = {
  // Asked where it is, since on the PATH there may be a script that does not pass descriptors on.
  async Deno(file: string): Promise<Prepared> {
    const ask = "console.log(Deno.version.deno + ' ' + Deno.execPath())";
    const [version, program] = split(await run("deno", "eval", ask));
    return { version, command: [program, "run", "--allow-all", file] };
  },
  async Bun(file: string): Promise<Prepared> {
    const ask = "process.versions.bun + ' ' + process.execPath";
    const [version, program] = split(await run("bun", "--print", ask));
    return { version, command: [program, file] };
  },
  Node: (file: string): Promise<Prepared> =>
    Promise.resolve({
      version: process.versions.node,
      command: [process.execPath, "--disable-warning=ExperimentalWarning", file],
    }),
} as const;
export type Runtime = keyof typeof RUNTIMES;

/** "word rest" → both. */
export function split(answer: string): [first: string, rest: string] {
  const at = answer.indexOf(" ");
  return [answer.slice(0, at), answer.slice(at + 1)];
}

/** Ends every process that this file starts. */
export const ending = new AbortController();

/** Deno and Bun are those of the lock file, also when this is not started by npm. */
function environment(): NodeJS.ProcessEnv {
  const binaries = fileURLToPath(new URL("../node_modules/.bin", import.meta.url));
  return { ...process.env, PATH: [binaries, process.env["PATH"]].join(delimiter) };
}

/** Runs a command; the first line that it prints. */
export async function run(command: string, ...args: string[]): Promise<string> {
  try {
    const options = { signal: ending.signal, env: environment() };
    const { stdout } = await promisify(execFile)(command, args, options);
    return stdout.split("\n")[0]!.trim();
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    if ("code" in error && error.code === "ENOENT") throw new Error(`${command} is not installed`);
    const said = "stderr" in error ? String(error.stderr).trim().split("\n")[0] : "";
    const why = (said || error.message).replaceAll(/\S*\//g, ""); // results name no folders
    throw new Error(`${command} failed: ${why}`);
  }
}

/** A process that answers each line with a line. */
export class Helper {
  readonly #name: string;
  readonly #process: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #closed: Promise<void>;
  #errors = "";

  /** Starts it, with `others` as descriptors from 3 on. */
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
    this.#process.stdin!.on("error", () => {}); // it ended early: the next line that is read tells
    this.#process.stderr!.setEncoding("utf8").on("data", (text: string) => this.#errors += text);
    this.#lines = createInterface({ input: this.#process.stdout! })[Symbol.asyncIterator]();
  }

  ask(line: string): Promise<string> {
    this.#process.stdin!.write(`${line}\n`);
    return this.line();
  }

  /** The next line that it says. */
  async line(): Promise<string> {
    const { value, done } = await this.#lines.next();
    if (!done) return value;
    await this.#closed; // by then it has said why
    throw new Error(`${this.#name} ended: ${this.#errors.trim() || "in silence"}`);
  }

  /** Ends its input, upon which it ends. */
  end(): Promise<void> {
    this.#process.stdin!.end();
    return this.#closed;
  }
}
