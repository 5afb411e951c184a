/** Runtime, operating system and CPU → the adapter, opened on the first call that needs it. */

import type { Credentials } from "../core/credentials.ts";
import { UcredError } from "../core/errors.ts";
import type { Fact } from "../core/facts.ts";
import { type Abi, abiOf, SUPPORTED } from "../ffi/abi.ts";
import { openBun } from "./bun.ts";
import { openDeno } from "./deno.ts";
import { type Host, host } from "./host.ts";
import type { Libc, Memory, OpenLibc } from "./libc.ts";
import { openNode } from "./node.ts";

/** The system that answers: its C library, what that is like, and memory for its answers. */
export interface System {
  readonly abi: Abi;
  readonly libc: Libc;
  /** Our own process id. */
  readonly pid: number;
  /** For one answer of getsockopt or getsockname. Overwritten by every call. */
  readonly value: Memory;
  /** For the `socklen_t` beside it. Overwritten by every call. */
  readonly size: Memory;
  /** What was found out before, so that it need not be again. */
  readonly remembered: Remembered;
}

/** What stays true, or is compared before it is used again. */
export interface Remembered {
  /** By descriptor, the credentials last read from it that were found to be a connection's. */
  readonly verified: (Credentials | undefined)[];
  /** By uid, the groups last read of that user. */
  readonly groups: Map<number, RememberedGroups>;
  /** What unmapped ids read as, and have read as before. */
  readonly overflowIds: { readonly uid: Set<number>; readonly gid: Set<number> };
  /** Whether every id has a number in our user namespace. */
  readonly mapsEvery: { uid?: boolean; gid?: boolean };
}

/** What the kernel answered, and what was made of it. */
export interface RememberedGroups {
  readonly gid: number;
  readonly answer: Uint32Array;
  readonly groups: Fact<readonly number[]>;
}

const OPENERS = { deno: openDeno, bun: openBun, node: openNode } satisfies {
  [runtime: string]: OpenLibc;
};

let opened: System | undefined; // one per thread: errno and the memory are this thread's

/**
 * This system, opened on the first call; a failure is not remembered, so that a permission given
 * later counts.
 */
export function openedSystem(): System {
  return opened ??= openSystem(host());
}

/** Opens the system that `on` describes, with another C library in its place if `path` names one. */
export function openSystem(on: Host, path?: string): System {
  if (on.runtime === undefined) throw unsupported(`${on.name} cannot call native functions`);
  const abi = abiOf(on.os, on.cpu);
  if (abi === undefined) throw unsupported(`${on.os} on ${on.cpu} is not supported`);
  const libc: Libc = OPENERS[on.runtime](abi, path);
  const [value, size] = [libc.memory(VALUE_SIZE), libc.memory(8)];
  const remembered: Remembered = {
    verified: [],
    groups: new Map(),
    overflowIds: { uid: new Set(), gid: new Set() },
    mapsEvery: {},
  };
  return { abi, libc, pid: on.pid, value, size, remembered };
}

/** Larger than every structure that is asked for, and than `struct sockaddr_un` (110 bytes). */
const VALUE_SIZE = 128;

function unsupported(why: string): UcredError {
  return new UcredError("ERR_UCRED_UNSUPPORTED", `Cannot read peer credentials: ${why}`, {
    hint: `Use Deno, Bun or Node 26.1 or later, on ${SUPPORTED}`,
  });
}
