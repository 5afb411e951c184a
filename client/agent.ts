/** HTTP agents over Unix sockets, which open each connection by a function that may verify it. */

import { Agent, type AgentOptions, type ClientRequest } from "node:http";
import type { Socket } from "node:net";
import process from "node:process";
import type { Duplex } from "node:stream";
import { connect, type ConnectOptions } from "./connect.ts";

/** An agent that opens its connections with a function of its creator. */
export class ConnectingAgent extends Agent {
  readonly #connect: () => Promise<Socket>;

  constructor(options: AgentOptions, connect: () => Promise<Socket>) {
    super(options);
    this.#connect = connect;
  }

  override createConnection(
    _options: unknown,
    done?: (error: Error | null, socket: Socket) => void,
  ): Duplex {
    this.#connect().then(
      (socket) => done?.(null, socket),
      (error) => done?.(error, undefined as never),
    );
    return undefined as never; // Deno's types of node:http lack the asynchronous form
  }

  override reuseSocket(socket: Duplex, request: ClientRequest): void {
    super.reuseSocket(socket, request);
    // Otherwise Deno repeats the request if the connection closes, even a POST: denoland/deno 36786.
    // On Node and Bun, the caller may decide by it whether to repeat.
    if (process.versions["deno"] !== undefined) request.reusedSocket = false;
  }
}

/** How long an idle connection is kept for the next request. Servers of `ucred` keep it for 5 s. */
export const IDLE_TIMEOUT_MS = 4000;

/** An agent that verifies the server of each connection, and keeps connections alive. */
export class VerifyingAgent extends ConnectingAgent {
  /** Idle connections, each with the function that stops watching it. */
  readonly #idle = new Map<Socket, () => void>();

  constructor(options: ConnectOptions) {
    super({ keepAlive: true }, () => connect(options));
  }

  /** Closes an idle connection after a timeout, or when the server sends data without a request. */
  override keepSocketAlive(stream: Duplex): boolean {
    if (super.keepSocketAlive(stream) as boolean | void === false) return false;
    const socket = stream as Socket;
    const close = () => void socket.destroy();
    const timer = setTimeout(close, IDLE_TIMEOUT_MS);
    timer.unref();
    const stop = () => {
      clearTimeout(timer);
      socket.off("data", close).off("close", stop);
      this.#idle.delete(socket);
    };
    this.#idle.get(socket)?.();
    this.#idle.set(socket, stop);
    socket.on("data", close).on("close", stop);
    return true;
  }

  override reuseSocket(stream: Duplex, request: ClientRequest): void {
    this.#idle.get(stream as Socket)?.();
    super.reuseSocket(stream, request);
  }
}
