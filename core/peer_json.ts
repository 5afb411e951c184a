/** Converts a peer to plain data. */

import type { Fact } from "./facts.ts";
import type { Peer, PeerJSON } from "./peer.ts";

/** Implements `toJSON()` of peers. */
export function peerJSON(peer: Peer): PeerJSON {
  const { pid, uid, gid, groups, label, user, groupNames, ambiguous, pinned, alive } = peer;
  const facts = Object.entries(peer.facts).filter(([name]) => name !== "key" || pinned);
  const reasons = facts.flatMap(([name, fact]: [string, Fact<unknown>]) =>
    fact.state === "unknown" ? [[name, fact.reason.message]] : []
  );
  return {
    ...(pid !== undefined && { pid }),
    uid,
    gid,
    ...(groups && { groups }),
    ...(label !== undefined && { label }),
    ...(user !== undefined && { user }),
    ...(groupNames && { groupNames }),
    ...(ambiguous.length > 0 && { ambiguous }),
    ...(pinned && { pinned }),
    ...(alive !== undefined && { alive }),
    ...(pinned && peer.key !== undefined && { key: peer.key }),
    ...(alive && { process: peer.process.toJSON() }),
    ...(reasons.length > 0 && { unknown: Object.fromEntries(reasons) }),
  };
}
