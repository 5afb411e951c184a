/**
 * A private folder beside a socket's path, in which the socket is bound before others can reach it.
 *
 * The socket is bound there, gets its mode and owner, is checked, and is then moved to its path. A
 * lock in the folder makes sure that only one of several servers that start at once succeeds.
 *
 * Other users with write access to the folder of the path can replace any of its entries by a symbolic
 * link at any time. In such a folder, each step uses a descriptor of a folder (`/proc/self/fd/N/name`), which
 * follows no such link. Mode and owner are changed only inside the private folder, to which no other
 * user can write.
 */

import { isClusterWorker, nodeFs, nodePath, nodeProcess } from "../adapters/builtins.ts";
import { openedSystem } from "../adapters/select.ts";
import { UcredError } from "../core/errors.ts";
import { unsafeFolderReason } from "../core/ownership.ts";
import { hidesDescriptors, isBoundHere } from "./accepted_sockets.ts";
import { ownUid } from "./accounts.ts";
import { hasNoAcl, removeAcls } from "./acl.ts";
import { stolen } from "./owned_descriptor.ts";
import { KeptFile } from "./kept_file.ts";
import { tryLock } from "./file_lock.ts";
import { ownershipOf, pathSteps } from "./path_owners.ts";
import { type PermissionFlags, permissionHint } from "./runtime_permission.ts";
import { hasOwnGroupOnly, isTrusted } from "./trusted_owner.ts";
import { isBound } from "./unix_sockets.ts";

/** The members of fs.Stats that are used. */
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

/** Mode, owner and group of a socket's file. */
export interface FileAccess {
  readonly mode: number;
  /** Default: our own user. */
  readonly owner?: number | undefined;
  /** Default: the group that the file system assigns. */
  readonly group?: number | undefined;
}

/** Builds the errors of one start. */
export class Purpose {
  readonly #verb: "listen" | "receive datagrams";
  readonly #path: string;

  /** @param verb Completes "Cannot …". */
  constructor(verb: "listen" | "receive datagrams", path: string) {
    this.#verb = verb;
    this.#path = path;
  }

  /** Builds an error from its reason. */
  error(
    why: string,
    hint: string,
    details: Omit<ConstructorParameters<typeof UcredError>[2], "hint"> = {},
  ): UcredError {
    const what = `Cannot ${this.#verb} at ${JSON.stringify(this.#path) ?? String(this.#path)}`;
    return new UcredError("ERR_UCRED_LISTEN", `${what}: ${why}`, { hint, ...details });
  }

  /** Builds the error for a path that is in use, as bind(2) reports it. */
  inUse(why: string, hint: string): UcredError {
    const errno = openedSystem().abi.errno.EADDRINUSE;
    return this.error(why, hint, { errno, syscall: "bind" });
  }

  /** Converts an error of a system call into one of ours; other errors stay as they are. */
  wrap(error: unknown): unknown {
    if (error instanceof UcredError || !(error instanceof Error)) return error;
    const { errno, syscall } = error as { errno?: number; syscall?: string };
    const hint = permissionHint(error, this.#flags()) ??
      "Check the path, and that this user may write to its folder";
    return this.error(error.message, hint, {
      ...(typeof errno === "number" && { errno: Math.abs(errno) }),
      ...(typeof syscall === "string" && { syscall }),
      cause: error,
    });
  }

  /** Returns all flags of the start, since an error of the runtime names only the first missing one. */
  #flags(): PermissionFlags {
    const net = this.#verb === "listen" ? " --allow-net" : ""; // datagram sockets are bound by FFI
    if (this.#path.startsWith("\0")) return { deno: net.trim(), node: net.trim() };
    const folder = nodePath().dirname(this.#path);
    // Node 22 and 24 restrict no sockets, and reject the flag.
    const hasFlag = nodeProcess().allowedNodeEnvironmentFlags.has("--allow-net");
    return {
      deno: `--allow-read --allow-write=${folder}${net}`,
      node: `--allow-fs-read=* --allow-fs-write=${folder}${hasFlag ? net : ""}`,
    };
  }
}

/** Returns the hint for a path at which another server listens, perhaps in another cluster worker. */
export function otherServerHint(): string {
  return isClusterWorker()
    ? "Pass one listening socket to all workers, or give each worker its own path"
    : "Stop the server that is there, or use another path";
}

/** `sun_path`, <sys/un.h>, without its NUL: 108 bytes on Linux, 104 on macOS and the BSDs. */
const MAX_PATH_BYTES = { linux: 107, others: 103 };

/** Returns the maximum length of a socket's path or abstract name, without a NUL. */
export function maxPathBytes(): number {
  return MAX_PATH_BYTES[isLinux() ? "linux" : "others"];
}

const isLinux = () => openedSystem().abi.os === "linux";

/** Returns the length of a path as the kernel counts it. */
export function bytesIn(path: string): number {
  return new TextEncoder().encode(path).length;
}

/**
 * The private folder of "/run/app.sock" is "/run/.app.sock.ucred", and the socket in it is "s" or a digit.
 * Accepted connections keep the name that their listener was bound to. A name is therefore not
 * reused while this process has a socket of that name: connections of the two listeners would look
 * alike.
 */
const SUFFIX = ".ucred";
const SOCKET_NAMES: readonly string[] = [..."s0123456789"];
const LOCK_NAME = "lock";
/** Added to the length of the path: "." before the name, the suffix, and "/s". */
const ADDED_BYTES = 1 + SUFFIX.length + 2;

/** Maximum number of attempts to create and lock the folder while other servers remove it. */
const MAX_TRIES = 20;

const ONE_EACH = "Start one server for each path";

/**
 * Requires that only root and our own user can replace the socket's file.
 *
 * @throws {UcredError} `ERR_UCRED_LISTEN` if others can.
 */
function requireSafeFolder(path: string, purpose: Purpose): void {
  const { dirname } = nodePath();
  try {
    nodeFs().statSync(dirname(path)); // throws if it is missing, or if links form a circle
    requireSafe(purpose, dirname(path));
  } catch (error) {
    throw purpose.wrap(error);
  }
}

/** Checks every folder and symbolic link of the path: their owners can replace everything below them. */
function requireSafe(purpose: Purpose, folder: string): void {
  for (const { path, file } of pathSteps(folder)) {
    const entry = ownershipOf(file);
    const why = unsafeFolderReason(entry, isTrusted, () => hasOwnGroupOnly(path, entry));
    if (why === undefined) continue;
    const hint =
      `Run chown and chmod go-w on ${path}, use another folder, or set allowUnsafeFolder ` +
      "if your program uses the library";
    throw purpose.error(`its folder ${path} ${why}: other users could replace the socket`, hint);
  }
}

/** A folder that addresses its entries by its path, or through a descriptor. */
class Folder {
  readonly #path: string;
  readonly #file: KeptFile | undefined;

  private constructor(path: string, fd: number | undefined) {
    this.#path = path;
    this.#file = fd === undefined ? undefined : new KeptFile(fd);
  }

  /** Addresses the folder by its path, which other users cannot replace. */
  static byPath(path: string): Folder {
    return new Folder(path, undefined);
  }

  /**
   * Opens the folder, so that replacing its path has no effect. The caller closes it.
   */
  static open(path: string, followsLink: boolean): Folder {
    const { constants: { O_RDONLY, O_DIRECTORY, O_NOFOLLOW }, openSync } = nodeFs();
    const flags = O_RDONLY! | O_DIRECTORY! | (followsLink ? 0 : O_NOFOLLOW!);
    return new Folder(path, openSync(path, flags));
  }

  /** Returns the path of an entry. */
  at(name: string): string {
    const folder = this.#file === undefined ? this.#path : `/proc/self/fd/${this.#own}`;
    return folder === "/" ? `/${name}` : `${folder}/${name}`;
  }

  /** Returns the stats of the folder itself. */
  stat(): FileStats {
    return this.#file === undefined
      ? nodeFs().lstatSync(this.#path)
      : nodeFs().fstatSync(this.#own);
  }

  close(): void {
    this.#file?.close();
  }

  /** The descriptor, after a check that it still refers to the folder. */
  get #own(): number {
    if (this.#file?.isOurs() !== true) throw stolen(`look into the folder ${this.#path}`);
    return this.#file.fd;
  }
}

/** A socket's file at its final path. */
export class PublishedFile {
  readonly #path: string;
  readonly #file: FileStats;
  /** The folder as it was at the start, if others can move it; `undefined` if they cannot. */
  readonly #folder: FileStats | undefined;

  constructor(path: string, file: FileStats, folder: FileStats | undefined) {
    this.#path = path;
    this.#file = file;
    this.#folder = folder;
  }

  /**
   * Removes the file if it still is ours. Call it while the socket is open, so that its inode is
   * not reused.
   */
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
      // Another process has removed the file or its folder already.
    }
  }
}

/** The locked private folder, which exists while a server starts. */
export class PrivateFolder {
  readonly #path: string;
  readonly #purpose: Purpose;
  /** The folder of the socket's path. */
  readonly #outer: Folder;
  readonly #inner: Folder;
  /** Whether folders are addressed by descriptors. */
  readonly #byDescriptor: boolean;
  readonly #lock: KeptFile;

  /**
   * Creates and locks the private folder of a path.
   *
   * @param path Absolute.
   * @param allowUnsafeFolder Whether others may write to the folder of the path.
   * @throws {UcredError} `ERR_UCRED_LISTEN` if the folder is not safe, another server is starting
   * there, or the private folder belongs to another user.
   */
  static open(path: string, allowUnsafeFolder: boolean, purpose: Purpose): PrivateFolder {
    const length = bytesIn(path);
    const hasDescriptors = isLinux();
    const max = hasDescriptors ? maxPathBytes() : maxPathBytes() - ADDED_BYTES;
    if (length > max) {
      const why = `it has ${length} bytes; the maximum is ${max}`;
      throw purpose.error(why, "Use a shorter path, for example in /run");
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
      throw purpose.error(why, "Use a folder to which only this user can write");
    }
    // The path inside the private folder may be too long; through a descriptor it is short.
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
        try {
          const lock = lockOf(inner, purpose);
          if (lock !== undefined) {
            return new PrivateFolder(path, purpose, outer, inner, byDescriptor, lock);
          }
        } catch (error) {
          inner.close();
          throw error;
        }
        inner.close();
      }
    } catch (error) {
      outer.close();
      throw error;
    }
    outer.close();
    throw purpose.error("other servers keep starting and stopping there", ONE_EACH);
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
  }

  /**
   * The socket's final path, for the next step of the start.
   *
   * @throws {UcredError} `ERR_UCRED_NO_FD` if other code has closed the folder.
   */
  get target(): string {
    return this.#outer.at(nodePath().basename(this.#path));
  }

  /**
   * Returns the path at which to bind the socket.
   *
   * @throws {UcredError} `ERR_UCRED_LISTEN` if this process has too many sockets of former servers.
   */
  freeSocket(): string {
    this.#clear(); // removes sockets of servers that were killed during their start
    // A descriptor search needs a name to which no other socket of this process is bound. The check takes
    // up to 5 ms, so it is skipped where nothing is searched for.
    const isTaken = hidesDescriptors() ? isBoundHere : () => false;
    const found = this.#sockets().find((socket) => !isTaken(socket));
    if (found !== undefined) return found;
    const why = `${SOCKET_NAMES.length} sockets of this process are still bound there`;
    throw this.#purpose.error(why, "Close former servers of this path, and their connections");
  }

  /**
   * Gives the socket its mode and owner, and moves it to its path.
   *
   * @param stale The file that may be replaced there.
   * @throws {UcredError} `ERR_UCRED_LISTEN` if the file system did not apply mode or owner exactly,
   * or another file is at the path.
   */
  publish(socket: string, access: FileAccess, stale: FileStats | undefined): PublishedFile {
    const { chmodSync, chownSync, lstatSync } = nodeFs();
    const { mode, owner, group } = access;
    this.#inner.stat(); // throws if other code has closed the folder
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

  /** Checks mode and owner: some file systems ignore them and report success. */
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

  /**
   * Publishes the socket at its final path. Fails if anything but the known stale socket is there.
   */
  #move(from: string, stale: FileStats | undefined): void {
    const { linkSync, renameSync, unlinkSync } = nodeFs();
    const to = this.target;
    if (stale !== undefined) {
      if (!isSame(to, stale)) throw this.#purpose.error("another file was created there", ONE_EACH);
      return renameSync(from, to);
    }
    try {
      linkSync(from, to); // unlike rename(2) it replaces nothing
    } catch (error) {
      if (codeOf(error) === "EEXIST") {
        throw this.#purpose.error("a file was created there", ONE_EACH);
      }
      return renameSync(from, to); // the file system has no links
    }
    // On FUSE a link may be a different file on which nothing listens; a renamed file stays the
    // same.
    if (isBound(to) === false) {
      unlinkSync(to);
      return renameSync(from, to);
    }
    unlinkSync(from);
  }

  #sockets(): readonly string[] {
    return SOCKET_NAMES.map((name) => this.#inner.at(name));
  }

  /** Removes sockets that were bound and never published. Only such sockets have these names. */
  #clear(): void {
    for (const socket of this.#sockets()) {
      if (lstatIfThere(socket)?.isSocket() === true) nodeFs().unlinkSync(socket);
    }
  }

  /** Removes the private folder, whether the start succeeded or failed. */
  end(): void {
    const remove = () => rmdirIfEmpty(this.#outer.at(nameBeside(this.#path)));
    const steps = [
      () => this.#clear(), // a socket is there only if the start failed
      () => nodeFs().unlinkSync(this.#inner.at(LOCK_NAME)),
      remove,
      () => this.#lock.close(), // until then no other server can start
      // NFS and FUSE keep an open file in its folder under another name until it is closed.
      remove,
      () => this.#inner.close(),
      () => this.#outer.close(),
    ];
    for (const run of steps) {
      try {
        run();
      } catch {
        // Another process has removed it or added a file.
      }
    }
  }
}

/** Returns the name of the private folder of a path. */
function nameBeside(path: string): string {
  return `.${nodePath().basename(path)}${SUFFIX}`;
}

const OTHER_FILE_SYSTEM = "Use a folder on a file system that keeps modes and owners, such as /run";

/**
 * Creates the private folder, or reuses one that a killed server left; `undefined` if it was
 * removed meanwhile.
 */
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
    const why = inner === undefined ? "is not a folder" : whyNotPrivate(inner);
    if (inner !== undefined && why === undefined) {
      removeAcls(inner.at(".")); // an inherited default ACL would apply to the socket
      return inner;
    }
    if (isNew) {
      rmdirIfEmpty(path);
      throw purpose.error(`its file system creates a folder that ${why}`, OTHER_FILE_SYSTEM);
    }
    const hint = found.uid === ownUid()
      ? "Move it away, or use another path"
      : "Use a folder in which only this user can create files, such as one in /run"; // /tmp is sticky: only its owner can remove it
    throw purpose.error(`${JSON.stringify(name)} is in its folder, and ${why}`, hint);
  } catch (error) {
    inner?.close();
    if (hasGone(error)) return undefined; // its server has just ended
    throw error;
  }
}

function hasGone(error: unknown): boolean {
  return codeOf(error) === "ENOENT" ||
    (error instanceof UcredError && error.errno === openedSystem().abi.errno.ENOENT);
}

/** Removes a folder unless it contains something. */
function rmdirIfEmpty(path: string): void {
  try {
    nodeFs().rmdirSync(path);
  } catch {
    // Another process has added a file or replaced the folder.
  }
}

/** Returns why a folder cannot be a private one of this user's servers; `undefined` if it can. */
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
    if (!isOurs) return `contains ${JSON.stringify(name)}, which no server creates`;
  }
  return undefined;
}

/** Opens and locks the lock file; `undefined` if the folder was removed meanwhile. */
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

/** Returns the stats of a file without following a symbolic link; `undefined` if there is no file. */
export function lstatIfThere(path: string): FileStats | undefined {
  try {
    return nodeFs().lstatSync(path);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** Returns the code of a runtime error, for example "ENOENT". */
export function codeOf(error: unknown): string | undefined {
  const code = (error as { readonly code?: unknown } | undefined)?.code;
  return typeof code === "string" ? code : undefined;
}
