/** The process of a command: how it is started, its streams, and how it ends. */

import type { Buffer } from "node:buffer";
import { type ChildProcess, spawn, type StdioOptions } from "node:child_process";
import { statSync } from "node:fs";
import process from "node:process";
import type { Readable, Writable } from "node:stream";
import { closeAllOnExec } from "../../../system/close_on_exec.ts";
import { killSession } from "../../../system/kill_session.ts";
import { PseudoTerminal, type TerminalSize } from "../../../system/pseudo_terminal.ts";

/** A command that is ready to run. */
export interface CommandStart {
  /** The descriptor of the file. */
  readonly fd: number;
  readonly args: readonly string[];
  readonly uid: number;
  readonly gid: number;
  readonly gids: readonly number[];
  readonly environment: Readonly<Record<string, string>>;
  /** An absolute path. */
  readonly cwd: string;
  /** Limits as options of prlimit(1). */
  readonly limits: readonly string[];
  /** The size of its terminal; `undefined` runs it with pipes. */
  readonly terminal: TerminalSize | undefined;
}

/** How a command ended. */
export interface CommandEnd {
  readonly code: number | null;
  readonly signal: string | null;
}

/** The descriptor of the executable file in the child: the first one after stdin, stdout and stderr. */
const CHILD_FD = 3;

/** The umask of commands is at least this, as that of sudo(8): only their user can write to their files. */
const UMASK = 0o022;

/**
 * A running command. It is the leader of a session, whose processes are killed when it ends.
 *
 * With a terminal, two cat(1) processes copy between the master of a pseudoterminal and pipes: the runtimes
 * read a terminal by blocking a thread of a small pool.
 */
export class CommandProcess {
  /** Resolves after all output was read. Rejects if the command could not be started. */
  readonly ended: Promise<CommandEnd>;
  /** stdin, or the keyboard of the terminal. */
  readonly input: Writable;
  /** stdout, or the screen of the terminal. */
  readonly output: Readable;
  /** `undefined` with a terminal. */
  readonly errors: Readable | undefined;
  readonly #child: ChildProcess;
  readonly #terminal: PseudoTerminal | undefined;
  /** The command, and the processes that copy. */
  readonly #processes: ChildProcess[] = [];
  #hasExited = false;

  /** @throws {Error} If a program cannot be started. Then all started processes were killed. */
  constructor(start: CommandStart) {
    if (!statSync(start.cwd).isDirectory()) throw new Error(`${start.cwd} is not a folder`);
    closeAllOnExec(); // a command of another user must not inherit descriptors of root
    const terminal = start.terminal && new PseudoTerminal(start.terminal, start.uid);
    this.#terminal = terminal;
    try {
      const stdio = terminal === undefined ? PIPES : new Array<number>(3).fill(terminal.slave);
      this.#child = this.#add(spawnWithUmask(start, [...stdio, start.fd]));
      this.#child.once("exit", () => this.#killSession()); // its processes could keep its output open
      const ended = endOf(this.#child);
      if (terminal === undefined) {
        this.input = this.#child.stdin!;
        this.output = this.#child.stdout!;
        this.errors = this.#child.stderr!;
        this.ended = ended;
      } else {
        terminal.closeSlave();
        const screen = this.#add(copy([terminal.master, "pipe", "ignore"]));
        const keyboard = this.#add(copy(["pipe", terminal.master, "ignore"]));
        this.input = keyboard.stdin!;
        this.output = screen.stdout!;
        this.errors = undefined;
        this.ended = Promise.all([ended, endOf(screen)]).then(([end]) => end);
      }
    } catch (error) {
      this.#release();
      throw error;
    }
    for (const stream of [this.input, this.output, this.errors]) stream?.on("error", () => {});
    const release = () => this.#release();
    this.ended.then(release, release);
  }

  /** @throws {Error} If the process was not started: the limit of descriptors or processes is reached. */
  #add(child: ChildProcess): ChildProcess {
    child.on("error", () => {});
    if (child.pid === undefined) throw new Error(`${child.spawnfile} cannot be started`);
    this.#processes.push(child);
    return child;
  }

  #release(): void {
    this.#terminal?.close();
    for (const each of this.#processes) each.kill("SIGKILL");
  }

  /** Writes input, and calls `written` when the pipe has accepted it, but not if the command has closed it. */
  write(content: Buffer, written: () => void): void {
    this.input.write(content, (error) => {
      if (error == null) written();
    });
  }

  /** Sends a signal to the process group of the command, unless it has exited: its pid may then be reused. */
  signal(name: NodeJS.Signals): void {
    const { pid } = this.#child;
    if (pid === undefined || this.#hasExited) return;
    // With a terminal, the process has no group of its own before setsid(1) has run.
    if (!kill(-pid, name)) kill(pid, name);
  }

  /** Changes the size of the terminal, if there is one. */
  resize(size: TerminalSize): void {
    if (!this.#hasExited) this.#terminal?.resize(size);
  }

  /** Kills the command, and reads no more output. */
  stop(): void {
    this.signal("SIGKILL");
    // A process that left the session may hold the output open.
    this.output.destroy();
    this.errors?.destroy();
    this.#release();
  }

  /** Kills the other processes of the session. */
  #killSession(): void {
    this.#hasExited = true;
    const { pid } = this.#child;
    if (pid !== undefined) killSession(pid);
  }
}

/** Returns false if there is no such process or group. */
function kill(pid: number, name: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, name);
  } catch {
    return false;
  }
}

const PIPES = ["pipe", "pipe", "pipe"] as const;

function spawnWithUmask(start: CommandStart, stdio: StdioOptions): ChildProcess {
  const { args, uid, gid, gids, environment, limits, terminal, cwd } = start;
  const before = process.umask(); // the child inherits it
  process.umask(before | UMASK);
  try {
    return spawn("/usr/bin/prlimit", [
      "--core=0",
      ...limits,
      "--",
      // Deno 2.9.5 adds a variable to the environment that spawn() takes. The helper may have been started with
      // signals that are ignored, which exec(3) keeps.
      "/usr/bin/env",
      "-i",
      "--default-signal",
      ...Object.entries(environment).map(([name, value]) => `${name}=${value}`),
      ...(terminal === undefined ? [] : ["/usr/bin/setsid", "--ctty", "--"]),
      "/usr/bin/setpriv",
      `--reuid=${uid}`,
      `--regid=${gid}`,
      `--groups=${gids.join(",")}`,
      "--inh-caps=-all",
      "--no-new-privs",
      "--pdeathsig=KILL",
      "--",
      `/proc/self/fd/${CHILD_FD}`,
      ...args,
    ], {
      cwd,
      env: {},
      // setsid(2): a session of its own, without the terminal of the helper. setsid(1) would fork in a session
      // leader.
      detached: terminal === undefined,
      stdio,
    });
  } finally {
    process.umask(before);
  }
}

/** Starts a process that copies its stdin to its stdout. */
function copy(stdio: StdioOptions): ChildProcess {
  return spawn("/usr/bin/cat", [], { cwd: "/", env: {}, stdio });
}

/** Resolves after the process has ended and its output was read. */
function endOf(child: ChildProcess): Promise<CommandEnd> {
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => resolve({ code, signal }));
  });
}
