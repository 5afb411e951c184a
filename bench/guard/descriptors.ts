/**
 * Measures what a guard would spend on a message with a descriptor: recvmsg(2), sendmsg(2) and close(2)
 * through this runtime's FFI. `node bench/guard/descriptors.ts`; with Bun `bun`, with Deno `deno run -A`.
 * Needs 64-bit Linux with glibc.
 */

import assert from "node:assert/strict";
import { builtinModule, host } from "../../adapters/host.ts";
import type { Memory } from "../../adapters/libc.ts";
import { openedSystem } from "../../adapters/select.ts";
import { IOVEC, MSG, MSGHDR } from "../../ffi/message.ts";

const LIBRARY = "libc.so.6";
const MESSAGES = 100, ROUNDS = 500, BYTES = 64;
const AF_UNIX = 1, SOCK_STREAM = 1;
/** `struct cmsghdr` with one descriptor: CMSG_LEN(4), SOL_SOCKET, SCM_RIGHTS. */
const RIGHTS = { length: 20, size: 24, level: 1, type: 1, descriptor: 16 };

interface Calls {
  recvmsg(fd: number, message: unknown, flags: number): number | bigint;
  sendmsg(fd: number, message: unknown, flags: number): number | bigint;
  socketpair(
    family: number,
    type: number,
    protocol: number,
    pair: unknown,
  ): number;
  close(fd: number): number;
}

function open(): {
  readonly calls: Calls;
  readonly pointer: (memory: Memory) => unknown;
} {
  const { runtime } = host();
  const [int, buffer, size] = {
    deno: ["i32", "buffer", "isize"],
    bun: ["i32", "buffer", "i64"],
    node: ["i32", "pointer", "i64"],
  }[runtime!];
  const symbol = (parameters: (string | undefined)[], result = int) => ({
    ...(runtime === "deno" ? { parameters, result } : {}),
    ...(runtime === "bun" ? { args: parameters, returns: result } : {}),
    ...(runtime === "node" ? { arguments: parameters, return: result } : {}),
  });
  const symbols = {
    recvmsg: symbol([int, buffer, int], size),
    sendmsg: symbol([int, buffer, int], size),
    socketpair: symbol([int, int, int, buffer]),
    close: symbol([int]),
  };
  // deno-lint-ignore no-explicit-any
  const ffi: any = runtime === "deno"
    // deno-lint-ignore no-explicit-any
    ? (globalThis as any).Deno
    : builtinModule(`${runtime}:ffi`);
  const opened = ffi.dlopen(LIBRARY, symbols);
  return {
    calls: opened.functions ?? opened.symbols,
    pointer: runtime === "node" ? (memory) => libc.linux!.address(memory) : ({ bytes }) => bytes,
  };
}

const { libc } = openedSystem();
const { calls, pointer } = open();

/** A message of one part, with room for control messages. */
class Message {
  readonly head: Memory = libc.memory(MSGHDR.size);
  readonly part: Memory = libc.memory(IOVEC.size);
  readonly data: Memory = libc.memory(BYTES);
  readonly control: Memory = libc.memory(RIGHTS.size);
  readonly #head: DataView;
  readonly #control: DataView;

  constructor() {
    const view = ({ bytes }: Memory) =>
      new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const part = view(this.part);
    part.setBigUint64(IOVEC.base, libc.linux!.address(this.data), true);
    part.setBigUint64(IOVEC.length, BigInt(BYTES), true);
    this.#head = view(this.head);
    this.#control = view(this.control);
    this.#head.setBigUint64(MSGHDR.parts, libc.linux!.address(this.part), true);
    this.#head.setBigUint64(MSGHDR.partCount, 1n, true);
    this.#head.setBigUint64(
      MSGHDR.control,
      libc.linux!.address(this.control),
      true,
    );
  }

  attach(fd: number): void {
    this.#control.setBigUint64(0, BigInt(RIGHTS.length), true);
    this.#control.setInt32(8, RIGHTS.level, true);
    this.#control.setInt32(12, RIGHTS.type, true);
    this.#control.setInt32(RIGHTS.descriptor, fd, true);
  }

  send(fd: number): void {
    this.#head.setBigUint64(MSGHDR.controlLength, BigInt(RIGHTS.size), true);
    assert.equal(Number(calls.sendmsg(fd, pointer(this.head), 0)), BYTES);
  }

  /** Receives, and returns the descriptor. */
  receive(fd: number): number {
    this.#head.setBigUint64(MSGHDR.controlLength, BigInt(RIGHTS.size), true);
    assert.equal(
      Number(calls.recvmsg(fd, pointer(this.head), MSG.CMSG_CLOEXEC)),
      BYTES,
    );
    assert.equal(
      this.#head.getInt32(MSGHDR.flags, true) & (MSG.TRUNC | MSG.CTRUNC),
      0,
    );
    assert.equal(this.#control.getBigUint64(0, true), BigInt(RIGHTS.length));
    return this.#control.getInt32(RIGHTS.descriptor, true);
  }
}

function socketPair(): readonly [number, number] {
  const pair = libc.memory(8);
  assert.equal(calls.socketpair(AF_UNIX, SOCK_STREAM, 0, pointer(pair)), 0);
  return [pair.words[0]!, pair.words[1]!];
}

const [client, fromClient] = socketPair();
const [toServer, server] = socketPair();
const message = new Message();
const times: number[] = [];
for (let round = 0; round < ROUNDS; round++) {
  message.attach(client);
  for (let i = 0; i < MESSAGES; i++) message.send(client);
  const from = performance.now();
  for (let i = 0; i < MESSAGES; i++) {
    const fd = message.receive(fromClient);
    message.send(toServer); // with the descriptor as received
    calls.close(fd);
  }
  times.push((performance.now() - from) / MESSAGES * 1000);
  for (let i = 0; i < MESSAGES; i++) calls.close(message.receive(server));
}
times.sort((a, b) => a - b);
const at = (share: number) => times[Math.floor(share * (times.length - 1))]!.toFixed(1);
console.log(
  `${host().name}: ${at(0.5)} µs for each message (${at(0.05)} to ${at(0.95)})`,
);
