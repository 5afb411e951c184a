/**
 * A server of ucred/net or ucred/bun in a separate process. It executes commands, which are lines of JSON
 * on its input, in order, and answers each with a line: `{"listen":…}`, `{"close":…}`, `{"stats":true}`.
 *
 * Its argument is JSON: options for createServer(), `uid` and `gid` to run as, and where to `listen` at
 * once, without an "error" listener.
 */

import { closeSync, openSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline";
import {
  createServer,
  type ListenOptions,
  type NetServer,
  type NetServerOptions,
} from "../../servers/net.ts";
import { auditLog } from "../../servers/audit.ts";
import { definePolicy, type Peer } from "../../mod.ts";
import { listen as listenByBun } from "../../servers/bun.ts";
import type { PolicyDocument } from "../../core/policy/document/types.ts";

export interface Orders {
  readonly uid?: number;
  readonly gid?: number;
  readonly umask?: number;
  readonly policy?: PolicyDocument | "anyone";
  readonly options?: Omit<NetServerOptions, "policy">;
  /** Whether to write an audit log to stderr. */
  readonly audit?: boolean;
  readonly listen?: ListenOptions;
  /** The greeting of each client; by default its uid. With null the connection stays open. */
  readonly text?: string | null;
  /** Whether the greeting has the server's pid. */
  readonly pid?: boolean;
  /** Whether to use ucred/bun. */
  readonly bun?: boolean;
}

/** The common members of all kinds of servers. */
type AnyServer = Pick<NetServer, "stats"> & { close(how: object): Promise<unknown> };

/** One command. */
export interface Order {
  readonly listen?: ListenOptions;
  readonly close?: { readonly timeout?: number };
  readonly stats?: true;
  /** Uses up all descriptors except this number; 0 closes them again. */
  readonly fill?: number;
}

const orders = JSON.parse(process.argv[2] ?? "{}") as Orders;
if (orders.gid !== undefined) process.setgid!(orders.gid);
if (orders.uid !== undefined) process.setuid!(orders.uid);
if (orders.umask !== undefined) process.umask(orders.umask);
const { policy } = orders;
const say = (answer: unknown) => process.stdout.write(`${JSON.stringify(answer)}\n`);

let server: AnyServer | undefined;

const options = {
  ...orders.options,
  policy: typeof policy === "object" ? definePolicy(policy) : policy,
  ...(orders.audit && { audit: auditLog() }),
};
const greet = (socket: { end(text: string): unknown }, { uid }: Peer) => {
  if (orders.text !== null) socket.end(orders.text ?? `${orders.pid ? process.pid : uid}\n`);
};
const sayPath = (path: string) => say({ listening: path.replace("\0", "@") });
const sayError = ({ code, errno, message }: NodeJS.ErrnoException) =>
  say({ error: { code, errno, message } });

function start(where: ListenOptions): NetServer {
  const made = createServer(options, (socket, peer) => greet(socket.resume(), peer));
  return made.listen(where, () => sayPath(made.address() as unknown as string));
}

async function startBun(where: ListenOptions): Promise<void> {
  try {
    const made = await listenByBun({ ...options, ...where, socket: { open: greet } });
    server = made;
    sayPath(made.path);
  } catch (error) {
    sayError(error as Error);
  }
}

if (orders.listen !== undefined) {
  if (orders.bun) await startBun(orders.listen);
  else server = start(orders.listen);
}

const fillers: number[] = [];
process.on("SIGUSR2", () => {}); // installing a handler needs descriptors, without which Deno 2.9.5 panics

function fillUp(left: number): void {
  try {
    while (left > 0) fillers.push(openSync("/dev/null", "r"));
  } catch {
    // no descriptor is left
  }
  for (const fd of fillers.splice(left === 0 ? 0 : -left)) closeSync(fd);
  say({ filled: true });
}

createInterface({ input: process.stdin }).on("line", (line) => {
  const { listen, close, stats, fill } = JSON.parse(line) as Order;
  if (listen !== undefined) {
    if (orders.bun) void startBun(listen);
    else server = start(listen).on("error", sayError);
  }
  if (close !== undefined) server!.close(close).then(() => say({ closed: true }));
  // Deferred: Deno needs a descriptor for each read of its input.
  if (fill !== undefined) setTimeout(() => fillUp(fill), 50);
  if (stats) say(server!.stats());
  if (line === "{}") say({ waiting: true });
}).on("close", () => process.exit());
