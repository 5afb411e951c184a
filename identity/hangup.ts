/** Connection → whether its peer has closed it, before the runtime has got round to saying so. */

import { host } from "../adapters/host.ts";
import { system } from "../adapters/select.ts";
import { UcredError } from "../core/errors.ts";
import { POLLFD, POLLHUP } from "../ffi/pidfd.ts";
import { fdOf, type UnixSocket } from "./fd.ts";

/** Whether that can be told of a peer that has closed only what it sends: on Linux. */
export function tellsHangUp(): boolean {
  return host().os === "linux";
}

/** Whether a connection is closed, or its peer has closed it; `false` where that cannot be told. */
export function isHungUp(socket: UnixSocket): boolean {
  const { libc: { linux }, value } = system();
  if (linux === undefined) return false;
  try {
    value.words[POLLFD.fd / 4] = fdOf(socket);
    value.words[POLLFD.events / 4] = 0; // and no revents
    if (linux.poll(value) <= 0) return false;
    return (new Int16Array(value.bytes.buffer)[POLLFD.revents / 2]! & POLLHUP) !== 0;
  } catch (error) {
    if (error instanceof UcredError) return error.code === "ERR_UCRED_NO_FD"; // it is closed
    throw error;
  }
}
