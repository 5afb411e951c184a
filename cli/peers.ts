/** A peer → one line for a person. */

import type { Fact } from "../core/facts.ts";
import type { Peer } from "../core/peer.ts";
import { printable } from "./output.ts";

/** A fact as text: "-" for none, "?" for unknown. */
export function factText(fact: Fact<unknown>): string {
  if (fact.state === "known") return printable(String(fact.value));
  return fact.state === "none" ? "-" : "?";
}

/** "1000 (ada)"; an id that proves nothing is marked. */
export function userText({ uid, user, ambiguous }: Peer): string {
  const name = user === undefined ? "" : ` (${printable(user)})`;
  return `${uid}${ambiguous.includes("uid") ? "?" : ""}${name}`;
}

/** Names of groups, or their numbers; the primary one first. */
export function groupsText({ gid, groups, groupNames }: Peer): string {
  if (groups === undefined) return "?";
  const name = (group: number) => printable(groupNames?.[groups.indexOf(group)] ?? String(group));
  return [gid, ...groups.filter((group) => group !== gid)].map(name).join(",");
}

/** "pid 812, uid 0 (root), /usr/bin/dockerd, docker.service". */
export function peerText(peer: Peer): string {
  const { facts: { exe, unit, container } } = peer.process;
  const parts = [
    `pid ${peer.pid ?? "?"}`,
    `uid ${userText(peer)}`,
    ...(exe.state === "known" ? [factText(exe)] : []),
    ...(unit.state === "known" ? [factText(unit)] : []),
    ...(container.state === "known" ? [`container ${factText(container).slice(0, 12)}`] : []),
  ];
  return parts.join(", ");
}
