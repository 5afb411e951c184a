/** HTTP agents that open each connection by a given function, which can verify the server. */

import { Agent, type AgentOptions, type ClientRequest } from "node:http";
import type { Socket } from "node:net";
import process from "node:process";
import type { Duplex } from "node:stream";
import { connect, type ConnectOptions } from "./connect.ts";

/** An agent that opens its connections with the function that its constructor received. */
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
    // With this flag, Deno repeats a request, even a POST, if the connection closes: denoland/deno 36786.
    // On Node and Bun the flag stays: callers may use it to decide whether to repeat the request.
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
