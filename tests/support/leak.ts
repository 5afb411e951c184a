/** Tests whether a process keeps memory of something that it has done with. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { runtime } from "./suite.ts";

const collector = fileURLToPath(new URL("collect_at_signal.ts", import.meta.url));

/** Flags of the runtime with which a process has the signal handler of collect_at_signal.ts. */
export const collectorFlags: readonly string[] = {
  deno: ["-A", `--preload=${collector}`],
  bun: [`--preload=${collector}`],
  node: [`--import=${collector}`],
}[runtime];

/** Resident memory of a process in bytes. */
export function residentMemory(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+)/m.exec(status)![1]) * 1024;
}

/** Rounds over which growth is measured. On Bun, the heap varies by up to 3 MB from one round to the next. */
const WINDOW = 4;

/** A leak makes the memory grow in every window; caches and the pools of an allocator grow in the first ones. */
const MAX_ROUNDS = 40;

export interface Repeated {
  readonly pid: number;
  /** Does something `times` times. */
  readonly round: () => unknown;
  readonly times: number;
  /** Collects garbage in the process and returns the bytes in use. */
  readonly used: () => number | Promise<number>;
  /** Maximum growth of the heap, in bytes each time. */
  readonly maxHeap: number;
  /** Maximum growth of the resident memory, in bytes each time. It also finds leaks outside of the heap. */
  readonly maxResident: number;
}

/** Fails if the memory of a process grows for as long as something is repeated. */
export async function assertFreed(repeated: Repeated): Promise<void> {
  const { pid, round, times, used, maxHeap, maxResident } = repeated;
  const heaps: number[] = [];
  const residents: number[] = [];
  const growth = (sizes: readonly number[]) =>
    Math.round((sizes.at(-1)! - sizes.at(-1 - WINDOW)!) / WINDOW / times);
  do {
    assert.ok(
      heaps.length < MAX_ROUNDS,
      `each time keeps ${growth(heaps)} bytes of heap, ${growth(residents)} bytes resident`,
    );
    await round();
    heaps.push(await used());
    residents.push(residentMemory(pid));
  } while (heaps.length <= WINDOW || growth(heaps) > maxHeap || growth(residents) > maxResident);
}
