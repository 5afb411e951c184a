/** Polls one descriptor without waiting. */

import type { LinuxCalls, Memory } from "../adapters/libc.ts";
import { LINUX_ERRNO } from "../ffi/errno.ts";
import { POLLFD } from "../ffi/pidfd.ts";

/**
 * Calls poll(2), and repeats it if a signal interrupts it: the kernel restarts other calls, but
 * never poll(2) (signal(7)), not even without a timeout.
 *
 * @param memory At least `POLLFD.size` bytes.
 * @returns `revents`, or −errno.
 */
export function pollNow(calls: LinuxCalls, memory: Memory, fd: number, events: number): number {
  const view = new Int16Array(memory.bytes.buffer);
  let result: number;
  do {
    memory.words[POLLFD.fd / 4] = fd;
    view[POLLFD.events / 2] = events;
    view[POLLFD.revents / 2] = 0;
    result = calls.poll(memory);
  } while (result === -LINUX_ERRNO.EINTR);
  return result < 0 ? result : view[POLLFD.revents / 2]!;
}
