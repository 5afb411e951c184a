/** Prints why a worker cannot change its ids. */

import process from "node:process";
import { isMainThread, parentPort, Worker } from "node:worker_threads";
import { UcredError } from "../../core/errors.ts";
import { ThreadIds } from "../../system/thread_ids.ts";

if (isMainThread) {
  new Worker(new URL(import.meta.url)).once("message", (text) => {
    console.log(text);
    process.exit();
  });
} else {
  try {
    new ThreadIds();
    parentPort!.postMessage("none");
  } catch (error) {
    parentPort!.postMessage(error instanceof UcredError ? `${error.code} ${error.message}` : "?");
  }
}
