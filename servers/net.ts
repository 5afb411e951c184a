/**
 * `ucred/net`: `node:net` servers that identify their peers. The API is the same on Deno, Bun and Node.
 *
 * @example Accept only root and the server's own user
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

import type { Server, ServerOpts, Socket } from "node:net";
import { type OptionNames, requireOptions } from "../core/options.ts";
import type { Peer } from "../core/peer.ts";
import type { Decision } from "../core/policy/decide/decision.ts";
import {
  Admission,
  ADMISSION_OPTIONS,
  type AdmissionOptions,
  type Admitted,
  type DecideAt,
  type RefusedConnection,
  warn,
} from "./admission/admission.ts";
import { isThenable, requireHandler } from "./admission/handler.ts";
import { AdmittingServer, CONNECT_AS, type OpenFake } from "./listen/admitting_server.ts";
import type { SafeServer } from "./listen/lifecycle.ts";

export type { Peer } from "../core/peer.ts";
export type { Decision } from "../core/policy/decide/decision.ts";
export type { Policy } from "../core/policy/policy.ts";
export { UcredError, type UcredErrorCode } from "../core/errors.ts";
export type {
  AdmissionOptions,
  DecideAt,
  RefusedConnection,
  ServerStats,
} from "./admission/admission.ts";
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

/** Options of {@link createServer}: those of admission and those of `net.createServer()`. */
export interface NetServerOptions extends AdmissionOptions, ServerOpts {
  /**
   * Where the policy is enforced. With `"connection"`, the default, the policy must allow the connection
   * itself, without an action. With `"action"`, a connection is accepted if the policy could allow at least
   * one action, even if `decision` denies the connection itself; the handler must then call
   * `policy.decide(peer, { action })` for each action.
   */
  readonly decideAt?: DecideAt | undefined;
  /** The message that a refused client receives before its connection is closed. */
  readonly refusalMessage?: string | ((refused: RefusedConnection) => string) | undefined;
}

const NET_OPTIONS: OptionNames<NetServerOptions> = {
  ...ADMISSION_OPTIONS,
  decideAt: true,
  refusalMessage: true,
  allowHalfOpen: true,
  pauseOnConnect: true,
  noDelay: true,
  keepAlive: true,
  keepAliveInitialDelay: true,
  highWaterMark: true,
  blockList: true,
};

/** Handles one connection. If it throws, or its promise rejects, that connection is closed. */
export type ConnectionHandler = (socket: Socket, peer: Peer, decision: Decision) => unknown;

/** A `net.Server` that accepts only peers that its policy allows. */
export type NetServer = Server & SafeServer;

/** {@link createServer} without options. */
export function createServer(handler?: ConnectionHandler): NetServer;
/**
 * Creates a server that identifies each peer, applies the policy, and enforces limits for each user before
 * the handler runs. Refused connections reach no handler.
 *
 * `listen()` takes a path, an abstract name, or a socket passed by the service manager, and protects the
 * path: see {@link PathListenOptions}. Everything else is inherited from `net.Server`.
 *
 * @param handler Runs for each accepted connection. A socket error ends only that connection, also without
 * an "error" listener.
 * @throws {TypeError} If an option is unknown or has the wrong type.
 *
 * @example Use a policy, and send the reason to refused clients
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
 *   { policy, refusalMessage: ({ decision }) => `${decision?.reason}\n` },
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
  return new ConnectionServer(options, requireHandler(handler)) as unknown as NetServer;
}

type MarkedSocket = Socket & { [mark: symbol]: Admitted | undefined };

/** How long sending the refusal message may take. */
const CLOSE_TIMEOUT_MS = 1000;

class ConnectionServer extends AdmittingServer {
  readonly #refusalMessage: NetServerOptions["refusalMessage"];
  readonly #options: ServerOpts;
  /** Key of each socket's admission by this server. Another server may have admitted the same socket, too. */
  readonly #admitted = Symbol("ucred.admitted");

  constructor(
    { policy, pin, limits, audit, decideAt, refusalMessage, ...options }: NetServerOptions,
    handler?: ConnectionHandler,
  ) {
    super(options, new Admission({ policy, pin, limits, audit }, decideAt));
    this.#refusalMessage = refusalMessage;
    this.#options = options;
    if (handler !== undefined) {
      this.on("connection", (socket: Socket) => this.#handle(socket, handler));
    }
  }

  [CONNECT_AS](open: OpenFake): void {
    this.connectAs(open, this.#options);
  }

  protected override serve(socket: Socket, admitted: Admitted): boolean {
    (socket as MarkedSocket)[this.#admitted] = admitted;
    try {
      return this.emitConnection(socket);
    } catch (error) {
      this.#fail(socket, admitted, error);
      return true;
    }
  }

  protected override refuse(socket: Socket, refused: RefusedConnection): void {
    const text = this.#messageFor(refused);
    if (text === undefined) return void socket.destroy();
    const timer = setTimeout(() => socket.destroy(), CLOSE_TIMEOUT_MS);
    socket.once("close", () => clearTimeout(timer));
    socket.resume().end(text, () => socket.destroy());
  }

  #messageFor(refused: RefusedConnection): string | undefined {
    if (typeof this.#refusalMessage !== "function") return this.#refusalMessage;
    try {
      return String(this.#refusalMessage(refused));
    } catch (error) {
      warn(`refusalMessage() of the server at ${this.admission.server} failed`, error);
      return undefined;
    }
  }

  #handle(socket: Socket, handler: ConnectionHandler): void {
    const admitted = (socket as MarkedSocket)[this.#admitted]!;
    try { // not attempt(): its closures would be created for each connection
      const answer = handler(socket, admitted.peer, admitted.decision);
      if (isThenable(answer)) {
        answer.then(undefined, (error) => this.#fail(socket, admitted, error));
      }
    } catch (error) {
      this.#fail(socket, admitted, error);
    }
  }

  #fail(socket: Socket, admitted: Admitted, error: unknown): void {
    this.admission.failed(admitted, error);
    socket.destroy();
  }
}
