/** Tests of the parts that forward bytes: exact reads, whole messages, and the end of each direction. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import type { Socket } from "node:net";
import { duplexPair } from "node:stream";
import { test } from "node:test";
import { ByteReader, Ended, MessageWriter } from "../../guard/byte_streams.ts";
import { finish, join } from "../../guard/pipe.ts";

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
  const long = Buffer.alloc(1 << 18, 7); // copied for each byte, these would be 32 GiB
  assert.equal((await new ByteReader(received(long, 1)).exactly(long.length))?.compare(long), 0);
});

function pair(): [near: Socket, far: Socket] {
  return duplexPair() as unknown as [Socket, Socket];
}

/** Waits until everything that can happen has happened. */
const settled = async () => {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
};

const text = (bytes: Buffer | null | undefined) => bytes?.toString("latin1");

test("ByteReader reads as many bytes as requested, and reports how the stream ends", async () => {
  const [near, far] = pair();
  const reader = new ByteReader(near);
  far.write("abc");
  far.write("defg");
  assert.equal(text(await reader.exactly(5)), "abcde");
  assert.equal(text(await reader.some(1)), "f");
  reader.unread(Buffer.from("xy"));
  assert.equal(text(await reader.exactly(2)), "xy");
  reader.unread(Buffer.from("z"));
  assert.equal(text(await reader.some(9)), "zg");
  assert.equal(text(await reader.exactly(0)), "");
  const waiting = reader.exactly(4);
  for (const part of ["1", "23", "45"]) {
    await settled();
    far.write(part);
  }
  assert.equal(text(await waiting), "1234");
  far.end();
  await assert.rejects(reader.exactly(2), Ended);
  assert.equal(await reader.some(2), undefined);
  assert.equal(await reader.exactly(2), undefined);
  assert.equal(text(await reader.exactly(0)), "");
});

test("ByteReader ends with its connection, also if that was destroyed before", async () => {
  const [near, far] = pair();
  far.on("error", () => {});
  const reader = new ByteReader(near);
  const waiting = reader.some(1);
  await settled();
  near.destroy();
  assert.equal(await waiting, undefined);
  assert.equal(await new ByteReader(near).exactly(1), undefined);
});

test("MessageWriter inserts messages only between whole messages", async () => {
  const [near, far] = pair();
  let received = "";
  far.on("data", (bytes) => received += bytes);
  const writer = new MessageWriter(near);
  await writer.insert(Buffer.from("<0>"));
  writer.begin(5);
  await writer.write(Buffer.from("he"));
  await writer.insert(Buffer.from("<1>"));
  await writer.insert(Buffer.from("<2>"));
  await writer.write(Buffer.from("ll"));
  await settled();
  assert.equal(received, "<0>hell");
  await assert.rejects(writer.write(Buffer.from("oX")), RangeError);
  await writer.write(Buffer.from("o"));
  await writer.insert(Buffer.from("<3>"));
  writer.begin(1);
  await writer.write(Buffer.from("!"));
  await assert.rejects(writer.write(Buffer.from("X")), RangeError);
  await settled();
  assert.equal(received, "<0>hello<1><2><3>!");
});

test("MessageWriter lets the guard's messages wait once 64 KiB of them wait", async () => {
  const [near, far] = pair();
  const writer = new MessageWriter(near);
  for (let round = 0; round < 2; round++) { // the count begins anew
    writer.begin(1);
    await writer.insert(Buffer.alloc(65_535));
    let isDone = false;
    const full = writer.insert(Buffer.alloc(1)).then(() => isDone = true);
    await settled();
    assert.equal(isDone, false);
    const written = writer.write(Buffer.alloc(1));
    far.resume();
    await Promise.all([full, written]);
  }
});

test("MessageWriter waits for no side that is closed", async () => {
  const [near, far] = pair();
  far.on("error", () => {});
  const writer = new MessageWriter(near);
  writer.begin(2 << 20);
  let isDone = false;
  const full = writer.write(Buffer.alloc(1 << 20)).then(() => isDone = true);
  await settled();
  assert.equal(isDone, false, "nobody reads");
  near.destroy();
  await full;
  await writer.write(Buffer.alloc(1));
  await writer.insert(Buffer.alloc(1 << 20));
});

test("join() forwards both directions, and half-closes each on its own", async () => {
  const [client, clientEnd] = pair();
  const [server, serverEnd] = pair();
  join(client, server);
  const ended: string[] = [];
  for (const [name, end] of Object.entries({ clientEnd, serverEnd })) {
    end.on("end", () => ended.push(name));
  }
  clientEnd.write("request");
  serverEnd.write("response");
  await settled();
  assert.deepEqual([text(serverEnd.read()), text(clientEnd.read())], ["request", "response"]);
  clientEnd.end("last");
  await settled();
  assert.equal(text(serverEnd.read()), "last");
  serverEnd.read();
  await settled();
  assert.deepEqual(ended, ["serverEnd"]);
  serverEnd.end("answer");
  await settled();
  assert.equal(text(clientEnd.read()), "answer");
  clientEnd.read();
  await settled();
  assert.deepEqual(ended, ["serverEnd", "clientEnd"]);
});

test("join() closes each side after the other one, also if that was closed before", async () => {
  for (const isServer of [false, true]) {
    for (const isEarly of [false, true]) {
      const [[client, clientEnd], [server, serverEnd]] = [pair(), pair()];
      for (const end of [clientEnd, serverEnd]) end.on("error", () => {}).resume();
      const [closed, other] = isServer ? [server, client] : [client, server];
      if (isEarly) closed.destroy();
      join(client, server);
      closed.destroy();
      await settled();
      assert.equal(other.destroyed, true, `${isServer} ${isEarly}`);
    }
  }
});

test("finish() sends its text last, discards what follows, and then closes", async () => {
  const [near, far] = pair();
  let received = "";
  far.on("data", (bytes) => received += bytes);
  near.write("begun, ");
  finish(near, "ended");
  far.write("discarded");
  await settled();
  assert.equal(received, "begun, ended");
  assert.equal(near.destroyed, true);
  finish(near, "again");
  const [after, afterFar] = pair();
  afterFar.on("data", (bytes) => received += bytes);
  after.end();
  finish(after, "too late"); // no error of a write after end()
  await settled();
  assert.deepEqual([received, after.destroyed], ["begun, ended", true]);
});
