/** Guards in the process of a test. They start in a hundredth of the time that the command takes. */

import { createGuard, type GuardOptions, type GuardServer } from "../../guard/mod.ts";
import { parsePolicy } from "../../policy/mod.ts";
import type { PathListenOptions } from "../../servers/net.ts";
import { openSockets, POLICY } from "./guard.ts";
import { freshPath } from "./peers.ts";
import { endAfterEach, until } from "./suite.ts";

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

/** A guard in this process, with the interface of `Guard`. All users may connect to its socket. */
export class GuardHere {
  readonly path: string;
  readonly server: GuardServer;
  readonly #lines: string[];
  #seen = 0;

  private constructor(path: string, server: GuardServer, lines: string[]) {
    this.path = path;
    this.server = server;
    this.#lines = lines;
  }

  /** @param options `policy` is the text of a policy, by default that of `Guard`. */
  static async start(
    { policy = POLICY, ...options }: Omit<GuardOptions, "policy" | "report"> & { policy?: string },
  ): Promise<GuardHere> {
    const lines: string[] = [];
    const report = (line: string) => lines.push(`${line}\n`);
    const all = { ...options, policy: parsePolicy(policy), report };
    const { path, guard } = await guardHere(all, { mode: 0o666 });
    return new GuardHere(path, guard, lines);
  }

  /** The reported lines so far. */
  get log(): string {
    return this.#lines.join("");
  }

  /** Waits until it reports a text, after the one that was found last. */
  async logs(text: string): Promise<void> {
    await until(() => this.log.includes(text, this.#seen));
    this.#seen = this.log.indexOf(text, this.#seen) + text.length;
  }

  /** The number of open sockets of this process. */
  sockets(): number {
    return openSockets("self");
  }
}
