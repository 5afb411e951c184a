/** Makes calls of the C library fail, for tests of a program's error paths. */

import type { Libc } from "../adapters/libc.ts";
import { openedSystem, type Remembered, replaceSystem } from "../adapters/select.ts";
import { UcredError } from "../core/errors.ts";
import { type OptionNames, requireOptions } from "../core/options.ts";
import { show, suggest } from "../core/policy/document/shape.ts";
import type { Abi } from "../ffi/abi.ts";

/**
 * The calls that fail, each with the name of its errno, such as `"EPERM"`. All other calls work as before.
 */
export interface FailingCalls {
  /** Credentials: `SO_PEERCRED`; on macOS and FreeBSD `LOCAL_PEERCRED`. `peerCredentials()` throws. */
  readonly SO_PEERCRED?: string | undefined;
  /** Supplementary groups, on Linux: `groups` is unknown. */
  readonly SO_PEERGROUPS?: string | undefined;
  /** The security label, on Linux: `label` is unknown. */
  readonly SO_PEERSEC?: string | undefined;
  /** The pidfd, on Linux: the peer is pinned in another way, or not at all. */
  readonly SO_PEERPIDFD?: string | undefined;
  /** Names of users by uid: `user` is unknown. */
  readonly getpwuid_r?: string | undefined;
  /** Names of groups by gid: `groupNames` is unknown. */
  readonly getgrgid_r?: string | undefined;
  /** Users by name, in policies. */
  readonly getpwnam_r?: string | undefined;
  /** Groups by name, in policies. */
  readonly getgrnam_r?: string | undefined;
  /** Opening files in `/proc`, on Linux: the facts of the process are unknown. */
  readonly open?: string | undefined;
}

const CALL_NAMES: OptionNames<FailingCalls> = {
  SO_PEERCRED: true,
  SO_PEERGROUPS: true,
  SO_PEERSEC: true,
  SO_PEERPIDFD: true,
  getpwuid_r: true,
  getgrgid_r: true,
  getpwnam_r: true,
  getgrnam_r: true,
  open: true,
};

const LINUX_ONLY = ["SO_PEERGROUPS", "SO_PEERSEC", "SO_PEERPIDFD", "open"] as const;

/** The result of {@link failCalls}. */
export interface FailedCalls {
  /** Lets all calls work again. */
  restore(): void;
  /** Lets all calls work again, at the end of a `using` block. */
  [Symbol.dispose](): void;
}

/** Whether calls fail now. */
let isActive = false;

/**
 * Makes calls of the C library fail, in this thread, until `restore()`. The calls are those of ucred; other
 * code of the process is not affected. A call never returns a wrong answer: it fails, or it works.
 *
 * Peers and policies that exist already keep what they have read.
 *
 * @param calls Call → name of the errno.
 * @throws {TypeError} If there is no such call on this system, or no such errno.
 * @throws {UcredError} `ERR_UCRED_UNSUPPORTED` if calls fail already, or if libc cannot be called.
 *
 * @example A server refuses a client whose credentials cannot be read
 * ```ts
 * import { connect } from "node:net";
 * import { createServer } from "ucred/net";
 * import { failCalls } from "ucred/testing";
 *
 * const server = createServer({ policy: "anyone" }, (socket) => void socket.end("welcome"));
 * server.listen("failing.sock", () => {
 *   const failed = failCalls({ SO_PEERCRED: "EPERM" });
 *   connect("failing.sock").resume().once("close", () => {
 *     failed.restore();
 *     console.log(server.stats().refused.unidentified); // 1
 *     server.close();
 *   }).on("error", () => {});
 * });
 * ```
 */
export function failCalls(calls: FailingCalls): FailedCalls {
  requireOptions("failCalls()", calls, CALL_NAMES);
  const system = openedSystem();
  const errnos = errnosOf(calls, system.abi);
  if (isActive) {
    const hint = "Call restore() of the previous result";
    const message = "Cannot make calls fail: failCalls() is in use already";
    throw new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint });
  }
  const remembered: Remembered = {
    verified: [],
    groups: new Map(),
    overflowIds: system.remembered.overflowIds,
    mapsEvery: system.remembered.mapsEvery,
  };
  replaceSystem({ ...system, libc: failingLibc(system.libc, system.abi, errnos), remembered });
  isActive = true;
  let isRestored = false;
  const restore = () => {
    if (isRestored) return;
    isRestored = true;
    isActive = false;
    replaceSystem(system);
  };
  return { restore, [Symbol.dispose]: restore };
}

type Errnos = { readonly [call in keyof FailingCalls]: number };

function errnosOf(calls: FailingCalls, { os, errno }: Abi): Errnos {
  const numbers: { readonly [name: string]: number } = errno;
  const found = Object.entries(calls).filter(([, name]) => name !== undefined).map(
    ([call, name]) => {
      if (os !== "linux" && (LINUX_ONLY as readonly string[]).includes(call)) {
        throw new TypeError(`failCalls(): ${call} exists only on Linux`);
      }
      if (typeof name === "string" && Object.hasOwn(numbers, name)) return [call, numbers[name]];
      const meant = typeof name === "string" ? suggest(name, Object.keys(numbers)) : "";
      throw new TypeError(`failCalls(): ${call} has no errno ${show(name)}${meant}`);
    },
  );
  return Object.fromEntries(found);
}

function failingLibc(libc: Libc, { options, os }: Abi, errnos: Errnos): Libc {
  const level = os === "linux" ? options.SOL_SOCKET : options.SOL_LOCAL;
  const failing = new Map<number, number | undefined>(
    os === "linux"
      ? [
        [options.SO_PEERCRED, errnos.SO_PEERCRED],
        [options.SO_PEERGROUPS, errnos.SO_PEERGROUPS],
        [options.SO_PEERSEC, errnos.SO_PEERSEC],
        [options.SO_PEERPIDFD, errnos.SO_PEERPIDFD],
      ]
      : [[options.LOCAL_PEERCRED, errnos.SO_PEERCRED]],
  );
  const { getpwuid_r, getgrgid_r, getpwnam_r, getgrnam_r, open } = errnos;
  const { linux } = libc;
  return {
    ...libc,
    getsockopt: (fd, at, name, value, size) =>
      (at === level ? failing.get(name) : undefined) ?? libc.getsockopt(fd, at, name, value, size),
    getpwuid_r: (uid, memory) => getpwuid_r ?? libc.getpwuid_r(uid, memory),
    getgrgid_r: (gid, memory) => getgrgid_r ?? libc.getgrgid_r(gid, memory),
    getpwnam_r: (name, memory) => getpwnam_r ?? libc.getpwnam_r(name, memory),
    getgrnam_r: (name, memory) => getgrnam_r ?? libc.getgrnam_r(name, memory),
    linux: linux && {
      ...linux,
      open: (path, flags) => open === undefined ? linux.open(path, flags) : -open,
    },
  };
}
