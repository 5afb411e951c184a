/**
 * Runs one target in a thread of its own until a time, or until it finds a case that fails. Before each case
 * it stores the bytes in shared memory, so that the main thread can read those of a case that does not end.
 */

import process from "node:process";
import { parentPort, workerData } from "node:worker_threads";
import fc from "../support/properties.ts";
import { changedCases, corpusOf } from "./cases.ts";
import type { Target } from "./targets.ts";

/** What the main thread passes. */
export interface Order {
  /** The module with `TARGETS`. */
  readonly module: string;
  readonly name: string;
  readonly seed: number;
  /** When to end, in ms since 1970. */
  readonly until: number;
  readonly shared: SharedArrayBuffer;
}

/** What the thread reports. */
export type Report =
  | { readonly cases: number }
  | { readonly bytes: Uint8Array; readonly error: string };

/** Shared memory: the number of the case, the length of its bytes, the bytes. */
export const SHARED = { count: 0, length: 1, bytes: 8, size: 1 << 20 } as const;

/** Cases of one call of fast-check, which shrinks a case that fails. */
const CASES_PER_ROUND = 500;

async function search({ module, name, seed, until, shared }: Order): Promise<void> {
  const { TARGETS } = await import(module) as { readonly TARGETS: readonly Target[] };
  const target = TARGETS.find((each) => each.name === name)!;
  const numbers = new Int32Array(shared, 0, 2);
  const memory = new Uint8Array(shared, SHARED.bytes);
  const files = corpusOf(target).map(({ bytes }) => bytes);
  const read = async (bytes: Uint8Array) => {
    memory.set(bytes.subarray(0, memory.length));
    Atomics.store(numbers, SHARED.length, Math.min(bytes.length, memory.length));
    Atomics.add(numbers, SHARED.count, 1);
    await target.read(bytes);
  };
  for (let round = 0; Date.now() < until; round++) {
    const found = await fc.check(fc.asyncProperty(changedCases(target, files), read), {
      seed: (seed + round) | 0,
      numRuns: CASES_PER_ROUND,
      interruptAfterTimeLimit: Math.max(1, until - Date.now()),
      markInterruptAsFailure: false,
    });
    if (found.failed) {
      const bytes = found.counterexample?.[0] ?? new Uint8Array();
      const { errorInstance } = found;
      const error = errorInstance instanceof Error
        ? errorInstance.stack ?? errorInstance.message
        : String(errorInstance);
      return parentPort!.postMessage({ bytes: new Uint8Array(bytes), error } satisfies Report);
    }
    parentPort!.postMessage({ cases: found.numRuns } satisfies Report);
  }
}

if (parentPort !== null) {
  await search(workerData as Order);
  process.exit(0); // a target may have left a timer
}
