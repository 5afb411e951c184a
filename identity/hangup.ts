/**
 * Checks by poll(2) (POLLHUP) whether the peer has hung up, without waiting for the runtime's
 * "close" event.
 */

import { host } from "../adapters/host.ts";
import { openedSystem } from "../adapters/select.ts";
import { NO_ID } from "../core/credentials.ts";
import { UcredError } from "../core/errors.ts";
import { POLLHUP } from "../ffi/pidfd.ts";
import { pollNow } from "../system/poll.ts";
import { fdOf, type UnixSocket } from "./fd.ts";

/** Reports whether the kernel distinguishes a hang-up from a half-close: only Linux does. */
export function detectsHangUp(): boolean {
  return host().os === "linux";
}

/** Reports whether a connection is closed on either side; `false` if that cannot be determined. */
export function isHungUp(socket: UnixSocket): boolean {
  const { libc: { linux }, value } = openedSystem();
  if (linux === undefined) return false;
  const fd = openFd(socket);
  if (fd === undefined) return true;
  const revents = pollNow(linux, value, fd, 0);
  return revents > 0 && (revents & POLLHUP) !== 0;
}

/** Reports whether the peer has hung up and nothing is left to read: closing then loses no data. */
export function isDrained(socket: UnixSocket): boolean {
  if (!isHungUp(socket)) return false;
  const { abi, libc: { linux }, value } = openedSystem();
  const fd = openFd(socket);
  if (fd === undefined) return true;
  if (abi.os !== "linux" || linux === undefined) return false;
  value.words[0] = NO_ID;
  return linux.ioctl(fd, abi.options.FIONREAD, value) === 0 && value.words[0] === 0;
}

/** Reports whether a connection is closed on our side. */
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
