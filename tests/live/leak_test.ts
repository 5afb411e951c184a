/** Many lookups leave no descriptors and no memory behind, and all return the right ids. */

import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import process from "node:process";
import { identify, peerCredentials } from "../../mod.ts";
import { emulated, needs, soak, testWith } from "../support/suite.ts";
import { meet } from "../support/peers.ts";

const LOOKUPS = emulated ? 20_000 : soak(1_000_000, 10_000_000);
const MEBIBYTE = 2 ** 20;

testWith(
  [needs.linux, needs.cc],
  `identify() leaks neither memory nor descriptors in ${LOOKUPS} calls`,
  async () => {
    const [{ wrong, descriptors, grown }] = await meet([], (socket) => {
      const first = peerCredentials(socket);
      let wrong = 0;
      const look = (times: number) => {
        for (let i = 0; i < times; i++) {
          const now = peerCredentials(socket);
          if (now.pid !== first.pid || now.uid !== first.uid || now.gid !== first.gid) wrong++;
          if (i % 10 === 0 && identify(socket).uid !== first.uid) wrong++;
          // Garbage makes collectors move objects, which shows a stale pointer.
          if (i % 1000 === 0) new Array(10_000).fill({});
        }
      };
      const open = () => readdirSync("/proc/self/fd").length;
      look(LOOKUPS); // by then the collector's young generation has its final size
      const before = [open(), process.memoryUsage().rss] as const;
      look(LOOKUPS);
      return {
        wrong,
        descriptors: open() - before[0],
        grown: (process.memoryUsage().rss - before[1]) / MEBIBYTE,
      };
    });
    assert.equal(wrong, 0);
    assert.equal(descriptors, 0);
    assert.ok(grown < 64, `grew by ${grown.toFixed(1)} MiB`); // one leaked 80-byte object each is 76
  },
);
