/**
 * The lookups of ucred, on the runtime that runs this file. The protocol is that of baseline.c. In
 * addition it answers the line "usage" with its open descriptors and resident memory. For the lookup
 * "accepted" it listens at the path in its last argument, and waits for a connection.
 */

import { readdirSync } from "node:fs";
import type { Socket } from "node:net";
import process from "node:process";
import { createInterface } from "node:readline";
import { openedSystem } from "../../adapters/select.ts";
import { fdOf } from "../../identity/fd.ts";
import { identify, peerCredentials } from "../../mod.ts";
import { createServer } from "../../servers/net.ts";

const FD = 3;

const { verified } = openedSystem().remembered;

/** The facts of a lookup that are checked. */
interface Found {
  readonly pid?: number | undefined;
  readonly uid?: number;
  readonly gid?: number;
  readonly groups?: readonly number[] | undefined;
  readonly label?: string | undefined;
  readonly exe?: string;
}

// A process calls only one of these, so that a compiler can inline it into the loop.
const LOOKUPS: { readonly [name: string]: () => (() => Found) | Promise<() => Found> } = {
  again: () => () => peerCredentials(FD),
  first: () => () => {
    verified[FD] = undefined; // removes the descriptor from the cache
    return peerCredentials(FD);
  },
  async accepted() {
    const socket = await new Promise<Socket>((resolve) => {
      const server = createServer({ policy: "anyone" }, (socket) => {
        server.close();
        resolve(socket);
      });
      server.listen({ path: process.argv[3]! });
    });
    const fd = fdOf(socket);
    return () => {
      verified[fd] = undefined;
      return peerCredentials(socket);
    };
  },
  identify: () => () => identify(FD),
  pin: () => () => {
    const peer = identify(FD, { pin: true });
    peer.close();
    return peer;
  },
  live() {
    const peer = identify(FD, { pin: true });
    return () => {
      const live = peer.live();
      return live.alive ? live : {};
    };
  },
  exe() {
    const peer = identify(FD, { pin: true });
    return () => ({ exe: peer.process.exe! });
  },
  snapshot() {
    const peer = identify(FD, { pin: true });
    return () => peer.process.toJSON();
  },
};

/** The answers of lookups other than pid, uid and gid. */
const ANSWERS: { readonly [name: string]: (found: Found) => Found } = {
  identify: ({ pid, uid, gid, groups, label = "" }) => ({ pid, uid, gid, groups, label } as Found),
  live: ({ uid, gid }) => ({ uid, gid } as Found),
  exe: ({ exe }) => ({ exe } as Found),
  snapshot: ({ exe }) => ({ exe } as Found),
};

const name = process.argv[2] ?? "";
const look = await LOOKUPS[name]!();
const expected = look();
const { pid, uid, gid, exe } = expected;
console.log(JSON.stringify((ANSWERS[name] ?? (() => ({ pid, uid, gid })))(expected)));

for await (const line of createInterface({ input: process.stdin })) {
  console.log(line === "usage" ? JSON.stringify(usage()) : measure(Number(line)));
}

function measure(times: number): number {
  let wrong = 0;
  const start = process.hrtime.bigint();
  for (let i = 0; i < times; i++) {
    const found = look();
    if (found.pid !== pid || found.uid !== uid || found.gid !== gid || found.exe !== exe) wrong++;
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
