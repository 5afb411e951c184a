/** The guard's HTTP mode: decides each request and forwards it with the peer's identity as headers. */

import type { Socket } from "node:net";
import { clearInterval, setInterval } from "node:timers";
import {
  Admission,
  type Admitted,
  type RefusedConnection,
} from "../../servers/admission/admission.ts";
import { forbidden } from "../../servers/http/problem.ts";
import { refuseSocket } from "../../servers/http/refusal.ts";
import { AdmittingServer } from "../../servers/listen/admitting_server.ts";
import { checkingInterval, type SafeServer } from "../../servers/listen/lifecycle.ts";
import { requestFields } from "../headers.ts";
import { Http2Connection } from "../http2/connection.ts";
import { UserStreams } from "../http2/limits.ts";
import type { GuardOptions, GuardServer } from "../options.ts";
import { Recorder } from "../recorder.ts";
import { guardServerOf } from "../guard_server.ts";
import { RequestCounters } from "../stats.ts";
import { Upstream } from "../upstream.ts";
import type { Mediator } from "./mediator.ts";
import { ClientConnection, type Shared } from "./connection.ts";

/** Makes a guard in HTTP mode. It does not listen yet. */
export function guardHttp(options: GuardOptions, mediate?: MakeMediator): GuardServer {
  const upstream = new Upstream(options);
  const requests = new RequestCounters();
  const server = new HttpGuard(options, upstream, requests, mediate) as unknown as SafeServer;
  return guardServerOf(server, upstream, options.limits, requests);
}

/** Makes the mediator of a mode that reads whole requests. */
export type MakeMediator = (
  admission: Admission,
  upstream: Upstream,
  recorder: Recorder | undefined,
) => Mediator;

/** How often timeouts and hang-ups are checked. */
const SWEEP_MS = 1000;

/** Default of `GuardOptions.bodyTimeout`. Node limits a whole request to the same time. */
const BODY_TIMEOUT_MS = 300_000;

class HttpGuard extends AdmittingServer {
  readonly #shared: Shared;
  readonly #connections = new Set<ClientConnection | Http2Connection>();
  /** Refused connections whose response is being sent. */
  readonly #refused = new Set<Socket>();
  readonly #sweepInterval: number;
  #sweeper: ReturnType<typeof setInterval> | undefined;

  constructor(
    options: GuardOptions,
    upstream: Upstream,
    requests: RequestCounters,
    mediate?: MakeMediator,
  ) {
    const {
      policy,
      limits,
      audit,
      keepHeaders = [],
      bodyTimeout = BODY_TIMEOUT_MS,
      onRequest,
      learn,
      report = () => {},
    } = options;
    const recorder = learn === undefined
      ? undefined
      : new Recorder(learn, mediate === undefined ? "http" : "docker", report);
    // A recording has the units and containers of callers, which only a pinned peer has.
    const pin = learn === undefined ? undefined : true;
    const admission = new Admission({ policy, pin, limits, audit }, "action");
    super({ allowHalfOpen: true }, admission);
    if (mediate === undefined && recorder !== undefined) {
      admission.onDecided = ({ peer }, action, { allowed }) =>
        recorder.record(peer, { action, allowed });
    }
    const mediator = mediate?.(admission, upstream, recorder);
    this.once("close", () => {
      recorder?.close();
      mediator?.end();
    });
    this.#sweepInterval = checkingInterval(SWEEP_MS, bodyTimeout);
    const shared = {
      ...{ admission, upstream, requests, onRequest },
      report,
      fields: requestFields(new Set(keepHeaders.map((name) => name.toLowerCase()))),
      maxIdleChecks: bodyTimeout === 0 ? Infinity : bodyTimeout / this.#sweepInterval,
    };
    const streams = new UserStreams();
    this.#shared = {
      ...shared,
      h2c: options.h2c === true,
      mediator,
      isClosing: () => this.isClosing,
      serveHttp2: options.http2 !== true ? undefined : (socket, admitted, bytes) => {
        this.#add(socket, new Http2Connection(socket, admitted, bytes, { ...shared, streams }));
      },
    };
  }

  protected override serve(socket: Socket, admitted: Admitted): true {
    this.#add(socket, new ClientConnection(socket, admitted, this.#shared));
    return true;
  }

  #add(socket: Socket, connection: ClientConnection | Http2Connection): void {
    this.#connections.add(connection);
    this.#sweeper ??= setInterval(() => this.#sweep(), this.#sweepInterval).unref();
    socket.once("close", () => this.#connections.delete(connection));
  }

  /** Responds to the first request of a refused peer with 403, within limits. */
  protected override refuse(socket: Socket, refused: RefusedConnection): void {
    const release = this.admission.roomToAnswer(refused);
    if (release === undefined) return void socket.destroy();
    this.#refused.add(socket);
    socket.once("close", () => {
      this.#refused.delete(socket);
      release();
    });
    const problem = forbidden(refused.decision!);
    const answer = this.#shared.mediator?.answer(problem.status, problem.title, problem.detail);
    refuseSocket(socket, { ...problem, ...answer, status: problem.status, isLast: true });
  }

  protected override closeIdle(): void {
    for (const socket of this.#refused) socket.destroy();
    this.#shared.mediator?.close();
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
