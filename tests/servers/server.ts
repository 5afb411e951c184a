/**
 * A server of ucred/net, or ucred/bun, in a process of its own. It does what lines of JSON on its input say, one
 * after the other, and answers each with a line: `{"listen":…}`, `{"close":…}`, `{"stats":true}`.
 *
 * Its argument is JSON, too: options for createServer(), `uid` and `gid` to run as, where to `listen`
 * at once, without anybody who hears of errors.
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
  /** An audit log on stderr. */
  readonly audit?: boolean;
  readonly listen?: ListenOptions;
  /** What is said to each; by default its uid. The connection stays open if it is null. */
  readonly text?: string | null;
  /** Whether its own pid is said. */
  readonly pid?: boolean;
  /** Whether it is one of ucred/bun. */
  readonly bun?: boolean;
}

/** What is the same of all kinds of servers. */
type Running = Pick<NetServer, "stats"> & { close(how: object): Promise<unknown> };

/** What it is told. */
export interface Order {
  readonly listen?: ListenOptions;
  readonly close?: { readonly timeout?: number };
  readonly stats?: true;
  /** Uses up its descriptors but so many; 0 gives them back. */
  readonly fill?: number;
}

const orders = JSON.parse(process.argv[2] ?? "{}") as Orders;
if (orders.gid !== undefined) process.setgid!(orders.gid);
if (orders.uid !== undefined) process.setuid!(orders.uid);
if (orders.umask !== undefined) process.umask(orders.umask);
const { policy } = orders;
const say = (answer: unknown) => process.stdout.write(`${JSON.stringify(answer)}\n`);

let server: Running | undefined;

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
process.on("SIGUSR2", () => {}); // takes Deno 2.9.5 some descriptors, for want of which it panics

function fillUp(left: number): void {
  try {
    while (left > 0) fillers.push(openSync("/dev/null", "r"));
  } catch {
    // none is left
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
  // Later: Deno takes a descriptor for each read of its input, and is to have the next one by then.
  if (fill !== undefined) setTimeout(() => fillUp(fill), 50);
  if (stats) say(server!.stats());
  if (line === "{}") say({ waiting: true });
}).on("close", () => process.exit());
