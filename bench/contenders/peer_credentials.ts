/**
 * The library's lookups, on whichever runtime this is started. Speaks as baseline.c does; to the
 * line "usage" it answers with its open descriptors and resident memory.
 */

import { readdirSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline";
import { system } from "../../adapters/select.ts";
import { type Credentials, identify, type Peer, peerCredentials } from "../../mod.ts";

const FD = 3;

const { verified } = system();
// Each process is told one of these, so that a compiler can inline it into the loop.
const LOOKUPS: { readonly [name: string]: () => Credentials & Partial<Peer> } = {
  again: () => peerCredentials(FD),
  first: () => {
    verified[FD] = undefined; // as if the descriptor had never been seen
    return peerCredentials(FD);
  },
  identify: () => identify(FD),
};

const name = process.argv[2] ?? "";
const look = LOOKUPS[name]!;
const { pid, uid, gid, groups, label = "" } = look();
console.log(JSON.stringify({ pid, uid, gid, ...(name === "identify" && { groups, label }) }));

for await (const line of createInterface({ input: process.stdin })) {
  console.log(line === "usage" ? JSON.stringify(usage()) : measure(Number(line)));
}

function measure(times: number): number {
  let wrong = 0;
  const start = process.hrtime.bigint();
  for (let i = 0; i < times; i++) {
    const found = look();
    if (found.pid !== pid || found.uid !== uid || found.gid !== gid) wrong++;
  }
  const end = process.hrtime.bigint();
  if (wrong > 0) throw new Error(`${wrong} of ${times} answers were wrong`);
  return Number(end - start) / times;
}

function usage(): { descriptors: number; bytes: number } {
  return {
    descriptors: readdirSync("/proc/self/fd").length,
    bytes: process.memoryUsage().rss,
  };
}
