/** Runs the command: with pipes, on a terminal (tmux), and as other users. */

import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { chmodSync, writeFileSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { freshPath } from "./peers.ts";
import { commandFile, compileCache, temporaryFolder } from "./compile.ts";
import { endAfterEach, runtimeCommand, succeeds } from "./suite.ts";

/** The command line of `ucred` on the runtime under test. */
export const command: readonly string[] = [...runtimeCommand(), commandFile];

const asUser = (uid: number) => ["setpriv", `--reuid=${uid}`, `--regid=${uid}`, "--clear-groups"];

/** Tools that some machines lack. */
export const tools = {
  tmux: { name: "tmux", met: succeeds("tmux", "-V") },
} as const;

/** Our environment without the variables for colours and of service managers. */
function environment(more: Readonly<Record<string, string>>): NodeJS.ProcessEnv {
  const { NO_COLOR: _, FORCE_COLOR: __, NOTIFY_SOCKET: ___, ...rest } = process.env;
  return { ...rest, TERM: "xterm-256color", NODE_COMPILE_CACHE: compileCache, ...more };
}

/** The result of a command. */
export interface Ran {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** Options for running a command. */
export interface How {
  readonly as?: number;
  /** Words before the command line, for example `unshare …`. */
  readonly prefix?: readonly string[];
  /** Flags of the runtime, instead of those that permit everything. */
  readonly flags?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** How long to wait for an expected output. A failing test then reports what is missing. */
const OUTPUT_TIMEOUT_MS = 60_000;

const children = new Set<ChildProcess>();
endAfterEach(() => children.forEach((child) => child.kill("SIGKILL")));

/** A running command, and its output so far. */
export class RunningCommand {
  readonly process: ChildProcess;
  readonly done: Promise<Ran>;
  out = "";
  err = "";

  constructor(args: readonly string[], { as, flags, env = {}, prefix: first = [] }: How = {}) {
    const prefix = [...first, ...(as === undefined ? [] : asUser(as))];
    const start = flags === undefined ? command : [command[0]!, ...flags, commandFile];
    const [file, ...rest] = [...prefix, ...start, ...args] as [string];
    this.process = spawn(file, rest, {
      env: environment({ ...(as !== undefined && { HOME: "/nonexistent" }), ...env }),
      stdio: ["ignore", "pipe", "pipe"],
    });
    children.add(this.process);
    this.process.stdout!.setEncoding("utf8").on("data", (text: string) => this.out += text);
    this.process.stderr!.setEncoding("utf8").on("data", (text: string) => this.err += text);
    this.done = new Promise((resolve, reject) => {
      this.process.once("error", reject).once("close", (code) => {
        children.delete(this.process);
        resolve({ code, out: this.out, err: this.err });
      });
    });
  }

  /** Waits until the command has printed a text; fails if it ends before. */
  async says(stream: "out" | "err", what: string | RegExp): Promise<void> {
    const isSaid = () =>
      typeof what === "string" ? this[stream].includes(what) : what.test(this[stream]);
    const deadline = performance.now() + OUTPUT_TIMEOUT_MS;
    while (!isSaid()) {
      assert.ok(performance.now() < deadline, `after a minute, no ${what}: ${this.out}${this.err}`);
      assert.ok(children.has(this.process), `it ended: ${this.out}${this.err}`);
      await sleep(5);
    }
  }

  /** Sends a signal, and waits until the command has ended. */
  async end(signal: NodeJS.Signals = "SIGTERM"): Promise<Ran> {
    process.kill(this.process.pid!, signal); // after child.kill(), Deno reports no exit code
    return await this.done;
  }
}

/** Runs `ucred`. Requires for any arguments that it prints no stack, and no sequence that moves the cursor. */
export async function ucred(args: readonly string[], how: How = {}): Promise<Ran> {
  return withoutStack(args, await new RunningCommand(args, how).done);
}

function withoutStack(args: readonly string[], ran: Ran): Ran {
  assert.doesNotMatch(ran.err, /\n\s+at |defect/, `ucred ${args.join(" ")}`);
  return ran;
}

let shared: { readonly child: ChildProcess; readonly answers: AsyncIterator<string> } | undefined;

/**
 * Runs `ucred` in one process for many command lines, since a start takes most of the time of a short command.
 * A test file that uses it passes {@link endTogether} to `after()`.
 */
export async function ucredTogether(args: readonly string[]): Promise<Ran> {
  if (shared === undefined) {
    const [file, ...words] = runtimeCommand();
    const script = fileURLToPath(new URL("command_lines.ts", import.meta.url));
    const child = spawn(file, [...words, script], {
      env: environment({}),
      stdio: ["pipe", "pipe", "inherit"],
    });
    const answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    shared = { child, answers };
  }
  shared.child.stdin!.write(`${JSON.stringify(args)}\n`);
  const { value, done } = await shared.answers.next();
  assert.ok(!done, `the process ended at ucred ${args.join(" ")}`);
  return withoutStack(args, JSON.parse(value));
}

/** Ends the process of {@link ucredTogether}. */
export function endTogether(): void {
  shared?.child.kill("SIGKILL");
  shared = undefined;
}

/** Requires that a text has only printable characters, line ends and tabs. */
export function assertPrintable(text: string): void {
  assert.doesNotMatch(
    text,
    /(?![\n\t])\p{Cc}|[\p{Cf}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/u,
  );
}

/** Creates a file that only we may write. */
export function file(name: string, text: string): string {
  const path = join(temporaryFolder(), name);
  writeFileSync(path, text, { mode: 0o644 });
  return path;
}

/** A server in this process, which reads and sends nothing. */
export interface Served extends Disposable {
  readonly path: string;
  /** The number of connections. */
  readonly connected: () => number;
}

/** Starts a server at a path. */
export async function serve(path: string = freshPath(), mode = 0o777): Promise<Served> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {}).on("close", () => sockets.delete(socket)).resume();
  });
  await new Promise<void>((resolve, reject) =>
    server.once("error", reject).listen(path, () => resolve())
  );
  if (!path.startsWith("\0")) chmodSync(path, mode);
  const close = () => {
    server.close();
    sockets.forEach((socket) => socket.destroy());
  };
  return { path, connected: () => sockets.size, [Symbol.dispose]: close };
}

/** A terminal with a number of columns, in which `ucred` runs. */
export class Terminal {
  readonly #socket = join(temporaryFolder(), "tmux");

  constructor(
    columns: number,
    args: readonly string[],
    env: Readonly<Record<string, string>> = {},
  ) {
    const set = Object.entries(env).map(([name, value]) => `${name}=${value}`);
    const words = ["env", "-u", "NO_COLOR", "-u", "FORCE_COLOR", ...set, ...command, ...args];
    const quoted = words.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(" ");
    const line = `trap : INT; ${quoted}; echo "[ended: $?]"; sleep 1000`;
    this.#tmux(
      "-f",
      "/dev/null",
      "new-session",
      "-d",
      "-x",
      `${columns}`,
      "-y",
      "100",
      "sh",
      "-c",
      line,
    );
  }

  #tmux(...args: string[]): string {
    return execFileSync("tmux", ["-S", this.#socket, ...args], { encoding: "utf8" });
  }

  /** Returns the text on the terminal; with "colours", including colours. */
  shown(how: "plain" | "colours" = "plain"): string {
    return this.#tmux("capture-pane", "-p", ...(how === "colours" ? ["-e"] : []));
  }

  /** Waits until the terminal shows a text. */
  async shows(what: string): Promise<string> {
    const deadline = performance.now() + OUTPUT_TIMEOUT_MS;
    for (;;) {
      assert.ok(performance.now() < deadline, `after a minute, no ${what}: ${this.shown()}`);
      const shown = this.shown();
      if (shown.includes(what)) return shown;
      assert.doesNotMatch(shown, /\[ended: /, what);
      await sleep(20);
    }
  }

  /** Waits until the command has ended. Returns the text on the terminal, and the exit code. */
  async ended(): Promise<{ text: string; code: number }> {
    const deadline = performance.now() + OUTPUT_TIMEOUT_MS;
    for (;;) {
      assert.ok(performance.now() < deadline, `after a minute, no end: ${this.shown()}`);
      const [, text, code] = /^([\s\S]*)\[ended: ([0-9]+)\]/.exec(this.shown()) ?? [];
      if (text !== undefined) return { text, code: Number(code) };
      await sleep(20);
    }
  }

  press(...keys: string[]): void {
    this.#tmux("send-keys", ...keys);
  }

  /** Changes the size of the terminal. */
  resize(columns: number, rows: number): void {
    this.#tmux("resize-window", "-x", `${columns}`, "-y", `${rows}`);
  }

  [Symbol.dispose](): void {
    this.#tmux("kill-server");
  }
}
