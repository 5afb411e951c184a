/** Control messages and addresses of datagrams: valid, truncated and malformed. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { CONTROL_SIZE, decodeAddress, decodeControl, encodeAddress } from "../../ffi/message.ts";

const SOL_SOCKET = 1;
const little = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

type Message = [level: number, type: number, ...words: number[]];

/** Builds control messages from level, type and 32-bit words. */
function control(...messages: readonly Message[]) {
  const bytes = new Uint8Array(CONTROL_SIZE).fill(0xff);
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const [level, type, ...words] of messages) {
    const size = 16 + words.length * 4;
    view.setBigUint64(at, BigInt(size), little);
    view.setInt32(at + 8, level, little);
    view.setInt32(at + 12, type, little);
    words.forEach((word, index) => view.setUint32(at + 16 + index * 4, word, little));
    at += Math.ceil(size / 8) * 8;
  }
  return { bytes, length: at };
}

const decode = ({ bytes, length }: ReturnType<typeof control>, cut = length) => {
  const { ucred, ...rest } = decodeControl(bytes, cut, SOL_SOCKET);
  return { ucred: ucred && [...ucred], ...rest };
};

const NOTHING = { ucred: undefined, pidfd: undefined, descriptors: [] };

test("decodeControl() finds credentials, pidfd and descriptors in any order", () => {
  const found = { ucred: [7, 4000000000, 5], pidfd: 9, descriptors: [3, 4, 5] };
  const parts: Message[] = [[1, 2, 7, 4000000000, 5], [1, 1, 3, 4, 5], [1, 4, 9]];
  assert.deepEqual(decode(control(...parts)), found);
  assert.deepEqual(decode(control(...parts.toReversed())), found);
});

test("decodeControl() returns a negative pidfd when the kernel could not open it", () => {
  assert.equal(decode(control([1, 4, -3 >>> 0])).pidfd, -3);
});

test("decodeControl() returns one passed descriptor, and no pidfd", () => {
  assert.deepEqual(decode(control([1, 1, 3])), { ...NOTHING, descriptors: [3] });
});

test("decodeControl() ignores messages of another level, type or size", () => {
  assert.deepEqual(decode(control([41, 2, 1, 0, 0])), NOTHING);
  assert.deepEqual(decode(control([1, 99, 1, 0, 0])), NOTHING);
  assert.deepEqual(decode(control([1, 2, 1, 0])), NOTHING, "short credentials");
  assert.deepEqual(decode(control([1, 4, 1, 2])), NOTHING, "two pidfds");
  assert.deepEqual(decode(control([1, 99], [1, 2, 7, 0, 0])).ucred, [7, 0, 0], "an empty one");
});

test("decodeControl() ignores truncated messages", () => {
  const whole = control([1, 2, 7, 0, 0]);
  for (let length = 0; length < 28; length++) assert.deepEqual(decode(whole, length), NOTHING);
  assert.deepEqual(decode(whole, 28).ucred, [7, 0, 0]);
  const { bytes } = control();
  for (const size of [0n, 1n, 15n, 2n ** 63n, 2n ** 64n - 1n]) {
    new DataView(bytes.buffer).setBigUint64(0, size, little);
    assert.deepEqual(decode({ bytes, length: CONTROL_SIZE }), NOTHING, String(size));
  }
});

test("encodeAddress() and decodeAddress() keep paths and abstract names", () => {
  for (
    const path of [
      ...["/run/x", "x", "x".repeat(107), "\0abstract", `\0${"x".repeat(107)}`, "\0a\0b", "ü"],
      "\ufeffx",
    ]
  ) {
    const bytes = encodeAddress(path);
    assert.ok(bytes && bytes.length <= 110);
    assert.equal(decodeAddress(bytes, bytes.length), path);
  }
  for (const path of ["x".repeat(108), `\0${"x".repeat(108)}`]) {
    assert.equal(encodeAddress(path), undefined);
  }
  assert.equal(decodeAddress(new Uint8Array(110), 2), undefined, "not bound");
  const full = new Uint8Array(110).fill(120, 2);
  assert.equal(decodeAddress(full, 110), "x".repeat(108), "a path without a final NUL");
});
