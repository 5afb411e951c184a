/** /proc/self/uid_map → whether every id is mapped. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { mapsEveryId } from "../../system/overflow_ids.ts";

test("mapsEveryId() returns true only when all ids except (uid_t) -1 are mapped", () => {
  const whole = ["         0          0 4294967295\n", "0 0 1\n1 1 4294967294\n"];
  for (const map of whole) assert.equal(mapsEveryId(map), true, map);
  const partial = [
    "         0       1000          1\n", //     a rootless container
    "0 1000 1\n1 100000 65536\n", //             with subordinate ids
    "         0          0 4294967294\n", //     one is missing
    "0 0 4294967295\n7 7 1\n", //                no kernel writes this
    "", //                                       unreadable, or not set yet
    "0\n", //                                    cut off
    "0 0 4294967295\n\0garbage",
    "a b c\n",
  ];
  for (const map of partial) assert.equal(mapsEveryId(map), false, JSON.stringify(map));
});
