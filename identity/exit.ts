/** Pidfds → abort signals: one epoll for all peers of a thread, looked at by one timer. */

import { type Timer, timers } from "../adapters/host.ts";
import type { LinuxCalls, Memory } from "../adapters/libc.ts";
import type { System } from "../adapters/select.ts";
import { EPOLL_CTL, epollEvent, POLLIN } from "../ffi/pidfd.ts";
import { O_CLOEXEC } from "../ffi/linux.ts";
import { failure } from "./failure.ts";
import { gone, type Pin } from "./pin.ts";

/** Milliseconds between two looks. Each is one system call, however many peers there are. */
const TICK = 50;

/** Processes whose end one look can tell, with 64 KiB; if more have ended, the next look tells. */
const MOST_EVENTS = 4096;

/** Does something later, unless the program ends before. */
export function afterwards(run: () => void, ms: number): void {
  timers().setTimeout(run, ms).unref();
}

/** Completes "Cannot …" in the reason of the abort. */
const WHY = "go on with the peer";

const watches = new WeakMap<System, Watch>();

/**
 * A signal that aborts when the pinned process ends, within about 50 ms. Closing the pin ends the
 * watch, with an abort only if the process has ended.
 */
export function signalOf(pin: Pin): AbortSignal {
  let watch = watches.get(pin.on);
  if (watch === undefined) watches.set(pin.on, watch = new Watch(pin));
  return pin.signal ??= watch.add(pin);
}

interface Watched {
  readonly pin: Pin;
  readonly controller: AbortController;
}

class Watch {
  readonly #on: System;
  readonly #calls: LinuxCalls;
  readonly #events: Memory;
  readonly #watched = new Map<number, Watched>();
  /** What the kernel gives back for the pin; numbers of descriptors would be reused. */
  #next = 1;
  #epoll = -1;
  #timer: Timer | undefined;

  constructor({ on, calls }: Pin) {
    this.#on = on;
    this.#calls = calls;
    this.#events = on.libc.memory(MOST_EVENTS * 16);
  }

  add(pin: Pin): AbortSignal {
    const controller = new AbortController();
    if (!pin.isAlive()) {
      controller.abort(gone(WHY));
      return controller.signal;
    }
    if (this.#epoll < 0) this.#start();
    const token = this.#next++;
    const { data } = epollEvent(this.#on.abi.cpu);
    this.#events.words.fill(0, 0, 4);
    this.#events.words[0] = POLLIN;
    new DataView(this.#events.bytes.buffer).setFloat64(data, token); // it only comes back
    const result = this.#calls.epoll_ctl(this.#epoll, EPOLL_CTL.add, pin.fd, this.#events);
    if (result < 0) {
      this.#stopIfIdle();
      throw failure(this.#on, "watch the peer's process", "epoll_ctl", -result);
    }
    this.#watched.set(token, { pin, controller });
    pin.watched(() => this.#end(token, surelyEnded(pin)));
    return controller.signal;
  }

  #start(): void {
    const epoll = this.#calls.epoll_create1(O_CLOEXEC);
    if (epoll < 0) throw failure(this.#on, "watch the peer's process", "epoll_create1", -epoll);
    this.#epoll = epoll;
    this.#timer = timers().setInterval(() => this.#look(), TICK);
    this.#timer.unref(); // keeps no program running
  }

  #look(): void {
    const ready = this.#calls.epoll_wait(this.#epoll, this.#events, MOST_EVENTS);
    const { size, data } = epollEvent(this.#on.abi.cpu);
    const view = new DataView(this.#events.bytes.buffer);
    const tokens = Array.from(
      { length: Math.max(ready, 0) },
      (_, at) => view.getFloat64(at * size + data),
    );
    for (const token of tokens) this.#end(token, true);
  }

  #end(token: number, abort: boolean): void {
    const { pin, controller } = this.#watched.get(token) ?? {};
    if (pin === undefined) return;
    this.#watched.delete(token);
    this.#calls.epoll_ctl(this.#epoll, EPOLL_CTL.del, pin.fd, this.#events);
    this.#stopIfIdle();
    if (abort) controller?.abort(gone(WHY));
    pin.unwatched();
  }

  /** Without peers there is no descriptor and no timer. */
  #stopIfIdle(): void {
    if (this.#watched.size > 0) return;
    timers().clearInterval(this.#timer);
    this.#calls.close(this.#epoll);
    this.#epoll = -1;
    this.#timer = undefined;
  }
}

function surelyEnded(pin: Pin): boolean {
  try {
    return !pin.isAlive();
  } catch {
    return false;
  }
}
