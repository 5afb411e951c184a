/** Tests whether a process keeps memory of connections that have ended. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { runtime } from "./suite.ts";

const collector = fileURLToPath(new URL("collector.ts", import.meta.url));

/** Flags of the runtime with which a process has the signal handler of collector.ts. */
export const collectorFlags: readonly string[] = {
  deno: ["-A", "--v8-flags=--expose-gc", `--preload=${collector}`],
  bun: [`--preload=${collector}`],
  node: ["--expose-gc", `--import=${collector}`],
}[runtime];

/** Maximum growth of the heap in bytes per connection. Deno leaked 2,400 when `destroy()` followed "end". */
const MAX_HEAP_GROWTH = 400;

/** Maximum growth of the resident memory in bytes per connection. It also finds leaks outside of the heap. */
const MAX_RESIDENT_GROWTH = 2000;

/** Rounds over which growth is measured. On Bun, the heap varies by up to 3 MB between two rounds. */
const WINDOW = 4;

/** A leak makes the memory grow in every window; caches and the pools of an allocator grow in the first ones. */
const MAX_ROUNDS = 40;

/** Resident memory of a process in bytes. */
export function residentMemory(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+)/m.exec(status)![1]) * 1024;
}

/**
 * Fails if the memory of a process grows for as long as clients visit it.
 *
 * @param pid The process.
 * @param connections The number of connections in a round.
 * @param visit Makes the connections of a round.
 * @param used Collects garbage in the process and returns the bytes in use.
 */
export async function assertFreed(
  pid: number,
  connections: number,
  visit: () => Promise<unknown>,
  used: () => Promise<number>,
): Promise<void> {
  const heaps: number[] = [];
  const residents: number[] = [];
  const growth = (sizes: readonly number[]) =>
    Math.round((sizes.at(-1)! - sizes.at(-1 - WINDOW)!) / WINDOW / connections);
  do {
    assert.ok(
      heaps.length < MAX_ROUNDS,
      `each connection keeps ${growth(heaps)} bytes of heap, ${growth(residents)} bytes resident`,
    );
    await visit();
    heaps.push(await used());
    residents.push(residentMemory(pid));
  } while (
    heaps.length <= WINDOW || growth(heaps) > MAX_HEAP_GROWTH ||
    growth(residents) > MAX_RESIDENT_GROWTH
  );
}
