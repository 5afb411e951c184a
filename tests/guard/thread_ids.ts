/**
 * Makes a system call with other ids, for the tests of system/thread_ids.ts, and starts a thread in between.
 * Prints the ids of all threads.
 */

import { readdirSync, readFileSync } from "node:fs";
import process from "node:process";
import { Worker } from "node:worker_threads";
import { ThreadIds } from "../../system/thread_ids.ts";

const [uid, gid, ...groups] = process.argv.slice(2).map(Number);
const ids = new ThreadIds();
const threads = () =>
  readdirSync("/proc/self/task").map((thread) =>
    readFileSync(`/proc/self/task/${thread}/status`, "latin1").match(/^(Uid|Gid|Groups):.*$/gm)!
      .join()
  );
let inside: string[] = [];
let worker: Worker | undefined;
const result = ids.call({ uid: uid!, gid: gid!, groups: Uint32Array.from(groups) }, () => {
  const source = "setInterval(() => {}, 1000)";
  worker = new Worker(new URL(`data:text/javascript,${source}`));
  inside = threads();
  return 7;
});
console.log(JSON.stringify({ result, inside, after: threads() }));
process.exit(worker === undefined ? 1 : 0);
