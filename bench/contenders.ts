/** The contenders: how each is built and started, and its lookups. */

import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Helper, type Prepared, run, RUNTIMES, split } from "./benchmark.ts";

/** The kinds of lookup that are timed. */
export const LOOKUP_NAMES = [
  "again",
  "first",
  "accepted",
  "identify",
  "pin",
  "live",
  "exe",
  "snapshot",
] as const;
export type Lookup = typeof LOOKUP_NAMES[number];

/** The titles of the lookups, and what ucred and C do for each. */
export const LOOKUPS: {
  readonly [lookup in Lookup]: {
    readonly title: string;
    readonly ours: string;
    readonly c: string;
  };
} = {
  again: {
    title: "The same connection again",
    ours: "peerCredentials(fd): one call, which returns the same object as before",
    c: "getsockopt(SO_PEERCRED)",
  },
  first: {
    title: "First time on a descriptor",
    ours: "peerCredentials(fd), after removing the descriptor from its cache: a new object",
    c: "the same 2 calls: getsockopt(SO_PEERCRED), getpeername",
  },
  accepted: {
    title: "First time on an accepted socket",
    ours: "peerCredentials(socket) in a server of ucred/net, after the same removal",
    c: "getsockopt(SO_PEERCRED)",
  },
  identify: {
    title: "All facts of the peer",
    ours: "identify(fd), with a known descriptor: credentials, sorted groups, label",
    c: "the same 3 calls: getsockopt of SO_PEERCRED, SO_PEERGROUPS, SO_PEERSEC; not decoded",
  },
  pin: {
    title: "Pinning, and closing",
    ours: "identify(fd, { pin: true }).close()",
    c: "the same 5 calls: getsockopt of those three and SO_PEERPIDFD, close",
  },
  live: {
    title: "The current ids",
    ours: "peer.live()",
    c: "the same 3 calls: poll, ioctl(PIDFD_GET_INFO), poll",
  },
  exe: {
    title: "The executable",
    ours: "peer.process.exe",
    c: "the same 3 calls: poll, readlink(/proc/PID/exe), poll",
  },
  snapshot: {
    title: "All facts of the process",
    ours: "peer.process.toJSON(), parsed",
    c: "the same files and links of /proc, with a poll before and after each; not parsed",
  },
};

/** A language or runtime. */
export interface Tool {
  readonly name: string;
  readonly lookups: readonly Lookup[];
  /** A runtime on which ucred runs. */
  readonly isOurs?: true;
  /** Its answers are the names of user and group. */
  readonly returnsNames?: true;
  /**
   * Builds the program in `folder`. The name of the lookup is appended to the command. Fails if the
   * tool is not installed, or too old.
   */
  prepare(folder: string): Promise<Prepared>;
}

/** The facts in a contender's answer. */
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

/** The resources of a contender. */
export interface Usage {
  readonly descriptors: number;
  readonly bytes: number;
}

const source = (name: string) => fileURLToPath(new URL(`contenders/${name}`, import.meta.url));
const PEER_CREDENTIALS = source("peer_credentials.ts");

/** All tools. The baseline is the first. */
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
      const code = "import platform, sys; print(platform.python_version(), sys.executable)";
      const [version, program] = split(await run("python3", "-c", code));
      return { version, command: [program, source("lookup.py")] };
    },
  },
  {
    name: "Java",
    lookups: ["again"],
    returnsNames: true,
    async prepare(folder) {
      await run("javac", "-d", folder, source("Lookup.java"));
      const version = numberIn(await run("java", "--version"));
      return { version, command: ["java", "-cp", folder, "Lookup", join(folder, SOCKET)] };
    },
  },
];

/** Name of the socket in the folder, for a contender that cannot inherit a connection. */
export const SOCKET = "peer";

function numberIn(version: string): string {
  return /\d+(\.\d+)+/.exec(version)?.[0] ?? version;
}

/** A process that measures one kind of lookup. */
export class Contender {
  readonly tool: Tool;
  readonly lookup: Lookup;
  readonly #helper: Helper;
  readonly #listensAt: string | undefined;
  #connection: Socket | undefined;

  /**
   * @param connection Descriptor 3 of the process.
   * @param folder Has the socket at which the process listens, if it does.
   */
  constructor(
    tool: Tool,
    { command }: Prepared,
    lookup: Lookup,
    connection: Socket,
    folder: string,
  ) {
    this.tool = tool;
    this.lookup = lookup;
    const listens = lookup === "accepted" && tool.isOurs === true;
    this.#listensAt = listens ? join(folder, `${lookup}-${tool.name}`) : undefined;
    const words = this.#listensAt === undefined ? [lookup] : [lookup, this.#listensAt];
    this.#helper = new Helper(tool.name, [...command, ...words], [connection]);
  }

  /** Returns the answer of its first lookup. Called once, before the other methods. */
  async answer(): Promise<Answer> {
    if (this.#listensAt !== undefined) this.#connection = await connectTo(this.#listensAt);
    return JSON.parse(await this.#helper.line()) as Answer;
  }

  /** Repeats the lookup, compares each answer with the first one, and returns ns per lookup. */
  async measure(times: number): Promise<number> {
    const nanoseconds = Number(await this.#helper.request(`${times}`));
    if (nanoseconds > 0) return nanoseconds;
    throw new Error(`${this.tool.name} took ${nanoseconds} ns for a lookup`);
  }

  async usage(): Promise<Usage> {
    return JSON.parse(await this.#helper.request("usage")) as Usage;
  }

  /** Ends the process. */
  end(): Promise<void> {
    this.#connection?.destroy();
    return this.#helper.end();
  }
}

/** How long a contender may take until it listens. */
const LISTEN_TIMEOUT_MS = 20_000;

async function connectTo(path: string): Promise<Socket> {
  const end = performance.now() + LISTEN_TIMEOUT_MS;
  while (true) {
    const socket = connect(path);
    try {
      await once(socket, "connect");
      return socket.on("error", () => {});
    } catch (error) {
      if (performance.now() > end) throw error;
      await sleep(20);
    }
  }
}
