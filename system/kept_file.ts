/**
 * A file that is kept open by its number, and the proof that the number still means it.
 *
 * Other code of the process may close a number that is not its own, and the next file or connection gets
 * it: see docs/upstream-reports.md.
 */

import { builtinModule } from "../adapters/host.ts";

interface Files {
  closeSync(fd: number): void;
  fstatSync(fd: number, options: { readonly bigint: true }): {
    readonly dev: bigint;
    readonly ino: bigint;
  };
}

const files = (): Files => builtinModule("node:fs") as Files;

/** Owns a descriptor of node:fs. */
export class KeptFile {
  readonly fd: number;
  readonly #device: bigint;
  readonly #inode: bigint;

  constructor(fd: number) {
    this.fd = fd;
    const { dev, ino } = files().fstatSync(fd, { bigint: true });
    this.#device = dev;
    this.#inode = ino;
  }

  /** Whether the number still means this file. */
  isOurs(): boolean {
    try {
      const { dev, ino } = files().fstatSync(this.fd, { bigint: true });
      return dev === this.#device && ino === this.#inode;
    } catch {
      return false; // other code has closed it
    }
  }

  /** Closes it, unless the number means something else by now. */
  close(): void {
    if (this.isOurs()) files().closeSync(this.fd);
  }
}
