/** Selects the numbers, layouts and names of the C library by operating system and CPU. */

import { BSD_OPTIONS, decodeBsdFamily } from "./bsd.ts";
import {
  DARWIN_ERRNO,
  type Errno,
  type ErrnoNames,
  FREEBSD_ERRNO,
  LINUX_ERRNO,
  namesOf,
} from "./errno.ts";
import { decodeLinuxFamily, LINUX_OPTIONS, type LinuxOptions } from "./linux.ts";

/** The ABI of one system's C library. */
export type Abi = LinuxAbi | BsdAbi;

interface AnyAbi {
  /** `process.arch` */
  readonly cpu: string;
  /** Error numbers by name. */
  readonly errno: Errno;
  /** The names of error numbers. */
  readonly errnoNames: ErrnoNames;
  /** The socket options that every system has. */
  readonly options: { readonly SOL_SOCKET: number; readonly SO_ACCEPTCONN: number };
  /** Decodes `sa_family` from the answer of getsockname(2). */
  readonly family: (address: Uint8Array) => number;
  /** Paths of the C library, most specific first, for loaders that need a path. */
  readonly libraryPaths: readonly string[];
  /** The name by which the dynamic loader finds the library that is already loaded; on macOS a path. */
  readonly libraryName: string;
}

/** Linux, glibc or musl. */
export interface LinuxAbi extends AnyAbi {
  readonly os: "linux";
  readonly options: LinuxOptions;
}

/** macOS or FreeBSD. */
export interface BsdAbi extends AnyAbi {
  readonly os: "darwin" | "freebsd";
  readonly options: typeof BSD_OPTIONS;
}

/** The byte order of this machine. */
export const LITTLE_ENDIAN: boolean = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/** `AF_UNIX`, <sys/socket.h>: 1 on every system. */
export const AF_UNIX = 1;

/** Operations of flock(2), <sys/file.h>: the same on every system. */
export const FLOCK = { EX: 2, NB: 4 } as const;

const LINUX_NAMES = namesOf(LINUX_ERRNO);
const DARWIN_NAMES = namesOf(DARWIN_ERRNO);
const FREEBSD_NAMES = namesOf(FREEBSD_ERRNO);

/** The systems that {@link abiOf} supports, for error messages. */
export const SUPPORTED =
  "Linux (x64, arm64, riscv64, s390x, loong64, ppc64), macOS and FreeBSD (x64, arm64)";

/**
 * Returns the ABI of an operating system and CPU, named as in `process.platform` and
 * `process.arch`.
 */
export function abiOf(os: string, cpu: string): Abi | undefined {
  if (os === "linux") return linux(cpu);
  if (cpu !== "x64" && cpu !== "arm64") return undefined;
  const bsd = { cpu, options: BSD_OPTIONS, family: decodeBsdFamily };
  if (os === "darwin") {
    const path = "/usr/lib/libSystem.B.dylib";
    return {
      os,
      ...bsd,
      errno: DARWIN_ERRNO,
      errnoNames: DARWIN_NAMES,
      libraryPaths: [path],
      libraryName: path,
    };
  }
  if (os === "freebsd") {
    const name = "libc.so.7";
    return {
      os,
      ...bsd,
      errno: FREEBSD_ERRNO,
      errnoNames: FREEBSD_NAMES,
      libraryPaths: [`/lib/${name}`],
      libraryName: name,
    };
  }
  return undefined;
}

function linux(cpu: string): LinuxAbi | undefined {
  const options = Object.hasOwn(LINUX_OPTIONS, cpu) ? LINUX_OPTIONS[cpu] : undefined;
  if (options === undefined) return undefined;
  const machine = MACHINES[cpu] ?? cpu;
  return {
    os: "linux",
    cpu,
    options,
    errno: LINUX_ERRNO,
    errnoNames: LINUX_NAMES,
    family: decodeLinuxFamily,
    libraryPaths: [
      `/lib/${machine}-linux-gnu/libc.so.6`, //     Debian, Ubuntu
      `/usr/lib/${machine}-linux-gnu/libc.so.6`, // the same file since they merged /usr
      "/lib64/libc.so.6", //                        Fedora, RHEL, openSUSE, Arch
      "/usr/lib64/libc.so.6",
      "/usr/lib/libc.so.6", //                      Arch
      "/lib/libc.so.6",
      `/lib/ld-musl-${machine}.so.1`, //            Alpine: the loader is the C library
      `/lib/libc.musl-${machine}.so.1`,
    ],
    // musl's loader accepts this name, too (ldso/dynlink.c, "reserved" library names).
    libraryName: "libc.so.6",
  };
}

/** GNU's names of the CPUs that the runtimes name differently. */
const MACHINES: { readonly [cpu: string]: string } = {
  x64: "x86_64",
  arm64: "aarch64",
  loong64: "loongarch64",
  ppc64: "powerpc64le",
};
