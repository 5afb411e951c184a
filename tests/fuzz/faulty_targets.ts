/** Readers with faults, for the test of the search. They have the corpora of the targets of these names. */

import assert from "node:assert/strict";
import type { Target } from "./targets.ts";

const words = ["!", "?"];

export const TARGETS: readonly Target[] = [
  {
    name: "opa",
    words,
    read: (bytes) => {
      if (bytes.includes(33)) throw new TypeError("it has an exclamation mark");
    },
  },
  {
    name: "sasl",
    words,
    read: (bytes) => {
      if (bytes.includes(63)) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0); // does not end
    },
  },
  {
    name: "proc",
    words,
    read: async (bytes) => {
      await Promise.resolve();
      assert.ok(!bytes.includes(33), "it has been allowed");
    },
  },
  { name: "http", words, read: () => {} },
];
