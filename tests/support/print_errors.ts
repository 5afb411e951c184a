/** For programs that tests start without a permission: prints the error of each call. */

import process from "node:process";
import type { UcredError } from "../../core/errors.ts";

/** Makes one call after the other, prints `{ name: [code, hint] | "done" }` as JSON, and exits. */
export async function printErrors(
  calls: { readonly [name: string]: () => unknown },
): Promise<never> {
  const answers: { [name: string]: unknown } = {};
  for (const [name, call] of Object.entries(calls)) {
    try {
      await call();
      answers[name] = "done";
    } catch (error) {
      const { code, hint } = error as UcredError;
      answers[name] = [code, hint];
    }
  }
  console.log(JSON.stringify(answers));
  process.exit();
}
