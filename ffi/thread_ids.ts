/** Linux: the system calls that read and change the ids and capabilities of one thread. */

/** The numbers of these calls on one CPU family. */
export interface ThreadCalls {
  readonly getgroups: number;
  readonly setgroups: number;
  readonly getresuid: number;
  readonly setresuid: number;
  readonly getresgid: number;
  readonly setresgid: number;
  readonly setfsuid: number;
  readonly setfsgid: number;
  readonly capget: number;
  readonly capset: number;
  readonly prctl: number;
  readonly exit_group: number;
}

/** Source: <asm-generic/unistd.h> */
const GENERIC: ThreadCalls = {
  getgroups: 158,
  setgroups: 159,
  getresuid: 148,
  setresuid: 147,
  getresgid: 150,
  setresgid: 149,
  setfsuid: 151,
  setfsgid: 152,
  capget: 90,
  capset: 91,
  prctl: 167,
  exit_group: 94,
};

/** By CPU, named as in `process.arch`. Sources: <asm/unistd_64.h> of each, syscall.tbl of the kernel. */
export const THREAD_CALLS: { readonly [cpu: string]: ThreadCalls } = {
  x64: {
    getgroups: 115,
    setgroups: 116,
    getresuid: 118,
    setresuid: 117,
    getresgid: 120,
    setresgid: 119,
    setfsuid: 122,
    setfsgid: 123,
    capget: 125,
    capset: 126,
    prctl: 157,
    exit_group: 231,
  },
  arm64: GENERIC,
  riscv64: GENERIC,
  loong64: GENERIC,
  s390x: {
    getgroups: 205,
    setgroups: 206,
    getresuid: 209,
    setresuid: 208,
    getresgid: 211,
    setresgid: 210,
    setfsuid: 215,
    setfsgid: 216,
    capget: 184,
    capset: 185,
    prctl: 172,
    exit_group: 248,
  },
  ppc64: {
    getgroups: 80,
    setgroups: 81,
    getresuid: 165,
    setresuid: 164,
    getresgid: 170,
    setresgid: 169,
    setfsuid: 138,
    setfsgid: 139,
    capget: 183,
    capset: 184,
    prctl: 171,
    exit_group: 234,
  },
};

/** `PR_GET_KEEPCAPS`, `PR_SET_KEEPCAPS`, <linux/prctl.h> */
export const KEEPCAPS = { get: 7, set: 8 } as const;

/** `struct __user_cap_header_struct`, <linux/capability.h>: the version, and the thread (0: our own). */
export const CAPABILITY_HEADER = { size: 8, version: 0, pid: 4 } as const;

/** `_LINUX_CAPABILITY_VERSION_3`, <linux/capability.h> */
export const CAPABILITY_VERSION = 0x20080522;

/**
 * `struct __user_cap_data_struct [2]`, <linux/capability.h>: effective, permitted and inheritable, 32
 * bits each, for capabilities 0 to 31 and then for the others.
 */
export const CAPABILITY_DATA = { size: 24, effective: 0 } as const;

/** `CAP_SETGID`, `CAP_SETUID`, <linux/capability.h>: bits of the first words. */
export const CAPABILITY = { SETGID: 1 << 6, SETUID: 1 << 7 } as const;

/** (uid_t) −1 as an argument: leaves an id as it is, and setfsuid(2) then only returns it. */
export const KEEP_ID = -1;
