/** Clients with a chosen uid, and servers in separate processes. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import type { ListenOptions, NetServer } from "../../servers/net.ts";
import { Child, startScript } from "./peers.ts";
import { compileProgram } from "./compile.ts";
import { needs, runtime, until } from "./suite.ts";
import type { Order, Orders } from "../servers/server.ts";

/** The compiled visit.c. */
export const visitProgram: string = needs.cc.met && needs.linux.met
  ? compileProgram(new URL("visit.c", import.meta.url))
  : "";

/** A client process that stays connected. */
export class Visitor {
  readonly child: Child;

  private constructor(child: Child) {
    this.child = child;
  }

  /** Starts a client and waits until it is connected. Options are those of visit.c. */
  static async at(path: string, options: readonly string[] = []): Promise<Visitor> {
    const visitor = new Visitor(new Child(visitProgram, [...options, toName(path)]));
    const answer = await visitor.child.json<{ pid?: number; error?: string }>();
    if (answer.error !== undefined) throw new Error(answer.error);
    return visitor;
  }

  /** Waits until the server closes the connection. Returns all received text. */
  async text(): Promise<string> {
    return (await this.child.json<{ text: string }>()).text;
  }

  /** Closes the connection and ends the process. */
  async leave(): Promise<void> {
    await this.child.end();
  }
}

/**
 * Connects once. Returns the text received until the server closes the connection, or the error of
 * connecting.
 */
export async function visit(path: string, ...options: string[]): Promise<string> {
  const child = new Child(visitProgram, [...options, toName(path)]);
  const { error } = await child.json<{ error?: string }>();
  return error ?? (await child.json<{ text: string }>()).text;
}

/** Connects once as a user. */
export function visitAs(uid: number, path: string, ...options: string[]): Promise<string> {
  return visit(path, "--uid", `${uid}`, "--gid", `${uid}`, ...options);
}

/** Connects the given number of times and hangs up at once. Returns the number of successful connections. */
export async function crowd(path: string, times: number): Promise<number> {
  const child = new Child(visitProgram, ["--crowd", `${times}`, toName(path)]);
  return (await child.json<{ connected: number }>()).connected;
}

/** Returns an abstract name as it is written on a command line. */
export function toName(path: string): string {
  return path.startsWith("\0") ? `@${path.slice(1)}` : path;
}

/** Starts listening, and waits until the server listens. */
export async function listening(server: NetServer, where: string | ListenOptions): Promise<void> {
  server.listen(typeof where === "string" ? { path: where } : where);
  await once(server, "listening"); // rejects upon "error"
}

/** Returns the error of listening. */
export async function listenErrorOf(server: NetServer, where: ListenOptions): Promise<unknown> {
  try {
    await listening(server, where);
  } catch (error) {
    return error;
  }
  await server.close({ timeout: 0 });
  throw new Error(`It listens at ${JSON.stringify(where)}`);
}

/** A server process that runs server.ts. */
export class ServerProcess {
  readonly child: Child;

  constructor(orders: Orders = {}, prefix: readonly string[] = []) {
    this.child = startScript(prefix, "servers/server.ts", JSON.stringify(orders));
  }

  /** Starts a server that waits for commands. */
  static async start(orders: Orders = {}, prefix: readonly string[] = []): Promise<ServerProcess> {
    const server = new ServerProcess(orders, prefix);
    assert.ok("waiting" in await server.command<object>({}));
    return server;
  }

  /** Starts a server that listens. */
  static async listening(orders: Orders, prefix: readonly string[] = []): Promise<ServerProcess> {
    const server = new ServerProcess(orders, prefix);
    assert.ok("listening" in await server.child.json<object>());
    return server;
  }

  /** Sends a command and returns the answer. */
  async command<T>(order: Order): Promise<T> {
    this.child.process.stdin!.write(`${JSON.stringify(order)}\n`);
    return await this.child.json<T>();
  }

  /** Kills the server with SIGKILL. */
  async kill(): Promise<void> {
    const { process } = this.child;
    if (process.exitCode !== null || process.signalCode !== null) return;
    const ended = once(process, "exit");
    process.kill("SIGKILL");
    await ended;
  }
}

/**
 * Descriptors that Deno opens or leaves open by itself: its caches, and sockets of node:net
 * (docs/upstream-reports.md).
 */
const NOT_COUNTED = runtime === "deno" ? /_cache_v\d+|^socket:/ : undefined;

/** Returns the open descriptors of this process, each with the target of its link in /proc/self/fd. */
export function descriptorLinks(): readonly (readonly [fd: number, link: string])[] {
  return readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      return [[Number(fd), readlinkSync(`/proc/self/fd/${fd}`)] as const];
    } catch {
      return []; // the descriptor of the folder itself, or one that was closed meanwhile
    }
  });
}

/** Returns the number of descriptors of this process that are counted. */
export function openDescriptors(): number {
  return descriptorLinks().filter(([, link]) => NOT_COUNTED?.test(link) !== true).length;
}

/** Waits until this process has at most a number of descriptors. If it does not, the error lists them. */
export async function descriptorsClosed(most: number): Promise<void> {
  try {
    await until(() => openDescriptors() <= most);
  } catch {
    const open = descriptorLinks().map(([fd, link]) => `${fd} → ${link}`);
    assert.fail(`${open.length} descriptors instead of ${most}: ${open.join(", ")}`);
  }
}

/** Whether a socket listens at a path. The path appears at bind(2), before listen(2). See unix(7). */
export function isListening(path: string): boolean {
  const line = readFileSync("/proc/net/unix", "latin1").split("\n").find((line) =>
    line.endsWith(` ${path}`)
  );
  return line?.split(" ")[3] === "00010000"; // __SO_ACCEPTCON
}
