/** A module to load before a program: at SIGUSR2 it collects garbage and prints the bytes in use on stderr. */

import process from "node:process";

const { Bun, gc } = globalThis as { Bun?: { gc(isSync: boolean): void }; gc?: () => void };

/** Collects garbage and returns the bytes in use. The runtime needs the flags of tests/support/leak.ts. */
export function bytesInUse(): number {
  for (let times = 0; times < 2; times++) Bun === undefined ? gc!() : Bun.gc(true);
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

process.on("SIGUSR2", () => console.error(`${bytesInUse()} bytes in use`));
