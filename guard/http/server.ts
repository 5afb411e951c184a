/** The guard's HTTP mode: decides each request and forwards it with the peer's identity as headers. */

import { Server, type Socket } from "node:net";
import { clearInterval, setInterval } from "node:timers";
import { listenerFdOf } from "../../identity/fd.ts";
import {
  Admission,
  isAdmitted,
  type RefusedConnection,
  type ServerStats,
} from "../../servers/admission/admission.ts";
import { forbidden } from "../../servers/http/problem.ts";
import { refuseSocket } from "../../servers/http/refusal.ts";
import { type CloseOptions, Lifecycle } from "../../servers/listen/lifecycle.ts";
import { requestFields } from "../headers.ts";
import type { GuardOptions, GuardServer } from "../options.ts";
import { Upstream } from "../upstream.ts";
import { ClientConnection, type Shared } from "./connection.ts";

/** Makes a guard in HTTP mode. It does not listen yet. */
export function guardHttp(options: GuardOptions): GuardServer {
  return new HttpGuard(options) as unknown as GuardServer;
}

/** How often timeouts and hang-ups are checked. */
const SWEEP_MS = 1000;

const ignore = () => {};

class HttpGuard extends Server {
  readonly #admission: Admission;
  readonly #lifecycle: Lifecycle;
  readonly #shared: Shared;
  readonly #connections = new Set<ClientConnection>();
  /** Refused connections whose response is being sent. */
  readonly #refused = new Set<Socket>();
  #sweeper: ReturnType<typeof setInterval> | undefined;

  constructor(options: GuardOptions) {
    super({ allowHalfOpen: true });
    const { policy, limits, audit, h2c = false, keepHeaders = [] } = options;
    this.#admission = new Admission({ policy, limits, audit }, "action");
    this.#lifecycle = new Lifecycle({
      listen: (where, backlog) => super.listen({ ...where, backlog }),
      close: (done) => super.close(done),
      descriptor: () => listenerFdOf(this),
      address: () => super.address(),
      closeIdle: () => this.#closeIdle(),
      cut: () => this.#admission.closeAll(),
      emit: (event: string, error?: unknown) => void super.emit(event, error),
    }, (path) => this.#admission.server = path);
    this.#shared = {
      admission: this.#admission,
      upstream: new Upstream(options),
      fields: requestFields(new Set(keepHeaders.map((name) => name.toLowerCase()))),
      h2c,
      isClosing: () => this.#lifecycle.isClosing,
    };
  }

  override emit(event: string | symbol, ...args: unknown[]): boolean {
    if (event === "connection") return this.#admit(args[0] as Socket);
    return this.#lifecycle.consumeStartEvent(event, args[0]) ||
      super.emit(event as string, ...args);
  }

  override listen(...args: unknown[]): this {
    this.#lifecycle.listen(args, (run) => this.once("listening", run));
    return this;
  }

  override close(how?: CloseOptions | ((error?: Error) => void)): this {
    return (this.#lifecycle.close(how) ?? this) as unknown as this;
  }

  override address(): string | null {
    return this.#lifecycle.path ?? null;
  }

  stats(): ServerStats {
    return this.#admission.stats();
  }

  #admit(socket: Socket): true {
    socket.on("error", ignore); // an error ends only this connection
    const answer = this.#admission.admit(socket);
    if (!isAdmitted(answer)) {
      this.#refuse(socket, answer);
      return true;
    }
    this.#lifecycle.opened();
    const connection = new ClientConnection(socket, answer, this.#shared);
    this.#connections.add(connection);
    this.#sweeper ??= setInterval(() => this.#sweep(), SWEEP_MS).unref();
    socket.once("close", () => {
      this.#connections.delete(connection);
      this.#admission.ended(answer);
      this.#lifecycle.closed();
    });
    return true;
  }

  /** Responds to the first request of a refused peer with 403, within limits. */
  #refuse(socket: Socket, refused: RefusedConnection): void {
    const release = this.#admission.roomToAnswer(refused);
    if (release === undefined) return void socket.destroy();
    this.#refused.add(socket);
    socket.once("close", () => {
      this.#refused.delete(socket);
      release();
    });
    refuseSocket(socket, { ...forbidden(refused.decision!), isLast: true });
  }

  #closeIdle(): void {
    for (const socket of this.#refused) socket.destroy();
    for (const connection of this.#connections) connection.shutDown();
  }

  #sweep(): void {
    const now = performance.now();
    for (const connection of this.#connections) connection.sweep(now);
    if (this.#connections.size > 0) return;
    clearInterval(this.#sweeper);
    this.#sweeper = undefined;
  }
}
