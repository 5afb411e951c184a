/** struct passwd and struct group: their layout, and decoders that follow no pointer. */

import { NO_ID } from "../core/credentials.ts";
import { LITTLE_ENDIAN } from "./abi.ts";

/**
 * The layout of the memory for one getpwuid_r(3) or getgrgid_r(3). The fields have the same offsets
 * in `struct passwd` and `struct group` on every supported 64-bit system. Sources: <pwd.h> and
 * <grp.h> of glibc, musl, macOS and FreeBSD.
 */
export const ACCOUNT = {
  result: 0, // struct passwd **: receives the pointer to the answer
  struct: 16, // struct passwd: at most 80 bytes (FreeBSD); 128 are reserved
  name: 16, //     char *pw_name, char *gr_name: the first field
  id: 32, //       uid_t pw_uid, gid_t gr_gid: after two pointers
  strings: 144, // char buf[]: receives the names
} as const;

/**
 * Decodes the name from memory that getpwuid_r or getgrgid_r has filled.
 *
 * The call stores the address of our own structure at `result`, and the name's offset is computed
 * from it. So no pointer is followed (some permission modes forbid it), and a pointer outside the
 * memory is detected.
 *
 * @returns `null` if there is no such account, `undefined` if the answer is malformed.
 */
export function decodeAccountName(memory: Uint8Array, id: number): string | null | undefined {
  const view = new DataView(memory.buffer, memory.byteOffset, memory.byteLength);
  const pointer = (offset: number) => view.getBigUint64(offset, LITTLE_ENDIAN);
  if (pointer(ACCOUNT.result) === 0n) return null;
  if (view.getUint32(ACCOUNT.id, LITTLE_ENDIAN) !== id) return undefined;
  const start = Number(pointer(ACCOUNT.name) - pointer(ACCOUNT.result)) + ACCOUNT.struct;
  if (start < ACCOUNT.strings) return undefined;
  const end = memory.indexOf(0, start); // −1 if `start` is outside
  if (end <= start) return undefined;
  try {
    return decoder.decode(memory.subarray(start, end));
  } catch {
    return undefined; // not UTF-8: with replacement characters, two accounts could have the same name
  }
}

/**
 * Decodes the id from memory that getpwnam_r or getgrnam_r has filled; `null` if there is no such
 * account, `undefined` if it is not an id.
 */
export function decodeAccountId(memory: Uint8Array): number | null | undefined {
  const view = new DataView(memory.buffer, memory.byteOffset, memory.byteLength);
  if (view.getBigUint64(ACCOUNT.result, LITTLE_ENDIAN) === 0n) return null;
  const id = view.getUint32(ACCOUNT.id, LITTLE_ENDIAN);
  return id === NO_ID ? undefined : id;
}

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
