/** Descriptor → security label, as of connect. */

import type { Memory } from "../adapters/libc.ts";
import type { System } from "../adapters/select.ts";
import { UcredError } from "../core/errors.ts";
import { type Fact, known, none, unknown } from "../core/facts.ts";
import { syscallError } from "../system/syscall_error.ts";
import { readOption } from "../system/socket_option.ts";

/** Longer than any security context: one page, as in <linux/limits.h> for names. */
const MAX_LABEL_BYTES = 4096;

/**
 * The label that a Linux security module put on the peer's socket; `none` where none does. Asked of
 * each socket: nothing cheaper tells whether a module labels any. (/proc/self/attr/current fails with
 * EINVAL also where BPF comes before one that does: containers/crun 1350.)
 *
 * @see {@link https://man7.org/linux/man-pages/man7/unix.7.html unix(7)}, SO_PEERSEC
 */
export function readLabel(system: System, fd: number): Fact<string> {
  if (system.abi.os !== "linux") return NO_LABEL;
  const what = "read the peer's security label";
  try {
    const label = readOption(
      system,
      fd,
      system.abi.options.SO_PEERSEC,
      MAX_LABEL_BYTES,
      what,
      decode,
    );
    if (typeof label !== "number") return label;
    // No module labels this one. Every kernel that is supported has the option itself.
    if (system.abi.errnoNames[label] === "ENOPROTOOPT") return NO_LABEL;
    return unknown(syscallError(system, what, "getsockopt", label));
  } catch (error) {
    if (error instanceof UcredError) return unknown(error);
    const hint = "Decide by other facts: two such labels could look alike";
    const message = `Cannot ${what}: it is not UTF-8`;
    return unknown(new UcredError("ERR_UCRED_SYSCALL", message, { hint, cause: error }));
  }
}

const NO_LABEL = none("kernel@connect");

function decode({ bytes: memory }: Memory, length: number): Fact<string> {
  const bytes = memory.subarray(0, length);
  const end = bytes.indexOf(0); // some modules count the final NUL, others do not
  const label = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
    .decode(end === -1 ? bytes : bytes.subarray(0, end));
  return label === "" ? NO_LABEL : known(label, "kernel@connect");
}
