/** Shows on a terminal that a command still computes. */

import { statSync } from "node:fs";
import process from "node:process";
import { Worker } from "node:worker_threads";

/** Smaller files take less than a second, and starting a thread takes 30 ms of CPU. */
const LARGE_FILE_BYTES = 100_000;

/** The values of the first word in the memory that both threads share. */
const QUIET = 0, ENDED = 1, SHOWN = 2;

// The computation blocks the main thread, so another thread writes. It is not a file of its own, because the
// command is also built as a single file.
const CODE = `
const { workerData: state } = process.getBuiltinModule("node:worker_threads");
const { writeSync } = process.getBuiltinModule("node:fs");
const write = (text) => { try { writeSync(2, text); } catch {} };
let seconds = 2;
if (Atomics.wait(state, 0, ${QUIET}, 2000) === "timed-out") {
  Atomics.compareExchange(state, 0, ${QUIET}, ${SHOWN});
  while (Atomics.load(state, 0) === ${SHOWN}) {
    write("\\rstill working, " + seconds++ + " s");
    Atomics.wait(state, 0, ${SHOWN}, 1000);
  }
  if (seconds > 2) write("\\r\\x1b[K");
}
Atomics.store(state, 1, 1);
Atomics.notify(state, 1);
`;

/**
 * Runs a computation about files. If one of them is large and the computation takes more than two seconds, the
 * terminal of stderr shows the time, and the line is erased at the end.
 */
export function withProgress<T>(files: readonly string[], run: () => T): T {
  if (process.stderr.isTTY !== true || !files.some(isLarge)) return run();
  const state = new Int32Array(new SharedArrayBuffer(8));
  new Worker(CODE, { eval: true, workerData: state }).unref();
  try {
    return run();
  } finally {
    const before = Atomics.exchange(state, 0, ENDED);
    Atomics.notify(state, 0);
    if (before === SHOWN) Atomics.wait(state, 1, 0, 1000); // until the line is erased
  }
}

function isLarge(file: string): boolean {
  return (statSync(file, { throwIfNoEntry: false })?.size ?? 0) > LARGE_FILE_BYTES;
}
