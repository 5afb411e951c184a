/**
 * Linux: parsers of the files in /proc/PID. Sources: proc_pid_stat(5), proc_pid_status(5),
 * cgroups(7)
 */

import { NO_ID } from "../core/credentials.ts";
import type { ProcessIds } from "../core/peer.ts";
import type { Capabilities, Capability, SeccompMode } from "../core/process.ts";

/** `USER_HZ`, the clock ticks per second of /proc: 100 on every supported CPU. */
const TICKS_PER_SECOND = 100;

/**
 * Parses field 22 of /proc/PID/stat: the time from boot to the process's start, in ms, in steps of
 * 10.
 */
export function parseStartTime(stat: string): number | undefined {
  // Field 2 is the name in parentheses. The name may contain ")", so the last ")" of the line ends it.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return decimal(fields[22 - 3], (ticks) => ticks * (1000 / TICKS_PER_SECOND));
}

/**
 * Parses fields 3 and 9 of /proc/PID/stat: whether the main thread has ended or is ending. Some
 * files then read as empty or different: cmdline is empty, and cgroup v1 is "/".
 */
export function isEnding(stat: string): boolean {
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const flags = decimal(fields[9 - 3]);
  return flags === undefined || (flags & PF_EXITING) !== 0 || /^[ZXx]/.test(fields[0]!);
}

/** <linux/sched.h> */
const PF_EXITING = 0x4;

/** Parses the lines of /proc/PID/status, by name. */
export function parseStatus(status: string): ReadonlyMap<string, string> {
  const lines = new Map<string, string>();
  for (const line of status.split("\n")) {
    const colon = line.indexOf(":");
    const name = line.slice(0, colon);
    // A process cannot put a newline into its name: the kernel writes it as "\n". If a name occurs
    // twice nevertheless, the first line counts.
    if (colon > 0 && !lines.has(name)) lines.set(name, line.slice(colon + 1).trim());
  }
  return lines;
}

type Status = ReadonlyMap<string, string>;

/** Parses `Uid:` and `Gid:`: real, effective, saved, file system. */
export function parseIds(status: Status): ProcessIds | undefined {
  const uids = parseList(status.get("Uid"));
  const gids = parseList(status.get("Gid"));
  if (uids?.length !== 4 || gids?.length !== 4) return undefined;
  const [ruid, euid, suid, fsuid] = uids as [number, number, number, number];
  const [rgid, egid, sgid, fsgid] = gids as [number, number, number, number];
  return { ruid, euid, suid, fsuid, rgid, egid, sgid, fsgid };
}

/** Parses `Groups:`, the supplementary groups. */
export function parseGroups(status: Status): readonly number[] | undefined {
  const text = status.get("Groups");
  return text === "" ? [] : parseList(text);
}

/** Parses `NSpid:`, the process's pids, from the pid namespace of the /proc mount to the innermost one. */
export function parsePidNumbers(status: Status): readonly number[] | undefined {
  return parseList(status.get("NSpid"));
}

function parseList(text: string | undefined): readonly number[] | undefined {
  const numbers = text?.split(/\s+/).map((part) => decimal(part));
  return numbers?.every((number) => number !== undefined && number < NO_ID)
    ? numbers as number[]
    : undefined;
}

/** Parses `CapInh:` and the four other sets: 64 bits in hexadecimal. */
export function parseCapabilities(status: Status): Capabilities | undefined {
  const set = (name: string): readonly Capability[] | undefined => {
    const digits = status.get(name) ?? "";
    if (!/^[0-9a-f]{1,16}$/.test(digits)) return undefined;
    const bits = BigInt(`0x${digits}`);
    const found: Capability[] = [];
    for (let bit = 0; bit < 64; bit++) {
      if ((bits >> BigInt(bit)) & 1n) found.push(CAPABILITIES[bit] ?? `CAP_${bit}`);
    }
    return Object.freeze(found);
  };
  const effective = set("CapEff"), permitted = set("CapPrm"), inheritable = set("CapInh");
  const bounding = set("CapBnd"), ambient = set("CapAmb");
  if (!effective || !permitted || !inheritable || !bounding || !ambient) return undefined;
  return Object.freeze({ effective, permitted, inheritable, bounding, ambient });
}

/** Parses `NoNewPrivs:`. */
export function parseNoNewPrivs(status: Status): boolean | undefined {
  return ({ "0": false, "1": true } as const)[status.get("NoNewPrivs") as "0" | "1"];
}

/** Parses `Seccomp:`, a mode of <linux/seccomp.h>. */
export function parseSeccomp(status: Status): SeccompMode | undefined {
  return ({ "0": "off", "1": "strict", "2": "filter" } as const)[
    status.get("Seccomp") as "0" | "1" | "2"
  ];
}

/** Parses /proc/PID/loginuid or sessionid; `null` if the process has no login session. */
export function parseAuditId(text: string): number | null | undefined {
  return decimal(text.trim(), (id) => id === NO_ID ? null : id < NO_ID ? id : undefined);
}

/** Parses /proc/PID/cmdline: strings that each end in NUL. */
export function parseCmdline(text: string): readonly string[] {
  return Object.freeze((text.endsWith("\0") ? text.slice(0, -1) : text).split("\0"));
}

/**
 * Parses the target of /proc/PID/exe. The kernel appends " (deleted)" if the file was unlinked. A
 * file with a name that ends in " (deleted)" looks the same and counts as deleted.
 */
export function parseExe(target: string): { readonly path: string; readonly deleted: boolean } {
  const deleted = target.endsWith(DELETED);
  return { path: deleted ? target.slice(0, -DELETED.length) : target, deleted };
}

const DELETED = " (deleted)";

/** The paths of a process's control groups. */
export interface CgroupPaths {
  /** In the hierarchy that systemd uses: v2's, or on v1 the one named "systemd". */
  readonly path: string;
  /** In all other hierarchies. */
  readonly others: readonly string[];
}

/** Parses /proc/PID/cgroup. Lines are "number:controllers:path". */
export function parseCgroup(text: string): CgroupPaths | undefined {
  const paths = new Map<string, string>();
  for (const line of text.split("\n")) {
    const [, controllers, path] = /^\d+:([^:]*):(\/[^]*)$/.exec(line) ?? [];
    if (path !== undefined && !paths.has(controllers!)) paths.set(controllers!, path);
  }
  // Where v1 and v2 are both mounted, systemd puts the processes into its v1 hierarchy, too.
  const own = ["name=systemd", ""].find((controllers) => paths.has(controllers));
  if (own === undefined) return undefined;
  const others = [...paths].filter(([controllers]) => controllers !== own).map(([, path]) => path);
  return { path: paths.get(own)!, others };
}

/** Parses the target of /proc/PID/ns/NAME, "NAME:[number]". */
export function parseNamespace(target: string): number | undefined {
  return decimal(/^[a-z_]+:\[(\d+)\]$/.exec(target)?.[1]);
}

/** The options of a /proc mount that hides the processes of other users. */
export interface HidePid {
  /**
   * Whether other users' folders are unreadable, missing, or missing unless we may trace the
   * process.
   */
  readonly mode: "noaccess" | "invisible" | "ptraceable";
  /** Members of this group see all processes, except in the last mode. */
  readonly gid: number;
}

/** The values of `hidepid=`: names since Linux 5.8, numbers before. */
const HIDE_PID: { readonly [value: string]: HidePid["mode"] } = {
  ...{ 1: "noaccess", 2: "invisible", 4: "ptraceable" },
  ...{ noaccess: "noaccess", invisible: "invisible", ptraceable: "ptraceable" },
};

/**
 * Parses the options of the proc file system that was mounted last at /proc; `undefined` if it
 * hides nothing. Lines of /proc/PID/mountinfo: "… root mount-point options … - type source
 * super-options".
 */
export function parseHidePid(mountinfo: string): HidePid | undefined {
  let found: HidePid | undefined;
  for (const line of mountinfo.split("\n")) {
    const [, place, options] = /^\S+ \S+ \S+ \/ (\S+) .* - proc \S+ (\S+)$/.exec(line) ?? [];
    if (place !== "/proc" || options === undefined) continue;
    const valueOf = (name: string) =>
      options.split(",").find((one) => one.startsWith(`${name}=`))?.slice(name.length + 1);
    const value = valueOf("hidepid") ?? "";
    const mode = Object.hasOwn(HIDE_PID, value) ? HIDE_PID[value] : undefined;
    found = mode && { mode, gid: decimal(valueOf("gid")) ?? 0 };
  }
  return found;
}

function decimal<T = number>(text: string | undefined, to?: (number: number) => T): T | undefined {
  if (text === undefined || !/^\d{1,15}$/.test(text)) return undefined;
  return to === undefined ? Number(text) as T : to(Number(text));
}

/** Capabilities by bit. Source: <linux/capability.h> */
const CAPABILITIES: readonly Capability[] = [
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_DAC_READ_SEARCH",
  "CAP_FOWNER",
  "CAP_FSETID",
  "CAP_KILL",
  "CAP_SETGID",
  "CAP_SETUID",
  "CAP_SETPCAP",
  "CAP_LINUX_IMMUTABLE",
  "CAP_NET_BIND_SERVICE",
  "CAP_NET_BROADCAST",
  "CAP_NET_ADMIN",
  "CAP_NET_RAW",
  "CAP_IPC_LOCK",
  "CAP_IPC_OWNER",
  "CAP_SYS_MODULE",
  "CAP_SYS_RAWIO",
  "CAP_SYS_CHROOT",
  "CAP_SYS_PTRACE",
  "CAP_SYS_PACCT",
  "CAP_SYS_ADMIN",
  "CAP_SYS_BOOT",
  "CAP_SYS_NICE",
  "CAP_SYS_RESOURCE",
  "CAP_SYS_TIME",
  "CAP_SYS_TTY_CONFIG",
  "CAP_MKNOD",
  "CAP_LEASE",
  "CAP_AUDIT_WRITE",
  "CAP_AUDIT_CONTROL",
  "CAP_SETFCAP",
  "CAP_MAC_OVERRIDE",
  "CAP_MAC_ADMIN",
  "CAP_SYSLOG",
  "CAP_WAKE_ALARM",
  "CAP_BLOCK_SUSPEND",
  "CAP_AUDIT_READ",
  "CAP_PERFMON",
  "CAP_BPF",
  "CAP_CHECKPOINT_RESTORE",
];
