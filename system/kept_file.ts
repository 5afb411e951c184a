/**
 * A file that is kept open by its number, and the proof that the number still means it.
 *
 * Other code of the process may close a number that is not its own, and the next file or connection gets
 * it: see docs/upstream-reports.md.
 */

import { nodeFs } from "../adapters/builtins.ts";

/** Owns a descriptor of node:fs. */
export class KeptFile {
  readonly fd: number;
  readonly #device: bigint;
  readonly #inode: bigint;

  constructor(fd: number) {
    this.fd = fd;
    const { dev, ino } = nodeFs().fstatSync(fd, { bigint: true });
    this.#device = dev;
    this.#inode = ino;
  }

  /** Whether the number still means this file. */
  isOurs(): boolean {
    try {
      const { dev, ino } = nodeFs().fstatSync(this.fd, { bigint: true });
      return dev === this.#device && ino === this.#inode;
    } catch {
      return false; // other code has closed it
    }
  }

  /** Closes it, unless the number means something else by now. */
  close(): void {
    if (this.isOurs()) nodeFs().closeSync(this.fd);
  }
}
