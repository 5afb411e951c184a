/** Collects garbage on each runtime. */

import process from "node:process";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

const { Bun } = globalThis as { Bun?: { gc(isSync: boolean): void } };

let collect = () => Bun!.gc(true);
if (Bun === undefined) {
  setFlagsFromString("--expose-gc"); // new contexts have gc() from here on
  collect = runInNewContext("gc");
}

/** Collects garbage and returns the bytes in use. */
export function bytesInUse(): number {
  for (let times = 0; times < 2; times++) collect();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}
