/**
 * A file that stays open, with a check that its descriptor number still refers to it.
 *
 * Other code of the process may close a descriptor that it does not own, and the kernel then reuses
 * the number for the next file or connection: see docs/upstream-reports.md.
 */

import { nodeFs } from "../adapters/builtins.ts";

/** A descriptor of node:fs that we own. */
export class KeptFile {
  readonly fd: number;
  readonly #device: bigint;
  readonly #inode: bigint;

  /**
   * @param fd A descriptor that was just opened.
   * @throws {Error} If fstat(2) fails, as on a FUSE file system that has ended. The descriptor is then closed.
   */
  constructor(fd: number) {
    this.fd = fd;
    try {
      const { dev, ino } = nodeFs().fstatSync(fd, { bigint: true });
      this.#device = dev;
      this.#inode = ino;
    } catch (error) {
      nodeFs().closeSync(fd);
      throw error;
    }
  }

  /** Reports whether the number still refers to this file. */
  isOurs(): boolean {
    try {
      const { dev, ino } = nodeFs().fstatSync(this.fd, { bigint: true });
      return dev === this.#device && ino === this.#inode;
    } catch {
      return false; // other code has closed it
    }
  }

  /** Closes the file, unless its number refers to something else by now. */
  close(): void {
    if (this.isOurs()) nodeFs().closeSync(this.fd);
  }
}
