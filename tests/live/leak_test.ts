/** Many lookups leave no descriptors and no memory behind, and all return the right ids. */

import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import process from "node:process";
import { identify, peerCredentials } from "../../mod.ts";
import { bytesInUse } from "../support/collector.ts";
import { assertFreed } from "../support/leak.ts";
import { needs, soak, testWith } from "../support/suite.ts";
import { meet } from "../support/peers.ts";

/** Lookups of each round. */
const LOOKUPS = soak(200_000, 2_000_000);

testWith(
  [needs.linux, needs.cc],
  "identify() leaks neither memory nor descriptors in repeated calls",
  async () => {
    const [found] = await meet([], async (socket) => {
      const first = peerCredentials(socket);
      let wrong = 0;
      const look = () => {
        for (let i = 0; i < LOOKUPS; i++) {
          const now = peerCredentials(socket);
          if (now.pid !== first.pid || now.uid !== first.uid || now.gid !== first.gid) wrong++;
          if (i % 10 === 0 && identify(socket).uid !== first.uid) wrong++;
          // Garbage makes collectors move objects, which shows a stale pointer.
          if (i % 1000 === 0) new Array(10_000).fill({});
        }
      };
      const open = () => readdirSync("/proc/self/fd").length;
      look();
      const before = open();
      await assertFreed({
        pid: process.pid,
        round: look,
        times: LOOKUPS,
        used: bytesInUse,
        maxHeap: 8,
        maxResident: 40,
      });
      return { wrong, descriptors: open() - before };
    });
    const { wrong, descriptors } = await found;
    assert.equal(wrong, 0);
    assert.equal(descriptors, 0);
  },
);
