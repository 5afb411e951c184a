/** Reads files of /proc through libc, so that FFI is the only permission needed. */

import type { System } from "../adapters/select.ts";
import type { LinuxCalls, Memory } from "../adapters/libc.ts";
import { LINUX_ERRNO } from "../ffi/errno.ts";
import { O_CLOEXEC } from "../ffi/linux.ts";

interface Buffers {
  readonly path: Memory;
  readonly chunk: Memory;
}

const buffers = new WeakMap<System, Buffers>();
const encoder = new TextEncoder();
/** Keeps a byte order mark at the beginning: it is part of a name like any other character. */
const newDecoder = () => new TextDecoder("utf-8", { ignoreBOM: true });
const decoder = newDecoder();

function buffersOf(system: System): Buffers {
  let found = buffers.get(system);
  if (found === undefined) {
    // Paths are short, since this library builds them. The target of a link may be as long as a page.
    found = { path: system.libc.memory(64), chunk: system.libc.memory(1 << 16) };
    buffers.set(system, found);
  }
  return found;
}

/** Opens a file for reading; the caller owns the descriptor. Returns −errno on failure. */
export function openFile(system: System, calls: LinuxCalls, path: string): number {
  return calls.open(encode(buffersOf(system).path, path), O_CLOEXEC);
}

/**
 * Returns the text of a file, or −errno. Bytes that are not UTF-8 become U+FFFD.
 *
 * @param most Longer files fail with EFBIG instead of being cut off.
 */
export function readText(
  system: System,
  calls: LinuxCalls,
  path: string,
  most = 1 << 20,
): string | number {
  const fd = openFile(system, calls, path);
  if (fd < 0) return fd;
  let text: string | number;
  try {
    text = readAll(system, calls, fd, most);
  } catch (error) {
    calls.close(fd);
    throw error;
  }
  const closed = calls.close(fd);
  return closed < 0 ? closed : text; // EBADF: another thread has closed the descriptor, and the text may be of another file
}

function readAll(system: System, calls: LinuxCalls, fd: number, most: number): string | number {
  const { chunk } = buffersOf(system);
  const stream = newDecoder();
  let text = "";
  for (let total = 0;;) {
    const length = calls.read(fd, chunk);
    if (length < 0) return length;
    if (length === 0) return text + stream.decode();
    if ((total += length) > most) return -LINUX_ERRNO.EFBIG;
    text += stream.decode(chunk.bytes.subarray(0, length), { stream: true });
  }
}

/** Returns the target of a symbolic link, or −errno. */
export function readLink(system: System, calls: LinuxCalls, path: string): string | number {
  const { path: name, chunk } = buffersOf(system);
  const length = calls.readlink(encode(name, path), chunk);
  return length < 0 ? length : decoder.decode(chunk.bytes.subarray(0, length));
}

function encode(into: Memory, path: string): Memory {
  const { written } = encoder.encodeInto(path, into.bytes);
  into.bytes[written] = 0;
  return into;
}
