/**
 * Finds the descriptor of a socket object. Reads undocumented fields of the runtimes, which were checked on
 * Deno 2.9.5, Bun 1.4.5 and Node 26.10 and are covered by tests.
 */

import { host } from "../adapters/host.ts";
import { UcredError } from "../core/errors.ts";
import { ACCEPT_HINT, UNIX_HINT } from "../system/syscall_error.ts";
import { foundSocketOf } from "../system/accepted_sockets.ts";

/** The members of a `net.Socket` that are used. */
export interface NetSocketLike {
  /** Whether it is closed. */
  readonly destroyed: boolean;
  /** Whether it is still connecting. */
  readonly connecting: boolean;
  /** Not called: distinguishes a socket from other streams. */
  setKeepAlive(enable?: boolean): unknown;
}

/** The members of an `http.IncomingMessage` that are used. */
export interface IncomingMessageLike {
  /** The connection of the request. */
  readonly socket: NetSocketLike;
}

/** The members of a `Bun.Socket` that are used; Bun's types omit its `fd`. */
export interface BunSocketLike {
  /** Not read: together with the methods it distinguishes a socket from other objects. */
  readonly readyState: number | string;
  /** Not called. */
  terminate(): void;
  /** Not called. */
  reload(options: never): void;
}

/**
 * A socket that has a peer: a descriptor number, an object with a numeric `fd`, a `net.Socket`, an
 * `http.IncomingMessage`, or a `Bun.Socket`.
 */
export type UnixSocket =
  | number
  | { readonly fd: number }
  | NetSocketLike
  | IncomingMessageLike
  | BunSocketLike;

/** Every field that is read from an argument. */
interface Fields {
  readonly fd?: unknown;
  readonly _handle?: { readonly fd?: unknown; readonly listener?: BunListenerFields } | null;
  readonly _server?: { readonly _pipeName?: unknown } | null;
  readonly listener?: BunListenerFields;
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

interface BunListenerFields {
  readonly unix?: unknown;
}

/**
 * Returns the current descriptor of a socket. It is borrowed: never stored, never closed.
 *
 * @throws {UcredError} `ERR_UCRED_NO_FD`, or `ERR_UCRED_NOT_UNIX` for a TCP socket.
 * @throws {TypeError} If `socket` is not a socket.
 * @throws {RangeError} If it is a number and not an integer from 0 to 2³¹ − 1.
 */
export function fdOf(socket: UnixSocket): number {
  if (typeof socket === "number") {
    // Checked before the call, which would use only the low 32 bits.
    if (Number.isInteger(socket) && socket >= 0 && socket <= 0x7fffffff) return socket | 0; // converts −0 to 0
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
  return fdOfFound(socket) ?? hidden(fields);
}

/**
 * Reports whether the descriptor of a socket certainly is a connection of AF_UNIX: a runtime's listener at a
 * path or abstract name has accepted it, or it was found and verified. A listener on an inherited descriptor
 * does not count, since Bun takes those of every family.
 */
export function isAccepted(socket: UnixSocket): boolean {
  const connection = carrierOf(socket);
  const { _handle, _server, listener } = connection;
  const name = _server?._pipeName ?? (_handle?.listener ?? listener)?.unix;
  return typeof name === "string" || foundSocketOf(connection) !== undefined;
}

/** Returns the object that emits "close" for a socket or request; `undefined` if there is none. */
export function connectionOf(socket: UnixSocket): Closable | undefined {
  const connection = carrierOf(socket);
  const found = foundSocketOf(connection);
  if (found !== undefined) return found;
  return "_handle" in connection && typeof connection.once === "function"
    ? connection as unknown as Closable
    : undefined;
}

/** The result of {@link connectionOf}. */
export interface Closable {
  once(event: "close", run: () => void): unknown;
}

/**
 * Returns the object that owns the descriptor of a connection: the runtime's handle, the `Bun.Socket`, or
 * the socket that was found. A closed connection has no such object, or one with the descriptor −1. `undefined` for
 * descriptor numbers and other objects, which do not show when the descriptor is closed.
 */
export function handleOf(socket: UnixSocket): object | undefined {
  const connection = carrierOf(socket);
  const { _handle, fd, terminate } = connection;
  if (typeof _handle?.fd === "number") return _handle;
  const found = foundSocketOf(connection);
  if (found !== undefined) return found;
  return typeof fd === "number" && typeof terminate === "function" ? connection : undefined;
}

/**
 * Returns the descriptor of a `net.Server` or of a listener of `Bun.listen`; `undefined` if the runtime hides
 * it.
 */
export function listenerFdOf(listener: object): number | undefined {
  const { _handle, fd } = listener as Fields;
  const found = _handle?.fd ?? fd;
  return typeof found === "number" && found >= 0 ? found : undefined;
}

/** Closes a socket at once by its runtime's own method; a descriptor number stays open. */
export function closeSocket(socket: UnixSocket): void {
  const connection = carrierOf(socket);
  const { destroy, terminate, close } = connection;
  for (const method of [destroy, terminate, close]) {
    if (typeof method === "function") return void method.call(connection);
  }
}

/** Returns the socket itself, or the one of a request. */
function carrierOf(socket: UnixSocket): Fields {
  if (!isObject(socket)) return {};
  return "_handle" in socket || !isObject(socket.socket) ? socket : socket.socket;
}

/** Returns the descriptor of a `net.Socket` or `net.Server`, which is on its handle while it is open. */
function fdOfHandle(connection: Fields): number {
  const { _handle, destroyed, connecting, remoteFamily, listening } = connection;
  const fd = _handle?.fd;
  if (typeof fd === "number" && fd >= 0) return fdOf(fd);
  const found = fdOfFound(connection);
  if (found !== undefined) return found;
  if (typeof remoteFamily === "string") { // Deno hides the descriptor of a TCP socket
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
 * Reports whether the runtime's `http.Server` hides the descriptors of its connections: Bun does,
 * until oven-sh/bun PR 29599.
 */
export function httpHidesFd(): boolean {
  return host().runtime === "bun";
}

/** Reports whether this connection of an `http.Server` hides its descriptor. */
export function hidesFd(connection: NetSocketLike): boolean {
  const { _handle, fd } = connection as Fields;
  return typeof _handle?.fd !== "number" && typeof fd !== "number";
}

/** Returns the descriptor that was found when the connection was accepted. */
function fdOfFound(connection: object): number | undefined {
  const found = foundSocketOf(connection);
  if (found === undefined) return undefined;
  return found.isOpen() ? found.fd : throwClosed();
}

function isObject(value: unknown): value is Fields {
  return typeof value === "object" && value !== null;
}

function throwClosed(): never {
  throw noFd("the socket is closed", ACCEPT_HINT);
}

/** Throws the error for an object that hides its descriptor, with the alternative as its hint. */
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
  throw new TypeError("This object is not a socket: it has no descriptor");
}

interface Address {
  readonly transport?: unknown;
}

function notUnix(): UcredError {
  return new UcredError("ERR_UCRED_NOT_UNIX", "Cannot read peer credentials of a TCP socket", {
    hint: UNIX_HINT,
  });
}

function noFd(why: string, hint: string): UcredError {
  return new UcredError("ERR_UCRED_NO_FD", `Cannot find the socket's descriptor: ${why}`, { hint });
}
