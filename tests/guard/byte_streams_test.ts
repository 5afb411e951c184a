/** Bytes that arrive in parts of any size. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import type { Socket } from "node:net";
import { test } from "node:test";
import { ByteReader, Ended } from "../../guard/byte_streams.ts";

/** A socket that has received these bytes, in parts of `size`, and then the end. */
function received(bytes: Buffer, size: number): Socket {
  const listeners = new Map<string, () => void>();
  let at = 0;
  const socket = {
    destroyed: false,
    on: (event: string, run: () => void) => (listeners.set(event, run), socket),
    read() {
      if (at >= bytes.length) return queueMicrotask(listeners.get("end")!), null;
      return bytes.subarray(at, at += size);
    },
  };
  return socket as unknown as Socket;
}

const bytes = Buffer.from(Array.from({ length: 100 }, (_, value) => value));

for (const size of [1, 3, 10, 100]) {
  test(`ByteReader returns all bytes in their order, when they arrive in parts of ${size}`, async () => {
    const reader = new ByteReader(received(bytes, size));
    assert.deepEqual(await reader.exactly(10), bytes.subarray(0, 10));
    assert.deepEqual(await reader.exactly(0), Buffer.alloc(0));
    const some = (await reader.some(5))!;
    assert.ok(some.length > 0 && some.length <= 5);
    reader.unread(some);
    assert.deepEqual(await reader.exactly(25), bytes.subarray(10, 35));
    assert.deepEqual(await reader.exactly(1), bytes.subarray(35, 36));
    assert.deepEqual(await reader.exactly(64), bytes.subarray(36));
    assert.deepEqual([await reader.exactly(1), await reader.some(1)], [undefined, undefined]);
  });

  test(`ByteReader reports an end within a message, when bytes arrive in parts of ${size}`, async () => {
    const reader = new ByteReader(received(bytes, size));
    await assert.rejects(reader.exactly(101), Ended);
  });
}

test("exactly() copies each byte a few times at most, when bytes arrive one by one", async () => {
  const long = Buffer.alloc(1 << 20, 7); // copied for each byte, these would be 512 GiB
  assert.equal((await new ByteReader(received(long, 1)).exactly(long.length))?.compare(long), 0);
});
