/** A system that answers as a test says, through the runtime's real FFI. See fake_libc.c. */

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

/** What becomes of the pointer that an account call gives back. */
export const ACCOUNT_ANSWER = { found: 0, missing: 1, outside: 2, otherId: 3 } as const;

/** How one call answers. What is left out is success, without an answer. */
export interface Answer {
  readonly call: keyof typeof CALLS;
  /** {@link option}, an id, or the length of a path. */
  readonly key?: number;
  readonly result?: number;
  readonly error?: number;
  /** With less room than this: ERANGE. */
  readonly need?: number;
  /** The length that is reported; left alone by default. For accounts, {@link ACCOUNT_ANSWER}. */
  readonly size?: number;
  readonly bytes?: Uint8Array;
}

/** The key of a socket option. */
export const option = (level: number, name: number): number => level * 0x10000 + name;

/** 32-bit words as bytes. */
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

  /** The library as that of an operating system and CPU; a new system, which remembers nothing. */
  open(os: string = host().os, cpu: string = host().cpu): System {
    return openSystem({ ...host(), os, cpu }, this.#library);
  }

  /** Sets how calls answer from now on: for each call, the first answer with its key. */
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

  /** How many calls of this kind there were since the answers were set. */
  count(call: keyof typeof CALLS): number {
    return readFileSync(this.#calls).filter((number) => number === CALLS[call]).length;
  }
}
