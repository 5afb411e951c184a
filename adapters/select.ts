/** Opens the C library on first use, with the adapter of the runtime and the ABI of the system and CPU. */

import type { Credentials } from "../core/credentials.ts";
import { UcredError } from "../core/errors.ts";
import type { Fact } from "../core/facts.ts";
import { type Abi, abiOf, SUPPORTED } from "../ffi/abi.ts";
import { openBun } from "./bun.ts";
import { openDeno } from "./deno.ts";
import { type Host, host } from "./host.ts";
import type { Libc, Memory, OpenLibc } from "./libc.ts";
import { openNode } from "./node.ts";

/** The running system: its C library, the library's ABI, and memory for answers. */
export interface System {
  readonly abi: Abi;
  readonly libc: Libc;
  /** Our own process id. */
  readonly pid: number;
  /** Memory for one answer of getsockopt or getsockname. Overwritten by every call. */
  readonly value: Memory;
  /** Memory for the `socklen_t` of that answer. Overwritten by every call. */
  readonly size: Memory;
  /** Cached answers. */
  readonly remembered: Remembered;
}

/** Cached answers that cannot change, or that are compared before reuse. */
export interface Remembered {
  /** By descriptor: the last credentials that were verified to belong to a connection. */
  readonly verified: (Credentials | undefined)[];
  /** By uid: the groups that were last read. */
  readonly groups: Map<number, RememberedGroups>;
  /** Every value that the overflow ids have had. */
  readonly overflowIds: { readonly uid: Set<number>; readonly gid: Set<number> };
  /** Whether our user namespace maps every id. */
  readonly mapsEvery: { uid?: boolean; gid?: boolean };
}

/** An answer of the kernel and its decoded form. */
export interface RememberedGroups {
  readonly gid: number;
  readonly answer: Uint32Array;
  readonly groups: Fact<readonly number[]>;
}

const OPENERS = { deno: openDeno, bun: openBun, node: openNode } satisfies {
  [runtime: string]: OpenLibc;
};

let opened: System | undefined; // one per thread, like errno and the memory

/**
 * Returns this system, opened on the first call. A failure is not cached, so that a permission
 * granted later takes effect.
 */
export function openedSystem(): System {
  return opened ??= openSystem(host());
}

/** Replaces the opened system, for tests of programs. */
export function replaceSystem(system: System): void {
  opened = system;
}

/** Opens the system of a host, with the C library at `path` if it is given. */
export function openSystem({ runtime, name, os, cpu, pid }: Host, path?: string): System {
  if (runtime === undefined) throw unsupported(`${name} cannot call native functions`);
  const abi = abiOf(os, cpu);
  if (abi === undefined) throw unsupported(`${os} on ${cpu} is not supported`);
  const libc: Libc = OPENERS[runtime](abi, path);
  const [value, size] = [libc.memory(VALUE_SIZE), libc.memory(8)];
  const remembered: Remembered = {
    verified: [],
    groups: new Map(),
    overflowIds: { uid: new Set(), gid: new Set() },
    mapsEvery: {},
  };
  return { abi, libc, pid, value, size, remembered };
}

/** Larger than every structure that is requested, and than `struct sockaddr_un` (110 bytes). */
const VALUE_SIZE = 128;

function unsupported(why: string): UcredError {
  return new UcredError("ERR_UCRED_UNSUPPORTED", `Cannot read peer credentials: ${why}`, {
    hint: `Use Deno, Bun or Node, on ${SUPPORTED}`,
  });
}
