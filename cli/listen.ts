/** `ucred listen`: every process that connects, live. */

import process from "node:process";
import type { Peer } from "../core/peer.ts";
import type { Decision } from "../core/policy/policy.ts";
import { watchPolicy } from "../policy/watch.ts";
import { createServer } from "../servers/net.ts";
import { type ExitCode, fit, paint, print, tell, tellError } from "./output.ts";
import { factText, groupsText, userText } from "./peers.ts";
import { untilSignal } from "./signals.ts";

/** Options, as the command line has them. */
export interface ListenCommandOptions {
  readonly policy?: string;
  readonly action?: string;
  readonly mode: number;
  readonly json?: boolean;
}

/** Columns, with the widths that they have in a table. */
const COLUMNS = [
  ["TIME", 8],
  ["PID", 8],
  ["USER", 18],
  ["GROUPS", 16],
  ["EXE", 24],
  ["UNIT", 20],
  ["CONTAINER", 12],
  ["", 5],
  ["WHY", Infinity],
] as const;

/** Runs the command, until it is told to end. */
export async function listen(path: string, options: ListenCommandOptions): Promise<ExitCode> {
  const where = path.startsWith("@") ? `\0${path.slice(1)}` : path;
  const policy = options.policy === undefined ? undefined : watchPolicy(options.policy, {
    onReload: () => tell("policy reloaded"),
    onError: (error) => void tellError(error),
  });
  const server = createServer({ policy: "anyone", pin: true }, (socket, peer) => {
    const decision = policy?.decide(peer, { action: options.action });
    show(peer, decision, options);
    socket.resume().end(greeting(peer, decision));
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    const isPath = !where.startsWith("\0");
    server.listen({ path: where, ...(isPath && { mode: options.mode }) }, () => {
      server.off("error", reject);
      resolve();
    });
  });
  tell(`listening at ${path}; connect to it, for instance by: nc -U ${path}`);
  if (!options.json && process.stdout.isTTY) {
    print(paint("bold", row(COLUMNS.map(([title]) => title))));
  }
  await untilSignal(policy);
  await server.close({ timeout: 0 });
  policy?.close();
  return 0;
}

function show(
  peer: Peer,
  decision: Decision | undefined,
  { json }: ListenCommandOptions,
): void {
  const time = new Date();
  if (json) {
    const { allowed, rule, grants, reason } = decision ?? {};
    const verdict = decision && { decision: { allowed, rule, grants, reason } };
    return print(JSON.stringify({ time, ...peer.toJSON(), ...verdict }));
  }
  const { exe, unit, container } = peer.process.facts;
  print(row([
    time.toTimeString().slice(0, 8),
    String(peer.pid ?? "?"),
    userText(peer),
    groupsText(peer),
    factText(exe),
    factText(unit),
    factText(container),
    decision === undefined ? "-" : decision.allowed ? "allow" : "deny",
    decision?.reason ?? "",
  ]));
}

/** A line of a table on a terminal; elsewhere fields with tabs between, uncut. */
function row(cells: readonly string[]): string {
  const { isTTY, columns = 80 } = process.stdout;
  if (!isTTY) return cells.join("\t");
  const text = cells.map((cell, at) => {
    const width = COLUMNS[at]![1];
    if (width === Infinity) return cell;
    const cut = fit(cell, width).padEnd(width);
    return cell === "allow" ? paint("green", cut) : cell === "deny" ? paint("red", cut) : cut;
  }).join(" ");
  // Colours take no room, and are in one column only.
  return visibleLength(text) <= columns ? text : cutVisible(text, columns);
}

// deno-lint-ignore no-control-regex
const COLOUR = /\u001b\[[0-9;]*m/g;

function visibleLength(text: string): number {
  return [...text.replace(COLOUR, "")].length;
}

/** Cuts off at a width, after which no colour is left on. */
function cutVisible(text: string, width: number): string {
  const over = visibleLength(text) - width;
  const cut = [...text].slice(0, -(over + 1)).join("");
  return visibleLength(cut) === width - 1 ? `${cut}…` : fit(text.replace(COLOUR, ""), width);
}

/** What the client is told. */
function greeting(peer: Peer, decision: Decision | undefined): string {
  const verdict = decision === undefined ? "" : `: ${decision.allowed ? "allowed" : "denied"}`;
  return `you are uid ${userText(peer)}, pid ${peer.pid ?? "?"}${verdict}\n`;
}
