/** Linux: the number of the fstat(2) system call, and the structure that the kernel fills. */

/**
 * `fstat`, <asm/unistd.h>. Called by its number, since glibc exports `fstat` only since 2.33.
 * LoongArch has it since Linux 6.11.
 */
export const SYS_FSTAT: { readonly [cpu: string]: number } = {
  x64: 5,
  arm64: 80,
  riscv64: 80,
  loong64: 80,
  s390x: 108,
  ppc64: 108,
};

/**
 * `struct stat`, <asm/stat.h>: at most 144 bytes. On every CPU above it begins with the device and
 * the inode, 64 bits each.
 */
export const STAT = { size: 144, device: 0, inode: 8 } as const;
