/** Determines the host of the program (runtime, operating system, CPU), and loads the runtime's modules. */

/** The runtimes that have a foreign function interface. */
export type Runtime = "deno" | "bun" | "node";

/** The host, described by the values of `process`. */
export interface Host {
  /** `undefined` in a browser and other unsupported runtimes. */
  readonly runtime: Runtime | undefined;
  /** The name for messages: "Node 20.20.2". */
  readonly name: string;
  /** `process.platform`: "linux", "darwin", … */
  readonly os: string;
  /** `process.arch`: "x64", "arm64", … */
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

// Read from globalThis: a bundler for browsers would replace or reject the bare names.
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

/** A timer of `node:timers`: an object on all three runtimes. Deno's own timers are numbers. */
export interface Timer {
  /** Allows the program to end while the timer is active. */
  unref(): unknown;
}

/** The members of `node:timers` that are used. */
export interface Timers {
  /** Runs a function repeatedly. */
  setInterval(run: () => void, ms: number): Timer;
  /** Runs a function once, after a delay. */
  setTimeout(run: () => void, ms: number): Timer;
  /** Runs a function once, after pending I/O events. */
  setImmediate(run: () => void): unknown;
  /** Stops a timer. */
  clearInterval(timer: Timer | undefined): void;
}

/** Returns the runtime's timers. */
export function timers(): Timers {
  return builtinModule("node:timers") as Timers;
}

/**
 * Loads a built-in module if the runtime has it. This is not an import, so bundlers resolve nothing.
 */
export function builtinModule(id: string): unknown {
  return globals.process?.getBuiltinModule?.(id);
}
