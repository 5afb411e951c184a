/** `ucred listen`: every process that connects, live. */

import process from "node:process";
import type { Peer } from "../core/peer.ts";
import type { Decision } from "../core/policy/decide/decision.ts";
import { watchPolicy } from "../policy/watch.ts";
import { createServer } from "../servers/net.ts";
import {
  type ExitCode,
  fit,
  fitEnd,
  pad,
  paint,
  print,
  printable,
  printJsonLine,
  tell,
  tellError,
  width,
  wrap,
} from "./output.ts";
import { factText, groupsText, userText } from "./peers.ts";
import { untilSignal } from "./signals.ts";

/** Options, as the command line has them. */
export interface ListenCommandOptions {
  readonly policy?: string;
  readonly action?: string;
  readonly socketMode?: number;
  readonly json?: boolean;
}

/** Columns of the table on a terminal that are always so wide. */
const FIXED = [["TIME", 8], ["PID", 7], ["", 5]] as const;

/** Those between which the rest of a line is shared, and their shares. */
const SHARED = [["USER", 3], ["GROUPS", 2], ["EXE", 4], ["WHERE", 4]] as const;

/** Runs the command, until it is told to end. */
export async function listen(path: string, options: ListenCommandOptions): Promise<ExitCode> {
  const where = path.startsWith("@") ? `\0${path.slice(1)}` : path;
  const policy = options.policy === undefined ? undefined : watchPolicy(options.policy, {
    allowUnsafeOwner: true, // nobody is let in by it
    onReload: () => tell("policy reloaded"),
    onError: (error) => void tellError(error),
  });
  const server = createServer({ policy: "anyone", pin: true }, (socket, peer) => {
    const decision = policy?.decide(peer, { action: options.action });
    show(peer, decision, options);
    socket.resume().end(greeting(peer, decision));
  });
  const ended = untilSignal(() => void policy?.reload()); // from before anybody can know that it listens
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    const isPath = !where.startsWith("\0");
    server.listen({ path: where, ...(isPath && { mode: options.socketMode ?? 0o666 }) }, () => {
      server.off("error", reject);
      resolve();
    });
  });
  const shown = printable(path);
  tell(`listening at ${shown}; connect to it, for instance by: nc -U ${shown}`);
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
    return print(cells.map(printable).join("\t")); // uncut, for other programs
  }
  const where = container.state === "known" ? container : unit;
  print(row([clock, pid, verdict], [user, groups, factText(exe), factText(where)]));
  for (const line of decision === undefined ? [] : wrap(decision.reason, width() - 9)) {
    print(paint("dim", `         ${printable(line)}`));
  }
}

/** A line of the table. */
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

/** What the client is told. */
function greeting(peer: Peer, decision: Decision | undefined): string {
  const verdict = decision === undefined ? "" : `: ${decision.allowed ? "allowed" : "denied"}`;
  return `you are uid ${userText(peer)}, pid ${peer.pid ?? "?"}${verdict}\n`;
}
