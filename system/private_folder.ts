/**
 * Where a socket is bound before others may reach it: a private folder beside its path.
 *
 * The socket is bound there, gets its mode and owner, is checked, and is then moved to its path. The
 * folder has a lock, so that one of several servers that start at once wins.
 *
 * Where others can write to the folder of the path, they can put links in the place of everything in
 * it, at any moment. Then each step goes through a descriptor of a folder (`/proc/self/fd/N/name`), so
 * that no step follows such a link, and only the private folder, to which nobody else can write, holds
 * what gets a mode or an owner.
 */

import { nodeFs, nodePath } from "../adapters/builtins.ts";
import { openedSystem } from "../adapters/select.ts";
import { UcredError } from "../core/errors.ts";
import { unsafeFolderReason } from "../core/ownership.ts";
import { isBoundHere } from "./accepted_sockets.ts";
import { ownUid } from "./accounts.ts";
import { hasNoAcl, removeAcls } from "./acl.ts";
import { stolen } from "./owned_descriptor.ts";
import { KeptFile } from "./kept_file.ts";
import { tryLock } from "./file_lock.ts";
import { hasOwnGroupOnly, isTrusted } from "./trusted_owner.ts";
import { isBound } from "./unix_sockets.ts";

/** What is used of fs.Stats. */
export interface FileStats {
  readonly dev: number;
  readonly ino: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  isDirectory(): boolean;
  isFile(): boolean;
  isSocket(): boolean;
  isSymbolicLink(): boolean;
}

/** Who may use a socket's file. */
export interface FileAccess {
  readonly mode: number;
  /** By default our own user. */
  readonly owner?: number | undefined;
  /** By default as the file system has it. */
  readonly group?: number | undefined;
}

/** What a socket is for, and where: it makes the errors of a start. */
export class Purpose {
  readonly #what: string;

  /** @param verb Completes "Cannot …": "listen". */
  constructor(verb: string, path: string) {
    this.#what = `Cannot ${verb} at ${JSON.stringify(path) ?? String(path)}`;
  }

  /** The error for a start that fails for this reason. */
  error(
    why: string,
    hint: string,
    details: Omit<ConstructorParameters<typeof UcredError>[2], "hint"> = {},
  ): UcredError {
    return new UcredError("ERR_UCRED_LISTEN", `${this.#what}: ${why}`, { hint, ...details });
  }

  /** The error for a path that is in use, as bind(2) reports it. */
  inUse(why: string, hint: string): UcredError {
    const errno = EADDRINUSE[isLinux() ? "linux" : "others"];
    return this.error(why, hint, { errno, syscall: "bind" });
  }

  /** What was thrown, as an error of ours; what is no error of the system stays as it is. */
  wrap(error: unknown): unknown {
    if (error instanceof UcredError || !(error instanceof Error)) return error;
    const { errno, syscall } = error as { errno?: number; syscall?: string };
    return this.error(error.message, "Check the path, and that this user may write to its folder", {
      ...(typeof errno === "number" && { errno: Math.abs(errno) }),
      ...(typeof syscall === "string" && { syscall }),
      cause: error,
    });
  }
}

/** `EADDRINUSE`, <errno.h>: what bind(2) would report. */
const EADDRINUSE = { linux: 98, others: 48 };

/** `sun_path`, <sys/un.h>, without the NUL: 108 bytes on Linux, 104 on macOS and the BSDs. */
const MAX_PATH_BYTES = { linux: 107, others: 103 };

/** The longest path or abstract name of a socket, without a NUL. */
export function maxPathBytes(): number {
  return MAX_PATH_BYTES[isLinux() ? "linux" : "others"];
}

const isLinux = () => openedSystem().abi.os === "linux";

/** The length of a path as the kernel counts it. */
export function bytesIn(path: string): number {
  return new TextEncoder().encode(path).length;
}

/**
 * The private folder of "/run/app.sock" is "/run/.app.sock.ucred", and the socket in it is "s". What
 * is accepted is bound to that name for life, so one that the process still has is not given again:
 * connections of two listeners of one name could be mistaken for each other.
 */
const SUFFIX = ".ucred";
const SOCKET_NAMES: readonly string[] = [..."s0123456789"];
const LOCK_NAME = "lock";
/** "." before the name, the suffix, and "/s". */
const ADDED_BYTES = 1 + SUFFIX.length + 2;

/** So often a start is repeated that met another one. */
const MAX_TRIES = 20;

const ONE_EACH = "Start one server for each path";

/**
 * Requires that nobody else can put another file in the place of the socket's.
 *
 * @throws {UcredError} `ERR_UCRED_LISTEN` if others can.
 */
export function requireSafeFolder(path: string, purpose: Purpose): void {
  const { dirname } = nodePath();
  try {
    nodeFs().statSync(dirname(path)); // there is one, and no circle of links
    requireSafe(purpose, dirname(path));
  } catch (error) {
    throw purpose.wrap(error);
  }
}

/** Whoever can replace a folder on the way, or a link to one, can replace all that is in it. */
function requireSafe(purpose: Purpose, folder: string): void {
  const { lstatSync, readlinkSync, realpathSync } = nodeFs();
  const { dirname, resolve } = nodePath();
  const parent = dirname(folder);
  if (parent !== folder) requireSafe(purpose, parent);
  const found = lstatSync(folder);
  const { uid } = found;
  const isLink = found.isSymbolicLink();
  const entry = isLink ? { uid, mode: 0 } : found; // a link's is 0o777
  const why = unsafeFolderReason(entry, isTrusted, () => hasOwnGroupOnly(folder, found));
  if (why !== undefined) {
    const hint = `Run chown and chmod go-w on ${folder}, use another one, or set allowUnsafeFolder`;
    throw purpose.error(`its folder ${folder} ${why}: they could put another socket there`, hint);
  }
  if (isLink) requireSafe(purpose, resolve(realpathSync(parent), readlinkSync(folder)));
}

/** A folder whose files are named by path, or through a descriptor of it. */
class Folder {
  readonly #path: string;
  readonly #file: KeptFile | undefined;

  private constructor(path: string, fd: number | undefined) {
    this.#path = path;
    this.#file = fd === undefined ? undefined : new KeptFile(fd);
  }

  /** By path: for folders in whose place nobody else can put another. */
  static byPath(path: string): Folder {
    return new Folder(path, undefined);
  }

  /** By descriptor: whatever is put in its place, it is this folder. To be closed. */
  static open(path: string, followsLink: boolean): Folder {
    const { constants: { O_RDONLY, O_DIRECTORY, O_NOFOLLOW }, openSync } = nodeFs();
    const flags = O_RDONLY! | O_DIRECTORY! | (followsLink ? 0 : O_NOFOLLOW!);
    return new Folder(path, openSync(path, flags));
  }

  /** Where a file of it is. */
  at(name: string): string {
    const folder = this.#file === undefined ? this.#path : `/proc/self/fd/${this.#own}`;
    return folder === "/" ? `/${name}` : `${folder}/${name}`;
  }

  /** The folder itself. */
  stat(): FileStats {
    return this.#file === undefined
      ? nodeFs().lstatSync(this.#path)
      : nodeFs().fstatSync(this.#own);
  }

  close(): void {
    this.#file?.close();
  }

  /** The descriptor, if it still means the folder: nothing is to be changed in another one. */
  get #own(): number {
    if (this.#file?.isOurs() !== true) throw stolen(`look into the folder ${this.#path}`);
    return this.#file.fd;
  }
}

/** A socket's file at its path. */
export class PublishedFile {
  readonly #path: string;
  readonly #file: FileStats;
  /** What the folder has to be for us to remove anything from it; `undefined` if nobody can move it. */
  readonly #folder: FileStats | undefined;

  constructor(path: string, file: FileStats, folder: FileStats | undefined) {
    this.#path = path;
    this.#file = file;
    this.#folder = folder;
  }

  /** Removes it if it is still ours. To be called while the socket is still open. */
  remove(): void {
    try {
      if (this.#folder === undefined) return removeIfSame(this.#path, this.#file);
      const { basename, dirname } = nodePath();
      const folder = Folder.open(dirname(this.#path), true);
      try {
        if (isSameFile(folder.stat(), this.#folder)) {
          removeIfSame(folder.at(basename(this.#path)), this.#file);
        }
      } finally {
        folder.close();
      }
    } catch {
      // somebody has removed it already, or its folder
    }
  }
}

/** The private folder and its lock, from a start to its end. */
export class PrivateFolder {
  /** The socket's path, for every step of the start. */
  readonly target: string;
  readonly #path: string;
  readonly #purpose: Purpose;
  /** The folder of the socket's path. */
  readonly #outer: Folder;
  readonly #inner: Folder;
  /** Whether folders are named through descriptors. */
  readonly #byDescriptor: boolean;
  readonly #lock: KeptFile;

  /**
   * Makes and locks the private folder of a path.
   *
   * @param path Absolute.
   * @param allowUnsafeFolder Whether others may write to the folder of the path.
   * @throws {UcredError} `ERR_UCRED_LISTEN` if the folder is not safe, another server is starting
   * there, or the private folder is not ours alone.
   */
  static open(path: string, allowUnsafeFolder: boolean, purpose: Purpose): PrivateFolder {
    const length = bytesIn(path);
    const hasDescriptors = isLinux();
    const max = hasDescriptors ? maxPathBytes() : maxPathBytes() - ADDED_BYTES;
    if (length > max) {
      const why = `it has ${length} bytes, and ${max} are the most`;
      throw purpose.error(why, "Use a shorter path, in /run for instance");
    }
    let isSafe = true;
    try {
      requireSafeFolder(path, purpose);
    } catch (error) {
      if (!allowUnsafeFolder) throw error;
      isSafe = false;
    }
    if (!isSafe && !hasDescriptors) {
      const why = "others can write to its folder, and there is no /proc/self/fd";
      throw purpose.error(why, "Use a folder to which nobody else can write");
    }
    // The name in the private folder is longer than the path: by descriptor it is short.
    const byDescriptor = !isSafe || length + ADDED_BYTES > maxPathBytes();
    try {
      return PrivateFolder.#open(path, byDescriptor, purpose);
    } catch (error) {
      throw purpose.wrap(error);
    }
  }

  static #open(path: string, byDescriptor: boolean, purpose: Purpose): PrivateFolder {
    const { dirname } = nodePath();
    const outer = byDescriptor ? Folder.open(dirname(path), true) : Folder.byPath(dirname(path));
    try {
      const name = nameBeside(path);
      for (let tries = 0; tries < MAX_TRIES; tries++) {
        const inner = openPrivate(outer, name, byDescriptor, purpose);
        if (inner === undefined) continue;
        const lock = lockOf(inner, purpose);
        if (lock !== undefined) {
          return new PrivateFolder(path, purpose, outer, inner, byDescriptor, lock);
        }
        inner.close();
      }
    } catch (error) {
      outer.close();
      throw error;
    }
    outer.close();
    throw purpose.error("other servers start and end there again and again", ONE_EACH);
  }

  private constructor(
    path: string,
    purpose: Purpose,
    outer: Folder,
    inner: Folder,
    byDescriptor: boolean,
    lock: number,
  ) {
    this.#path = path;
    this.#purpose = purpose;
    this.#outer = outer;
    this.#inner = inner;
    this.#byDescriptor = byDescriptor;
    this.#lock = new KeptFile(lock);
    this.target = outer.at(nodePath().basename(path));
  }

  /**
   * Where to bind the socket.
   *
   * @throws {UcredError} `ERR_UCRED_LISTEN` if this process has too many sockets of former servers.
   */
  freeSocket(): string {
    this.#clear(); // of servers that were killed while they started
    const found = this.#sockets().find((socket) => !isBoundHere(socket));
    if (found !== undefined) return found;
    const why = `${SOCKET_NAMES.length} sockets of this process are bound there still`;
    throw this.#purpose.error(why, "Close former servers of this path, and their connections");
  }

  /**
   * Gives the socket its mode and owner, and moves it to its path.
   *
   * @param stale What may be replaced there.
   * @throws {UcredError} `ERR_UCRED_LISTEN` if the file is not exactly as open as it should be, or
   * something else is at the path.
   */
  publish(socket: string, access: FileAccess, stale: FileStats | undefined): PublishedFile {
    const { chmodSync, chownSync, lstatSync } = nodeFs();
    const { mode, owner, group } = access;
    if (!lstatSync(socket).isSocket()) throw new Error("it was not bound in the private folder");
    removeAcls(socket);
    if (owner !== undefined || group !== undefined) {
      const { uid, gid } = lstatSync(socket);
      chownSync(socket, owner ?? uid, group ?? gid);
    }
    chmodSync(socket, mode);
    const file = lstatSync(socket);
    this.#requireAccess(socket, file, access);
    this.#move(socket, stale);
    return new PublishedFile(this.#path, file, this.#byDescriptor ? this.#outer.stat() : undefined);
  }

  /** Some file systems ignore a mode or an owner, and report success. */
  #requireAccess(socket: string, file: FileStats, { mode, owner = ownUid(), group }: FileAccess) {
    const octal = (mode: number) => `0${(mode & 0o7777).toString(8).padStart(3, "0")}`;
    const found = (file.mode & 0o7777) !== mode
      ? `mode ${octal(file.mode)} and not ${octal(mode)}`
      : file.uid !== owner
      ? `owner ${file.uid} and not ${owner}`
      : group !== undefined && file.gid !== group
      ? `group ${file.gid} and not ${group}`
      : openedSystem().abi.os === "linux" && !hasNoAcl(socket)
      ? "an access control list"
      : undefined;
    if (found === undefined) return;
    throw this.#purpose.error(`its file system gives the socket ${found}`, OTHER_FILE_SYSTEM);
  }

  /** Moves the socket to its path, where nothing may be but what was found to be stale. */
  #move(from: string, stale: FileStats | undefined): void {
    const { linkSync, renameSync, unlinkSync } = nodeFs();
    const to = this.target;
    if (stale !== undefined) {
      if (!isSame(to, stale)) throw this.#purpose.error("something else was put there", ONE_EACH);
      return renameSync(from, to);
    }
    try {
      linkSync(from, to); // unlike rename(2) it replaces nothing
    } catch (error) {
      if (codeOf(error) === "EEXIST") {
        throw this.#purpose.error("something was put there", ONE_EACH);
      }
      return renameSync(from, to); // a file system without links
    }
    // To FUSE a link may be another file, on which nothing listens; a file that is moved stays the same.
    if (isBound(to) === false) {
      unlinkSync(to);
      return renameSync(from, to);
    }
    unlinkSync(from);
  }

  #sockets(): readonly string[] {
    return SOCKET_NAMES.map((name) => this.#inner.at(name));
  }

  /** Removes sockets that were bound and not moved; nothing else has such a name there. */
  #clear(): void {
    for (const socket of this.#sockets()) {
      if (lstatIfThere(socket)?.isSocket() === true) nodeFs().unlinkSync(socket);
    }
  }

  /** Leaves nothing behind, whatever the start has come to. */
  end(): void {
    const folder = this.#outer.at(nameBeside(this.#path));
    const steps = [
      () => this.#clear(), // one is there only if the start has failed
      () => nodeFs().unlinkSync(this.#inner.at(LOCK_NAME)),
      () => rmdirIfEmpty(folder),
      () => this.#lock.close(), // until then nobody else starts
      // NFS and FUSE keep an open file in its folder, under another name, until it is closed.
      () => rmdirIfEmpty(folder),
      () => this.#inner.close(),
      () => this.#outer.close(),
    ];
    for (const run of steps) {
      try {
        run();
      } catch {
        // somebody has removed it, or put something into it
      }
    }
  }
}

/** What the private folder of a path is called. */
function nameBeside(path: string): string {
  return `.${nodePath().basename(path)}${SUFFIX}`;
}

const OTHER_FILE_SYSTEM = "Use a folder on a file system that keeps modes and owners, as /run";

/** Makes the private folder, or takes the one that a killed server left; `undefined` if it has gone. */
function openPrivate(
  outer: Folder,
  name: string,
  byDescriptor: boolean,
  purpose: Purpose,
): Folder | undefined {
  const path = outer.at(name);
  let isNew = true;
  try {
    nodeFs().mkdirSync(path, 0o700);
  } catch (error) {
    if (codeOf(error) !== "EEXIST") throw error;
    isNew = false;
  }
  let inner: Folder | undefined;
  try {
    const found = nodeFs().lstatSync(path);
    if (found.isDirectory()) inner = byDescriptor ? Folder.open(path, false) : Folder.byPath(path);
    const why = inner === undefined ? "is no folder" : whyNotPrivate(inner);
    if (inner !== undefined && why === undefined) {
      removeAcls(inner.at(".")); // it may have inherited them, and the socket would
      return inner;
    }
    if (isNew) {
      rmdirIfEmpty(path);
      throw purpose.error(`its file system makes a folder that ${why}`, OTHER_FILE_SYSTEM);
    }
    const hint = found.uid === ownUid()
      ? "Move it away, or use another path"
      : "Use a folder in which nobody else may make files, in /run for instance"; // in /tmp it stays
    throw purpose.error(`${JSON.stringify(name)} is in its folder, and ${why}`, hint);
  } catch (error) {
    inner?.close();
    if (hasGone(error)) return undefined; // its owner has just ended
    throw error;
  }
}

const ENOENT = 2;

function hasGone(error: unknown): boolean {
  return codeOf(error) === "ENOENT" || (error instanceof UcredError && error.errno === ENOENT);
}

/** Leaves a folder that holds something. */
function rmdirIfEmpty(path: string): void {
  try {
    nodeFs().rmdirSync(path);
  } catch {
    // somebody has put something into it, or something else in its place
  }
}

/** Why a folder is not a private one that a server of this user may have made. */
function whyNotPrivate(folder: Folder): string | undefined {
  const { uid, mode } = folder.stat();
  if (uid !== ownUid()) return `belongs to uid ${uid}`;
  if ((mode & 0o777) !== 0o700) return `has mode 0${(mode & 0o777).toString(8)} and not 0700`;
  for (const name of nodeFs().readdirSync(folder.at("."))) {
    const found = lstatIfThere(folder.at(name));
    if (found === undefined) continue;
    const isOurs = name === LOCK_NAME
      ? found.isFile() && found.size === 0 && found.uid === uid
      : SOCKET_NAMES.includes(name) && found.isSocket();
    if (!isOurs) return `holds ${JSON.stringify(name)}, which no server left there`;
  }
  return undefined;
}

/** The lock of a private folder; `undefined` if the folder has gone meanwhile. */
function lockOf(inner: Folder, purpose: Purpose): number | undefined {
  const { closeSync, constants: { O_RDWR, O_CREAT, O_NOFOLLOW }, fstatSync, openSync } = nodeFs();
  const lock = inner.at(LOCK_NAME);
  let fd: number;
  try {
    fd = openSync(lock, O_RDWR! | O_CREAT! | O_NOFOLLOW!, 0o600);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
  try {
    if (!tryLock(fd)) throw purpose.inUse("another server is starting there", ONE_EACH);
    if (isSame(lock, fstatSync(fd))) return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  closeSync(fd); // its former owner has removed it meanwhile
  return undefined;
}

function removeIfSame(path: string, file: FileStats): void {
  if (isSame(path, file)) nodeFs().unlinkSync(path);
}

function isSame(path: string, file: FileStats): boolean {
  const found = lstatIfThere(path);
  return found !== undefined && isSameFile(found, file);
}

const isSameFile = (one: FileStats, other: FileStats): boolean =>
  one.dev === other.dev && one.ino === other.ino;

/** The file itself, also if it is a link; `undefined` if there is none. */
export function lstatIfThere(path: string): FileStats | undefined {
  try {
    return nodeFs().lstatSync(path);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** The code of an error of the runtime's own, "ENOENT". */
export function codeOf(error: unknown): string | undefined {
  const code = (error as { readonly code?: unknown } | undefined)?.code;
  return typeof code === "string" ? code : undefined;
}
