/** Computes, with stderr as a terminal, until a file has an expected size or a time has passed. */

import { statSync } from "node:fs";
import process from "node:process";
import { withProgress } from "../../cli/progress.ts";

const [file, large, bytes] = process.argv.slice(2) as [string, string, string];
Object.defineProperty(process.stderr, "isTTY", { value: true });
const result = withProgress([large], () => {
  const deadline = performance.now() + 60_000;
  const pause = new Int32Array(new SharedArrayBuffer(4));
  while (statSync(file).size < Number(bytes) && performance.now() < deadline) {
    Atomics.wait(pause, 0, 0, 10);
  }
  return "computed";
});
console.log(result, statSync(file).size);
