/** Groups that have only one user: distributions with umask 002 give every user such a group. */

import { nodeFs } from "../adapters/builtins.ts";
import { openedSystem, type System } from "../adapters/select.ts";
import { readText } from "./proc_files.ts";
import { isAmbiguous } from "./overflow_ids.ts";

/** The files that say who is in a group, and which other sources of accounts there are. */
export interface AccountFiles {
  /** passwd(5) */
  readonly passwd: string;
  /** group(5) */
  readonly group: string;
  /** nsswitch.conf(5), "" where there is none. */
  readonly nsswitch: string;
  /** subgid(5), "" where there is none. */
  readonly subgid: string;
  /** What is in the folders of user records of systemd, and its services that know of users. */
  readonly userRecords: readonly string[];
}

/**
 * Whether a group has only this user as a member, so that what the group may do the user may do.
 *
 * It is certain only where all accounts are in /etc/passwd and /etc/group: a directory (LDAP, sssd,
 * winbind) may have members that it does not list. `false` wherever it is not certain, and always for
 * root's group, in which containers run programs of users that are in no file.
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

/** {@link isPrivateGroup}, by what is in the files. */
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
  // With a password newgrp(1) takes anybody in; "x" leads to gshadow(5), which sshd trusts as well.
  return entries.every(([, password, , members]) =>
    /^[x!*]*$/.test(password!) && members!.split(",").every(isOwn)
  ) && !isSubordinate(files.subgid, gid);
}

/** Whether no other source than passwd and group knows of users or groups. */
function isComplete({ nsswitch, userRecords }: AccountFiles): boolean {
  const lines = nsswitch.split("\n").map((line) => line.replace(/#.*/, "").trim());
  for (const database of ["passwd", "group", "initgroups"]) {
    for (const line of lines) {
      if (!line.startsWith(`${database}:`)) continue;
      const sources = line.slice(database.length + 1).replace(/\[[^\]]*\]/g, " ").trim();
      if (!sources.split(/\s+/).every((source) => /^(files|systemd)?$/.test(source))) return false;
    }
  }
  return userRecords.length === 0;
}

/** The lines of a file as fields; `undefined` where one is not of its form, as "+" of NIS. */
function recordsOf(text: string, fields: number): readonly (readonly string[])[] | undefined {
  const records = text.split("\n").filter((line) => line !== "").map((line) => line.split(":"));
  const isWhole = (record: readonly string[]) =>
    record.length === fields && /^[^+-]/.test(record[0]!) && /^[0-9]+$/.test(record[2]!) &&
    (fields < 7 || /^[0-9]+$/.test(record[3]!));
  return records.length > 0 && records.every(isWhole) ? records : undefined;
}

/** Whether some user may use the group in a user namespace. Lines of "user:first:count". */
function isSubordinate(subgid: string, gid: number): boolean {
  return subgid.split("\n").some((line) => {
    const [, first, count] = line.split(":").map(Number);
    return first !== undefined && count !== undefined && gid >= first && gid < first + count;
  });
}

/** Longer files are of a system whose accounts are not looked through for this. */
const MAX_BYTES = 16 << 20;

/** ENOENT, <asm-generic/errno-base.h> */
const ENOENT = 2;

function readAccountFiles(system: System): AccountFiles | undefined {
  const { linux } = system.libc;
  if (linux === undefined) return undefined;
  const read = (path: string, ifMissing?: string) => {
    const text = readText(system, linux, path, MAX_BYTES);
    return text === -ENOENT ? ifMissing : typeof text === "string" ? text : undefined;
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

/** Folders of user records, userdbctl(1): systemd's source of accounts reads them. */
const RECORD_FOLDERS: readonly string[] = [
  "/etc/userdb",
  "/run/userdb",
  "/run/host/userdb",
  "/usr/lib/userdb",
];

/** Services of systemd that add no member to a group of /etc/group: their users have groups of their own. */
const HARMLESS_SERVICES: readonly string[] = [
  "io.systemd.DropIn",
  "io.systemd.DynamicUser",
  "io.systemd.Machine",
  "io.systemd.Multiplexer",
  "io.systemd.NameServiceSwitch",
  "io.systemd.NamespaceResource",
];

/** `undefined` where that cannot be read. */
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
