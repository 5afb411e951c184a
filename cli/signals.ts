/** Signals: what ends a command, and what makes it read its files again. */

import process from "node:process";
import { tell } from "./output.ts";

/**
 * Waits for SIGINT or SIGTERM. A second one of either kind ends the program at once.
 *
 * @param hangUp What SIGHUP does, also while what is open comes to its end.
 */
export function untilSignal(hangUp: () => void): Promise<"SIGINT" | "SIGTERM"> {
  process.on("SIGHUP", hangUp); // for good: without a listener it ends the process
  return new Promise((resolve) => {
    let isEnding = false;
    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      process.on(signal, () => {
        if (isEnding) {
          tell("ended at once");
          process.exit(signal === "SIGINT" ? 130 : 143);
        }
        isEnding = true;
        resolve(signal);
      });
    }
  });
}
