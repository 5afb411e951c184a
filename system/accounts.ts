/** Looks up accounts by id or name in the system's account database (NSS, which includes LDAP and sssd). */

import { type Memory, memoryOf } from "../adapters/libc.ts";
import { openedSystem, type System } from "../adapters/select.ts";
import { isId } from "../core/credentials.ts";
import { UcredError } from "../core/errors.ts";
import { type Fact, known, none, unknown, valueOf } from "../core/facts.ts";
import { decodeAccountId, decodeAccountName } from "../ffi/accounts.ts";
import { syscallError, unexpectedAnswer } from "./syscall_error.ts";
import { readText } from "./proc_files.ts";

type Lookup = "getpwuid_r" | "getgrgid_r";

/**
 * Size of the largest entry that is read, about a million members. A group may have any number of
 * members, and every entry of /etc/group up to the requested one must fit. getent(1) has no limit.
 */
const MAX_ENTRY_BYTES = 1 << 24;

/** Memory for the first attempt; each further attempt has eight times as much. */
const FIRST_BYTES = 2048;

/** How long an answer is cached. Misses are cached too, since they cost more than hits. */
const CACHE_MS = 60_000;
const MAX_CACHED_ACCOUNTS = 4096;

const answers = new WeakMap<System, Map<string, { fact: Fact<string>; until: number }>>();

/** Returns the name of the account with this uid; `none` if there is no such account. */
export function userName(system: System, uid: number): Fact<string> {
  return remembered(system, "getpwuid_r", uid);
}

/** Returns the name of the group with this gid; `none` if there is no such group. */
export function groupName(system: System, gid: number): Fact<string> {
  return remembered(system, "getgrgid_r", gid);
}

function remembered(system: System, lookup: Lookup, id: number): Fact<string> {
  let known = answers.get(system);
  if (known === undefined) answers.set(system, known = new Map());
  const key = `${lookup} ${id}`;
  const now = performance.now();
  const before = known.get(key);
  if (before !== undefined && before.until > now) return before.fact;
  const fact = look(system, lookup, id);
  if (fact.state === "unknown") return fact; // a failure may be temporary and is not cached
  if (known.size >= MAX_CACHED_ACCOUNTS) known.clear();
  known.set(key, { fact, until: now + CACHE_MS });
  return fact;
}

function look(system: System, lookup: Lookup, id: number): Fact<string> {
  const what = `look up ${lookup === "getpwuid_r" ? "uid" : "gid"} ${id}`;
  try {
    const memory = call(system, what, lookup, (memory) => system.libc[lookup](id, memory));
    const name = memory && decodeAccountName(memory.bytes, id);
    if (name === undefined && memory !== undefined) {
      return unknown(unexpectedAnswer(what, lookup, "another account"));
    }
    return typeof name === "string" ? known(name, "accounts@now") : none("accounts@now");
  } catch (error) {
    if (error instanceof UcredError) return unknown(error);
    throw error;
  }
}

/** Calls a lookup with growing memory; returns `undefined` if there is no such account. */
function call(
  system: System,
  what: string,
  lookup: Lookup | NameLookup,
  run: (memory: Memory) => number,
): Memory | undefined {
  const { ERANGE, ENOENT, ESRCH } = system.abi.errno;
  for (let size = FIRST_BYTES;; size = Math.min(size * 8, MAX_ENTRY_BYTES)) {
    const memory = system.libc.memory(size);
    const errno = run(memory);
    if (errno === ERANGE && size < MAX_ENTRY_BYTES) continue;
    if (errno === ERANGE) {
      const file = lookup.startsWith("getgr") ? "/etc/group" : "/etc/passwd";
      const message = `Cannot ${what}: an entry is larger than ${MAX_ENTRY_BYTES >> 20} MiB`;
      const hint = `Shorten the longest line of ${file}, or name accounts by their ids`;
      throw new UcredError("ERR_UCRED_SYSCALL", message, { errno, syscall: lookup, hint });
    }
    // For an unknown account, the call returns 0 with a null result, or one of these: getpwnam_r(3), ERRORS.
    if (errno === ENOENT || errno === ESRCH) return undefined;
    if (errno !== 0) throw syscallError(system, what, lookup, errno);
    return memory;
  }
}

/**
 * Lists the names in /etc/passwd or /etc/group, for spelling suggestions. Queries no directory
 * service.
 */
export function localNames(kind: "user" | "group"): readonly string[] {
  const system = openedSystem();
  const { linux } = system.libc;
  const file = kind === "user" ? "/etc/passwd" : "/etc/group";
  const text = linux === undefined ? "" : readText(system, linux, file, MAX_ENTRY_BYTES);
  return typeof text === "string" ? text.split("\n").map((line) => line.split(":", 1)[0]!) : [];
}

/** Returns our own effective uid. */
export function ownUid(): number {
  return openedSystem().libc.geteuid();
}

/**
 * Returns the name of an account on this system; `undefined` if there is none or the lookup failed.
 */
export function accountName(kind: "user" | "group", id: number): string | undefined {
  return valueOf(kind === "user" ? userName(openedSystem(), id) : groupName(openedSystem(), id));
}

/**
 * Resolves an account on this system. A number is returned as it is. Digits are a number if no
 * account has them as its name, as in chown(1).
 */
export function accountId(
  kind: "user" | "group",
  account: number | string,
  system: System = openedSystem(),
): number | undefined {
  if (typeof account === "number") return account;
  const id = idOf(kind, account, system);
  if (id !== undefined || !/^(?:0|[1-9]\d{0,9})$/.test(account)) return id;
  return isId(Number(account)) ? Number(account) : undefined;
}

type NameLookup = "getpwnam_r" | "getgrnam_r";

/**
 * Returns the uid of a user or the gid of a group; `undefined` if there is no such name.
 *
 * @throws {UcredError} If the lookup fails: whether the name exists is then unknown.
 */
export function idOf(
  kind: "user" | "group",
  name: string,
  system: System = openedSystem(),
): number | undefined {
  const lookup = kind === "user" ? "getpwnam_r" : "getgrnam_r";
  const bytes = new TextEncoder().encode(name);
  if (bytes.length === 0 || bytes.includes(0)) return undefined;
  const what = `look up ${kind} ${JSON.stringify(name)}`;
  const text = memoryOf(system.libc, bytes);
  const memory = call(system, what, lookup, (memory) => system.libc[lookup](text, memory));
  const id = memory && decodeAccountId(memory.bytes);
  if (id === undefined && memory !== undefined) throw unexpectedAnswer(what, lookup, "no id");
  return id ?? undefined;
}
