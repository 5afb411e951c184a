/** Who competes: how each is built, started and spoken to. */

import type { Socket } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Helper, type Prepared, run, RUNTIMES, split } from "./conduct.ts";

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
  /**
   * Builds what it needs in `folder`; to the command the kind of lookup is appended. Fails where the
   * tool is not installed, or too old.
   */
  prepare(folder: string): Promise<Prepared>;
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
  ...(["Deno", "Bun", "Node"] as const).map((name): Tool => ({
    name,
    lookups: LOOKUP_NAMES,
    isOurs: true,
    prepare: () => RUNTIMES[name](PEER_CREDENTIALS),
  })),
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

function numberIn(version: string): string {
  return /\d+(\.\d+)+/.exec(version)?.[0] ?? version;
}

/** One contender: a process that does one kind of lookup whenever it is told to. */
export class Contender {
  readonly tool: Tool;
  readonly lookup: Lookup;
  readonly #helper: Helper;

  /** Starts it, with `connection` as descriptor 3. */
  constructor(tool: Tool, { command }: Prepared, lookup: Lookup, connection: Socket) {
    this.tool = tool;
    this.lookup = lookup;
    this.#helper = new Helper(tool.name, [...command, lookup], [connection]);
  }

  /** Its first answer. To be asked once, before anything else. */
  async answer(): Promise<Answer> {
    return JSON.parse(await this.#helper.line()) as Answer;
  }

  /** Does this many lookups, each checked against the first answer; ns for each. */
  async measure(times: number): Promise<number> {
    const nanoseconds = Number(await this.#helper.ask(`${times}`));
    if (nanoseconds > 0) return nanoseconds;
    throw new Error(`${this.tool.name} took ${nanoseconds} ns for a lookup`);
  }

  async usage(): Promise<Usage> {
    return JSON.parse(await this.#helper.ask("usage")) as Usage;
  }

  /** Ends its input, upon which it ends. */
  end(): Promise<void> {
    return this.#helper.end();
  }
}
