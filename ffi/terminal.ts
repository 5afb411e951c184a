/** Linux: ioctls of pseudoterminals, and the system call that returns the session of a process. */

/** <asm-generic/ioctls.h>, which x64, arm64, riscv64, loong64 and s390x use. */
export const TERMINAL_IOCTLS = {
  /** Unlocks the slave, if the int is 0. */
  TIOCSPTLCK: 0x40045431,
  /** Returns the number of the slave in /dev/pts, an unsigned int. */
  TIOCGPTN: 0x80045430,
  /** Sets the size. */
  TIOCSWINSZ: 0x5414,
} as const;

/** `struct winsize`, <asm-generic/termios.h>: four unsigned 16-bit numbers: rows, columns, and pixels. */
export const WINSIZE_BYTES = 8;

/** `getsid`, <asm/unistd.h>. */
export const SYS_GETSID: { readonly [cpu: string]: number } = {
  x64: 124,
  arm64: 156,
  riscv64: 156,
  loong64: 156,
  s390x: 147,
};
