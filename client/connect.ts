/** Connects to a Unix socket and verifies the server before the first byte is sent. */

import { Agent, type ClientRequest } from "node:http";
import { connect as connectTo, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { type OptionNames, requireOptions } from "../core/options.ts";
import { type ServerExpectation, verifyServer } from "../identity/verify_server.ts";

/** Where the server is, and who it has to be. */
export interface ConnectOptions {
  /** A path, or an abstract name with "\0" first; never a TCP port, also if it consists of digits. */
  readonly path: string;
  /**
   * Who has called listen(2) last. With socket activation expect both: the service manager until the
   * server has started, and the server from then on, as all three runtimes call it again.
   */
  readonly expect: ServerExpectation;
}

/**
 * Connects to a server, if it is the one that is expected. Nothing is sent before that is known.
 *
 * @returns The connected socket, which is yours.
 * @throws {UcredError} `ERR_UCRED_REFUSED` if it is another one; the connection is then closed.
 * @throws {TypeError} If the path is empty, or has a NUL elsewhere than at its start.
 * @throws {Error} What `net.connect()` reports.
 */
export function connect(options: ConnectOptions): Promise<Socket> {
  return new Promise((resolve, reject) => {
    requireOptions("connect()", options, CONNECT_OPTIONS);
    const { path, expect } = options;
    // node:net takes an empty path for TCP, and Bun 1.4.5 cuts a path off at a NUL.
    if (typeof path !== "string" || path === "" || path === "\0" || path.indexOf("\0", 1) !== -1) {
      throw new TypeError(
        `A socket's path has at least one character and no NUL: ${JSON.stringify(path)}`,
      );
    }
    const socket = connectTo({ path }); // connect("8080") is TCP
    socket.once("error", reject);
    socket.once("connect", () => {
      socket.off("error", reject);
      try {
        verifyServer(socket, expect);
        resolve(socket);
      } catch (error) {
        socket.on("error", () => {}); // it is being closed
        reject(error);
      }
    });
  });
}

export class VerifyingAgent extends Agent {
  readonly #options: ConnectOptions;
  /** Connections that wait for a request, and what stops the watch over them. */
  readonly #idle = new Map<Socket, () => void>();

  constructor(options: ConnectOptions) {
    super({ keepAlive: true });
    this.#options = options;
  }

  override createConnection(
    _options: unknown,
    done?: (error: Error | null, socket: Socket) => void,
  ): undefined {
    connect(this.#options).then(
      (socket) => done?.(null, socket),
      (error) => done?.(error, undefined as never),
    );
  }

  /** Closes an idle connection after a while, and when the server sends what was not requested. */
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

export const CONNECT_OPTIONS: OptionNames<ConnectOptions> = { path: true, expect: true };

/** How long a connection is kept for the next request. Servers of `ucred` keep it for 5 s. */
export const IDLE_TIMEOUT_MS = 4000;
