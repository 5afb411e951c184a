/** Authenticates clients of a D-Bus server by the credentials of their socket. */

import { MAX_TIMER_MS } from "../../core/timers.ts";
import type { Socket } from "node:net";
import { UcredError } from "../../core/errors.ts";
import { type OptionNames, requireOptions } from "../../core/options.ts";
import type { Peer } from "../../core/peer.ts";
import { identify } from "../../identity/identify.ts";
import { SaslServer } from "./sasl.ts";

/** Options of {@link authenticate}. */
export interface AuthenticateOptions {
  /** The server's GUID, 32 hexadecimal digits. All addresses of one server have the same. Default: random. */
  readonly guid?: string | undefined;
  /** Whether the client may send file descriptors: your code must then receive them. Default: `false`. */
  readonly unixFd?: boolean | undefined;
  /** Whether to pin the peer, as in `identify()`. Default: `false`. */
  readonly pin?: boolean | undefined;
  /** How long the client may take, in milliseconds. Default: 30 s, as dbus-daemon. */
  readonly timeoutMs?: number | undefined;
}

const OPTIONS: OptionNames<AuthenticateOptions> = {
  guid: true,
  unixFd: true,
  pin: true,
  timeoutMs: true,
};

/** A client that has authenticated. */
export interface Authenticated {
  /** Who connected. */
  readonly peer: Peer;
  /** Whether the client has negotiated file descriptors. */
  readonly unixFd: boolean;
}

const AUTHENTICATION_TIMEOUT_MS = 30_000;

/** The GUID of this program's servers. */
let ownGuid: string | undefined;

/**
 * Authenticates the client of a D-Bus server by the mechanism EXTERNAL, with the uid from the kernel.
 *
 * Call it in the accept handler. The uid that the client claims must be its effective uid. The mechanisms
 * ANONYMOUS and DBUS_COOKIE_SHA1 are rejected. A client is disconnected after 6 failed commands, 16 KiB, or
 * the time limit.
 *
 * @param socket A connection that was just accepted. When the promise resolves, the next bytes to read from
 * the socket are those after BEGIN, the first D-Bus message.
 * @throws {UcredError} `ERR_UCRED_REFUSED` if the client does not authenticate, after the socket was
 * destroyed; as `identify()` does.
 * @throws {TypeError} If an option is unknown or has the wrong type.
 * @see {@link https://dbus.freedesktop.org/doc/dbus-specification.html#auth-protocol D-Bus specification}
 *
 * @example Authenticate a client
 * ```ts
 * import { connect, createServer } from "node:net";
 * import process from "node:process";
 * import { authenticate } from "ucred/dbus";
 *
 * const server = createServer(async (socket) => {
 *   const { peer } = await authenticate(socket);
 *   console.log(peer.uid === process.getuid?.()); // true
 *   socket.end(); // a real server reads messages
 *   server.close();
 * });
 * server.listen("bus.sock", () => {
 *   const uid = Buffer.from(`${process.getuid?.()}`).toString("hex");
 *   connect("bus.sock").end(`\0AUTH EXTERNAL ${uid}\r\nBEGIN\r\n`).resume();
 * });
 * ```
 */
export async function authenticate(
  socket: Socket,
  options: AuthenticateOptions = {},
): Promise<Authenticated> {
  requireOptions("authenticate()", options, OPTIONS);
  const { unixFd = false, pin = false, timeoutMs = AUTHENTICATION_TIMEOUT_MS } = options;
  const { guid = ownGuid ??= crypto.randomUUID().replaceAll("-", "") } = options;
  if (!/^[0-9a-f]{32}$/i.test(guid)) throw new TypeError("guid must have 32 hexadecimal digits");
  if (!(timeoutMs > 0 && timeoutMs <= MAX_TIMER_MS)) {
    throw new RangeError(`timeoutMs must be a number above 0 and at most ${MAX_TIMER_MS}`);
  }
  const peer = identify(socket, { pin });
  const uid = peer.ambiguous.includes("uid") ? undefined : peer.uid;
  try {
    return {
      peer,
      unixFd: await converse(socket, new SaslServer({ uid, guid, unixFd }), timeoutMs),
    };
  } catch (error) {
    peer.close();
    throw error;
  }
}

/** Runs the conversation, and returns whether file descriptors were negotiated. */
function converse(socket: Socket, server: SaslServer, timeoutMs: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      socket.off("readable", read).off("end", onEnd).off("close", onEnd);
    };
    const fail = (reason: string, cause?: unknown) => {
      stop();
      socket.destroy();
      const hint = "Connect as the user that the client claims to be, with the mechanism EXTERNAL";
      const message = `Cannot authenticate the D-Bus client: ${reason}`;
      reject(new UcredError("ERR_UCRED_REFUSED", message, { hint, cause }));
    };
    const onEnd = () => fail("it has hung up");
    const onError = (error: Error) => fail("its connection failed", error);
    const read = () => {
      // Bytes stay in the socket until they are read: those after BEGIN belong to the caller.
      for (let chunk; (chunk = socket.read() as Uint8Array | string | null) !== null;) {
        if (typeof chunk === "string") return fail("the server has called setEncoding()");
        const step = server.receive(chunk);
        if (step.reply !== "") socket.write(step.reply);
        if (step.state === "failed") return fail(step.reason);
        if (step.state === "waiting") continue;
        stop();
        socket.off("error", onError);
        if (step.rest.length > 0) socket.unshift(step.rest);
        return resolve(step.unixFd);
      }
    };
    const timer = setTimeout(() => fail("it took too long"), timeoutMs);
    socket.on("error", onError); // it stays after a failure, for errors of the socket that is destroyed
    socket.on("readable", read).on("end", onEnd).on("close", onEnd);
    if (socket.destroyed) onEnd();
  });
}

/** What `dbus-native` passes to `authorize`. */
export interface ClaimedIdentity {
  /** The mechanism of the client: "EXTERNAL". */
  readonly mechanism: string | null;
  /** The uid that the client claims; `null` if it claims none. */
  readonly uid: number | null;
}

/**
 * Returns the `authorize` function for one connection of a server of `dbus-native`, which otherwise accepts
 * each client that claims the server's own uid.
 *
 * It accepts the mechanism EXTERNAL with the uid from the kernel, or without a claim, and nothing else.
 * `dbus-native` 0.16.1 cannot authenticate clients that claim no uid, such as `busctl`;
 * {@link authenticate} can.
 *
 * @param socket A connection that was just accepted. Call this function in the accept handler.
 * @throws {UcredError} As `identify()` does.
 *
 * @example Accept messages of authenticated clients
 * ```js
 * import { createServer } from "node:net";
 * import dbus from "dbus-native";
 * import { authorizePeer } from "ucred/dbus";
 *
 * createServer((stream) => {
 *   const authMethods = ["EXTERNAL"];
 *   const authorize = authorizePeer(stream);
 *   const connection = dbus.createConnection({ stream, server: true, authMethods, authorize });
 *   connection.on("error", () => {});
 *   connection.on("message", (message) => console.log(message.member));
 * }).listen("bus.sock");
 * ```
 */
export function authorizePeer(socket: Socket): (claimed: ClaimedIdentity) => boolean {
  const { uid, ambiguous } = identify(socket);
  const isCertain = !ambiguous.includes("uid");
  return ({ mechanism, uid: claim }) =>
    isCertain && mechanism === "EXTERNAL" && (claim === null || claim === uid);
}
