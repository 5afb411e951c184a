/** Signals: SIGINT and SIGTERM end a command, SIGHUP makes it reload its files. */

import process from "node:process";
import { log } from "./output.ts";

/**
 * Waits for SIGINT or SIGTERM. A second one of either kind ends the program at once.
 *
 * @param hangUp Runs on SIGHUP, also while open connections are ending.
 */
export function untilSignal(hangUp: () => void): Promise<"SIGINT" | "SIGTERM"> {
  process.on("SIGHUP", hangUp); // never removed: without a listener, SIGHUP ends the process
  return new Promise((resolve) => {
    let isEnding = false;
    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      process.on(signal, () => {
        if (isEnding) {
          log("second signal: ended at once");
          process.exit(signal === "SIGINT" ? 130 : 143);
        }
        isEnding = true;
        resolve(signal);
      });
    }
  });
}
