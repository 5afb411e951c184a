/** Signals: what ends a command, and what makes it read its files again. */

import process from "node:process";
import type { AuditLog } from "../servers/audit.ts";
import type { WatchedPolicy } from "../policy/watch.ts";
import { tell } from "./output.ts";

/**
 * Waits for SIGINT or SIGTERM. SIGHUP reloads the policy and opens the audit log anew. A second
 * signal ends the program at once.
 */
export function untilSignal(
  policy: WatchedPolicy | undefined,
  audit?: AuditLog,
): Promise<"SIGINT" | "SIGTERM"> {
  const hangUp = () => {
    audit?.reopen();
    policy?.reload(); // tells itself what came of it
  };
  process.on("SIGHUP", hangUp);
  return new Promise((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      process.once(signal, () => {
        process.off("SIGHUP", hangUp);
        // Later: Deno would tell this very signal to a listener that is added now.
        setImmediate(() =>
          process.once(signal, () => {
            tell("ended at once");
            process.exit(signal === "SIGINT" ? 130 : 143);
          })
        );
        resolve(signal);
      });
    }
  });
}
