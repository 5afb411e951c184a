/**
 * `ucred/bun`: `Bun.listen` with peer identification.
 *
 * `Bun.serve` is not supported: it hides the descriptor of its connections (oven-sh/bun 29597), and its
 * `requestIP` is null for Unix sockets. Use `serve()` of `ucred/http`, which runs on Bun's node:http.
 *
 * @example Accept only root and the server's own user
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
import { type BunSocketLike, listenerFdOf } from "../identity/fd.ts";
import { checkSupport } from "../identity/support.ts";
import { takeInherited } from "../system/sd_listen_fds.ts";
import {
  Admission,
  ADMISSION_OPTIONS,
  type AdmissionOptions,
  type Admitted,
  type DecideAt,
  isAdmitted,
  type ServerStats,
} from "./admission/admission.ts";
import { attempt, isThenable } from "./admission/handler.ts";
import {
  type CloseOptions,
  closeTimer,
  LISTEN_OPTIONS,
  type ListenOptions,
  refuseAttached,
} from "./listen/lifecycle.ts";
import { Notification } from "./listen/notification.ts";
import { bindSocketPath, type BoundPath } from "./listen/socket_path.ts";

export type { Peer } from "../core/peer.ts";
export type { Decision } from "../core/policy/decide/decision.ts";
export type { Policy } from "../core/policy/policy.ts";
export { UcredError, type UcredErrorCode } from "../core/errors.ts";
export type { AdmissionOptions, DecideAt, ServerStats } from "./admission/admission.ts";
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

/** The documented members of `Bun.Socket`. */
export interface BunSocket extends BunSocketLike {
  /** Any value that the application stores. */
  data: unknown;
  /** Sends data. Returns the number of bytes accepted; −1 if the socket is closed. */
  write(data: string | ArrayBufferView | ArrayBuffer, offset?: number, length?: number): number;
  /** Sends data and shuts down the sending side. */
  end(data?: string | ArrayBufferView | ArrayBuffer): number;
  /** Sends buffered data. */
  flush(): void;
  /** Sets the idle timeout in seconds, after which the `timeout` handler runs. */
  timeout(seconds: number): void;
  /** Shuts down the sending side. */
  shutdown(halfClose?: boolean): void;
}

/**
 * Handlers of accepted connections, named as in `Bun.listen`. `drain`, `end` and `timeout` must exist when
 * `listen()` is called; they are ignored if added later.
 */
export interface BunHandlers {
  /** A connection was accepted. If the handler throws, or its promise rejects, the connection is closed. */
  open?(socket: BunSocket, peer: Peer, decision: Decision): unknown;
  /** Data was received. */
  data?(socket: BunSocket, data: Uint8Array): unknown;
  /** The send buffer has room again. */
  drain?(socket: BunSocket): unknown;
  /** The peer has shut down its sending side. */
  end?(socket: BunSocket): unknown;
  /** The idle timeout has elapsed. */
  timeout?(socket: BunSocket): unknown;
  /** The connection is closed. */
  close?(socket: BunSocket): unknown;
  /** The connection or a handler has failed. */
  error?(socket: BunSocket, error: Error): unknown;
}

/** Options of {@link listen}. */
export type BunListenOptions = ListenOptions & AdmissionOptions & {
  /**
   * Whether the policy is enforced for the connection or by the handlers for each action; see `ucred/net`.
   */
  readonly decideAt?: DecideAt | undefined;
  readonly socket: BunHandlers;
};

const BUN_OPTIONS: OptionNames<BunListenOptions> = {
  ...LISTEN_OPTIONS,
  ...ADMISSION_OPTIONS,
  decideAt: true,
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

/** A running server. */
export interface BunServer {
  /** The path or abstract name. */
  readonly path: string;
  /** Returns the server's counters. */
  stats(): ServerStats;
  /** Stops listening, waits for connections, and cuts them off after `timeout`. */
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
 * Listens with `Bun.listen`. Each connection is identified before `open` is called; rejected connections
 * reach no handler.
 *
 * @experimental Reads the undocumented `fd` of Bun's sockets. Without it, connections are refused.
 * @returns The server, once it listens.
 * @throws {UcredError} `ERR_UCRED_LISTEN` if listening fails.
 * @throws {TypeError} If an option is unknown or has the wrong type, or the runtime is not Bun.
 */
export async function listen(options: BunListenOptions): Promise<BunServer> {
  const { Bun } = globalThis as unknown as { readonly Bun?: BunGlobal };
  if (Bun === undefined) {
    throw new TypeError("ucred/bun requires Bun; on other runtimes use ucred/net");
  }
  requireOptions("listen()", options, BUN_OPTIONS);
  checkSupport();
  const { policy, pin, limits, audit, decideAt, socket } = options;
  requireOptions("socket of listen()", socket, HANDLERS);
  const admission = new Admission({ policy, pin, limits, audit }, decideAt);
  const sockets = new Sockets(admission, socket);
  const handlers = sockets.handlers();
  let listener: BunListener | undefined;
  let bound: BoundPath | undefined;
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
      bound = await bindSocketPath(options, (path) => {
        listener = Bun.listen({ unix: path, socket: handlers });
        refuseAttached(listenerFdOf(listener));
        return Promise.resolve();
      });
    } catch (error) {
      listener?.stop(true);
      throw error;
    }
    admission.server = bound.path;
  }
  const notification = options.notify === true ? new Notification() : undefined;
  notification?.ready();
  const close = async (how: CloseOptions = {}) => {
    const startTimer = closeTimer(how);
    if (listener !== undefined) {
      bound?.remove();
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

/** The accepted sockets, and the handlers of their events. */
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
      // Without an `end` handler Bun also closes its own side.
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

  /** Passes an event of an accepted, open socket to the user's handler. */
  #pass(
    socket: BunSocket,
    event: "data" | "drain" | "end" | "timeout" | "error",
    argument?: unknown,
  ): void {
    const admitted = this.#open.get(socket);
    if (admitted === undefined) return;
    try { // without attempt(), which needs closures: they take 5 % of the time of an echoed line
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
