/** Reads the security label of a descriptor's peer, as of connect. */

import type { Memory } from "../adapters/libc.ts";
import type { System } from "../adapters/select.ts";
import { UcredError } from "../core/errors.ts";
import { type Fact, known, none, unknown } from "../core/facts.ts";
import { syscallError } from "../system/syscall_error.ts";
import { readOption } from "../system/socket_option.ts";

/** Maximum length of a label: one page, more than any security context has. */
const MAX_LABEL_BYTES = 4096;

/**
 * Reads the label that a Linux security module assigned to the peer's socket; `none` if none did.
 * Each socket is queried, since no cheaper call shows whether a module labels sockets:
 * /proc/self/attr/current also fails with EINVAL if BPF precedes a labelling module
 * (containers/crun 1350).
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
    // No module labels this socket. Every supported kernel has the option itself.
    if (label === system.abi.errno.ENOPROTOOPT) return NO_LABEL;
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
