/**
 * System calls with the effective ids of another user, for this thread alone.
 *
 * The kernel keeps ids for each thread. The functions of libc change those of all threads, so the calls
 * here are raw.
 */

import { isMainThread, nodeFs, nodeProcess } from "../adapters/builtins.ts";
import { type LinuxCalls, type Memory, NO_ERRNO } from "../adapters/libc.ts";
import { openedSystem, type System } from "../adapters/select.ts";
import { UcredError } from "../core/errors.ts";
import {
  CAPABILITY,
  CAPABILITY_DATA,
  CAPABILITY_HEADER,
  CAPABILITY_VERSION,
  KEEP_ID,
  KEEPCAPS,
  THREAD_CALLS,
  type ThreadCalls,
} from "../ffi/thread_ids.ts";
import { syscallError } from "./syscall_error.ts";

/** The ids that a system call is made with. */
export interface EffectiveIds {
  readonly uid: number;
  readonly gid: number;
  /** Supplementary groups, in the kernel's order. */
  readonly groups: Uint32Array;
}

/** Words of a {@link State}: ids first, then the capabilities, then the others. */
const WORD = {
  ruid: 0,
  euid: 1,
  suid: 2,
  rgid: 3,
  egid: 4,
  sgid: 5,
  fsuid: 6,
  fsgid: 7,
  capabilities: 8,
  keepCapabilities: 14,
  groupCount: 15,
} as const;

const WORDS = 16;

/** The ids, capabilities and groups of this thread at one time. */
class State {
  readonly words: Uint32Array;
  readonly address: number;
  groups: Memory;
  groupsAddress: number;
  readonly #libc: System["libc"];
  readonly #calls: LinuxCalls;
  readonly #memory: Memory; // referenced as long as its address is used

  constructor(libc: System["libc"], calls: LinuxCalls) {
    this.#libc = libc;
    this.#calls = calls;
    this.#memory = libc.memory(WORDS * 4);
    this.words = this.#memory.words;
    this.address = Number(calls.address(this.#memory)); // below 2⁴⁷
    this.groups = libc.memory(64 * 4);
    this.groupsAddress = Number(calls.address(this.groups));
  }

  /** Makes space for a number of groups. */
  reserve(count: number): void {
    if (this.groups.words.length >= count) return;
    this.groups = this.#libc.memory(count * 4);
    this.groupsAddress = Number(this.#calls.address(this.groups));
  }

  equals({ words, groups }: State): boolean {
    for (let at = 0; at < WORDS; at++) if (this.words[at] !== words[at]) return false;
    for (let at = 0; at < words[WORD.groupCount]!; at++) {
      if (this.groups.words[at] !== groups.words[at]) return false;
    }
    return true;
  }

  /** Copies a state, with other effective ids. */
  set(from: State, { uid, gid, groups }: EffectiveIds): void {
    this.words.set(from.words);
    this.words[WORD.euid] = uid;
    this.words[WORD.egid] = gid;
    this.words[WORD.keepCapabilities] = 1;
    this.words[WORD.groupCount] = groups.length;
    this.reserve(groups.length);
    this.groups.words.set(groups);
  }
}

/** A system call that failed. */
interface Failure {
  readonly syscall: string;
  readonly errno: number;
}

/** All calls succeeded, but the state differs from the requested one. */
const OTHER_IDS: Failure = { syscall: "getresuid", errno: NO_ERRNO };

const WHAT = "connect as the peer";

/** Takes on the effective ids of others for single system calls. Linux only, on the main thread. */
export class ThreadIds {
  readonly #system: System;
  readonly #calls: LinuxCalls;
  readonly #numbers: ThreadCalls;
  readonly #header: Memory;
  readonly #headerAddress: number;
  readonly #before: State;
  readonly #wanted: State;
  readonly #found: State;

  /**
   * Checks that ids can be changed, by setting them to their current values.
   *
   * @throws {UcredError} `ERR_UCRED_UNSUPPORTED` on other systems than Linux, and outside the main thread;
   * `ERR_UCRED_PERMISSION` without CAP_SETUID and CAP_SETGID, or if a system call is denied.
   */
  constructor(system: System = openedSystem()) {
    const { abi, libc } = system;
    const numbers = THREAD_CALLS[abi.cpu];
    if (abi.os !== "linux" || libc.linux === undefined || numbers === undefined) {
      throw unsupported(`${abi.os} on ${abi.cpu} has no ids for each thread`);
    }
    if (!isMainThread()) throw unsupported("this is not the main thread");
    this.#system = system;
    this.#calls = libc.linux;
    this.#numbers = numbers;
    this.#header = libc.memory(CAPABILITY_HEADER.size);
    this.#header.words[CAPABILITY_HEADER.version / 4] = CAPABILITY_VERSION;
    this.#headerAddress = Number(libc.linux.address(this.#header));
    this.#before = new State(libc, libc.linux);
    this.#wanted = new State(libc, libc.linux);
    this.#found = new State(libc, libc.linux);
    const failed = this.#read(this.#before);
    if (failed !== undefined) throw this.#error(failed);
    requireOneIdentity(this.#before.words);
    requireCapabilities(this.#before.words);
    const { words, groups } = this.#before;
    const own = { uid: words[WORD.euid]!, gid: words[WORD.egid]! };
    this.call({ ...own, groups: groups.words.slice(0, words[WORD.groupCount]) }, () => 0);
  }

  /**
   * Makes one system call with other effective ids. The file system ids and the capabilities stay our
   * own: the permissions of paths are decided by our user, primary group and capabilities.
   *
   * This is synchronous, and no other JavaScript runs in between. If our own ids cannot be restored, the
   * process ends at once, with a message on stderr and exit code 2.
   *
   * @param call Makes the call. @returns Its result.
   * @throws {UcredError} If the ids cannot be changed. The call is then not made.
   */
  call(ids: EffectiveIds, call: () => number): number {
    const threads = countThreads();
    const unread = this.#read(this.#before);
    if (unread !== undefined) throw this.#error(unread);
    this.#wanted.set(this.#before, ids);
    let result = 0;
    let failed: Failure | undefined;
    try {
      failed = this.#become(this.#wanted);
      if (failed === undefined) result = call();
    } finally {
      this.#restore();
      this.#restoreThreads(threads);
    }
    if (failed !== undefined) throw this.#error(failed);
    return result;
  }

  #error(failure: Failure): UcredError {
    if (failure !== OTHER_IDS) {
      return syscallError(this.#system, WHAT, failure.syscall, failure.errno);
    }
    const message = `Cannot ${WHAT}: the kernel reports other ids than were set`;
    const hint = "Check for a seccomp filter that makes system calls succeed without effect";
    return new UcredError("ERR_UCRED_SYSCALL", message, { hint });
  }

  /** Reads the state of this thread. */
  #read(into: State): Failure | undefined {
    const { words, address } = into;
    let failed: Failure | undefined;
    const call = (syscall: keyof ThreadCalls, first: number, second: number, third: number) => {
      const result = this.#calls.syscall(this.#numbers[syscall], first, second, third);
      if (result < 0) failed ??= { syscall, errno: -result };
      return result;
    };
    const ids = (first: number): [number, number, number] => {
      const at = address + first * 4;
      return [at, at + 4, at + 8];
    };
    words.fill(0xffffffff);
    call("getresuid", ...ids(WORD.ruid));
    call("getresgid", ...ids(WORD.rgid));
    words[WORD.fsuid] = call("setfsuid", KEEP_ID, 0, 0);
    words[WORD.fsgid] = call("setfsgid", KEEP_ID, 0, 0);
    call("capget", this.#headerAddress, address + WORD.capabilities * 4, 0);
    words[WORD.keepCapabilities] = call("prctl", KEEPCAPS.get, 0, 0);
    const count = call("getgroups", 0, 0, 0);
    if (failed !== undefined) return failed;
    into.reserve(count);
    words[WORD.groupCount] = call("getgroups", count, into.groupsAddress, 0);
    return failed;
  }

  /**
   * Sets the effective ids, and leaves the others as they are.
   *
   * - The order works in both directions: setgroups(2) needs CAP_SETGID, and a change of the effective uid
   *   from 0 clears the effective capabilities.
   * - With PR_SET_KEEPCAPS, an unprivileged process that was uid 0 for the call keeps its permitted
   *   capabilities, and capset(2) makes them effective again: capabilities(7).
   * - setresuid(2) also changes the file system uid, which setfsuid(2) sets back.
   *
   * @returns Why the thread has another state than the requested one; `undefined` if it has that state.
   */
  #become(wanted: State): Failure | undefined {
    let failed: Failure | undefined;
    const call = (syscall: keyof ThreadCalls, first: number, second: number, third: number) => {
      const result = this.#calls.syscall(this.#numbers[syscall], first, second, third);
      if (result < 0) failed ??= { syscall, errno: -result };
    };
    const { words, groupsAddress, address } = wanted;
    call("prctl", KEEPCAPS.set, 1, 0);
    call("setgroups", words[WORD.groupCount]!, groupsAddress, 0);
    call("setresgid", KEEP_ID, words[WORD.egid]!, KEEP_ID);
    call("setresuid", KEEP_ID, words[WORD.euid]!, KEEP_ID);
    call("setfsuid", words[WORD.fsuid]!, 0, 0); // these two return the previous id
    call("setfsgid", words[WORD.fsgid]!, 0, 0);
    call("capset", this.#headerAddress, address + WORD.capabilities * 4, 0);
    call("prctl", KEEPCAPS.set, words[WORD.keepCapabilities]!, 0);
    const unread = this.#read(this.#found);
    if (unread !== undefined) return unread;
    if (this.#found.equals(wanted)) return undefined;
    return failed ?? OTHER_IDS;
  }

  /** Restores our own ids, or ends the process. */
  #restore(): void {
    let why: string;
    try {
      const failed = this.#become(this.#before);
      if (failed === undefined) return;
      // The first attempt may have restored the capabilities that the calls need.
      if (this.#become(this.#before) === undefined) return;
      why = this.#error(failed).message;
    } catch (error) {
      why = String(error);
    }
    this.#end(why);
  }

  /**
   * Restores the ids of threads that were started in between.
   *
   * A thread inherits the ids of the thread that starts it. Bun's JavaScript engine starts threads of its
   * compiler and garbage collector whenever they are needed.
   *
   * @param count The number of threads before.
   */
  #restoreThreads(count: number): void {
    try {
      if (countThreads() === count) return;
      const own = idsOf("self");
      const isForeign = () => threadNames().some((thread) => (idsOf(thread) ?? own) !== own);
      if (!isForeign()) return;
      const { setgroups, setegid, seteuid } = nodeProcess(); // by libc, which changes all threads
      if (setgroups !== undefined) { // Deno 2.9.5 does not have it
        const { words, groups } = this.#before;
        const steps = [
          () => setgroups([...groups.words.subarray(0, words[WORD.groupCount])]),
          () => setegid!(words[WORD.egid]!),
          () => seteuid!(words[WORD.euid]!),
        ];
        // A thread of root's process has no effective capabilities without root's effective uid.
        if (words[WORD.euid] === 0) steps.reverse();
        for (const step of steps) step();
        if (!isForeign()) return;
      }
      this.#end("a new thread has the ids of a peer");
    } catch (error) {
      this.#end(String(error));
    }
  }

  /** Ends the process: no more code may run with the ids of a peer. */
  #end(why: string): never {
    try {
      nodeFs().writeSync(2, `ucred: cannot restore the ids of this process: ${why}\n`);
    } catch {
      // stderr is closed
    }
    while (true) this.#calls.syscall(this.#numbers.exit_group, 2, 0, 0);
  }
}

function unsupported(why: string): UcredError {
  return new UcredError("ERR_UCRED_UNSUPPORTED", `Cannot ${WHAT}: ${why}`, {
    hint: "Create the guard on the main thread, on Linux",
  });
}

/**
 * Requires that the real, effective, saved and file system ids are equal: effective ids can then be
 * restored without a capability.
 */
function requireOneIdentity(words: Uint32Array): void {
  const { ruid, euid, suid, fsuid, rgid, egid, sgid, fsgid } = WORD;
  const isOne = (...all: number[]) => all.every((at) => words[at] === words[all[0]!]);
  if (isOne(ruid, euid, suid, fsuid) && isOne(rgid, egid, sgid, fsgid)) return;
  const message = `Cannot ${WHAT}: the real, effective and saved ids of this process differ`;
  const hint = "Start the process as one user, not through a set-user-ID program";
  throw new UcredError("ERR_UCRED_PERMISSION", message, { hint });
}

function requireCapabilities(words: Uint32Array): void {
  const effective = words[WORD.capabilities + CAPABILITY_DATA.effective / 4]!;
  const missing = Object.entries(CAPABILITY).filter(([, bit]) => (effective & bit) === 0);
  if (missing.length === 0) return;
  const names = missing.map(([name]) => `CAP_${name}`).join(" and ");
  const message = `Cannot ${WHAT}: this process does not have ${names}`;
  const hint =
    "Run it as root, or set AmbientCapabilities=CAP_SETUID CAP_SETGID in the unit of systemd";
  throw new UcredError("ERR_UCRED_PERMISSION", message, { hint });
}

/** Returns the link count of /proc/self/task, which changes with the number of threads: proc(5). */
function countThreads(): number {
  return nodeFs().statSync(TASKS).nlink;
}

const TASKS = "/proc/self/task";

function threadNames(): readonly string[] {
  return nodeFs().readdirSync(TASKS);
}

/** The ids and groups of a thread, as text; `undefined` if it has ended. */
function idsOf(thread: string): string | undefined {
  const path = thread === "self" ? "/proc/thread-self/status" : `${TASKS}/${thread}/status`;
  try {
    const status = nodeFs().readFileSync(path, "latin1");
    return status.match(/^(Uid|Gid|Groups):.*$/gm)!.join();
  } catch (error) {
    if (["ENOENT", "ESRCH"].includes((error as NodeJS.ErrnoException).code ?? "")) return undefined;
    throw error;
  }
}
