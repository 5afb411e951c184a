/** Child processes that print lines of JSON. They end with the demo. */

import { type ChildProcess, spawn } from "node:child_process";
import { delimiter, join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { setTimeout } from "node:timers/promises";

/** The root folder of the repository. */
const root: string = join(import.meta.dirname, "../..");

// The pinned runtimes are first on PATH, even if the demo was not started by npm.
const PATH = [join(root, "node_modules/.bin"), process.env["PATH"]].join(delimiter);

/** A start takes 0.1 s, and some seconds on a busy machine. */
const LINE_TIMEOUT_MS = 15_000;

const running = new Set<ChildProcess>();

/** Kills all children, also stopped ones. */
export function killChildren(): void {
  for (const child of running) child.kill("SIGKILL");
}

/** A child process. */
export class Child {
  readonly #name: string;
  readonly #process: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #ended: Promise<string>;
  #errors = "";

  constructor(name: string, [command, ...args]: readonly [string, ...string[]]) {
    this.#name = name;
    const child = spawn(command, args, { env: { ...process.env, PATH }, stdio: "pipe" });
    this.#process = child;
    running.add(child);
    this.#lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    child.stdin.on("error", () => {}); // it may have ended: line() reports that
    child.stderr.setEncoding("utf8").on("data", (text: string) => this.#errors += text);
    this.#ended = new Promise((resolve) => {
      child.once("error", (error) => resolve(`cannot start: ${error.message}`));
      child.once("close", (code, signal) => resolve(`ended with ${signal ?? `exit code ${code}`}`));
    });
    this.#ended.finally(() => running.delete(child));
  }

  /** Returns the next line of its output, parsed. */
  async line<T>(): Promise<T> {
    const next = await Promise.race([
      this.#lines.next(),
      setTimeout(LINE_TIMEOUT_MS, undefined, { ref: false }),
    ]);
    if (next === undefined) {
      throw new Error(`${this.#name} has printed nothing for ${LINE_TIMEOUT_MS} ms`);
    }
    if (next.done) {
      throw new Error(`${this.#name} ${await this.#ended}\n${this.#errors.trim()}`.trim());
    }
    try {
      return JSON.parse(next.value);
    } catch {
      throw new Error(`${this.#name} printed ${JSON.stringify(next.value)}, which is not JSON`);
    }
  }

  /** Sends an empty line, for which it waits. */
  wake(): void {
    this.#process.stdin!.write("\n");
  }

  signal(name: "SIGSTOP" | "SIGCONT"): void {
    this.#process.kill(name);
  }

  /** Closes its stdin, which ends it, and waits for the end. */
  async end(): Promise<void> {
    this.#process.stdin!.end();
    await this.#ended;
  }
}
