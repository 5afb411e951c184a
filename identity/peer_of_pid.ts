/** Identifies a process by its pid, without a connection. */

import { openedSystem, type System } from "../adapters/select.ts";
import { UcredError } from "../core/errors.ts";
import { known, unknown } from "../core/facts.ts";
import type { Peer } from "../core/peer.ts";
import { withGid } from "./groups.ts";
import { CapturedPeer } from "./peer.ts";
import { pinPid } from "./process/pidfd.ts";
import { readGroupsNow } from "./process/snapshot.ts";

/**
 * Pins a process by its pid and returns it as a peer with its current ids.
 *
 * @returns A peer that the caller must close.
 * @throws {UcredError} `ERR_UCRED_PEER_GONE` if there is no such process, and as `identify()` does.
 */
export function peerOfPid(pid: number, system: System = openedSystem()): Peer {
  const pin = pinPid(system, pid);
  try {
    const { ids: { euid: uid, egid: gid }, source } = pin.readIds();
    const groups = withGid(readGroupsNow(pin), gid);
    const reason = new UcredError(
      "ERR_UCRED_UNSUPPORTED",
      "Cannot determine the label of a process: only sockets have one",
      { hint: "Identify a connection" },
    );
    return new CapturedPeer(system, {
      credentials: { pid, uid, gid },
      groups: known(groups, "procfs@now"),
      label: unknown(reason),
      pinned: pin,
      source,
    });
  } catch (error) {
    pin.close();
    throw error;
  }
}
