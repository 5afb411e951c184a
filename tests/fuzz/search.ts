/** Searches for cases that make a target fail, in a thread that is ended if a case does not end. */

import { Worker } from "node:worker_threads";
import { type Order, type Report, SHARED } from "./worker.ts";

/** The end of a search. */
export interface Found {
  readonly cases: number;
  /** The bytes that made the target fail; `undefined` if there are none. */
  readonly bytes?: Uint8Array;
  readonly error?: string;
}

/** After this time, a case is taken as endless. It takes about a millisecond. */
const MAX_CASE_MS = 30_000;

/** Runs a target from a module until a time. */
export async function searchIn(
  module: URL,
  name: string,
  seed: number,
  until: number,
  { maxCaseMs = MAX_CASE_MS, onCases = (_: number) => {} } = {},
): Promise<Found> {
  const shared = new SharedArrayBuffer(SHARED.size);
  const numbers = new Int32Array(shared, 0, 2);
  const order: Order = { module: module.href, name, seed, until, shared };
  const worker = new Worker(new URL("worker.ts", import.meta.url), { workerData: order });
  let cases = 0;
  let found: Partial<Found> = {};
  let [count, since] = [-1, performance.now()];
  await new Promise<void>((resolve) => {
    const watch = setInterval(() => {
      const now = Atomics.load(numbers, SHARED.count);
      if (now !== count) [count, since] = [now, performance.now()];
      // Until the first case, the thread imports the targets.
      if (now === 0 || performance.now() - since < maxCaseMs) return;
      const length = Atomics.load(numbers, SHARED.length);
      const bytes = new Uint8Array(shared, SHARED.bytes, length).slice();
      found = { bytes, error: `It does not end within ${maxCaseMs / 1000} s` };
      void worker.terminate();
    }, Math.min(500, maxCaseMs));
    worker.on("message", (report: Report) => {
      if ("cases" in report) onCases(cases += report.cases);
      else found = report;
    });
    worker.on("error", (error) => found = { error: String((error as Error).stack ?? error) });
    worker.on("exit", () => {
      clearInterval(watch);
      resolve();
    });
  });
  return { cases, ...found };
}
