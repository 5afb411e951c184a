/** Messages to the service manager: sd_notify(3). */

import { environment } from "../adapters/builtins.ts";
import { memoryOf } from "../adapters/libc.ts";
import { openedSystem, type System } from "../adapters/select.ts";
import { UcredError } from "../core/errors.ts";
import { AF_UNIX } from "../ffi/abi.ts";
import { DATAGRAM_SOCKET, encodeAddress } from "../ffi/message.ts";
import { syscallError } from "./syscall_error.ts";

const WHAT = "notify the service manager";

/**
 * Sends a message to the service manager, if it set `NOTIFY_SOCKET`.
 *
 * @param state Lines of `NAME=VALUE`: "READY=1", "STATUS=…".
 * @returns Whether the message was sent; `false` if `NOTIFY_SOCKET` is not set.
 * @throws {UcredError} `ERR_UCRED_SYSCALL` if sending fails. With errno 11 (EAGAIN) the manager's
 * queue is full, and a later call may succeed. `ERR_UCRED_UNSUPPORTED` if the socket is not a Unix
 * socket.
 * @see {@link https://man7.org/linux/man-pages/man3/sd_notify.3.html sd_notify(3)}
 *
 * @example Report that a server of your own is ready
 * ```ts
 * import { notify } from "ucred/systemd";
 *
 * console.log(notify("READY=1") ? "sent" : "no service manager"); // no service manager
 * ```
 */
export function notify(state: string): boolean {
  const { NOTIFY_SOCKET: path } = environment();
  return path !== undefined && path !== "" && notifyAt(openedSystem(), path, state);
}

/** Implements {@link notify} on a given system. */
export function notifyAt(system: System, path: string, state: string): boolean {
  const { libc: { linux }, abi } = system;
  if (linux === undefined) return false; // other systems have no sd_notify
  const address = /^[/@]./.test(path) ? encodeAddress(path.replace(/^@/, "\0")) : undefined;
  if (address === undefined || abi.os !== "linux") {
    const message = `Cannot ${WHAT}: NOTIFY_SOCKET is ${JSON.stringify(path)}`;
    const hint = "Set it to a path or to an abstract name that begins with @";
    throw new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint });
  }
  const text = new TextEncoder().encode(state);
  const [data, to] = [memoryOf(system.libc, text), memoryOf(system.libc, address)];
  const fd = linux.socket(AF_UNIX, DATAGRAM_SOCKET, 0);
  if (fd < 0) throw syscallError(system, WHAT, "socket", -fd);
  const sent = linux.sendto(fd, data, text.length, to, address.length);
  linux.close(fd);
  if (sent < 0) throw syscallError(system, WHAT, "sendto", -sent);
  return true;
}
