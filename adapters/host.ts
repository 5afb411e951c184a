/** What the program runs on: runtime, operating system, CPU. Reads globals; loads nothing. */

/** The runtimes that have a foreign function interface. */
export type Runtime = "deno" | "bun" | "node";

/** Where the program runs, in `process`'s words. */
export interface Host {
  /** `undefined` in a browser and the like. */
  readonly runtime: Runtime | undefined;
  /** For messages: "Node 20.20.2". */
  readonly name: string;
  /** As `process.platform` says: "linux", "darwin", … */
  readonly os: string;
  /** As `process.arch` says: "x64", "arm64", … */
  readonly cpu: string;
  /** Our own process id. */
  readonly pid: number;
}

interface Process {
  readonly platform?: string;
  readonly arch?: string;
  readonly pid?: number;
  readonly versions?: { readonly [name: string]: string | undefined };
  getBuiltinModule?(id: string): unknown;
}

// Not the bare names: a bundler for browsers would replace or reject them.
const globals = globalThis as unknown as {
  readonly process?: Process;
  readonly Deno?: { readonly dlopen?: unknown; readonly version?: { readonly deno: string } };
};

/** Describes the host. */
export function host(): Host {
  const { process, Deno } = globals;
  const { platform: os = "unknown", arch: cpu = "unknown", pid = 0, versions = {} } = process ?? {};
  const found = (runtime: Runtime | undefined, name: string) => ({ runtime, name, os, cpu, pid });
  if (typeof Deno?.dlopen === "function") return found("deno", `Deno ${Deno.version?.deno}`);
  if (versions["bun"] !== undefined) return found("bun", `Bun ${versions["bun"]}`);
  if (versions["node"] !== undefined) return found("node", `Node ${versions["node"]}`);
  return found(undefined, "this runtime");
}

/** A timer of `node:timers`: an object on all three runtimes, where Deno's own are numbers. */
export interface Timer {
  /** Lets the program end while it runs. */
  unref(): unknown;
}

/** What is used of `node:timers`. */
export interface Timers {
  /** Runs it again and again. */
  setInterval(run: () => void, ms: number): Timer;
  /** Runs it once. */
  setTimeout(run: () => void, ms: number): Timer;
  /** Runs it once what has happened is dealt with. */
  setImmediate(run: () => void): unknown;
  /** Stops one. */
  clearInterval(timer: Timer | undefined): void;
}

/** The runtime's timers. */
export function timers(): Timers {
  return builtinModule("node:timers") as Timers;
}

/** A module of the runtime's own, if it has it; no import, so that bundlers have nothing to resolve. */
export function builtinModule(id: string): unknown {
  return globals.process?.getBuiltinModule?.(id);
}
