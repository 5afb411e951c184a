/** Servers, and real client processes with chosen ids. */

import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { chmodSync, readdirSync, readlinkSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { compileCache, compileProgram, temporaryFolder } from "./compile.ts";
import { endAfterEach, needs, runtimeCommand } from "./suite.ts";

/** The client's report about itself, from its own namespaces. */
export interface Self {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
}

/** The compiled peer.c. */
export const peerProgram: string = needs.cc.met && needs.linux.met
  ? compileProgram(new URL("peer.c", import.meta.url))
  : "";

/** The compiled actor.c. */
export const actorProgram: string = needs.cc.met && needs.linux.met
  ? compileProgram(new URL("actor.c", import.meta.url))
  : "";

/** Returns an unused socket path, in a folder that every user may enter. */
export function freshPath(name = "s"): string {
  return join(temporaryFolder(), name);
}

const children = new Set<ChildProcess>();
// A failing test must not leave a child behind, for which the runner would wait forever. It must leave
// no pipes, either: the next test may count descriptors.
endAfterEach(async () => {
  if (children.size === 0) return;
  const ends = [...children].map((child) => new Promise((resolve) => child.once("close", resolve)));
  children.forEach((child) => child.kill("SIGKILL"));
  await Promise.race([Promise.all(ends), sleep(1000)]);
});

/** A child process and the lines that it prints. */
export class Child {
  readonly process: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  #errors = "";

  constructor(command: string, args: readonly string[]) {
    const env = { ...process.env, NODE_COMPILE_CACHE: compileCache };
    this.process = spawn(command, args, { env, stdio: ["pipe", "pipe", "pipe"] });
    children.add(this.process.on("exit", () => children.delete(this.process)));
    this.#lines = createInterface({ input: this.process.stdout! })[Symbol.asyncIterator]();
    this.process.stderr!.setEncoding("utf8").on("data", (text: string) => this.#errors += text);
  }

  /** Returns the next line of the child's output. */
  async line(): Promise<string> {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error(`The child ended without an answer: ${this.#errors}`);
    return value;
  }

  /** Returns the next line of the child's output, parsed as JSON. */
  async json<T>(): Promise<T> {
    return JSON.parse(await this.line()) as T;
  }

  /** Ends the child's input, which ends the child. */
  async end(): Promise<void> {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    const ended = new Promise((resolve) => this.process.once("exit", resolve));
    this.process.stdin!.end();
    await ended;
  }
}

/** Ids of a process. */
export interface Ids {
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
}

/** The words that start a program with these ids. */
export function withIds({ uid, gid, groups }: Ids): string[] {
  const list = groups.length === 0 ? "--clear-groups" : `--groups=${groups.join()}`;
  return ["setpriv", `--reuid=${uid}`, `--regid=${gid}`, list];
}

/** Runs a script of tests/ on the runtime under test. `prefix` are words such as `unshare …`. */
export function startScript(prefix: readonly string[], script: string, ...args: string[]): Child {
  const file = fileURLToPath(new URL(`../${script}`, import.meta.url));
  const [command, ...rest] = [...prefix, ...runtimeCommand(), file, ...args] as [string];
  return new Child(command, rest);
}

/**
 * Listens, lets peer.c connect with these options, and passes the accepted socket to `look`.
 *
 * @param look Runs in the accept handler.
 * @returns The result of `look`, and the client's report about itself.
 */
export async function meet<T>(
  options: readonly string[],
  look: (socket: Socket) => T,
  path: string = freshPath(),
): Promise<[T, Self]> {
  const { seen, server } = await acceptOne(path, look);
  try {
    const client = new Child(peerProgram, [...options, toName(path)]);
    const self = await client.json<Self>();
    const found = await seen;
    await client.end();
    return [found, self];
  } finally {
    server.close();
  }
}

/** Lets peer.c connect and end before the connection can be accepted, and passes it to `look`. */
export async function meetGone<T>(look: (socket: Socket) => T): Promise<T> {
  const path = freshPath();
  const { seen, server } = await acceptOne(path, look);
  try {
    execFileSync(peerProgram, ["--exit", path]); // blocks this thread, which would accept
    return await seen;
  } finally {
    server.close();
  }
}

/** Listens, and runs `look` in the accept handler. */
async function acceptOne<T>(path: string, look: (socket: Socket) => T) {
  const { promise: seen, resolve, reject } = Promise.withResolvers<T>();
  const server = createServer((socket) => {
    try {
      resolve(look(socket));
    } catch (error) {
      reject(error);
    }
    socket.on("error", () => {}).resume();
  });
  await listen(server, path);
  return { seen, server };
}

/** A process of actor.c, with our end of its connection. */
export class Actor {
  readonly #socket: Socket;
  readonly #answers: AsyncIterator<string>;
  /** The actor itself, or its parent. */
  readonly child: Child;

  constructor(socket: Socket, child: Child) {
    this.#socket = socket;
    this.#answers = createInterface({ input: socket })[Symbol.asyncIterator]();
    this.child = child;
  }

  /** Sends a command to the actor, and waits until it is done. */
  async command(command: string): Promise<void> {
    this.#socket.write(`${command}\n`);
    const { value } = await this.#answers.next();
    assert.equal(value, "ok", command);
  }

  /** Makes the actor end, and waits until its connection is closed. */
  async exit(): Promise<void> {
    this.#socket.write("exit\n");
    await this.#answers.next();
  }

  /** Closes our end, which ends the actor. */
  hangUp(): void {
    this.#socket.destroy();
  }
}

/**
 * Starts an actor, and passes its connection to `look` in the accept handler.
 *
 * @param options The options of actor.c.
 * @param command The command that starts it, for example `unshare …`.
 */
export async function startActor<T>(
  options: readonly string[],
  look: (socket: Socket) => T,
  [command, ...args]: readonly [string, ...string[]] = [actorProgram],
): Promise<[T, Actor]> {
  const path = freshPath();
  const { promise, resolve, reject } = Promise.withResolvers<[T, Socket]>();
  const server = createServer((socket) => {
    try {
      resolve([look(socket), socket.on("error", () => {})]);
    } catch (error) {
      reject(error);
    }
  });
  await listen(server, path);
  try {
    const child = new Child(command, [...args, ...options, path]);
    const [found, socket] = await promise;
    return [found, new Actor(socket, child)];
  } finally {
    server.close();
  }
}

/** Starts listening where every user may connect. */
export async function listen(server: ReturnType<typeof createServer>, path: string): Promise<void> {
  await new Promise<void>((resolve, reject) => server.once("error", reject).listen(path, resolve));
  if (!path.startsWith("\0")) chmodSync(path, 0o777);
}

/** Returns an abstract name as it is written on a command line. */
function toName(path: string): string {
  return path.startsWith("\0") ? `@${path.slice(1)}` : path;
}

/** Requires that the ids are those of this process. */
export function assertOurs(found: { uid: number; gid: number }): void {
  assert.deepEqual([found.uid, found.gid], [process.geteuid!(), process.getegid!()]);
}

/** Returns the number of pidfds of this process. */
export function pidfds(): number {
  return readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).includes("pidfd");
    } catch {
      return false; // the descriptor of the folder itself
    }
  }).length;
}
