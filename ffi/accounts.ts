/** struct passwd and struct group: where their name is, and how to read it without a foreign pointer. */

import { NO_ID } from "../core/credentials.ts";
import { LITTLE_ENDIAN } from "./abi.ts";

/**
 * How the memory for one getpwuid_r(3) or getgrgid_r(3) is divided. The fields read here have the
 * same place in `struct passwd` and `struct group`, on every 64-bit system that is supported.
 * Sources: <pwd.h> and <grp.h> of glibc, musl, macOS and FreeBSD.
 */
export const ACCOUNT = {
  result: 0, //    struct passwd **: where the pointer to the answer is put
  struct: 16, //   struct passwd: at most 80 bytes (FreeBSD); 128 are set aside
  name: 16, //     char *pw_name, char *gr_name: the first field
  id: 32, //       uid_t pw_uid, gid_t gr_gid: after two pointers
  strings: 144, // char buf[]: where the names go
} as const;

/**
 * Reads the name out of memory that getpwuid_r or getgrgid_r has filled.
 *
 * The call stores the address of our own structure at `result`; the name's offset follows from
 * that, so no pointer is ever followed (some permission modes forbid it), and one that leads out
 * of the memory is noticed.
 *
 * @returns `null` if there is no such account, `undefined` if the answer makes no sense.
 */
export function decodeAccountName(memory: Uint8Array, id: number): string | null | undefined {
  const view = new DataView(memory.buffer, memory.byteOffset, memory.byteLength);
  const pointer = (offset: number) => view.getBigUint64(offset, LITTLE_ENDIAN);
  if (pointer(ACCOUNT.result) === 0n) return null;
  if (view.getUint32(ACCOUNT.id, LITTLE_ENDIAN) !== id) return undefined;
  const start = Number(pointer(ACCOUNT.name) - pointer(ACCOUNT.result)) + ACCOUNT.struct;
  if (start < ACCOUNT.strings || start >= memory.byteLength) return undefined;
  const end = memory.indexOf(0, start);
  if (end <= start) return undefined;
  try {
    return decoder.decode(memory.subarray(start, end));
  } catch {
    return undefined; // no UTF-8: read loosely, two accounts could have one name
  }
}

/**
 * Reads the id out of memory that getpwnam_r or getgrnam_r has filled; `null` if there is no such
 * account, `undefined` where it is no id.
 */
export function decodeAccountId(memory: Uint8Array): number | null | undefined {
  const view = new DataView(memory.buffer, memory.byteOffset, memory.byteLength);
  if (view.getBigUint64(ACCOUNT.result, LITTLE_ENDIAN) === 0n) return null;
  const id = view.getUint32(ACCOUNT.id, LITTLE_ENDIAN);
  return id === NO_ID ? undefined : id;
}

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
