/** A thread that closes a descriptor of the main thread, and duplicates another one to its number. */

import { workerData } from "node:worker_threads";
import { openedSystem } from "../../adapters/select.ts";

const { shared, fd, by } = workerData as {
  /** The progress of the two threads, and the number of the duplicate once it exists. */
  readonly shared: Int32Array;
  readonly fd: number;
  readonly by: number;
};
const calls = openedSystem().libc.linux!;
const F_DUPFD = 0;

Atomics.store(shared, 0, 1);
Atomics.wait(shared, 0, 1); // until the main thread reads
calls.close(fd);
// The main thread may have opened a file meanwhile: then the duplicate has a higher number.
Atomics.store(shared, 1, calls.fcntl(by, F_DUPFD, fd));
