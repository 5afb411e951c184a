/** `ucred listen`: shows each process that connects. */

import { once } from "node:events";
import process from "node:process";
import type { Peer } from "../core/peer.ts";
import { addressOf } from "../core/socket_name.ts";
import type { Decision } from "../core/policy/decide/decision.ts";
import { VOCABULARIES } from "../interop/vocabularies.ts";
import { watchPolicy } from "../policy/watch.ts";
import { createServer } from "../servers/net.ts";
import {
  type ExitCode,
  fit,
  fitEnd,
  log,
  logError,
  pad,
  paint,
  print,
  printable,
  printJsonLine,
  width,
  wrap,
} from "./output.ts";
import { factText, groupsText, userText } from "./peers.ts";
import { untilSignal } from "./signals.ts";

/** The command's options, parsed. */
export interface ListenCommandOptions {
  readonly policy?: string;
  readonly action?: string;
  readonly socketMode?: number;
  readonly json?: boolean;
}

/** Columns of fixed width, on a terminal. */
const FIXED = [["TIME", 8], ["PID", 7], ["", 5]] as const;

/** Columns that share the rest of the line, with their shares. */
const SHARED = [["USER", 3], ["GROUPS", 2], ["EXE", 4], ["WHERE", 4]] as const;

/** Runs the command until SIGINT or SIGTERM. */
export async function listen(path: string, options: ListenCommandOptions): Promise<ExitCode> {
  const address = addressOf(path);
  const policy = options.policy === undefined ? undefined : watchPolicy(options.policy, {
    allowUnsafeOwner: true, // its decisions are only shown
    vocabularies: VOCABULARIES,
    onReload: () => log("policy reloaded"),
    onError: (error) => void logError(error),
  });
  const server = createServer({ policy: "anyone", pin: true }, (socket, peer) => {
    const decision = policy?.decide(peer, { action: options.action });
    show(peer, decision, options);
    socket.resume().end(greeting(peer, decision));
  });
  const ended = untilSignal(() => void policy?.reload()); // before clients can see that it listens
  const isPath = !address.startsWith("\0");
  server.listen({ path: address, ...(isPath && { mode: options.socketMode ?? 0o666 }) });
  await once(server, "listening"); // rejects upon "error"
  const shown = printable(path);
  log(`listening at ${shown}; connect, for example, with: nc -U ${shown}`);
  if (!options.json && process.stdout.isTTY) {
    print(paint("bold", row(FIXED.map(([title]) => title), SHARED.map(([title]) => title))));
  }
  await ended;
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
    return printJsonLine({ time, ...peer.toJSON(), ...verdict });
  }
  const { exe, unit, container } = peer.process.facts;
  const clock = time.toTimeString().slice(0, 8);
  const verdict = decision === undefined ? "-" : decision.allowed ? "allow" : "deny";
  const [pid, user, groups] = [String(peer.pid ?? "?"), userText(peer), groupsText(peer)];
  if (width() === Infinity) {
    const facts = [exe, unit, container].map(factText);
    const cells = [clock, pid, user, groups, ...facts, verdict, decision?.reason ?? ""];
    return print(cells.map(printable).join("\t")); // not truncated: for other programs
  }
  const where = container.state === "known" ? container : unit;
  print(row([clock, pid, verdict], [user, groups, factText(exe), factText(where)]));
  for (const line of decision === undefined ? [] : wrap(decision.reason, width() - 9)) {
    print(paint("dim", `         ${printable(line)}`));
  }
}

/** A line of the table, fitted to the terminal. */
function row(fixed: readonly string[], shared: readonly string[]): string {
  const room = width() - FIXED.reduce((sum, [, width]) => sum + width + 1, 0) - SHARED.length;
  const shares = SHARED.reduce((sum, [, share]) => sum + share, 0);
  const cells = [
    ...fixed.map((cell, at) => [cell, FIXED[at]![1]] as const),
    ...shared.map((cell, at) =>
      [cell, Math.max(Math.floor(room * SHARED[at]![1] / shares), 4)] as const
    ),
  ];
  return cells.map(([cell, width]) => {
    const cut = pad(cell.startsWith("/") ? fitEnd(cell, width) : fit(cell, width), width);
    return cell === "allow" ? paint("green", cut) : cell === "deny" ? paint("red", cut) : cut;
  }).join(" ").trimEnd();
}

/** The response to the client. */
function greeting(peer: Peer, decision: Decision | undefined): string {
  const verdict = decision === undefined ? "" : `: ${decision.allowed ? "allowed" : "denied"}`;
  return `you are uid ${userText(peer)}, pid ${peer.pid ?? "?"}${verdict}\n`;
}
