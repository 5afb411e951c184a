/** Ids → names, through the system's account database (NSS, so LDAP and sssd accounts work). */

import type { System } from "../adapters/select.ts";
import { type Fact, known, none, unknown } from "../core/facts.ts";
import { decodeAccountName } from "../ffi/accounts.ts";
import { failure, senseless } from "./failure.ts";
import { ERANGE } from "./option.ts";

type Lookup = "getpwuid_r" | "getgrgid_r";

/** "No such account" is 0 with a null result, or one of these (getpwnam_r(3), ERRORS). */
const MISSING = new Set([2, 3]); // ENOENT, ESRCH: the same numbers everywhere

/** An entry with very many group members needs this much; twice that of any that was met. */
const MOST_BYTES = 1 << 20;

/** How long an answer is used again, in ms; a miss costs more than a hit, so it is kept as well. */
const KEEP = 60_000;
const MOST_ENTRIES = 4096;

const answers = new WeakMap<System, Map<string, { fact: Fact<string>; until: number }>>();

/** The name of the account with this uid; `none` if there is no such account. */
export function userName(on: System, uid: number): Fact<string> {
  return remembered(on, "getpwuid_r", uid);
}

/** The name of the group with this gid; `none` if there is no such group. */
export function groupName(on: System, gid: number): Fact<string> {
  return remembered(on, "getgrgid_r", gid);
}

function remembered(on: System, lookup: Lookup, id: number): Fact<string> {
  let known = answers.get(on);
  if (known === undefined) answers.set(on, known = new Map());
  const key = `${lookup} ${id}`;
  const now = performance.now();
  const before = known.get(key);
  if (before !== undefined && before.until > now) return before.fact;
  const fact = look(on, lookup, id);
  if (fact.state === "unknown") return fact; // a failure may pass: ask again next time
  if (known.size >= MOST_ENTRIES) known.clear();
  known.set(key, { fact, until: now + KEEP });
  return fact;
}

function look(on: System, lookup: Lookup, id: number): Fact<string> {
  const what = `look up ${lookup === "getpwuid_r" ? "uid" : "gid"} ${id}`;
  for (let size = 2048;; size *= 8) {
    const memory = on.libc.memory(size);
    const errno = on.libc[lookup](id, memory);
    if (errno === ERANGE && size < MOST_BYTES) continue;
    if (MISSING.has(errno)) return none("accounts@now");
    if (errno !== 0) return unknown(failure(on, what, lookup, errno));
    const name = decodeAccountName(memory.bytes, id);
    if (name === null) return none("accounts@now");
    if (name === undefined) return unknown(senseless(what, lookup, "with another account"));
    return known(name, "accounts@now");
  }
}
