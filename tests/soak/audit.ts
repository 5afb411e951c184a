/** Reads the audit log of a server of the soak run. */

import { readFileSync } from "node:fs";
import { ALLOWED, CHANGING, DENIED, FLOODING, includes, UNKNOWN } from "./clients.ts";
import { add } from "./tally.ts";

/** A time in which the clock of a server was ahead by the same seconds. */
export interface Period {
  readonly ahead: number;
  readonly from: number;
  to: number;
}

/** A line of the audit log. */
interface AuditLine {
  readonly time: string;
  readonly event: string;
  readonly peer?: { readonly uid: number };
  readonly why?: string;
  readonly allowed?: boolean;
}

/** What an audit log has. */
export interface Audit {
  /** Accepted connections. */
  accepted: number;
  /** Reports of lines that were dropped. */
  dropped: number;
  /** Lines that are not JSON. */
  partial: number;
  /** Lines with a time of the last period. */
  current: number;
  /** What is wrong with a line, and the line. */
  problem?: string;
}

/** Reads an audit log. Each line must have a time of one of the periods, and the right decision. */
export function readAudit(file: string, periods: readonly Period[]): Audit {
  const audit: Audit = { accepted: 0, dropped: 0, partial: 0, current: 0 };
  for (const text of readFileSync(file, "utf8").split("\n").filter((line) => line !== "")) {
    const line = parsed(text);
    if (line === undefined) {
      audit.partial++;
      continue;
    }
    const { event, why, time } = line;
    add(`audit, ${event}${why === undefined ? "" : `: ${why}`}`, 1);
    if (event === "accepted") audit.accepted++;
    if (event === "dropped") audit.dropped++;
    if (isWithin(periods.at(-1)!, time)) audit.current++;
    const problem = problemOf(line, periods);
    if (problem !== undefined) audit.problem ??= `${problem}: ${text}`;
  }
  return audit;
}

function parsed(text: string): AuditLine | undefined {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Whether a server could write this time in a period. The jumps are longer than an hour, the tolerance is a second. */
function isWithin({ ahead, from, to }: Period, time: string): boolean {
  const real = Date.parse(time) - ahead * 1000;
  return real > from - 1000 && real < Math.min(to, Date.now()) + 1000;
}

/** Returns what is wrong with a line. */
function problemOf(
  { event, time, peer, why, allowed }: AuditLine,
  periods: readonly Period[],
): string | undefined {
  if (!periods.some((period) => isWithin(period, time))) return "wrong time";
  if (event === "dropped") return undefined;
  if (peer === undefined) return why === "unidentified" ? undefined : "no peer";
  const { uid } = peer;
  const isListed = [ALLOWED, CHANGING].some((users) => includes(users, uid));
  const mayAccept = isListed || uid === 0 || uid === FLOODING;
  const isKnown = mayAccept || includes(UNKNOWN, uid) || includes(DENIED, uid);
  if (!isKnown) return "a user that does not exist";
  const isAllowed = event === "accepted" || allowed === true;
  return isAllowed && !mayAccept ? "a wrong user" : undefined;
}
