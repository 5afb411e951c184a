/** Child processes that print lines of JSON, and that never outlive the demo. */

import { type ChildProcess, spawn } from "node:child_process";
import { delimiter, join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { setTimeout } from "node:timers/promises";

/** The repository. */
export const root: string = join(import.meta.dirname, "../..");

// The pinned runtimes come first, also where npm has not put them there.
const PATH = [join(root, "node_modules/.bin"), process.env["PATH"]].join(delimiter);

const PATIENCE = 15_000; // ms; a start takes a tenth of a second, on a busy machine some seconds

const running = new Set<ChildProcess>();

/** Ends all children at once, stopped ones too. */
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
    child.stdin.on("error", () => {}); // it may have ended: its next line, which is missing, tells
    child.stderr.setEncoding("utf8").on("data", (text: string) => this.#errors += text);
    this.#ended = new Promise((resolve) => {
      child.once("error", (error) => resolve(`cannot start: ${error.message}`));
      child.once("close", (code, signal) => resolve(`ended with ${signal ?? `exit code ${code}`}`));
    });
    this.#ended.finally(() => running.delete(child));
  }

  /** The next line that it prints. */
  async line<T>(): Promise<T> {
    const next = await Promise.race([
      this.#lines.next(),
      setTimeout(PATIENCE, undefined, { ref: false }),
    ]);
    if (next === undefined) throw new Error(`${this.#name} has not answered in ${PATIENCE} ms`);
    if (next.done) {
      throw new Error(`${this.#name} ${await this.#ended}\n${this.#errors.trim()}`.trim());
    }
    try {
      return JSON.parse(next.value);
    } catch {
      throw new Error(`${this.#name} printed ${JSON.stringify(next.value)}, which is not JSON`);
    }
  }

  /** Lets it go on from where it waits for its input. */
  wake(): void {
    this.#process.stdin!.write("\n");
  }

  signal(name: "SIGSTOP" | "SIGCONT"): void {
    this.#process.kill(name);
  }

  /** Ends its input, upon which it ends. */
  async end(): Promise<void> {
    this.#process.stdin!.end();
    await this.#ended;
  }
}
