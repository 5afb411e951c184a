/** The file of a socket: its owner and mode, its folders and links, who may connect, and findings. */

import { type BigIntStats, realpathSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { isSticky, unsafeFolderReason } from "../core/ownership.ts";
import { accountName } from "../system/accounts.ts";
import { type BigFileStats, pathSteps } from "../system/path_owners.ts";
import { hasOwnGroupOnly, isTrusted } from "../system/trusted_owner.ts";
import { printable } from "./output.ts";

/** A file or folder with its owner and mode. */
export interface FileReport {
  readonly path: string;
  readonly uid: number;
  readonly gid: number;
  /** Octal, as for chmod(1). */
  readonly mode: string;
}

/** A symbolic link on the path, or a folder that contains one. */
export interface StepReport extends FileReport {
  readonly isLink: boolean;
}

/** A finding or a note. */
export interface Remark {
  readonly kind: string;
  readonly message: string;
}

/** A socket's file with everything on its path. */
export interface SocketFile {
  readonly file: FileReport;
  /** The folders from that of the socket up to "/". */
  readonly folders: readonly FileReport[];
  /** Symbolic links on the path, and the folders that contain them. */
  readonly via: readonly StepReport[];
}

/** Describes the file of a socket. */
export function socketFile(path: string, file: BigIntStats): SocketFile {
  const folders = foldersOf(dirname(realpathSync(path)));
  const isListed = ({ path }: FileReport) => folders.some((each) => each.path === path);
  return {
    file: fileReport(path, file),
    folders,
    via: stepsTo(path).filter((step) => !isListed(step)),
  };
}

/**
 * Returns the problems of the file of a socket, of its folders and of its links.
 *
 * @param socket `undefined` for an abstract socket.
 * @param user The uid of the server.
 */
export function fileFindings(socket: SocketFile | undefined, user: number): readonly Remark[] {
  if (socket === undefined) {
    const message = "An abstract socket has no mode: every process in the network namespace, " +
      "also in containers that share it, can connect, and can bind the name when it is free";
    return [{ kind: "abstract", message }];
  }
  const { file, folders, via } = socket;
  const findings: Remark[] = [];
  for (
    const { path, uid, gid, mode, isLink } of [
      ...folders.map((folder) => ({ ...folder, isLink: false })),
      ...via,
    ]
  ) {
    const access = isLink ? 0 : parseInt(mode, 8); // the mode of a link is always 0777
    const why = unsafeFolderReason(
      { uid, mode: access },
      (owner) => isTrusted(owner, user),
      () => hasOwnGroupOnly(path, { gid }, user),
    );
    if (why === undefined) continue;
    const kind = isLink ? "link" : "folder";
    const message = `The ${kind} ${path} ${why}: others can replace the socket`;
    findings.push({ kind, message });
  }
  const [folder] = folders;
  if (folder !== undefined && isSticky({ uid: 0, mode: parseInt(folder.mode, 8) })) {
    const message = `Every user can create files in ${folder.path}: while the server is down, ` +
      "another process can bind its path";
    findings.push({ kind: "sticky", message });
  }
  if (isOpen(file) && folders.every(isSearchable)) {
    const message = "Every user can connect: the server must check its clients itself, " +
      "or run behind `ucred guard`";
    findings.push({ kind: "everyone", message });
  }
  return findings;
}

/** Returns a problem if neither root nor a server owns the file. Without a known server, it returns none. */
export function ownerFindings({ uid }: FileReport, servers: readonly number[]): readonly Remark[] {
  const [server] = servers;
  if (server === undefined || uid === 0 || servers.includes(uid)) return [];
  const message =
    `The socket belongs to uid ${uid}, who can replace it; the server is uid ${server}`;
  return [{ kind: "owner", message }];
}

/** Whether every user may connect, by the mode of the file. */
const isOpen = ({ mode }: FileReport): boolean => (parseInt(mode, 8) & 0o002) !== 0;

/** Whether every user has search permission for the folder. */
const isSearchable = ({ mode }: FileReport): boolean => (parseInt(mode, 8) & 0o001) !== 0;

/** Who may connect, by the modes of the file and of its folders. */
export function whoMayConnect(socket: SocketFile | undefined): string {
  if (socket === undefined) return "every process in this network namespace";
  const { file, folders } = socket;
  const mode = parseInt(file.mode, 8);
  const narrow = folders.filter((folder) => !isSearchable(folder));
  if (isOpen(file) && narrow.length === 0) return "every user";
  const who = isOpen(file) ? ["every user"] : [
    "root",
    ...((mode & 0o200) !== 0 && file.uid !== 0 ? [nameOf("user", file.uid)] : []),
    ...((mode & 0o020) !== 0 ? [`group ${nameOf("group", file.gid)}`] : []),
  ];
  if (narrow.length === 0) return who.join(", ");
  const paths = narrow.map(({ path }) => printable(path)).join(", ");
  return `${who.join(", ")}; only with search permission on ${paths}`;
}

function foldersOf(path: string): readonly FileReport[] {
  const folders: FileReport[] = [];
  for (let at = path;; at = dirname(at)) {
    folders.push(fileReport(at, statSync(at, { bigint: true })));
    if (at === dirname(at)) return folders;
  }
}

/** Each folder and link that the kernel visits when it resolves a path, once. */
function stepsTo(path: string): readonly StepReport[] {
  const steps = new Map<string, StepReport>();
  for (const { path: at, file } of pathSteps(path)) {
    const isLink = file.isSymbolicLink();
    if (isLink || file.isDirectory()) steps.set(at, { ...fileReport(at, file), isLink });
  }
  return [...steps.values()];
}

function fileReport(path: string, { uid, gid, mode }: BigFileStats): FileReport {
  const octal = (Number(mode) & 0o7777).toString(8).padStart(4, "0");
  return { path, uid: Number(uid), gid: Number(gid), mode: octal };
}

export function fileText(file: FileReport): string {
  return `${file.mode} ${ownerText(file)}`;
}

export function ownerText({ uid, gid }: FileReport): string {
  return `${nameOf("user", uid)} ${nameOf("group", gid)}`;
}

function nameOf(kind: "user" | "group", id: number): string {
  return printable(accountName(kind, id) ?? String(id));
}
