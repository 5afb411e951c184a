/** The clients of the soak run. */

import { Buffer } from "node:buffer";
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { promisify } from "node:util";
import { compileProgram } from "../support/compile.ts";
import type { Kind } from "./kinds.ts";

const programs = new Map<string, string>();

/** Compiles a program of this folder, once, and returns its path. */
export function program(name: "crowd" | "sockets"): string {
  const path = programs.get(name) ?? compileProgram(new URL(`${name}.c`, import.meta.url));
  programs.set(name, path);
  return path;
}

/** A range of uids. */
export interface Users {
  readonly first: number;
  readonly last: number;
}
const usersFrom = (first: number): Users => ({ first, last: first + 24 });

/** Returns whether a user is in a range. */
export const includes = ({ first, last }: Users, uid: number) => first <= uid && uid <= last;

/** Writes a range as policies do. */
export const rangeOf = ({ first, last }: Users) => `"${first}-${last}"`;

/** Users that a rule allows, that no rule matches, that a rule denies, and that one of two policies allows. */
export const [ALLOWED, UNKNOWN] = [usersFrom(4100), usersFrom(4200)];
export const [DENIED, CHANGING] = [usersFrom(4300), usersFrom(4400)];

/** A user that a rule allows, and that opens hundreds of connections. */
export const FLOODING = 4500;

/**
 * How long to wait for what must happen, in milliseconds. It ends a run that would never end, and is far longer
 * than a busy machine takes.
 */
export const MAX_WAIT_MS = 300_000;

/** How long a client waits for a connection that may stay open after its request has failed. */
const SHORT_WAIT_MS = 10_000;

/** Clients of one crowd, those that are connected at the same time, and as many of a calm crowd. */
const [CROWD, CONCURRENT, CALM_CROWD, CALM_CONCURRENT] = [200, 40, 50, 10];

/** How a crowd behaves, and what is required for it. */
export interface CrowdOptions {
  /** All clients behave well, and each allowed one must be served. */
  readonly isCalm?: boolean;
  /** Clients need not be served, since the server or its upstream may be absent. */
  readonly isFaulty?: boolean;
  /** Each client must be able to connect. */
  readonly mustConnect?: boolean;
  /** Whether the policy allows the changing users, if it does not change meanwhile. */
  readonly isWide: boolean;
}

/** How many clients were served, by behaviour, and how many had a problem: see crowd.c. */
export interface Counts {
  readonly wrong: number;
  readonly stuck: number;
  readonly starved: number;
  readonly behaviours: {
    readonly [behaviour: string]: { served: number; refused: number; failed: number };
  };
}

/** Lets a crowd connect. */
export async function runCrowd(
  path: string,
  { request, served, denied = "", staysOpen = false }: Kind,
  seed: number,
  { isCalm = false, isFaulty = false, isWide }: CrowdOptions,
): Promise<Counts> {
  const usersOf = ({ first, last }: Users, expect: string) =>
    Array.from({ length: last - first + 1 }, (_, at) => `${first + at}:${expect}`);
  const { stdout } = await promisify(execFile)(program("crowd"), [
    path,
    Buffer.from(request, "latin1").toString("hex"),
    served,
    denied,
    `${seed}`,
    `${isCalm ? CALM_CROWD : CROWD}`,
    `${isCalm ? CALM_CONCURRENT : CONCURRENT}`,
    isCalm ? "1" : "0",
    `${(isFaulty && staysOpen ? SHORT_WAIT_MS : MAX_WAIT_MS) / 1000}`,
    ...usersOf(ALLOWED, "yes"),
    ...usersOf(UNKNOWN, "no"),
    ...usersOf(DENIED, "no"),
    ...usersOf(CHANGING, isCalm ? (isWide ? "yes" : "no") : "any"),
  ]);
  return JSON.parse(stdout);
}

/** How a client ended, and how long it was connected at most. */
export interface End {
  readonly outcome: "served" | "closed" | "waits";
  readonly milliseconds: number;
}

/** A client, as root, that stops in the middle of its request. */
export class Patient {
  readonly #socket: Socket;
  readonly #rest: string;
  readonly #start = performance.now();
  /** Resolves when it is served, when the server hangs up, or after a long time. */
  readonly ended: Promise<End>;

  constructor(path: string, { request, served }: Kind) {
    const half = request.length >> 1;
    const wanted = served.replace("%u", "0");
    this.#rest = request.slice(half);
    this.#socket = connect(path).setEncoding("latin1");
    this.#socket.write(request.slice(0, half), "latin1");
    let received = "";
    this.ended = new Promise((resolve) => {
      const done = (outcome: End["outcome"]) => {
        this.#socket.destroy();
        clearTimeout(timer);
        resolve({ outcome, milliseconds: performance.now() - this.#start });
      };
      const timer = setTimeout(() => done("waits"), MAX_WAIT_MS);
      this.#socket.on("data", (text: string) => {
        received += text;
        if (received.includes(wanted)) done("served");
      });
      this.#socket.on("error", () => {}).once("close", () => done("closed"));
    });
  }

  finish(): void {
    this.#socket.write(this.#rest, "latin1");
  }

  destroy(): void {
    this.#socket.destroy();
  }
}

/** Descriptors that a program may open. */
export const MAX_FILES = 4096;

/** Starts sockets.c, which ends when its standard input does. */
export async function startSockets(args: readonly string[]): Promise<ChildProcess> {
  const command = [`--nofile=${MAX_FILES}:`, program("sockets"), ...args];
  const child = spawn("prlimit", command, { stdio: ["pipe", "pipe", "inherit"] });
  await Promise.race([
    once(child.stdout!, "data"),
    once(child, "exit").then(() => {
      throw new Error(`sockets ${args.join(" ")} has ended`);
    }),
  ]);
  return child;
}

/** Ends it, and closes its sockets. */
export async function endSockets(child: ChildProcess): Promise<void> {
  const ended = once(child, "close");
  child.stdin!.end();
  await ended;
}
