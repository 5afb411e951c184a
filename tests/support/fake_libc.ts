/** A system with answers that a test chooses, through the runtime's real FFI. See fake_libc.c. */

import { readFileSync, writeFileSync } from "node:fs";
import { Buffer } from "node:buffer";
import { join } from "node:path";
import { host } from "../../adapters/host.ts";
import { openSystem, type System } from "../../adapters/select.ts";
import { compileLibrary, temporaryFolder } from "./compile.ts";

const CALLS = {
  getsockopt: 1,
  getsockname: 2,
  getpwuid_r: 3,
  getgrgid_r: 4,
  open: 5,
  read: 6,
  getpeername: 7,
  getpwnam_r: 8,
  getgrnam_r: 9,
} as const;

/** The pointer that an account call returns. */
export const ACCOUNT_ANSWER = { found: 0, missing: 1, outside: 2, otherId: 3 } as const;

/** The answer of one call. Omitted fields mean success, without an answer. */
export interface Answer {
  readonly call: keyof typeof CALLS;
  /** {@link option}, an id, or the length of a path. */
  readonly key?: number;
  readonly result?: number;
  readonly error?: number;
  /** The call fails with ERANGE if its buffer is smaller. */
  readonly need?: number;
  /** The length that is reported; unchanged by default. For accounts, {@link ACCOUNT_ANSWER}. */
  readonly size?: number;
  readonly bytes?: Uint8Array;
}

/** Returns the key of a socket option. */
export const option = (level: number, name: number): number => level * 0x10000 + name;

/** Returns 32-bit words as bytes. */
export const words = (...values: number[]): Uint8Array =>
  new Uint8Array(Uint32Array.from(values, (value) => value >>> 0).buffer);

/** A C library under the test's control. */
export class FakeLibc {
  readonly #library: string;
  readonly #script: string;
  readonly #calls: string;

  constructor() {
    const folder = temporaryFolder();
    this.#script = join(folder, "script");
    this.#calls = join(folder, "calls");
    const define = (name: string, path: string) => `-D${name}="${path}"`;
    const source = new URL("fake_libc.c", import.meta.url);
    const flags = [define("SCRIPT", this.#script), define("CALLS", this.#calls)];
    this.#library = compileLibrary(source, ...flags);
  }

  /** Opens the library as that of an operating system and CPU, with empty caches. */
  open(os: string = host().os, cpu: string = host().cpu): System {
    return openSystem({ ...host(), os, cpu }, this.#library);
  }

  /** Sets the answers of the following calls: each call uses the first answer with its key. */
  answer(...answers: readonly Answer[]): void {
    const records = answers.flatMap((answer) => {
      const { call, key = 0, result = 0, error = 0, need = 0, size = -1 } = answer;
      const { bytes = new Uint8Array() } = answer;
      const padding = new Uint8Array((4 - bytes.length % 4) % 4);
      return [words(CALLS[call], key, result, error, need, size, bytes.length), bytes, padding];
    });
    writeFileSync(this.#script, Buffer.concat(records));
    writeFileSync(this.#calls, "");
  }

  /** Returns the number of calls of this kind since the answers were set. */
  count(call: keyof typeof CALLS): number {
    return readFileSync(this.#calls).filter((number) => number === CALLS[call]).length;
  }
}
