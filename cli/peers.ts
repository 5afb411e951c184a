/** Peers as text, one line each, and as JSON. */

import type { Fact } from "../core/facts.ts";
import { UcredError } from "../core/errors.ts";
import type { Peer, PeerJSON } from "../core/peer.ts";
import type { ProcessJSON } from "../core/process.ts";
import { peerOfPid } from "../identity/peer_of_pid.ts";
import { printable } from "./output.ts";

/** A peer without its capability lists, which have 40 names each for a process of root. */
export type PeerSummary = Omit<PeerJSON, "process"> & {
  readonly process?: Omit<ProcessJSON, "capabilities">;
};

/** A fact as text: "-" for none, "?" for unknown. */
export function factText(fact: Fact<unknown>): string {
  if (fact.state === "known") return printable(String(fact.value));
  return fact.state === "none" ? "-" : "?";
}

/** "1000 (ada)". An ambiguous id is marked: "65534?". */
export function userText({ uid, user, ambiguous }: Peer): string {
  const name = user === undefined ? "" : ` (${printable(user)})`;
  return `${uid}${ambiguous.includes("uid") ? "?" : ""}${name}`;
}

/** Names of groups, or their gids. The primary group is the first. */
export function groupsText({ gid, groups, groupNames }: Peer): string {
  if (groups === undefined) return "?";
  const name = (group: number) => printable(groupNames?.[groups.indexOf(group)] ?? String(group));
  return [gid, ...groups.filter((group) => group !== gid)].map(name).join(",");
}

/** "pid 812, uid 0 (root), /usr/bin/dockerd, docker.service". */
export function peerText(peer: Peer): string {
  return `pid ${peer.pid ?? "?"}, ${whatText(peer)}`;
}

/** One line for all peers that differ only by pid, with up to five pids. */
export function crowdTexts(peers: readonly Peer[]): readonly string[] {
  const crowds = new Map<string, string[]>();
  for (const peer of peers) {
    const pids = crowds.get(whatText(peer)) ?? [];
    crowds.set(whatText(peer), [...pids, String(peer.pid ?? "?")]);
  }
  return [...crowds].map(([what, pids]) => {
    const more = pids.length > 5 ? ` and ${pids.length - 4} more` : "";
    const shown = more === "" ? pids : pids.slice(0, 4);
    return `${pids.length === 1 ? "pid" : `${pids.length} pids`} ${
      shown.join(" ")
    }${more}, ${what}`;
  });
}

/** "uid 0 (root), /usr/bin/dockerd, docker.service". */
function whatText(peer: Peer): string {
  const { facts: { exe, unit, container } } = peer.process;
  const parts = [
    `uid ${userText(peer)}`,
    ...(exe.state === "known" ? [factText(exe)] : []),
    ...(unit.state === "known" ? [factText(unit)] : []),
    ...(container.state === "known" ? [`container ${factText(container).slice(0, 12)}`] : []),
  ];
  return parts.join(", ");
}

/** The peers of processes. A process that has ended is left out. */
export function peersOf(pids: readonly number[]): Peer[] {
  return pids.flatMap((pid) => {
    try {
      return [peerOfPid(pid)];
    } catch (error) {
      if (error instanceof UcredError) return [];
      throw error;
    }
  });
}

/** A peer as JSON, without its capabilities. */
export function summaryOf(peer: Peer): PeerSummary {
  const { process, ...rest } = peer.toJSON();
  if (process === undefined) return rest;
  const { capabilities: _, ...summary } = process;
  return { ...rest, process: summary };
}
