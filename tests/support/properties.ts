/**
 * fast-check with one seed for all runs, so that a failure belongs to the change that caused it.
 * `UCRED_SEED=random` tries other cases, and `UCRED_SEED=N` repeats those of a failure.
 */

import process from "node:process";
import fc from "fast-check";

const given = process.env["UCRED_SEED"] ?? "1";
fc.configureGlobal({
  seed: given === "random" ? Math.floor(Math.random() * 2 ** 31) : Number(given),
});

export { fc as default };
