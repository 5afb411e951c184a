/** Descriptor → security label, as of connect. */

import type { System } from "../adapters/select.ts";
import { UcredError } from "../core/errors.ts";
import { type Fact, known, none, unknown } from "../core/facts.ts";
import { readOption } from "./option.ts";

/** Longer than any security context: one page, as in <linux/limits.h> for names. */
const MOST_BYTES = 4096;

/**
 * The label that a Linux security module put on the peer's socket; `none` where none does.
 *
 * @see {@link https://man7.org/linux/man-pages/man7/unix.7.html unix(7)}, SO_PEERSEC
 */
export function readLabel(on: System, fd: number): Fact<string> {
  if (on.abi.os !== "linux") return none("kernel@connect");
  const what = "read the peer's security label";
  try {
    const bytes = readOption(on, fd, on.abi.options.SO_PEERSEC, MOST_BYTES, what);
    const end = bytes.indexOf(0); // some modules count the final NUL, others do not
    const label = new TextDecoder("utf-8", { fatal: true })
      .decode(end === -1 ? bytes : bytes.subarray(0, end));
    return label === "" ? none("kernel@connect") : known(label, "kernel@connect");
  } catch (error) {
    if (!(error instanceof UcredError)) {
      const hint = "Decide by other facts: two labels could look alike";
      const message = `Cannot ${what}: it is not UTF-8`;
      return unknown(new UcredError("ERR_UCRED_SYSCALL", message, { hint, cause: error }));
    }
    // ENOPROTOOPT: no module labels sockets. Every kernel here is newer than the option.
    if (error.code === "ERR_UCRED_UNSUPPORTED") return none("kernel@connect");
    return unknown(error);
  }
}
