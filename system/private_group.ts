/** Detects groups with a single user, which distributions with umask 002 create for every user. */

import { nodeFs } from "../adapters/builtins.ts";
import { openedSystem, type System } from "../adapters/select.ts";
import { LINUX_ERRNO } from "../ffi/errno.ts";
import { readText } from "./proc_files.ts";
import { isAmbiguous } from "./overflow_ids.ts";

/**
 * The files that list members of groups, and those that show which other sources of accounts exist.
 */
export interface AccountFiles {
  /** passwd(5) */
  readonly passwd: string;
  /** group(5) */
  readonly group: string;
  /** nsswitch.conf(5); "" if there is none. */
  readonly nsswitch: string;
  /** subgid(5); "" if there is none. */
  readonly subgid: string;
  /** User records of systemd, and its services that provide users. */
  readonly userRecords: readonly string[];
}

/**
 * Reports whether this user is certainly the only member of a group, so that group permissions give
 * no other user access.
 *
 * That is certain only if all accounts are in /etc/passwd and /etc/group: a directory (LDAP, sssd,
 * winbind) may have members that it does not list. Otherwise the result is `false`. It is always
 * `false` for root's group, since containers run processes of any user with gid 0, which no file lists.
 */
export function isPrivateGroup(uid: number, gid: number, system: System = openedSystem()): boolean {
  if (
    uid === 0 || gid === 0 || isAmbiguous(system, "gid", gid) || isAmbiguous(system, "uid", uid)
  ) {
    return false;
  }
  const files = readAccountFiles(system);
  return files !== undefined && hasOneUser(files, uid, gid);
}

/** Decides {@link isPrivateGroup} from the contents of the files. */
export function hasOneUser(files: AccountFiles, uid: number, gid: number): boolean {
  if (!isComplete(files)) return false;
  const users = recordsOf(files.passwd, 7);
  const groups = recordsOf(files.group, 4);
  if (users === undefined || groups === undefined) return false;
  const own = `${uid}`;
  const id = `${gid}`;
  const primary = users.filter((user) => user[3] === id);
  if (primary.length === 0 || primary.some((user) => user[2] !== own)) return false;
  const entries = groups.filter((group) => group[2] === id);
  if (entries.length === 0) return false;
  const uids = new Map(users.map((user) => [user[0], user[2]]));
  const isOwn = (name: string) => name === "" || uids.get(name) === own;
  // With a group password, newgrp(1) admits every user who knows it. "x" refers to gshadow(5), which
  // sshd trusts as well.
  return entries.every(([, password, , members]) =>
    /^[x!*]*$/.test(password!) && members!.split(",").every(isOwn)
  ) && !isSubordinate(files.subgid, gid);
}

/**
 * A line of nsswitch.conf(5) about users or groups. glibc does not require the colon, and shadow
 * ignores the case of "subid".
 */
const DATABASE = /^(?:passwd|group|initgroups|subid)(?:[\s:]+|$)/i;

/** The actions after a source: "[SUCCESS=merge]", "[!UNAVAIL=return TRYAGAIN=continue]". */
const ACTIONS =
  /\[(?:\s*!?(?:success|notfound|unavail|tryagain)\s*=\s*(?:return|continue|merge))+\s*\]/gi;

/**
 * Reports whether passwd, group and subgid are the only sources of users and groups. A line that cannot
 * be parsed counts as another source.
 */
function isComplete({ nsswitch, userRecords }: AccountFiles): boolean {
  const lines = nsswitch.split("\n").map((line) => line.replace(/#.*/, "").trim());
  const isKnown = (line: string) =>
    line.replace(DATABASE, "").replace(ACTIONS, " ").trim().split(/\s+/)
      .every((source) => source === "files" || source === "systemd");
  return userRecords.length === 0 && lines.every((line) => !DATABASE.test(line) || isKnown(line));
}

/** Splits a file into records; `undefined` if a line is malformed, for example "+" of NIS. */
function recordsOf(text: string, fields: number): readonly (readonly string[])[] | undefined {
  const records = text.split("\n").filter((line) => line !== "").map((line) => line.split(":"));
  const isWhole = (record: readonly string[]) =>
    record.length === fields && /^[^+-]/.test(record[0]!) && /^[0-9]+$/.test(record[2]!) &&
    (fields < 7 || /^[0-9]+$/.test(record[3]!));
  return records.length > 0 && records.every(isWhole) ? records : undefined;
}

/** Reports whether a user may map the group into a user namespace. Lines are "user:first:count". */
function isSubordinate(subgid: string, gid: number): boolean {
  return subgid.split("\n").some((line) => {
    const [, first, count] = line.split(":").map(Number);
    return first !== undefined && count !== undefined && gid >= first && gid < first + count;
  });
}

/** Maximum size of an account file; longer ones count as unreadable. */
const MAX_BYTES = 16 << 20;

function readAccountFiles(system: System): AccountFiles | undefined {
  const { linux } = system.libc;
  if (linux === undefined) return undefined;
  const read = (path: string, ifMissing?: string) => {
    const text = readText(system, linux, path, MAX_BYTES);
    return text === -LINUX_ERRNO.ENOENT ? ifMissing : typeof text === "string" ? text : undefined;
  };
  const passwd = read("/etc/passwd");
  const group = read("/etc/group");
  const nsswitch = read("/etc/nsswitch.conf", "");
  const subgid = read("/etc/subgid", "");
  const userRecords = readUserRecords();
  if (
    passwd === undefined || group === undefined || nsswitch === undefined ||
    subgid === undefined || userRecords === undefined
  ) return undefined;
  return { passwd, group, nsswitch, subgid, userRecords };
}

/** Folders of user records that systemd reads: userdbctl(1). */
const RECORD_FOLDERS: readonly string[] = [
  "/etc/userdb",
  "/run/userdb",
  "/run/host/userdb",
  "/usr/lib/userdb",
];

/**
 * systemd services that add no members to groups of /etc/group: their users have groups of their
 * own.
 */
const HARMLESS_SERVICES: readonly string[] = [
  "io.systemd.DropIn",
  "io.systemd.DynamicUser",
  "io.systemd.Machine",
  "io.systemd.Multiplexer",
  "io.systemd.NameServiceSwitch",
  "io.systemd.NamespaceResource",
];

/** Lists user records and services; `undefined` if they cannot be read. */
function readUserRecords(): readonly string[] | undefined {
  const files = nodeFs();
  const namesIn = (folder: string) => {
    try {
      return files.readdirSync(folder);
    } catch (error) {
      if ((error as { readonly code?: unknown }).code === "ENOENT") return [];
      throw error;
    }
  };
  try {
    const services = namesIn("/run/systemd/userdb");
    return [
      ...RECORD_FOLDERS.flatMap(namesIn),
      ...services.filter((name) => !HARMLESS_SERVICES.includes(name)),
    ];
  } catch {
    return undefined;
  }
}
