/**
 * The functions of node:test that the suite uses, on top of Mocha. Mocha can run chosen tests again and
 * again in one process, so that a mutant takes milliseconds instead of the start of a process.
 */

import { appendFileSync, readFileSync } from "node:fs";
import process from "node:process";

type Run = () => void | Promise<void>;

declare const it: ((name: string, run: Run) => void) & { skip(name: string, run: Run): void };
declare const __stryker__: { readonly activeMutant?: string };

/** Tests that take longer than this are left out. Otherwise a mutant that survives takes minutes. */
const MAX_TEST_MS = Number(process.env["UCRED_MUTATION_TEST_MS"]);
/** The tests that are left out, one JSON document per line. The first run, without a mutant, writes it. */
const LEFT_OUT = process.env["UCRED_MUTATION_LEFT_OUT"]!;

let names: ReadonlySet<string> | undefined;
function leftOut(): ReadonlySet<string> {
  return names ??= new Set(
    readFileSync(LEFT_OUT, "utf8").split("\n").filter(Boolean).map((line) => JSON.parse(line).name),
  );
}

/** Runs a test without a mutant. A test that takes too long, or fails in this process, is left out. */
async function tryOut(name: string, run: Run): Promise<void> {
  const start = performance.now();
  let why: string | undefined;
  try {
    await run();
  } catch (error) {
    why = String(error);
  }
  if (performance.now() - start > MAX_TEST_MS) why ??= "slow";
  if (why !== undefined) appendFileSync(LEFT_OUT, JSON.stringify({ name, why }) + "\n");
}

export function test(name: string, ...rest: [Run] | [{ readonly skip?: string }, Run]): void {
  const run = rest.at(-1) as Run;
  if (rest.length === 2 && rest[0].skip !== undefined) return it.skip(name, run);
  it(name, async () => {
    const mutant = __stryker__.activeMutant;
    if (mutant === undefined) return await tryOut(name, run);
    if (leftOut().has(name)) return;
    // Programs that the test starts have the same mutant.
    process.env["__STRYKER_ACTIVE_MUTANT__"] = mutant;
    await run();
  });
}

export const { describe, after, afterEach } = globalThis as unknown as {
  describe(name: string, define: () => void): void;
  after(run: Run): void;
  afterEach(run: Run): void;
};
