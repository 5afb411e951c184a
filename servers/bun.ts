/**
 * `Bun.listen` with identities: `ucred/bun`.
 *
 * `Bun.serve` cannot be served so: it hides the descriptor of its connections (oven-sh/bun 29597), and
 * its `requestIP` is null for Unix sockets. Use `serve()` of `ucred/http`, which runs on Bun's node:http.
 *
 * @example Root and the server's own user get in, nobody else
 * ```ts
 * import { listen } from "ucred/bun";
 *
 * if ("Bun" in globalThis) {
 *   const server = await listen({
 *     path: "bun.sock",
 *     socket: {
 *       open: (socket, peer) => void socket.end(`welcome, uid ${peer.uid}\n`),
 *     },
 *   });
 *   console.log(`at ${server.path}`);
 *   await server.close();
 * } else console.log("for Bun only");
 * ```
 *
 * @module
 */

import { type OptionNames, requireOptions } from "../core/options.ts";
import type { Peer } from "../core/peer.ts";
import type { Decision } from "../core/policy/decide/decision.ts";
import type { BunSocketLike } from "../identity/fd.ts";
import { checkSupport } from "../identity/support.ts";
import { takeInherited } from "../system/sd_listen_fds.ts";
import {
  Admission,
  ADMISSION_OPTIONS,
  type AdmissionOptions,
  type Admitted,
  isAdmitted,
  type ServerStats,
} from "./admission/admission.ts";
import { attempt, isThenable } from "./admission/handler.ts";
import {
  type CloseOptions,
  closeTimer,
  LISTEN_OPTIONS,
  type ListenOptions,
} from "./listen/lifecycle.ts";
import { Notification } from "./listen/notification.ts";
import { bindSocketPath, type BoundPath } from "./listen/socket_path.ts";

export type { Peer } from "../core/peer.ts";
export type { Decision } from "../core/policy/decide/decision.ts";
export type { Policy } from "../core/policy/policy.ts";
export { UcredError, type UcredErrorCode } from "../core/errors.ts";
export type { AdmissionOptions, ServerStats } from "./admission/admission.ts";
export type { AuditLog } from "./admission/audit.ts";
export type { LimitName, Limits } from "./admission/limits.ts";
export type {
  CloseOptions,
  CommonListenOptions,
  ListenOptions,
  PathListenOptions,
  SystemdListenOptions,
} from "./listen/lifecycle.ts";
export type { SocketPathOptions } from "./listen/socket_path.ts";

/** A `Bun.Socket`, as far as Bun's documentation has it. */
export interface BunSocket extends BunSocketLike {
  /** Yours: whatever you put there. */
  data: unknown;
  /** Sends; how many bytes were taken, −1 if it is closed. */
  write(data: string | ArrayBufferView | ArrayBuffer, offset?: number, length?: number): number;
  /** Sends, and closes its end. */
  end(data?: string | ArrayBufferView | ArrayBuffer): number;
  /** Sends what waits. */
  flush(): void;
  /** Calls `timeout` after so many seconds in which nothing happens. */
  timeout(seconds: number): void;
  /** Closes its end for sending. */
  shutdown(halfClose?: boolean): void;
}

/**
 * What handles connections that were let in; the names are those of `Bun.listen`. A `drain`,
 * `end` or `timeout` that is not there when `listen()` is called is not heard of later.
 */
export interface BunHandlers {
  /** A connection was let in. If it throws, or its promise rejects, the connection is closed. */
  open?(socket: BunSocket, peer: Peer, decision: Decision): unknown;
  /** Something came. */
  data?(socket: BunSocket, data: Uint8Array): unknown;
  /** There is room to write again. */
  drain?(socket: BunSocket): unknown;
  /** The peer sends no more. */
  end?(socket: BunSocket): unknown;
  /** Nothing has happened for as long as `socket.timeout()` says. */
  timeout?(socket: BunSocket): unknown;
  /** The connection is closed. */
  close?(socket: BunSocket): unknown;
  /** The connection has failed, or a handler. */
  error?(socket: BunSocket, error: Error): unknown;
}

/** Where to listen, who may connect, and what handles it. */
export type BunListenOptions = ListenOptions & AdmissionOptions & {
  /** Whether the handlers decide each action; see `ucred/net`. */
  readonly perAction?: boolean | undefined;
  readonly socket: BunHandlers;
};

const BUN_OPTIONS: OptionNames<BunListenOptions> = {
  ...LISTEN_OPTIONS,
  ...ADMISSION_OPTIONS,
  perAction: true,
  socket: true,
};

const HANDLERS: OptionNames<BunHandlers> = {
  open: true,
  data: true,
  drain: true,
  end: true,
  timeout: true,
  close: true,
  error: true,
};

/** A server that listens. */
export interface BunServer {
  /** The path or abstract name. */
  readonly path: string;
  /** What it has seen. */
  stats(): ServerStats;
  /** Stops to listen, waits for connections, and cuts them once `timeout` is over. */
  close(options?: CloseOptions): Promise<void>;
  /** {@link BunServer.close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

interface BunListener {
  stop(closeActive?: boolean): void;
}

interface BunGlobal {
  listen(
    options: ({ unix: string } | { fd: number }) & { socket: object },
  ): BunListener;
}

/**
 * Listens by `Bun.listen`. Each connection is identified before `open` is called; of who is refused no
 * handler hears.
 *
 * @returns Once the server listens.
 * @throws {UcredError} `ERR_UCRED_LISTEN` if it cannot listen there.
 * @throws {TypeError} If an option is wrong, or this is not Bun.
 */
export async function listen(options: BunListenOptions): Promise<BunServer> {
  const { Bun } = globalThis as unknown as { readonly Bun?: BunGlobal };
  if (Bun === undefined) throw new TypeError("ucred/bun is for Bun; use ucred/net");
  requireOptions("listen()", options, BUN_OPTIONS);
  checkSupport();
  const { policy, pin, limits, audit, perAction = false, socket } = options;
  requireOptions("socket of listen()", socket, HANDLERS);
  const admission = new Admission({ policy, pin, limits, audit }, perAction);
  const sockets = new Sockets(admission, socket);
  const handlers = sockets.handlers();
  let listener: BunListener | undefined;
  let place: BoundPath | undefined;
  if (options.systemd !== undefined) {
    const name = options.systemd === true ? undefined : options.systemd;
    const { fd, path, giveBack } = takeInherited(name);
    admission.server = path;
    try {
      listener = Bun.listen({ fd, socket: handlers });
    } catch (error) {
      giveBack();
      throw error;
    }
  } else {
    try {
      place = await bindSocketPath(options, (path) => {
        listener = Bun.listen({ unix: path, socket: handlers });
        return Promise.resolve();
      });
    } catch (error) {
      listener?.stop(true);
      throw error;
    }
    admission.server = place.path;
  }
  const notification = options.notify === true ? new Notification() : undefined;
  notification?.ready();
  const close = async (how: CloseOptions = {}) => {
    const startTimer = closeTimer(how);
    if (listener !== undefined) {
      place?.remove();
      notification?.stopping();
      listener.stop();
      listener = undefined;
    }
    await sockets.end(startTimer);
  };
  return {
    path: admission.server,
    stats: () => admission.stats(),
    close,
    [Symbol.asyncDispose]: () => close(),
  };
}

/** Those that were let in, and their handlers. */
class Sockets {
  readonly #admission: Admission;
  readonly #user: BunHandlers;
  readonly #open = new Map<BunSocket, Admitted>();
  readonly #onEmpty: (() => void)[] = [];

  constructor(admission: Admission, user: BunHandlers) {
    this.#admission = admission;
    this.#user = user;
  }

  handlers(): object {
    const { drain, end, timeout } = this.#user;
    return {
      open: (socket: BunSocket) => this.#opened(socket),
      data: (socket: BunSocket, data: Uint8Array) => this.#pass(socket, "data", data),
      ...(drain && { drain: (socket: BunSocket) => this.#pass(socket, "drain") }),
      // Without a handler Bun closes its end, too.
      ...(end && { end: (socket: BunSocket) => this.#pass(socket, "end") }),
      ...(timeout && { timeout: (socket: BunSocket) => this.#pass(socket, "timeout") }),
      error: (socket: BunSocket, error: Error) => this.#pass(socket, "error", error),
      close: (socket: BunSocket) => this.#closed(socket),
    };
  }

  async end(startTimer: ReturnType<typeof closeTimer>): Promise<void> {
    if (this.#open.size === 0) return;
    const empty = new Promise<void>((resolve) => this.#onEmpty.push(resolve));
    const stopTimer = startTimer(() => this.#open.forEach((_, socket) => socket.terminate()));
    await empty;
    stopTimer();
  }

  #opened(socket: BunSocket): void {
    const answer = this.#admission.admit(socket);
    if (!isAdmitted(answer)) return socket.terminate();
    this.#open.set(socket, answer);
    const { open } = this.#user;
    if (open !== undefined) {
      this.#guard(socket, answer, () => open(socket, answer.peer, answer.decision));
    }
  }

  /** Only of those that were let in, and only while they are open. */
  #pass(
    socket: BunSocket,
    event: "data" | "drain" | "end" | "timeout" | "error",
    argument?: unknown,
  ): void {
    const admitted = this.#open.get(socket);
    if (admitted === undefined) return;
    try { // not by attempt(): its closures cost a line a twentieth
      const answer = this.#user[event]?.(socket, argument as never);
      if (isThenable(answer)) {
        answer.then(undefined, (error) => this.#fail(socket, admitted, error));
      }
    } catch (error) {
      this.#fail(socket, admitted, error);
    }
  }

  #closed(socket: BunSocket): void {
    const admitted = this.#open.get(socket);
    if (admitted === undefined) return;
    this.#open.delete(socket);
    this.#guard(socket, admitted, () => this.#user.close?.(socket));
    admitted.peer.close();
    this.#admission.ended(admitted);
    if (this.#open.size === 0) { for (const run of this.#onEmpty.splice(0)) run(); }
  }

  #guard(socket: BunSocket, admitted: Admitted, run: () => unknown): void {
    attempt(run, (error) => this.#fail(socket, admitted, error));
  }

  #fail(socket: BunSocket, admitted: Admitted, error: unknown): void {
    this.#admission.failed(admitted, error);
    socket.terminate();
  }
}
