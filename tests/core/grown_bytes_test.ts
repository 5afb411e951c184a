/** Bytes that arrive in parts. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { GrownBytes } from "../../core/grown_bytes.ts";

test("GrownBytes copies parts, which the sender makes as short as it wants", () => {
  const bytes = new GrownBytes();
  assert.deepEqual([bytes.length, ...bytes.all()], [0]);
  const part = new Uint8Array(1); // the same one each time, so that a list of parts would be wrong
  for (let at = 0; at < 1000; at++) {
    part[0] = at;
    bytes.add(part);
  }
  bytes.add(new Uint8Array(0));
  bytes.add(Uint8Array.of(1, 2, 3));
  assert.equal(bytes.length, 1003);
  const expected = Array.from({ length: 1000 }, (_, at) => at % 256);
  assert.deepEqual([...bytes.all()], [...expected, 1, 2, 3]);
  assert.ok(bytes.all().buffer.byteLength < 4096);
});
