/**
 * Socket → descriptor. The only file that touches undocumented fields of the runtimes; where each
 * one keeps the number was checked on Deno 2.9.5, Bun 1.4.5 and Node 26.10, and is tested.
 */

import { host } from "../adapters/host.ts";
import { UcredError } from "../core/errors.ts";
import { foundSocketOf } from "../system/accepted_sockets.ts";

/** A `net.Socket`, as far as it matters here. */
export interface NetSocketLike {
  /** Whether it was closed. */
  readonly destroyed: boolean;
  /** Whether it still connects. */
  readonly connecting: boolean;
  /** Not called: it tells a socket from other streams. */
  setKeepAlive(enable?: boolean): unknown;
}

/** An `http.IncomingMessage`, as far as it matters here. */
export interface IncomingMessageLike {
  /** The connection that the request came over. */
  readonly socket: NetSocketLike;
}

/** A `Bun.Socket`, as far as it matters here; Bun's types leave its `fd` out. */
export interface BunSocketLike {
  /** Not read: with the methods it tells a socket from other objects. */
  readonly readyState: number | string;
  /** Not called. */
  terminate(): void;
  /** Not called. */
  reload(options: never): void;
}

/**
 * What has a peer: a descriptor number, anything with a numeric `fd`, a `net.Socket`, the
 * `http.IncomingMessage` that came over one, or a `Bun.Socket`.
 */
export type UnixSocket =
  | number
  | { readonly fd: number }
  | NetSocketLike
  | IncomingMessageLike
  | BunSocketLike;

/** Every field that is looked at, on whatever was passed. */
interface Fields {
  readonly fd?: unknown;
  readonly _handle?: { readonly fd?: unknown } | null;
  readonly socket?: unknown;
  readonly destroyed?: unknown;
  readonly connecting?: unknown;
  readonly remoteFamily?: unknown;
  readonly once?: unknown;
  readonly destroy?: unknown;
  readonly terminate?: unknown;
  readonly close?: unknown;
  readonly remoteAddr?: unknown;
  readonly addr?: unknown;
  readonly accept?: unknown;
  readonly listening?: unknown;
  readonly constructor?: { readonly name?: unknown };
}

/**
 * The descriptor under a socket, now. It is borrowed: never kept, never closed.
 *
 * @throws {UcredError} `ERR_UCRED_NO_FD`, or `ERR_UCRED_NOT_UNIX` for what is known to be TCP.
 * @throws {TypeError} If `socket` is nothing like a socket.
 * @throws {RangeError} If it is a number and not an integer from 0 to 2³¹ − 1.
 */
export function fdOf(socket: UnixSocket): number {
  if (typeof socket === "number") {
    // Checked before the call, which would take only the low 32 bits.
    if (Number.isInteger(socket) && socket >= 0 && socket <= 0x7fffffff) return socket | 0; // no −0
    throw new RangeError(`A descriptor is an integer from 0 to 2147483647, not ${socket}`);
  }
  if (typeof socket !== "object" || socket === null) {
    throw new TypeError(
      `A socket is a descriptor number or an object, not ${socket === null ? null : typeof socket}`,
    );
  }
  const fields: Fields = socket as Fields;
  if ("_handle" in fields) return fdOfHandle(fields);
  if (typeof fields.fd === "number") return fields.fd < 0 ? throwClosed() : fdOf(fields.fd);
  if (isObject(fields.socket) && "_handle" in fields.socket) return fdOfHandle(fields.socket);
  return fdOfClaim(socket) ?? hidden(fields);
}

/** The `net.Socket`, or the one under a request: what tells when it closes. */
export function connectionOf(socket: UnixSocket): Closable | undefined {
  const connection = carrierOf(socket);
  const claim = foundSocketOf(connection);
  if (claim !== undefined) return claim;
  return "_handle" in connection && typeof connection.once === "function"
    ? connection as unknown as Closable
    : undefined;
}

/** What {@link connectionOf} gives. */
export interface Closable {
  once(event: "close", run: () => void): unknown;
}

/** Closes a socket at once, by the way that its runtime has for that; a number stays open. */
export function closeSocket(socket: UnixSocket): void {
  const connection = carrierOf(socket);
  const { destroy, terminate, close } = connection;
  for (const method of [destroy, terminate, close]) {
    if (typeof method === "function") return void method.call(connection);
  }
}

/** The socket itself, or the one under a request. */
function carrierOf(socket: UnixSocket): Fields {
  if (!isObject(socket)) return {};
  return "_handle" in socket || !isObject(socket.socket) ? socket : socket.socket;
}

/** `net.Socket` and `net.Server`: the descriptor is on the handle, while there is one. */
function fdOfHandle(connection: Fields): number {
  const { _handle, destroyed, connecting, remoteFamily, listening } = connection;
  const fd = _handle?.fd;
  if (typeof fd === "number" && fd >= 0) return fdOf(fd);
  const found = fdOfClaim(connection);
  if (found !== undefined) return found;
  if (typeof remoteFamily === "string") { // Deno shows no descriptor of a TCP socket
    throw notUnix();
  }
  if (destroyed === true) return throwClosed();
  if (listening === false) {
    throw noFd("it is a server that does not listen", "Pass a connection that it accepted");
  }
  if (isObject(_handle) && connecting !== true) {
    const hint = "Identify the socket that was accepted, before TLS wraps it";
    throw noFd(`${host().name} hides it on this kind of socket`, hint);
  }
  if (host().runtime === "bun" && connecting !== true) {
    throw noFd(
      "Bun's http server hides it, or the socket was never connected",
      "Serve by createServer() of ucred/http, which finds it, or accept with createServer() of " +
        'node:net and pass each socket on by server.emit("connection", socket)',
    );
  }
  throw noFd("the socket is not connected yet", 'Wait for its "connect" event');
}

/**
 * Whether connections of the runtime's `http.Server` hide their descriptor: in Bun, until it has
 * oven-sh/bun PR 29599.
 */
export function httpHidesFd(): boolean {
  return host().runtime === "bun";
}

/** Whether a connection of an `http.Server` hides its descriptor. */
export function hidesFd(connection: NetSocketLike): boolean {
  const { _handle, fd } = connection as Fields;
  return typeof _handle?.fd !== "number" && typeof fd !== "number";
}

/** Of a connection that hides its descriptor, and for which it was found when it was accepted. */
function fdOfClaim(connection: object): number | undefined {
  const claim = foundSocketOf(connection);
  if (claim === undefined) return undefined;
  return claim.isOpen() ? claim.fd : throwClosed();
}

function isObject(value: unknown): value is Fields {
  return typeof value === "object" && value !== null;
}

function throwClosed(): never {
  throw noFd("it is closed", "Read credentials in the accept handler, before the socket closes");
}

/** What hides its descriptor, by what it can be told by, and what to use instead. */
function hidden(fields: Fields): never {
  const { remoteAddr, addr, accept, constructor } = fields;
  if (isObject(remoteAddr) && (remoteAddr as Address).transport === "tcp") throw notUnix();
  if (constructor?.name === "UnixConn" || (isObject(addr) && typeof accept === "function")) {
    const hint = "Accept by withPeers() of ucred/deno, or by createServer() of ucred/net";
    throw noFd("Deno.listen hides it", hint);
  }
  const isRequest = typeof Request === "function" && fields instanceof Request;
  if (isRequest || "remoteAddr" in fields || "requestIP" in fields || isObject(addr)) {
    const hint =
      "Serve by serve() of ucred/http, which takes the same handler, or by its createServer()";
    throw noFd("Deno.serve and Bun.serve hide it", hint);
  }
  throw new TypeError("This object is no socket: it has no descriptor");
}

interface Address {
  readonly transport?: unknown;
}

function notUnix(): UcredError {
  return new UcredError("ERR_UCRED_NOT_UNIX", "Cannot read peer credentials of a TCP socket", {
    hint: "Listen on a Unix domain socket: only there does the kernel know the peer",
  });
}

function noFd(why: string, hint: string): UcredError {
  return new UcredError("ERR_UCRED_NO_FD", `Cannot find the socket's descriptor: ${why}`, { hint });
}
