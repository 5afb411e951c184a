/** Aborts signals when pinned processes end, with one epoll and one timer for all peers of a thread. */

import { type Timer, timers } from "../../adapters/host.ts";
import type { LinuxCalls, Memory } from "../../adapters/libc.ts";
import type { System } from "../../adapters/select.ts";
import { EPOLL_CTL, epollEvent, POLLIN } from "../../ffi/pidfd.ts";
import { O_CLOEXEC } from "../../ffi/linux.ts";
import type { UcredError } from "../../core/errors.ts";
import { stolen } from "../../system/owned_descriptor.ts";
import { syscallError } from "../../system/syscall_error.ts";
import { gone, type Pin } from "./pidfd.ts";

/** Poll interval. Each poll makes at most 17 system calls (`CHECKS_PER_POLL` + 1), for any number of peers. */
const POLL_INTERVAL_MS = 50;

/** Maximum number of ended processes that one poll reports, in 64 KiB; the next one reports the rest. */
const MAX_EVENTS = 4096;

/** Runs a function after a delay. The delay does not keep the program running. */
export function afterwards(run: () => void, ms: number): void {
  timers().setTimeout(run, ms).unref();
}

/** Completes "Cannot …" in the reason of the abort. */
const WHY = "continue with the peer";

const watches = new WeakMap<System, Watch>();

/**
 * Returns a signal that aborts within about 50 ms after the pinned process has ended. Closing the
 * pin ends the watch, with an abort only if the process has ended.
 */
export function signalOf(pin: Pin): AbortSignal {
  let watch = watches.get(pin.system);
  if (watch === undefined) watches.set(pin.system, watch = new Watch(pin));
  return pin.signal ??= watch.add(pin);
}

interface Watched {
  readonly pin: Pin;
  readonly controller: AbortController;
}

/**
 * Number of watches that each poll checks, in turn: the watch of a pidfd that other code of the
 * process has closed never fires.
 */
const CHECKS_PER_POLL = 16;

class Watch {
  readonly #system: System;
  readonly #calls: LinuxCalls;
  readonly #events: Memory;
  /** In the order in which they are checked. */
  readonly #watched = new Map<number, Watched>();
  /** The token that the kernel returns for a pin. Descriptor numbers would be reused. */
  #next = 1;
  #epoll = -1;
  #timer: Timer | undefined;

  constructor({ system, calls }: Pin) {
    this.#system = system;
    this.#calls = calls;
    this.#events = system.libc.memory(MAX_EVENTS * 16);
  }

  add(pin: Pin): AbortSignal {
    const controller = new AbortController();
    if (!pin.isAlive()) {
      controller.abort(gone(WHY));
      return controller.signal;
    }
    this.#prove(1);
    if (this.#epoll < 0) this.#start();
    const token = this.#next++;
    const result = this.#control(EPOLL_CTL.add, token, pin.fd);
    if (result < 0) {
      this.#stopIfIdle(true);
      throw syscallError(this.#system, "watch the peer's process", "epoll_ctl", -result);
    }
    this.#watched.set(token, { pin, controller });
    pin.watched(() => this.#end(token, whyEnded(pin)));
    return controller.signal;
  }

  #control(operation: number, token: number, fd: number): number {
    const { data } = epollEvent(this.#system.abi.cpu);
    this.#events.words.fill(0, 0, 4);
    this.#events.words[0] = POLLIN;
    new DataView(this.#events.bytes.buffer).setFloat64(data, token); // the kernel returns it unchanged
    return this.#calls.epoll_ctl(this.#epoll, operation, fd, this.#events);
  }

  #start(): void {
    const epoll = this.#calls.epoll_create1(O_CLOEXEC);
    if (epoll < 0) {
      throw syscallError(this.#system, "watch the peer's process", "epoll_create1", -epoll);
    }
    this.#epoll = epoll;
    if (this.#timer !== undefined) return;
    this.#timer = timers().setInterval(() => this.#poll(), POLL_INTERVAL_MS);
    this.#timer.unref(); // does not keep the program running
  }

  /**
   * Checks that the epoll, and some of the pidfds in it, are still ours. The kernel identifies a
   * watch by open file and number: EPOLL_CTL_MOD succeeds only with the two descriptors of
   * EPOLL_CTL_ADD. It fails if the number of the epoll refers to something else by now.
   */
  #prove(most: number): void {
    const some: [number, Watched][] = [];
    for (const one of this.#watched) {
      if (some.push(one) === most) break;
    }
    for (const [token, watched] of some) {
      if (!this.#watched.has(token)) continue; // the abort handler of another watch has ended it
      if (this.#control(EPOLL_CTL.modify, token, watched.pin.fd) < 0) {
        try {
          watched.pin.prove(); // ends the watch if it throws
        } catch {
          this.#end(token, whyEnded(watched.pin) ?? stolen(WHY));
          continue;
        }
        return this.#restart();
      }
      this.#watched.delete(token);
      this.#watched.set(token, watched); // moves to the end of the order
    }
  }

  /** Opens a new epoll: the number of the old one refers to something else by now. */
  #restart(): void {
    this.#epoll = -1; // not closed, since it is not ours
    try {
      this.#start();
    } catch (error) {
      for (const token of this.#watched.keys()) this.#end(token, error);
      return;
    }
    for (const [token, { pin }] of this.#watched) {
      if (this.#control(EPOLL_CTL.add, token, pin.fd) < 0) this.#end(token, stolen(WHY));
    }
  }

  #poll(): void {
    this.#prove(CHECKS_PER_POLL);
    if (this.#epoll < 0) return;
    const ready = this.#calls.epoll_wait(this.#epoll, this.#events, MAX_EVENTS);
    const { size, data } = epollEvent(this.#system.abi.cpu);
    const view = new DataView(this.#events.bytes.buffer);
    const tokens = Array.from(
      { length: Math.max(ready, 0) },
      (_, at) => view.getFloat64(at * size + data),
    );
    for (const token of tokens) this.#end(token, gone(WHY));
  }

  /** @param why The reason of the abort; without a reason there is no abort. */
  #end(token: number, why: unknown): void {
    const { pin, controller } = this.#watched.get(token) ?? {};
    if (pin === undefined) return;
    this.#watched.delete(token);
    const isOurs = !pin.closed && this.#calls.epoll_ctl(
          this.#epoll,
          EPOLL_CTL.del,
          pin.fd,
          this.#events,
        ) === 0;
    this.#stopIfIdle(isOurs);
    if (why !== undefined) controller?.abort(why);
    pin.unwatched();
  }

  /**
   * Releases the epoll and the timer when no peer is watched.
   *
   * @param isOurs Whether the epoll was just checked to be ours; otherwise it is not closed.
   */
  #stopIfIdle(isOurs: boolean): void {
    if (this.#watched.size > 0) return;
    timers().clearInterval(this.#timer);
    if (isOurs) this.#calls.close(this.#epoll);
    this.#epoll = -1;
    this.#timer = undefined;
  }
}

/**
 * Returns why a closed pin ends its watch: the process has ended, or other code has closed the pidfd.
 */
function whyEnded(pin: Pin): UcredError | undefined {
  if (pin.isStolen) return stolen(WHY);
  try {
    return pin.isAlive() ? undefined : gone(WHY);
  } catch {
    return pin.isStolen ? stolen(WHY) : undefined;
  }
}
