/** Guards in the process of a test. */

import { createGuard, type GuardOptions, type GuardServer } from "../../guard/mod.ts";
import type { PathListenOptions } from "../../servers/net.ts";
import { freshPath } from "./peers.ts";
import { endAfterEach } from "./suite.ts";

const guards = new Set<GuardServer>();

endAfterEach(async () => {
  const open = [...guards].filter((guard) => guard.address() !== null); // the test has closed others
  guards.clear();
  await Promise.all(open.map((guard) => guard.close({ timeout: 0 })));
});

/** Starts a guard in this process. It is closed after the test. */
export async function guardHere(
  options: GuardOptions,
  where: Omit<PathListenOptions, "path"> = {},
): Promise<{ readonly path: string; readonly guard: GuardServer }> {
  const guard = createGuard(options);
  guards.add(guard);
  const path = freshPath("guard.sock");
  await new Promise<void>((resolve, reject) => {
    guard.once("error", reject);
    guard.listen({ path, ...where }, resolve);
  });
  return { path, guard };
}
