/** `close_range(2)`, <asm-generic/unistd.h> and <linux/close_range.h>. */

/** The number of the system call: the same on each CPU that the runtimes support. */
export const SYS_CLOSE_RANGE = 436;

/** Since Linux 5.11: sets FD_CLOEXEC instead of closing. */
export const CLOSE_RANGE_CLOEXEC = 4;
