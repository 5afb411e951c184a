/** Builds the peer that a D-Bus message bus has reported. */

import { openedSystem, type System } from "../adapters/select.ts";
import { NO_ID } from "../core/credentials.ts";
import { UcredError } from "../core/errors.ts";
import { type Fact, known, unknown } from "../core/facts.ts";
import type { Peer } from "../core/peer.ts";
import { CapturedPeer } from "./peer.ts";
import { pinPidfd } from "./process/pidfd.ts";
import type { Pinned } from "./process/snapshot.ts";

/** The credentials that a bus has reported. `undefined`: unknown. */
export interface BusCredentials {
  /** Effective uid, 0 to 2³²−2. */
  readonly uid: number;
  /** All groups, with the gid, ascending, without duplicates. */
  readonly groups: readonly number[] | undefined;
  readonly pid: number | undefined;
  readonly label: string | undefined;
}

/**
 * Builds a peer. Its gid is unknown, since a bus does not report it.
 *
 * @param pidfd The pidfd that the bus has passed. The peer owns it from now on.
 */
export function peerOfBus(
  { uid, groups, pid, label }: BusCredentials,
  pidfd: number | undefined,
): Peer {
  const system = openedSystem();
  const orUnknown = <T>(value: T | undefined, name: string): Fact<T> =>
    value === undefined ? unknown(notReported(name)) : known(value, "bus@connect");
  return new CapturedPeer(system, {
    credentials: { pid, uid, gid: NO_ID },
    groups: orUnknown(groups, "groups"),
    label: orUnknown(label, "security label"),
    pinned: pinOf(system, pidfd),
    source: "bus@connect",
    noPid: pid === undefined ? notReported("pid") : undefined,
    noGid: notReported("gid"),
  });
}

/** Closes descriptors that a bus has passed. */
export function closeDescriptors(descriptors: Iterable<number>): void {
  for (const fd of descriptors) openedSystem().libc.linux?.close(fd);
}

/** Pins the process by its pidfd. A pid alone may belong to another process by now. */
function pinOf(system: System, pidfd: number | undefined): Pinned {
  const { linux } = system.libc;
  if (linux === undefined || pidfd === undefined) {
    const message = "Cannot read the peer's process: the bus has passed no ProcessFD";
    const hint = "Decide by uid, groups and label";
    return new UcredError("ERR_UCRED_NOT_PINNED", message, { hint });
  }
  try {
    return pinPidfd(system, linux, pidfd);
  } catch (error) {
    if (error instanceof UcredError) return error;
    throw error;
  }
}

function notReported(name: string): UcredError {
  const message = `Cannot determine the peer's ${name}: the bus does not report it`;
  const hint = "Decide by facts that the bus reports";
  return new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint });
}
