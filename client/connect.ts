/** Connects to a Unix socket and verifies the server before the first byte is sent. */

import { connect as connectTo, type Socket } from "node:net";
import { type OptionNames, requireOptions } from "../core/options.ts";
import { type ServerExpectation, verifyServer } from "../identity/verify_server.ts";

/** The server's address and its expected identity. */
export interface ConnectOptions {
  /** A path, or an abstract name that begins with "\0". Digits are a path and not a TCP port. */
  readonly path: string;
  /**
   * The process that last called listen(2). With systemd socket activation, that is systemd until the
   * service calls listen(2) itself, and then the service: allow both.
   */
  readonly expect: ServerExpectation;
}

/** The option names of {@link ConnectOptions}. */
export const CONNECT_OPTIONS: OptionNames<ConnectOptions> = { path: true, expect: true };

/**
 * Connects to a server and verifies its identity. Nothing is sent before the verification.
 *
 * @returns The connected socket, which the caller closes.
 * @throws {UcredError} `ERR_UCRED_REFUSED` if the server is another one; the connection is then closed.
 * @throws {TypeError} If the path is empty, or has a NUL elsewhere than at its start.
 * @throws {Error} As `net.connect()` reports, if the connection fails.
 */
export async function connect(options: ConnectOptions): Promise<Socket> {
  requireOptions("connect()", options, CONNECT_OPTIONS);
  const { path, expect } = options;
  // node:net connects to TCP for an empty path, and Bun 1.4.5 truncates a path at a NUL.
  if (typeof path !== "string" || path === "" || path === "\0" || path.indexOf("\0", 1) !== -1) {
    throw new TypeError(
      `path must not be empty, or have a NUL after its start: ${JSON.stringify(path)}`,
    );
  }
  return await connectVerified({ path, expect, allowHalfOpen: false });
}

/** A connection to open. */
export interface Target {
  readonly path: string;
  /** The expected identity; `undefined` accepts any server. */
  readonly expect: ServerExpectation | undefined;
  readonly allowHalfOpen: boolean;
}

/**
 * Opens a connection and verifies the server. Rejects if the connection fails, is closed before it is
 * established, or leads to another server; it is then closed.
 *
 * @param onSocket Called with the socket while it is still connecting, so that the caller can close it.
 */
export function connectVerified(
  { path, expect, allowHalfOpen }: Target,
  onSocket: (socket: Socket) => void = () => {},
): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connectTo({ path, allowHalfOpen }); // connect("8080") would be TCP
    // A socket can close without an "error" event.
    const onClose = () => reject(new Error("the connection was closed"));
    socket.once("error", reject).once("close", onClose);
    socket.once("connect", () => {
      socket.off("error", reject).off("close", onClose);
      try {
        if (expect !== undefined) verifyServer(socket, expect);
        resolve(socket);
      } catch (error) {
        socket.on("error", () => {}).destroy();
        reject(error);
      }
    });
    onSocket(socket);
  });
}
