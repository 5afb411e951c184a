/** Connection → whether its peer has left, before the runtime has got round to saying so. */

import { host } from "../adapters/host.ts";
import { openedSystem } from "../adapters/select.ts";
import { NO_ID } from "../core/credentials.ts";
import { UcredError } from "../core/errors.ts";
import { POLLFD, POLLHUP } from "../ffi/pidfd.ts";
import { fdOf, type UnixSocket } from "./fd.ts";

/** Whether that can be told of a peer that has closed only what it sends: on Linux. */
export function tellsHangUp(): boolean {
  return host().os === "linux";
}

/** Whether a connection is closed, or its peer has closed it; `false` where that cannot be told. */
export function isHungUp(socket: UnixSocket): boolean {
  const { libc: { linux }, value } = openedSystem();
  if (linux === undefined) return false;
  const fd = openFd(socket);
  if (fd === undefined) return true;
  value.words[POLLFD.fd / 4] = fd;
  value.words[POLLFD.events / 4] = 0; // and no revents
  if (linux.poll(value) <= 0) return false;
  return (new Int16Array(value.bytes.buffer)[POLLFD.revents / 2]! & POLLHUP) !== 0;
}

/** Whether, besides, all that its peer had sent was read: nothing is lost if it is closed. */
export function isSpent(socket: UnixSocket): boolean {
  if (!isHungUp(socket)) return false;
  const { abi, libc: { linux }, value } = openedSystem();
  const fd = openFd(socket);
  if (fd === undefined) return true;
  if (abi.os !== "linux" || linux === undefined) return false;
  value.words[0] = NO_ID;
  return linux.ioctl(fd, abi.options.FIONREAD, value) === 0 && value.words[0] === 0;
}

/** Whether a connection is closed on our side. */
export function isClosed(socket: UnixSocket): boolean {
  return openFd(socket) === undefined;
}

function openFd(socket: UnixSocket): number | undefined {
  try {
    return fdOf(socket);
  } catch (error) {
    if (error instanceof UcredError && error.code === "ERR_UCRED_NO_FD") return undefined;
    throw error;
  }
}
