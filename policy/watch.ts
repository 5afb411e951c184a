/** Reloads a policy when its file changes. A bad file never replaces a good policy. */

import { stat } from "node:fs/promises";
import process from "node:process";
import { clearTimeout, setTimeout } from "node:timers";
import { UcredError } from "../core/errors.ts";
import { type OptionNames, requireOptions } from "../core/options.ts";
import { ownOf } from "../core/policy/document/plain_copy.ts";
import { ForwardingPolicy } from "../core/policy/forward.ts";
import type { RulePolicy } from "../core/policy/policy.ts";
import { stackOf, textOf, visible } from "../core/text.ts";
import {
  changing,
  LOAD_OPTIONS,
  type LoadOptions,
  readPolicyFile,
  stampOf,
  unreadable,
} from "./load.ts";
import { parse } from "./parse.ts";

/** Options of {@link watchPolicy}. */
export interface WatchOptions extends LoadOptions {
  /** Called after a new policy has replaced the previous one. */
  readonly onReload?: ((policy: RulePolicy) => void) | undefined;
  /**
   * Called when the file cannot be used, once per problem. By default a process warning reports it.
   */
  readonly onError?: ((error: UcredError) => void) | undefined;
}

const WATCH_OPTIONS: OptionNames<WatchOptions> = {
  ...LOAD_OPTIONS,
  onReload: true,
  onError: true,
};

/** A policy that is reloaded when its file changes. One policy makes each decision. */
export interface WatchedPolicy extends RulePolicy {
  /** The policy in force, which never changes itself. */
  readonly current: RulePolicy;
  /** Why the current file cannot be used; `undefined` if it can. */
  readonly error: UcredError | undefined;
  /**
   * Reads the file now, even if it is unchanged, and resolves its names again, for example on SIGHUP. A file
   * that cannot be used is reported.
   *
   * @returns Whether the policy was replaced; `false` after `close()`.
   */
  reload(): boolean;
  /** Stops watching. The policy in force stays. May be called again. */
  close(): void;
  /** {@link WatchedPolicy.close}, for `using`. */
  [Symbol.dispose](): void;
}

/**
 * Reads a policy from a file, as `loadPolicy()` does, and reloads it when the file changes.
 *
 * The path is polled four times a second. A change of content, owner or mode, a replaced or deleted file,
 * and a symbolic link with a new target are noticed within about a second. The file is read when two polls
 * in a row agree, so a half-written file is read only if its writer pauses for longer: rename a complete
 * file to the path. After 1.5 s without a change the text is compared once more. A file that is still
 * changing after 5 s is reported.
 *
 * A file that cannot be used never replaces a policy: the policy in force stays, and the problem is
 * reported. Reading is retried every second, or less often if it takes long. Names of users and
 * groups are resolved again with each policy; a changed account is noticed only with a changed file, or
 * by `reload()`.
 *
 * A callback that throws or rejects causes a process warning. The watch does not keep the program running.
 *
 * @param path A relative path is resolved against the current working directory.
 * @throws {UcredError} As `loadPolicy()` does. Later errors are reported, never thrown.
 *
 * @example A server's policy
 * ```ts
 * import { renameSync, writeFileSync } from "node:fs";
 * import { watchPolicy } from "ucred/policy";
 *
 * function write(uids: string): void {
 *   const rules = `[{ name: people, when: { uid: ${uids} }, allow: read }]`;
 *   writeFileSync("policy.new", `version: 1\nrules: ${rules}\n`, { mode: 0o600 });
 *   renameSync("policy.new", "policy.yaml");
 * }
 *
 * write("1000");
 * using policy = watchPolicy("policy.yaml", {
 *   onReload: () => console.log("a new policy"),
 *   onError: ({ message }) => console.warn(message),
 * });
 * console.log(`1001: ${policy.decide({ uid: 1001 }).allowed}`); // 1001: false
 * write("1000-1999");
 * policy.reload(); // optional: the watch notices the change
 * console.log(`1001: ${policy.decide({ uid: 1001 }).allowed}`); // 1001: true
 * ```
 */
export function watchPolicy(path: string, options: WatchOptions = {}): WatchedPolicy {
  requireOptions("watchPolicy()", options, WATCH_OPTIONS);
  return watchBy(CLOCK, path, options);
}

/** The clock of a watch, in ms. Tests use a faster one. */
export interface Clock {
  now(): number;
  /** Calls `call` once. The timer does not keep the program running. */
  after(ms: number, call: () => void): ReturnType<typeof setTimeout>;
}

/** The clock of {@link watchPolicy}. */
export const CLOCK: Clock = {
  now: () => performance.now(),
  after: (ms, call) => {
    const timer = setTimeout(call, ms);
    timer.unref();
    return timer;
  },
};

/**
 * Implements {@link watchPolicy} with another clock.
 *
 * @param check Throws a `UcredError` for a policy that cannot be used.
 */
export function watchBy(
  clock: Clock,
  path: string,
  options: WatchOptions,
  check: (policy: RulePolicy) => void = () => {},
): WatchedPolicy {
  const absolute = path.startsWith("/") ? path : `${process.cwd()}/${path}`;
  return new FileWatch(absolute, options, clock, check);
}

const POLL_INTERVAL_MS = 250;

/** A file that is still changing after this many polls is reported. */
const MAX_UNSTABLE_POLLS = 20;

/**
 * After 6 unchanged polls (1.5 s) the text is compared once: Deno reports mtime in whole seconds, so a
 * second write within one second is invisible to stat(2).
 */
const STABLE_POLLS = 6;

/** Time until a file that could not be used is read again. */
const RETRY_MS = 1000;

/** The pause after a failed read, as a multiple of the time that the read took. */
const RETRY_BACKOFF = 20;

/**
 * The state of the file at a poll.
 *
 * - `changed`: it differs from the file that was read last; it is read once two polls agree.
 * - `unusable`: it was read and cannot be used; it is read again after a pause.
 * - `loaded`: its policy is in force; its text will be compared once.
 * - `confirmed`: its policy is in force and its text was compared.
 */
type WatchState = "changed" | "unusable" | "loaded" | "confirmed";

class FileWatch extends ForwardingPolicy<RulePolicy> implements WatchedPolicy {
  readonly #path: string;
  readonly #options: WatchOptions;
  readonly #clock: Clock;
  readonly #check: (policy: RulePolicy) => void;
  #policy!: RulePolicy;
  #error: UcredError | undefined;
  /** Stamp of the file that was read last, whether it could be used or not. */
  #readStamp: string | undefined;
  /** Stamp of the last poll, and the number of polls before it with the same stamp. */
  #polledStamp: string | undefined;
  #unchangedPolls = 0;
  /** Number of polls since the last one with the stamp `#readStamp`. */
  #pendingPolls = 0;
  /** The text in force, until it has been compared with the file once more. */
  #unconfirmedText: string | undefined;
  #retryAt = 0;
  #isClosed = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    path: string,
    options: WatchOptions,
    clock: Clock,
    check: (policy: RulePolicy) => void,
  ) {
    super();
    this.#check = check;
    this.#clock = clock;
    this.#path = path;
    this.#options = ownOf(options);
    this.#replace(undefined);
    this.#wait();
  }

  get current(): RulePolicy {
    return this.#policy;
  }

  get error(): UcredError | undefined {
    return this.#error;
  }

  reload(): boolean {
    return !this.#isClosed && this.#try(undefined);
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #wait(): void {
    if (this.#isClosed) return;
    // The timer starts after a poll has ended, so that polls never overlap.
    this.#timer = this.#clock.after(POLL_INTERVAL_MS, () => void this.#poll());
  }

  async #poll(): Promise<void> {
    const stamp = await stat(this.#path, { bigint: true }).then(stampOf, String);
    if (this.#isClosed) return;
    this.#unchangedPolls = stamp === this.#polledStamp ? this.#unchangedPolls + 1 : 0;
    this.#polledStamp = stamp;
    if (this.#shouldRead(this.#stateOf(stamp))) this.#try(stamp);
    if (stamp === this.#readStamp) this.#pendingPolls = 0;
    else if (++this.#pendingPolls === MAX_UNSTABLE_POLLS) this.#fail(changing(this.#path));
    this.#wait();
  }

  #stateOf(stamp: string): WatchState {
    if (stamp !== this.#readStamp) return "changed";
    if (this.#error !== undefined) return "unusable";
    return this.#unconfirmedText === undefined ? "confirmed" : "loaded";
  }

  #shouldRead(state: WatchState): boolean {
    switch (state) {
      case "changed":
        return this.#unchangedPolls > 0;
      case "unusable":
        return this.#clock.now() >= this.#retryAt;
      case "loaded":
        return this.#unchangedPolls >= STABLE_POLLS;
      case "confirmed":
        return false;
    }
  }

  /** Returns whether the policy was replaced. Reports a file that cannot be used. */
  #try(expected: string | undefined): boolean {
    const began = this.#clock.now();
    try {
      if (!this.#replace(expected)) return false;
    } catch (error) {
      this.#readStamp = expected;
      this.#fail(error instanceof UcredError ? error : unreadable(this.#path, error));
      const now = this.#clock.now();
      this.#retryAt = now + Math.max(RETRY_MS, RETRY_BACKOFF * (now - began));
      return false;
    }
    const { onReload } = this.#options;
    if (onReload !== undefined) void this.#callBack("onReload", () => onReload(this.#policy));
    return true;
  }

  /**
   * Reads the file and replaces the policy. Returns `false` if the text is the one in force, or if the file
   * has another stamp than `expected`: then a later poll reads it.
   */
  #replace(expected: string | undefined): boolean {
    const file = readPolicyFile(this.#path, this.#options, expected);
    if (file === undefined) {
      if (expected === undefined) throw changing(this.#path);
      return false;
    }
    const { text, stamp } = file;
    if (
      expected === this.#readStamp && this.#error === undefined && text === this.#unconfirmedText
    ) {
      this.#unconfirmedText = undefined;
      return false;
    }
    const policy = parse(text, { ...this.#options, file: this.#path });
    this.#check(policy);
    this.#policy = policy;
    this.#error = undefined;
    this.#readStamp = stamp;
    this.#unconfirmedText = text;
    this.#unchangedPolls = 0;
    return true;
  }

  #fail(error: UcredError): void {
    this.#unconfirmedText = undefined;
    if (error.message === this.#error?.message) return;
    this.#error = error;
    const { onError } = this.#options;
    if (onError !== undefined) void this.#callBack("onError", () => onError(error));
    else {
      const detail = `${error.hint}; until then the previous policy stays in force`;
      process.emitWarning(error.message, { type: "UcredWarning", code: error.code, detail });
    }
  }

  /** Calls a callback. An exception or rejection becomes a process warning. */
  async #callBack(name: string, call: () => unknown): Promise<void> {
    try {
      await call();
    } catch (error) {
      const message = `${name}() of the watch of ${this.#path} failed: ${textOf(error)}`;
      process.emitWarning(visible(message), { type: "UcredWarning", detail: stackOf(error) });
    }
  }
}
