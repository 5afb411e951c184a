/**
 * A path or abstract name → a place where a server listens, at no moment more open than asked for.
 *
 * The socket is bound in a private folder beside its path, gets its mode and owner there, and is then
 * moved to the path. The folder has a lock, so of several servers that start at once one wins.
 */

import { Buffer } from "node:buffer";
import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  fstatSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readlinkSync,
  realpathSync,
  renameSync,
  rmdirSync,
  rmSync,
  type Stats,
  statSync,
  unlinkSync,
} from "node:fs";
import { connect } from "node:net";
import { basename, dirname, join, resolve } from "node:path";
import { UcredError } from "../core/errors.ts";
import { whoElseReplaces } from "../core/ownership.ts";
import { isBoundHere } from "../identity/accepted.ts";
import { accountId, ownUid } from "../identity/accounts.ts";
import { tryLock } from "../identity/lock.ts";
import { isTrusted } from "../identity/owners.ts";
import { isBound } from "../identity/unix_sockets.ts";

/** Where to listen, and who may connect as far as the file system has a say. */
export interface PlaceOptions {
  /** A path, or an abstract name with "\0" first. A relative path is made absolute. */
  readonly path: string;
  /**
   * File mode of the socket: to connect takes write permission. By default `0o600`, for the server's
   * own user and root; `0o666` leaves it all to the policy.
   */
  readonly mode?: number | undefined;
  /** Owner of the socket's file, a uid or a name. By default the server's own user. */
  readonly owner?: number | string | undefined;
  /** Group of the socket's file, a gid or a name. By default as the file system has it. */
  readonly group?: number | string | undefined;
  /**
   * Whether the socket's folder, or one above it, may belong to, or be written by, others than root
   * and the server's own user. By default `false`: they could put a server of their own in its place.
   */
  readonly anyFolder?: boolean | undefined;
}

/** A place that was taken. */
export interface Place {
  /** Absolute, or abstract. */
  readonly path: string;
  /** What getsockname(2) says of the connections. */
  readonly boundTo: string;
  /** Removes the socket's file if it is still ours. To be called while the socket is still open. */
  remove(): void;
}

/** `sun_path`, <sys/un.h>, without the NUL: 108 bytes on Linux, 104 on macOS and the BSDs. */
const LONGEST = process.platform === "linux" ? 107 : 103;

/**
 * The private folder of "/run/app.sock" is "/run/.app.sock", and the socket in it is "s". What is
 * accepted is bound to that name for life, so one that the process still has is not given again:
 * connections of two listeners of one name could be mistaken for each other.
 */
const NAMES: readonly string[] = [..."s0123456789"];
const LONGER = "./s".length;

/** So often a start is tried again that met another one. */
const MOST_TRIES = 20;

/**
 * Listens at a place.
 *
 * @param bind Makes the runtime listen at a path, which may be another than the one that is wanted.
 * @throws {UcredError} `ERR_UCRED_LISTEN` if something is there already, the folder is not safe, the
 * path is too long, or a step fails; nothing is left behind.
 * @throws {TypeError} If the options contradict each other.
 */
export async function occupy(
  options: PlaceOptions,
  bind: (path: string) => Promise<void>,
): Promise<Place> {
  const { path } = options;
  if (typeof path !== "string" || path === "" || path.indexOf("\0", 1) !== -1) {
    throw new TypeError(`A socket's path has at least one character and no NUL: ${show(path)}`);
  }
  if (path.startsWith("\0")) return occupyName(options, bind);
  const { mode = 0o600 } = options;
  if (!Number.isInteger(mode) || mode < 0 || mode > 0o777) {
    throw new RangeError(`mode is an integer from 0 to 0o777, not ${show(mode)}`);
  }
  const absolute = resolve(path);
  const length = Buffer.byteLength(absolute);
  if (length + LONGER > LONGEST) {
    const why = `it has ${length} bytes, and ${LONGEST - LONGER} are the most`;
    throw cannot(absolute, why, "Use a shorter path, in /run for instance");
  }
  const owner = idFor(absolute, "user", options.owner);
  const group = idFor(absolute, "group", options.group);
  if (options.anyFolder !== true) requireSafeFolder(absolute);
  return await orCannot(absolute, () => place(absolute, { mode, owner, group }, bind));
}

interface Access {
  readonly mode: number;
  readonly owner: number | undefined;
  readonly group: number | undefined;
}

async function occupyName(
  { path, mode, owner, group }: PlaceOptions,
  bind: (path: string) => Promise<void>,
): Promise<Place> {
  if (mode !== undefined || owner !== undefined || group !== undefined) {
    throw new TypeError("An abstract name has no mode, owner or group: everybody can connect");
  }
  if (Buffer.byteLength(path) > LONGEST + 1) {
    throw cannot(path, `it has more than ${LONGEST + 1} bytes`, "Use a shorter name");
  }
  await orCannot(path, () => bind(path));
  return { path, boundTo: path, remove: () => {} };
}

function idFor(path: string, kind: "user" | "group", account: number | string | undefined) {
  if (account === undefined) return undefined;
  const id = accountId(kind, account);
  if (id === undefined) throw cannot(path, `there is no ${kind} ${show(account)}`, "Name another");
  return id;
}

function requireSafeFolder(path: string): void {
  try {
    statSync(dirname(path)); // there is one, and no circle of links
    requireSafe(path, dirname(path));
  } catch (error) {
    throw wrapped(path, error);
  }
}

/** Whoever can replace a folder on the way, or a link to one, can replace all that is in it. */
function requireSafe(path: string, folder: string): void {
  const parent = dirname(folder);
  if (parent !== folder) requireSafe(path, parent);
  const found = lstatSync(folder);
  const { uid } = found;
  const isLink = found.isSymbolicLink();
  const why = whoElseReplaces(isLink ? { uid, mode: 0 } : found, isTrusted); // a link's is 0o777
  if (why !== undefined) {
    const hint = `Run chown and chmod go-w on ${folder}, use another one, or set anyFolder`;
    throw cannot(path, `its folder ${folder} ${why}: they could put another socket there`, hint);
  }
  if (isLink) requireSafe(path, resolve(realpathSync(parent), readlinkSync(folder)));
}

async function place(
  path: string,
  access: Access,
  bind: (path: string) => Promise<void>,
): Promise<Place> {
  const start = Start.of(path);
  try {
    const stale = await requireFree(path);
    start.clear(); // of servers that were killed while they started
    const socket = start.sockets.find((socket) => !isBoundHere(socket));
    if (socket === undefined) {
      const why = `${NAMES.length} sockets of this process are bound there still`;
      throw cannot(path, why, "Close former servers of this path, and their connections");
    }
    await bind(socket);
    const { mode, owner, group } = access;
    chmodSync(socket, mode);
    if (owner !== undefined || group !== undefined) {
      const { uid, gid } = lstatSync(socket);
      chownSync(socket, owner ?? uid, group ?? gid);
    }
    const file = lstatSync(socket);
    move(socket, path, stale);
    return { path, boundTo: socket, remove: () => removeIfSame(path, file) };
  } finally {
    start.end();
  }
}

/** Moves the socket to its path, where nothing may be but what was found to be stale. */
function move(from: string, to: string, stale: Stats | undefined): void {
  if (stale !== undefined) {
    if (!isSame(to, stale)) throw cannot(to, "something else was put there", WAIT);
    return renameSync(from, to);
  }
  try {
    linkSync(from, to); // unlike rename(2) it replaces nothing
  } catch (error) {
    if (codeOf(error) === "EEXIST") throw cannot(to, "something was put there", WAIT);
    return renameSync(from, to); // a file system without links
  }
  unlinkSync(from);
}

const WAIT = "Start one server for each path";

/**
 * Makes sure that nothing is at a path, or a socket on which nothing answers.
 *
 * @returns That socket.
 */
async function requireFree(path: string): Promise<Stats | undefined> {
  let found: Stats;
  try {
    found = lstatSync(path);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
  if (!found.isSocket()) {
    throw cannot(path, "it is there and no socket", "Remove it, or use another path");
  }
  const code = await probe(path);
  const isRefused = code === "ECONNREFUSED";
  if (isRefused && isBound(path) !== true) return found;
  if (code === "ENOENT") return undefined;
  const why = code === undefined
    ? "a server answers there"
    : isRefused
    ? "a socket is bound there that takes no connection now"
    : `whether a server answers there cannot be told: ${code}`;
  throw cannot(path, why, "Stop the server that is there, or use another path", {
    errno: EADDRINUSE,
    syscall: "bind",
  });
}

/** `EADDRINUSE`, <errno.h>: what bind(2) would say. */
const EADDRINUSE = process.platform === "linux" ? 98 : 48;

/** The error of connecting; `undefined` if that works. */
function probe(path: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const end = (code: string | undefined) => {
      socket.destroy();
      resolve(code);
    };
    socket.once("connect", () => end(undefined));
    socket.on("error", (error) => end(codeOf(error) ?? "no error code"));
  });
}

/** The private folder and its lock, from a start to its end. */
class Start {
  /** Where a socket may be bound. */
  readonly sockets: readonly string[];
  readonly #folder: string;
  readonly #lock: string;
  readonly #fd: number;

  /** @throws {UcredError} `ERR_UCRED_LISTEN` if another server is starting there. */
  static of(path: string): Start {
    const folder = join(dirname(path), `.${basename(path)}`);
    for (let tries = 0; tries < MOST_TRIES; tries++) {
      makePrivate(path, folder);
      const lock = join(folder, "lock");
      const fd = openOrRetry(lock);
      if (fd === undefined) continue;
      try {
        if (!tryLock(fd)) {
          throw cannot(path, "another server is starting there", WAIT, {
            errno: EADDRINUSE,
            syscall: "bind",
          });
        }
        if (isSame(lock, fstatSync(fd))) return new Start(folder, lock, fd);
      } catch (error) {
        closeSync(fd);
        throw error;
      }
      closeSync(fd); // whoever had it has removed it meanwhile
    }
    throw cannot(path, "other servers start and end there again and again", WAIT);
  }

  private constructor(folder: string, lock: string, fd: number) {
    this.#folder = folder;
    this.#lock = lock;
    this.#fd = fd;
    this.sockets = NAMES.map((name) => join(folder, name));
  }

  /** Removes sockets that were bound and not moved. */
  clear(): void {
    for (const socket of this.sockets) rmSync(socket, { force: true });
  }

  /** Leaves nothing behind, whatever the start has come to. */
  end(): void {
    const steps = [
      () => this.clear(), // one is there only if the start has failed
      () => unlinkSync(this.#lock),
      () => rmdirSync(this.#folder),
    ];
    for (const remove of steps) {
      try {
        remove();
      } catch {
        // somebody has removed it, or put something into it
      }
    }
    closeSync(this.#fd); // last: until then nobody else starts
  }
}

function makePrivate(path: string, folder: string): void {
  try {
    mkdirSync(folder, 0o700);
  } catch (error) {
    if (codeOf(error) !== "EEXIST") throw error;
  }
  let found: Stats;
  try {
    found = lstatSync(folder);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return; // its owner has just ended: opening tells
    throw error;
  }
  if (found.isDirectory() && found.uid === ownUid() && (found.mode & 0o077) === 0) return;
  const hint = found.uid === ownUid()
    ? "Remove it"
    : "Use a folder in which nobody else may make files, in /run for instance"; // in /tmp it stays
  throw cannot(path, `${folder} is there, and is not a private folder of ours`, hint);
}

/** `undefined` if the folder has gone. */
function openOrRetry(lock: string): number | undefined {
  const { O_RDWR, O_CREAT, O_NOFOLLOW } = constants;
  try {
    return openSync(lock, O_RDWR | O_CREAT | O_NOFOLLOW, 0o600);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

function removeIfSame(path: string, file: Stats): void {
  try {
    if (isSame(path, file)) unlinkSync(path);
  } catch {
    // somebody has removed it already, or its folder
  }
}

function isSame(path: string, { dev, ino }: Stats): boolean {
  try {
    const found = lstatSync(path);
    return found.dev === dev && found.ino === ino;
  } catch (error) {
    if (codeOf(error) === "ENOENT") return false;
    throw error;
  }
}

async function orCannot<T>(path: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    throw wrapped(path, error);
  }
}

function wrapped(path: string, error: unknown): unknown {
  if (error instanceof UcredError || !(error instanceof Error)) return error;
  const { errno, syscall } = error as { errno?: number; syscall?: string };
  return cannot(
    path,
    error.message,
    "Check the path, and that the server may write to its folder",
    {
      ...(typeof errno === "number" && { errno: Math.abs(errno) }),
      ...(typeof syscall === "string" && { syscall }),
      cause: error,
    },
  );
}

function cannot(
  path: string,
  why: string,
  hint: string,
  details: Omit<ConstructorParameters<typeof UcredError>[2], "hint"> = {},
): UcredError {
  const message = `Cannot listen at ${show(path)}: ${why}`;
  return new UcredError("ERR_UCRED_LISTEN", message, { hint, ...details });
}

const show = (value: unknown): string => JSON.stringify(value) ?? String(value);

function codeOf(error: unknown): string | undefined {
  const code = (error as { readonly code?: unknown } | undefined)?.code;
  return typeof code === "string" ? code : undefined;
}
