/** Pseudoterminals: pty(7). */

import { nodeFs } from "../adapters/builtins.ts";
import type { Memory } from "../adapters/libc.ts";
import { openedSystem, type System } from "../adapters/select.ts";
import { UcredError } from "../core/errors.ts";
import { O_CLOEXEC } from "../ffi/linux.ts";
import { SYS_GETSID, TERMINAL_IOCTLS, WINSIZE_BYTES } from "../ffi/terminal.ts";
import { KeptFile } from "./kept_file.ts";
import { stolen } from "./owned_descriptor.ts";
import { syscallError } from "./syscall_error.ts";

/** The size of a terminal, in characters. */
export interface TerminalSize {
  /** At most 65535. */
  readonly columns: number;
  /** At most 65535. */
  readonly rows: number;
}

/** Completes "Cannot …" in errors. */
const WHAT = "open a terminal";

/** A pseudoterminal: the master, which we keep, and its slave, which a command receives. */
export class PseudoTerminal {
  readonly #system: System;
  /** `undefined` after it was closed. */
  #master: KeptFile | undefined;
  #slave: KeptFile | undefined;

  /**
   * Opens a pseudoterminal.
   *
   * @param uid The owner of the slave: the user of the command can then open it by its path.
   * @throws {UcredError} `ERR_UCRED_UNSUPPORTED` on other systems than Linux, and on CPUs with other ioctls (powerpc);
   * `ERR_UCRED_SYSCALL` if a call fails.
   * @throws {Error} As open(2) and fchown(2) report.
   */
  constructor(size: TerminalSize, uid: number, system: System = openedSystem()) {
    if (system.libc.linux === undefined || SYS_GETSID[system.abi.cpu] === undefined) {
      throw new UcredError(
        "ERR_UCRED_UNSUPPORTED",
        `Cannot ${WHAT}: the ioctls of this system are unknown`,
        {
          hint: "Run the helper on Linux on x64, arm64, riscv64, loong64 or s390x",
        },
      );
    }
    this.#system = system;
    const { constants, fchownSync, fstatSync, openSync } = nodeFs();
    const flags = constants.O_RDWR | constants.O_NOCTTY | O_CLOEXEC;
    try {
      this.#master = new KeptFile(openSync("/dev/ptmx", flags));
      const argument = system.libc.memory(4);
      this.#ioctl("TIOCSPTLCK", argument);
      this.#ioctl("TIOCGPTN", argument);
      this.#slave = new KeptFile(openSync(`/dev/pts/${argument.words[0]}`, flags));
      this.resize(size);
      fchownSync(this.slave, uid, fstatSync(this.slave).gid);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** The descriptor of the master, for one call that must follow immediately. */
  get master(): number {
    return fdOf(this.#master);
  }

  /** The descriptor of the slave, for one call that must follow immediately. */
  get slave(): number {
    return fdOf(this.#slave);
  }

  /** Sets the size. The kernel then sends SIGWINCH to the foreground process group. */
  resize({ columns, rows }: TerminalSize): void {
    const winsize = this.#system.libc.memory(WINSIZE_BYTES);
    new Uint16Array(winsize.bytes.buffer).set([rows, columns]);
    this.#ioctl("TIOCSWINSZ", winsize);
  }

  /** Closes the slave. */
  closeSlave(): void {
    this.#slave?.close();
    this.#slave = undefined;
  }

  /** Closes both. May be called again. */
  close(): void {
    this.closeSlave();
    this.#master?.close();
    this.#master = undefined;
  }

  #ioctl(name: keyof typeof TERMINAL_IOCTLS, argument: Memory): void {
    const result = this.#system.libc.linux!.ioctl(this.master, TERMINAL_IOCTLS[name], argument);
    if (result < 0) throw syscallError(this.#system, WHAT, "ioctl", -result);
  }
}

function fdOf(file: KeptFile | undefined): number {
  if (file?.isOurs() !== true) throw stolen("use a terminal");
  return file.fd;
}
