/** A policy that follows its file: a bad file never replaces a good policy. */

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

/** How a file is to be followed. */
export interface WatchOptions extends LoadOptions {
  /** Called when a policy has replaced the one before. */
  readonly onReload?: ((policy: RulePolicy) => void) | undefined;
  /**
   * Called when the file cannot be used: once for each problem, however long it stays. Without it a
   * process warning tells.
   */
  readonly onError?: ((error: UcredError) => void) | undefined;
}

const WATCH_OPTIONS: OptionNames<WatchOptions> = {
  ...LOAD_OPTIONS,
  onReload: true,
  onError: true,
};

/** A policy that follows its file. Each decision is made by one policy, the one in force. */
export interface WatchedPolicy extends RulePolicy {
  /** The policy in force. It does not follow the file. */
  readonly current: RulePolicy;
  /** What keeps the file as it is now from being used; `undefined` if nothing does. */
  readonly error: UcredError | undefined;
  /**
   * Reads the file now, changed or not, and resolves its names again: for SIGHUP. A bad file is
   * reported, as when it is noticed.
   *
   * @returns Whether the policy was replaced. Once closed: `false`.
   */
  reload(): boolean;
  /** Follows the file no longer. The policy in force stays. May be called again. */
  close(): void;
  /** {@link WatchedPolicy.close}, for `using`. */
  [Symbol.dispose](): void;
}

/**
 * Reads a policy from a file, as `loadPolicy()` does, and follows the file.
 *
 * It notices within about a second that the file was replaced, written to, deleted, came back, or
 * changed its owner or mode, and that a link on the path leads elsewhere. The path is looked at four
 * times a second, and read once two looks in a row agree, so a file that is being written is not
 * taken half-written unless the writer pauses for longer than that: rename a complete file to the
 * path. After a second and a half without a change its text is compared once more. A file that is
 * still changing after five seconds is reported.
 *
 * A file that cannot be used never replaces a policy: the one in force stays, and the problem is
 * reported. It is tried again every second, and at most a twentieth of the time, until it can be
 * used. Names of users and groups are resolved anew with each policy; that an account changes is
 * noticed only when the file does, or by `reload()`.
 *
 * If a callback throws or rejects, a process warning tells. The watch keeps no program running.
 *
 * @param path If relative, to the working directory of now.
 * @throws {UcredError} As `loadPolicy()` does. Later nothing throws.
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
 * policy.reload(); // not needed: it would be noticed
 * console.log(`1001: ${policy.decide({ uid: 1001 }).allowed}`); // 1001: true
 * ```
 */
export function watchPolicy(path: string, options: WatchOptions = {}): WatchedPolicy {
  requireOptions("watchPolicy()", options, WATCH_OPTIONS);
  return watchBy(CLOCK, path, options);
}

/** The time by which a file is watched, in ms; tests have a faster one. */
export interface Clock {
  now(): number;
  /** Calls once, and keeps no program running. */
  after(ms: number, call: () => void): ReturnType<typeof setTimeout>;
}

const CLOCK: Clock = {
  now: () => performance.now(),
  after: (ms, call) => {
    const timer = setTimeout(call, ms);
    timer.unref();
    return timer;
  },
};

/** {@link watchPolicy}, by another clock. */
export function watchBy(clock: Clock, path: string, options: WatchOptions): WatchedPolicy {
  return new FileWatch(path.startsWith("/") ? path : `${process.cwd()}/${path}`, options, clock);
}

/** Milliseconds between two looks at the file. */
const TICK = 250;

/** A file that has not come to rest after so many looks is reported. */
const MAX_UNSTABLE_POLLS = 20;

/**
 * After so many looks that find no change a new policy's text is compared with the file's. Deno tells
 * the time of a change in whole seconds: that second must be over.
 */
const STABLE_POLLS = 6;

/** Milliseconds after which a file that could not be used is tried again. */
const RETRY_MS = 1000;

/** How many times longer than it took to find a file unusable it is left alone. */
const RETRY_BACKOFF = 20;

class FileWatch extends ForwardingPolicy<RulePolicy> implements WatchedPolicy {
  readonly #path: string;
  readonly #options: WatchOptions;
  readonly #clock: Clock;
  #policy!: RulePolicy;
  #error: UcredError | undefined;
  /** The look whose file was tried last, to whatever end. */
  #tried: string | undefined;
  /** The last look, and how many before it agree. */
  #seen: string | undefined;
  #calm = 0;
  /** Looks since one was tried. */
  #restless = 0;
  /** The text in force, until it was compared. */
  #unconfirmed: string | undefined;
  #retryAt = 0;
  #isClosed = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(path: string, options: WatchOptions, clock: Clock) {
    super();
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
    // The next look is awaited after this one has ended: they neither overlap nor come close.
    this.#timer = this.#clock.after(TICK, () => void this.#look());
  }

  async #look(): Promise<void> {
    const look = await stat(this.#path, { bigint: true }).then(stampOf, String);
    if (this.#isClosed) return;
    this.#calm = look === this.#seen ? this.#calm + 1 : 0;
    this.#seen = look;
    if (this.#isDue(look)) this.#try(look);
    if (look === this.#tried) this.#restless = 0;
    else if (++this.#restless === MAX_UNSTABLE_POLLS) this.#fail(changing(this.#path));
    this.#wait();
  }

  #isDue(look: string): boolean {
    if (look !== this.#tried) return this.#calm > 0;
    if (this.#error !== undefined) return this.#clock.now() >= this.#retryAt;
    return this.#unconfirmed !== undefined && this.#calm >= STABLE_POLLS;
  }

  /** Whether the policy was replaced; what keeps it from that is reported. */
  #try(look: string | undefined): boolean {
    const began = this.#clock.now();
    try {
      if (!this.#replace(look)) return false;
    } catch (error) {
      this.#tried = look;
      this.#fail(error instanceof UcredError ? error : unreadable(this.#path, error));
      const now = this.#clock.now();
      this.#retryAt = now + Math.max(RETRY_MS, RETRY_BACKOFF * (now - began));
      return false;
    }
    const { onReload } = this.#options;
    if (onReload !== undefined) void this.#tell("onReload", () => onReload(this.#policy));
    return true;
  }

  /** Reads the file that was looked at, or else whatever there is; `false` if it is not to be taken. */
  #replace(look: string | undefined): boolean {
    const file = readPolicyFile(this.#path, this.#options, look);
    if (file === undefined) {
      if (look === undefined) throw changing(this.#path);
      return false; // later looks tell when it is at rest
    }
    const { text, stamp } = file;
    if (look === this.#tried && this.#error === undefined && text === this.#unconfirmed) {
      this.#unconfirmed = undefined;
      return false;
    }
    this.#policy = parse(text, { ...this.#options, file: this.#path });
    this.#error = undefined;
    this.#tried = stamp;
    this.#unconfirmed = text;
    this.#calm = 0;
    return true;
  }

  #fail(error: UcredError): void {
    this.#unconfirmed = undefined;
    if (error.message === this.#error?.message) return;
    this.#error = error;
    const { onError } = this.#options;
    if (onError !== undefined) void this.#tell("onError", () => onError(error));
    else {
      const detail = `${error.hint}; until then the policy stays as it is`;
      process.emitWarning(error.message, { type: "UcredWarning", code: error.code, detail });
    }
  }

  /** Calls back. What is thrown, now or later, ends nothing, and is told. */
  async #tell(name: string, call: () => unknown): Promise<void> {
    try {
      await call();
    } catch (error) {
      const message = `${name} failed, of the watch of ${this.#path}: ${textOf(error)}`;
      process.emitWarning(visible(message), { type: "UcredWarning", detail: stackOf(error) });
    }
  }
}
