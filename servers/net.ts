/**
 * Servers of node:net that know who connects: `ucred/net`. The same on Deno, Bun and Node.
 *
 * @example Root and the server's own user get in, nobody else
 * ```ts
 * import { createServer } from "ucred/net";
 *
 * const server = createServer({}, (socket, peer) => {
 *   socket.end(`welcome, uid ${peer.uid}\n`);
 * });
 * server.listen("app.sock");
 * ```
 *
 * @module
 */

import { Server, type ServerOpts, type Socket } from "node:net";
import { type OptionNames, requireOptions } from "../core/options.ts";
import type { Peer } from "../core/peer.ts";
import type { Decision } from "../core/policy/decide/decision.ts";
import {
  Admission,
  ADMISSION_OPTIONS,
  type AdmissionOptions,
  type Admitted,
  isAdmitted,
  type RefusedConnection,
  type ServerStats,
  warn,
} from "./admission/admission.ts";
import { attempt, requireHandler } from "./admission/handler.ts";
import {
  type CloseOptions,
  type ListenArguments,
  Listening,
  parseListen,
  type SafeServer,
} from "./listen/lifecycle.ts";

export type { Peer } from "../core/peer.ts";
export type { Decision } from "../core/policy/decide/decision.ts";
export type { Policy } from "../core/policy/policy.ts";
export { UcredError, type UcredErrorCode } from "../core/errors.ts";
export type { AdmissionOptions, RefusedConnection, ServerStats } from "./admission/admission.ts";
export type { AuditLog } from "./admission/audit.ts";
export type { EndReason, RefusalReason } from "./admission/events.ts";
export type { LimitName, Limits } from "./admission/limits.ts";
export type {
  CloseOptions,
  CommonListenOptions,
  ListenOptions,
  PathListenOptions,
  SafeServer,
  SystemdListenOptions,
} from "./listen/lifecycle.ts";
export type { SocketPathOptions } from "./listen/socket_path.ts";

/** Who may connect, and how sockets are to be; see `net.createServer()` for the latter. */
export interface NetServerOptions extends AdmissionOptions, ServerOpts {
  /**
   * Whether the handler decides each thing that a peer asks for by `policy.decide(peer, { action })`.
   * Then all are let in of whom some action could be allowed, whatever `decision` says of the
   * connection as such. By default `false`: a connection is let in if the policy allows it without
   * an action.
   */
  readonly perAction?: boolean | undefined;
  /** What is sent to whom is refused, before the connection is closed. */
  readonly refusal?: string | ((refused: RefusedConnection) => string) | undefined;
}

const NET_OPTIONS: OptionNames<NetServerOptions> = {
  ...ADMISSION_OPTIONS,
  perAction: true,
  refusal: true,
  allowHalfOpen: true,
  pauseOnConnect: true,
  noDelay: true,
  keepAlive: true,
  keepAliveInitialDelay: true,
  highWaterMark: true,
  blockList: true,
};

/** Serves one connection. If it throws, or its promise rejects, that connection is closed. */
export type ConnectionHandler = (socket: Socket, peer: Peer, decision: Decision) => unknown;

/** A `net.Server` that lets in whom its policy lets in. */
export type NetServer = Server & SafeServer;

/** {@link createServer} without options. */
export function createServer(handler?: ConnectionHandler): NetServer;
/**
 * Makes a server that identifies each connection before its handler runs, asks the policy, and counts
 * connections of each user. Who is refused never gets to the handler.
 *
 * `listen()` takes a path or an abstract name, or a socket of the service manager's, and makes the
 * path safe: see {@link PathListenOptions}. The rest is `net.Server`'s own.
 *
 * @param handler Runs when a connection was let in. Errors of the socket end that connection only,
 * whether anybody listens to them or not.
 * @throws {TypeError} If an option is wrong.
 *
 * @example A policy; whom it refuses is told why
 * ```ts
 * import { definePolicy } from "ucred";
 * import { createServer } from "ucred/net";
 *
 * const policy = definePolicy({
 *   version: 1,
 *   rules: [
 *     { name: "root", when: { uid: 0 }, allow: "full" },
 *     { name: "people", when: { uid: "1000-59999" }, allow: "read" },
 *   ],
 * });
 * const server = createServer(
 *   { policy, refusal: ({ decision }) => `${decision?.reason}\n` },
 *   (socket, peer, { grants }) => void socket.end(`welcome, uid ${peer.uid}: ${grants}\n`),
 * );
 * server.listen({ path: "app.sock", mode: 0o666 });
 * ```
 */
export function createServer(options: NetServerOptions, handler?: ConnectionHandler): NetServer;
export function createServer(
  first: NetServerOptions | ConnectionHandler = {},
  second?: ConnectionHandler,
): NetServer {
  const [options, handler] = typeof first === "function" ? [{}, first] : [first, second];
  requireOptions("createServer()", options, NET_OPTIONS);
  return new AdmittingServer(options, requireHandler(handler)) as unknown as NetServer;
}

type Marked = Socket & { [mark: symbol]: Admitted | undefined };

const ignore = () => {};

/** How long a last message may take to be sent, in ms. */
const CLOSE_TIMEOUT_MS = 1000;

class AdmittingServer extends Server {
  readonly #admission: Admission;
  readonly #listening: Listening;
  readonly #refusal: NetServerOptions["refusal"];
  /** How many sockets were let in, and have not said that they are closed. */
  #open = 0;
  /** Where each of them has what this server decided: another may have let it in, too. */
  readonly #admitted = Symbol("ucred.admitted");
  readonly #onEmpty: (() => void)[] = [];

  constructor(
    { policy, pin, limits, audit, perAction = false, refusal, ...options }: NetServerOptions,
    handler?: ConnectionHandler,
  ) {
    super(options);
    this.#admission = new Admission({ policy, pin, limits, audit }, perAction);
    this.#refusal = refusal;
    this.#listening = new Listening({
      listen: (where, backlog) => super.listen({ ...where, backlog }),
      close: (done) => super.close((error) => this.#whenEmpty(() => done(error))),
      address: () => super.address(),
      closeIdle: () => {}, // the handler alone knows which are idle
      cut: () => this.#admission.cut(),
      emit: (event: string, error?: unknown) => void super.emit(event, error),
    }, (path) => this.#admission.server = path);
    if (handler !== undefined) {
      this.on("connection", (socket: Socket) => this.#serve(socket, handler));
    }
  }

  override emit(event: string | symbol, ...args: unknown[]): boolean {
    if (event === "connection") return this.#admit(args[0] as Socket);
    return this.#listening.intercept(event, args[0]) || super.emit(event as string, ...args);
  }

  override listen(...args: unknown[]): this {
    const { options, onListening } = parseListen(args as unknown as ListenArguments);
    if (onListening !== undefined) this.once("listening", onListening);
    this.#listening.start(options);
    return this;
  }

  override close(how?: CloseOptions | ((error?: Error) => void)): this {
    if (typeof how !== "object") {
      this.#listening.close({}, how ?? (() => {}));
      return this;
    }
    return new Promise<void>((resolve, reject) => {
      this.#listening.close(how, (error) => error === undefined ? resolve() : reject(error));
    }) as unknown as this;
  }

  override address(): string | null {
    return this.#listening.path ?? null;
  }

  stats(): ServerStats {
    return this.#admission.stats();
  }

  #admit(socket: Socket): boolean {
    socket.on("error", ignore); // a peer that leaves ends its own connection only
    const answer = this.#admission.admit(socket);
    if (!isAdmitted(answer)) {
      this.#refuse(socket, answer);
      return true;
    }
    (socket as Marked)[this.#admitted] = answer;
    this.#open++;
    socket.once("close", () => {
      this.#open--;
      this.#admission.ended(answer);
      if (this.#open === 0) { for (const run of this.#onEmpty.splice(0)) run(); }
    });
    try {
      return super.emit("connection", socket);
    } catch (error) {
      this.#fail(socket, answer, error);
      return true;
    }
  }

  /** The runtime's own count is down before the last socket says that it is closed. */
  #whenEmpty(run: () => void): void {
    if (this.#open === 0) run();
    else this.#onEmpty.push(run);
  }

  #refuse(socket: Socket, refused: RefusedConnection): void {
    const text = this.#farewell(refused);
    if (text === undefined) return void socket.destroy();
    const timer = setTimeout(() => socket.destroy(), CLOSE_TIMEOUT_MS);
    socket.once("close", () => clearTimeout(timer));
    socket.resume().end(text, () => socket.destroy());
  }

  #farewell(refused: RefusedConnection): string | undefined {
    if (typeof this.#refusal !== "function") return this.#refusal;
    try {
      return String(this.#refusal(refused));
    } catch (error) {
      warn(`The refusal of the server at ${this.#admission.server} failed`, error);
      return undefined;
    }
  }

  #serve(socket: Socket, handler: ConnectionHandler): void {
    const admitted = (socket as Marked)[this.#admitted]!;
    const { peer, decision } = admitted;
    attempt(
      () => handler(socket, peer, decision),
      (error) => this.#fail(socket, admitted, error),
    );
  }

  #fail(socket: Socket, admitted: Admitted, error: unknown): void {
    this.#admission.failed(admitted, error);
    socket.destroy();
  }
}
