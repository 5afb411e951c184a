/** Guards as child processes, and clients and upstreams that tests control byte by byte. */

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { Child, freshPath } from "./peers.ts";
import { commandFile, compileCache, compileProgram } from "./compile.ts";
import { residentMemory } from "./leak.ts";
import { removeSafeFolders, safeFolder, safeFolders } from "./safe_folder.ts";
import { endAfterEach, type Need, needs, runtimeCommand, testWith, until } from "./suite.ts";

const here = [needs.linux, needs.cc, needs.root, needs.native, safeFolders];

/** A test with clients of several users. */
export function testGuard(
  name: string,
  run: () => void | Promise<void>,
  ...more: readonly Need[]
): void {
  testWith([...here, ...more], name, run);
}

/** The need for a command in PATH. */
export function tool(name: string): Need {
  const folders = (process.env["PATH"] ?? "").split(":");
  return { name, met: folders.some((folder) => existsSync(`${folder}/${name}`)) };
}

const flowProgram = here.every(({ met }) => met)
  ? compileProgram(new URL("flow.c", import.meta.url))
  : "";

/** Starts flow.c. */
export function flow(...args: readonly (string | number)[]): Child {
  return new Child(flowProgram, args.map(String));
}

/** Starts flow.c as a server. */
export async function flowListening(path: string, ...args: (string | number)[]): Promise<Child> {
  const child = flow("listen", path, ...args);
  assert.deepEqual(await child.json(), { listening: true });
  return child;
}

/** The final report of flow.c. */
export interface Flowed {
  readonly sent: number;
  readonly received: number;
  /** Whether all bytes were right, and the stream ended with a half-close. */
  readonly good: boolean;
}

/** uids in the policies of the tests. */
export const USERS = { one: 4001, two: 4002, nobody: 4999 };

/** The policy of guards without one of their own. */
export const POLICY = `version: 1
rules:
  - { name: root, when: { uid: 0 }, allow: full }
  - { name: one, when: { uid: ${USERS.one} }, allow: [read, write] }
  - { name: two reads, when: { uid: ${USERS.two} }, actions: ["GET /**", "HEAD /**"], allow: read }
`;

/** Writes a policy to a file that only root can write. */
export function policyFile(text: string = POLICY): string {
  const file = join(safeFolder(), "policy.yaml");
  writeFileSync(file, text, { mode: 0o600 });
  return file;
}

export interface Start {
  readonly upstream: string;
  readonly mode?: "stream" | "http" | "docker" | "dbus" | "mcp";
  /** By default `POLICY`; `null` for none. */
  readonly policy?: string | null;
  readonly args?: readonly string[];
  /** Words before the runtime's command. */
  readonly prefix?: readonly string[];
  readonly env?: { readonly [name: string]: string };
  /** Flags of the runtime instead of those of `runtimeCommand()`. */
  readonly flags?: readonly string[];
  /** The socket to listen at; `null` if `args` have it. */
  readonly listen?: string | null;
}

/** Returns the number of open sockets of a process. */
export function openSockets(pid: number | "self"): number {
  const folder = `/proc/${pid}/fd`;
  return readdirSync(folder).filter((fd) => {
    try {
      return readlinkSync(`${folder}/${fd}`).startsWith("socket:");
    } catch {
      return false; // closed in the meantime
    }
  }).length;
}

/** How long to wait for an expected line. */
const TIMEOUT_MS = 60_000;

const running = new Set<ChildProcess>();
const ends = new Set<End>();
const upstreams = new Set<Server>();

// Open handles would keep the test runner waiting.
endAfterEach(() => {
  running.forEach((child) => child.kill("SIGKILL"));
  ends.forEach((end) => end.destroy());
  upstreams.forEach((server) => server.close());
  upstreams.clear();
  removeSafeFolders();
});

/** A guard on the runtime under test. */
export class Guard {
  readonly path: string;
  readonly child: ChildProcess;
  readonly ended: Promise<{ code: number | null; signal: string | null }>;
  #log = "";
  #seen = 0;

  private constructor({ upstream, mode, policy, args, prefix, env, flags, listen }: Start) {
    this.path = listen ?? freshPath("guard.sock");
    const command = [
      ...(prefix ?? []),
      ...runtimeCommand(flags),
      commandFile,
      "guard",
      ...["--upstream", upstream, "--mode", mode ?? "stream"],
      ...(listen === null ? [] : ["--listen", this.path, "--socket-mode", "0666"]),
      ...(policy === null ? [] : ["--policy", policy ?? policyFile()]),
      ...(args ?? []),
    ];
    this.child = spawn(command[0]!, command.slice(1), {
      stdio: ["ignore", "ignore", "pipe"],
      env: { ...process.env, NO_COLOR: "1", NODE_COMPILE_CACHE: compileCache, ...env },
    });
    running.add(this.child);
    this.child.stderr!.setEncoding("utf8").on("data", (text: string) => this.#log += text);
    this.ended = once(this.child, "close").then(([code, signal]) => {
      running.delete(this.child);
      return { code, signal };
    });
  }

  /** Starts a guard that may fail. */
  static launch(start: Start): Guard {
    return new Guard(start);
  }

  /** Starts a guard, and waits until it listens. */
  static async start(start: Start): Promise<Guard> {
    const guard = new Guard(start);
    await guard.logs("listening at ");
    return guard;
  }

  /** Its output on stderr so far. */
  get log(): string {
    return this.#log;
  }

  /** Waits until it logs a text, after the one that was found last. */
  async logs(text: string): Promise<void> {
    const deadline = performance.now() + TIMEOUT_MS;
    while (true) {
      const at = this.#log.indexOf(text, this.#seen);
      if (at !== -1) return void (this.#seen = at + text.length);
      const { exitCode, signalCode } = this.child;
      assert.ok(exitCode === null && signalCode === null, `no ${text} in: ${this.#log}`);
      assert.ok(performance.now() < deadline, `after a minute, no ${text} in: ${this.#log}`);
      await sleep(5);
    }
  }

  signal(name: NodeJS.Signals): void {
    process.kill(this.child.pid!, name); // Deno marks a child as ended after child.kill()
  }

  /** Stops it until SIGCONT, and waits until the kernel has done so. */
  async stop(): Promise<void> {
    this.signal("SIGSTOP");
    await until(() => / T /.test(readFileSync(`/proc/${this.child.pid}/stat`, "latin1")));
  }

  /** The number of its open sockets. */
  sockets(): number {
    return openSockets(this.child.pid!);
  }

  /** Resident memory in MiB. */
  memory(): number {
    return residentMemory(this.child.pid!) / 2 ** 20;
  }

  /** Collects garbage in a guard that has `collectorFlags`, and returns the bytes in use. */
  async bytesInUse(): Promise<number> {
    const from = this.#log.length;
    this.signal("SIGUSR2");
    await until(() => / bytes in use/.test(this.#log.slice(from)));
    return Number(/(\d+) bytes in use/.exec(this.#log.slice(from))![1]);
  }
}

/** One end of a connection. */
export class End {
  readonly socket: Socket;
  #parts: Buffer[] = [];
  #length = 0;
  #isOver = false;
  #wake = () => {};

  constructor(socket: Socket) {
    this.socket = socket.on("error", () => {});
    const end = () => {
      this.#isOver = true;
      this.#wake();
    };
    socket.on("end", end).on("close", end).on("data", (bytes: Buffer) => {
      this.#parts.push(bytes);
      this.#length += bytes.length;
      this.#wake();
    });
    ends.add(this);
  }

  /** Opens a connection as a client. */
  static async open(path: string): Promise<End> {
    const end = new End(connect({ path, allowHalfOpen: true }));
    // Bun reports a connection that was closed at once as a failed one.
    await once(end.socket, "connect").catch(() => {});
    return end;
  }

  /** Sends text in Latin-1: one byte per character. */
  send(text: string): this {
    this.socket.write(Buffer.from(text, "latin1"));
    return this;
  }

  /** Half-closes the connection. */
  end(): this {
    this.socket.end();
    return this;
  }

  destroy(): void {
    ends.delete(this);
    this.socket.destroy();
  }

  /** The received text up to and including `text`. */
  async until(text: string): Promise<string> {
    let at: number;
    while ((at = this.#joined().indexOf(text, 0, "latin1")) === -1) {
      await this.#more(`before ${JSON.stringify(text)}`);
    }
    return this.#take(at + text.length);
  }

  async bytes(count: number): Promise<string> {
    while (this.#length < count) await this.#more(`before ${count} bytes`);
    return this.#take(count);
  }

  /** The received text until the other side half-closes. */
  async rest(): Promise<string> {
    while (!this.#isOver) await this.#moreOrEnd();
    return this.#take(this.#length);
  }

  /** The next message: its head, and its body, framed by its headers. */
  async message(hasBody = true): Promise<Message> {
    const lines = (await this.until("\r\n\r\n")).trimEnd().split("\r\n");
    const first = lines.shift()!;
    const fields = lines.map((line): [string, string] => {
      const colon = line.indexOf(":");
      return [line.slice(0, colon), line.slice(colon + 1).trim()];
    });
    const header = (name: string) =>
      fields.filter(([key]) => key.toLowerCase() === name).map(([, value]) => value).join(", ");
    const isEmpty = !hasBody || /^HTTP\S+ (1\d\d|204|304)/.test(first);
    let body = "", trailers = "";
    if (isEmpty) {
      // no body
    } else if (/chunked$/.test(header("transfer-encoding"))) {
      let size: number;
      while ((size = parseInt(await this.until("\r\n"), 16)) > 0) {
        body += await this.bytes(size);
        await this.until("\r\n");
      }
      for (let line: string; (line = await this.until("\r\n")) !== "\r\n";) trailers += line;
    } else if (header("content-length") !== "") {
      body = await this.bytes(Number(header("content-length")));
    } else if (first.startsWith("HTTP/")) body = await this.rest();
    return { first, status: Number(first.split(" ")[1]), fields, header, body, trailers };
  }

  /** Sends a request, and returns the response. */
  ask(target: string, method = "GET"): Promise<Message> {
    this.send(`${method} ${target} HTTP/1.1\r\nHost: x\r\n\r\n`);
    return this.message(method !== "HEAD");
  }

  #joined(): Buffer {
    if (this.#parts.length !== 1) this.#parts = [Buffer.concat(this.#parts)];
    return this.#parts[0]!;
  }

  #take(length: number): string {
    const all = this.#joined();
    this.#parts = [all.subarray(length)];
    this.#length -= Math.min(length, all.length);
    return all.toString("latin1", 0, length);
  }

  async #more(where: string): Promise<void> {
    if (this.#isOver) {
      throw new Error(`The connection ended ${where}: ${JSON.stringify(this.#take(500))}`);
    }
    await this.#moreOrEnd();
  }

  #moreOrEnd(): Promise<void> {
    return new Promise((resolve) => this.#wake = resolve);
  }
}

export interface Message {
  /** Request line or status line. */
  readonly first: string;
  readonly status: number;
  /** As sent, in order. */
  readonly fields: readonly (readonly [name: string, value: string])[];
  /** All values of a header, by its name in lower case. */
  header(name: string): string;
  readonly body: string;
  readonly trailers: string;
}

/** An upstream whose connections the test handles one by one. */
export class Behind {
  readonly path: string;
  readonly #waiting: End[] = [];
  #wake = () => {};
  /** The number of connections so far. */
  count = 0;

  private constructor(path: string) {
    this.path = path;
  }

  /** @param serve Handles each connection. Without it, `next()` returns them. */
  static async start(serve?: (end: End) => unknown, path = freshPath("up.sock")): Promise<Behind> {
    const behind = new Behind(path);
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      behind.count++;
      const end = new End(socket);
      if (serve !== undefined) return void Promise.resolve(serve(end)).catch(() => end.destroy());
      behind.#waiting.push(end);
      behind.#wake();
    });
    upstreams.add(server);
    await new Promise<void>((resolve) => server.listen(path, resolve));
    return behind;
  }

  /** The next connection. */
  async next(): Promise<End> {
    while (this.#waiting.length === 0) {
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
    return this.#waiting.shift()!;
  }
}

/** Answers all requests of a connection. */
export async function answerAll(
  end: End,
  answer: (request: Message) => string | Promise<string>,
): Promise<void> {
  while (true) end.send(await answer(await end.message()));
}

/** A response with Content-Length. */
export function answerOf(body: string, status = "200 OK"): string {
  return `HTTP/1.1 ${status}\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
}
