/** Who competes: how each is built, started and spoken to. */

import { type ChildProcess, execFile, spawn } from "node:child_process";
import type { Socket } from "node:net";
import { delimiter, join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

/** The kinds of lookup that are timed. */
export const LOOKUP_NAMES = [
  "again",
  "first",
  "identify",
  "pin",
  "live",
  "exe",
  "snapshot",
] as const;
export type Lookup = typeof LOOKUP_NAMES[number];

/** What each kind is, on both sides of its ratio. */
export const LOOKUPS: {
  readonly [lookup in Lookup]: {
    readonly title: string;
    readonly ours: string;
    readonly c: string;
  };
} = {
  again: {
    title: "The same connection again",
    ours: "peerCredentials(fd): one call; the object is that of the first time",
    c: "getsockopt(SO_PEERCRED)",
  },
  first: {
    title: "First time on a descriptor",
    ours: "peerCredentials(fd), made to forget the descriptor before each call: a new object",
    c: "the same 2 calls: getsockopt(SO_PEERCRED), getpeername",
  },
  identify: {
    title: "Everything of the peer",
    ours: "identify(fd), descriptor verified before: credentials, sorted groups, label",
    c: "the same 3 calls: getsockopt of SO_PEERCRED, SO_PEERGROUPS, SO_PEERSEC; answers left raw",
  },
  pin: {
    title: "Pinning, and closing",
    ours: "identify(fd, { pin: true }).close()",
    c: "the same 5 calls: getsockopt of those three and SO_PEERPIDFD, close",
  },
  live: {
    title: "The ids of now",
    ours: "peer.live()",
    c: "the same 3 calls: poll, ioctl(PIDFD_GET_INFO), poll",
  },
  exe: {
    title: "The executable",
    ours: "peer.process.exe",
    c: "the same 3 calls: poll, readlink(/proc/PID/exe), poll",
  },
  snapshot: {
    title: "Every fact of the process",
    ours: "peer.process.toJSON(), parsed",
    c: "the same files and links of /proc, with a poll before and after each; left raw",
  },
};

/** One language or runtime. */
export interface Tool {
  readonly name: string;
  readonly lookups: readonly Lookup[];
  /** Ours: a runtime on which the library itself runs. */
  readonly isOurs?: true;
  /** Its answer is the names of user and group. */
  readonly tellsNames?: true;
  /** Builds what it needs in `folder`. Fails where the tool is not installed, or too old. */
  prepare(folder: string): Promise<Prepared>;
}

/** How to start a contender; the kind of lookup is appended. */
export interface Prepared {
  readonly version: string;
  readonly command: readonly [program: string, ...args: string[]];
}

/** Who the peer is, as far as the contender tells. */
export interface Answer {
  readonly pid?: number;
  readonly uid?: number;
  readonly gid?: number;
  groups?: readonly number[];
  readonly label?: string;
  readonly user?: string;
  readonly group?: string;
  readonly exe?: string;
}

/** What a contender holds on to. */
export interface Usage {
  readonly descriptors: number;
  readonly bytes: number;
}

const source = (name: string) => fileURLToPath(new URL(`contenders/${name}`, import.meta.url));
const PEER_CREDENTIALS = source("peer_credentials.ts");

/** The baseline first. */
export const TOOLS: readonly Tool[] = [
  {
    name: "C",
    lookups: LOOKUP_NAMES,
    async prepare(folder) {
      const program = join(folder, "baseline");
      await run("cc", "-O2", "-o", program, source("baseline.c"));
      return { version: `by ${await run("cc", "--version")} -O2`, command: [program] };
    },
  },
  {
    name: "Deno",
    lookups: LOOKUP_NAMES,
    isOurs: true,
    // Asked where it is, since on the PATH there may be a script that does not pass descriptors on.
    async prepare() {
      const ask = "console.log(Deno.version.deno + ' ' + Deno.execPath())";
      const [version, program] = split(await run("deno", "eval", ask));
      return { version, command: [program, "run", "--allow-all", PEER_CREDENTIALS] };
    },
  },
  {
    name: "Bun",
    lookups: LOOKUP_NAMES,
    isOurs: true,
    async prepare() {
      const ask = "process.versions.bun + ' ' + process.execPath";
      const [version, program] = split(await run("bun", "--print", ask));
      return { version, command: [program, PEER_CREDENTIALS] };
    },
  },
  {
    name: "Node",
    lookups: LOOKUP_NAMES,
    isOurs: true,
    prepare: () =>
      Promise.resolve({
        version: process.versions.node,
        command: [process.execPath, "--disable-warning=ExperimentalWarning", PEER_CREDENTIALS],
      }),
  },
  {
    name: "Rust",
    lookups: ["again"],
    async prepare(folder) {
      const program = join(folder, "rust");
      await run("rustc", "-C", "opt-level=3", "-o", program, source("lookup.rs"));
      return { version: numberIn(await run("rustc", "--version")), command: [program] };
    },
  },
  {
    name: "Go",
    lookups: ["again"],
    async prepare(folder) {
      const program = join(folder, "go");
      await run("go", "build", "-o", program, source("lookup.go"));
      return { version: numberIn(await run("go", "version")), command: [program] };
    },
  },
  {
    name: "Python",
    lookups: ["again"],
    async prepare() {
      const ask = "import platform, sys; print(platform.python_version(), sys.executable)";
      const [version, program] = split(await run("python3", "-c", ask));
      return { version, command: [program, source("lookup.py")] };
    },
  },
  {
    name: "Java",
    lookups: ["again"],
    tellsNames: true,
    async prepare(folder) {
      await run("javac", "-d", folder, source("Lookup.java"));
      const version = numberIn(await run("java", "--version"));
      return { version, command: ["java", "-cp", folder, "Lookup", join(folder, SOCKET)] };
    },
  },
];

/** Name of the socket in the folder, for the contender that connects by itself. */
export const SOCKET = "peer";

function split(answer: string): [version: string, program: string] {
  const at = answer.indexOf(" ");
  return [answer.slice(0, at), answer.slice(at + 1)];
}

function numberIn(version: string): string {
  return /\d+(\.\d+)+/.exec(version)?.[0] ?? version;
}

/** Ends every process that this file starts. */
export const ending = new AbortController();

/** Deno and Bun are those of the lock file, also when this is not started by npm. */
function environment(): NodeJS.ProcessEnv {
  const binaries = fileURLToPath(new URL("../node_modules/.bin", import.meta.url));
  return { ...process.env, PATH: [binaries, process.env["PATH"]].join(delimiter) };
}

/** Runs a command; the first line that it prints. */
async function run(command: string, ...args: string[]): Promise<string> {
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

/** One contender: a process that does one kind of lookup whenever it is told to. */
export class Contender {
  readonly tool: Tool;
  readonly lookup: Lookup;
  readonly #process: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #closed: Promise<void>;
  #errors = "";

  /** Starts it, with `connection` as descriptor 3. */
  constructor(tool: Tool, { command }: Prepared, lookup: Lookup, connection: Socket) {
    this.tool = tool;
    this.lookup = lookup;
    const [program, ...args] = command;
    this.#process = spawn(program, [...args, lookup], {
      stdio: ["pipe", "pipe", "pipe", connection],
      signal: ending.signal,
      env: environment(),
    });
    this.#closed = new Promise((resolve) => this.#process.once("close", () => resolve()));
    this.#process.on("error", (error) => this.#errors ||= error.message);
    this.#process.stdin!.on("error", () => {}); // it ended early: the next line that is read tells
    this.#process.stderr!.setEncoding("utf8").on("data", (text: string) => this.#errors += text);
    this.#lines = createInterface({ input: this.#process.stdout! })[Symbol.asyncIterator]();
  }

  /** Its first answer. To be asked once, before anything else. */
  async answer(): Promise<Answer> {
    return JSON.parse(await this.#read()) as Answer;
  }

  /** Does this many lookups, each checked against the first answer; ns for each. */
  async measure(times: number): Promise<number> {
    this.#process.stdin!.write(`${times}\n`);
    const nanoseconds = Number(await this.#read());
    if (nanoseconds > 0) return nanoseconds;
    throw new Error(`${this.tool.name} took ${nanoseconds} ns for a lookup`);
  }

  async usage(): Promise<Usage> {
    this.#process.stdin!.write("usage\n");
    return JSON.parse(await this.#read()) as Usage;
  }

  async #read(): Promise<string> {
    const { value, done } = await this.#lines.next();
    if (!done) return value;
    await this.#closed; // by then it has said why
    throw new Error(`${this.tool.name} ended: ${this.#errors.trim() || "in silence"}`);
  }

  /** Ends its input, upon which it ends. */
  end(): Promise<void> {
    this.#process.stdin!.end();
    return this.#closed;
  }
}
