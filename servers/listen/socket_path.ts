/**
 * A path or abstract name → a place where a server listens, at no moment more open than asked for.
 *
 * The steps are those of a private folder; here it is decided what may be replaced at the path.
 */

import { connect } from "node:net";
import { resolve } from "node:path";
import { isClusterWorker } from "../../system/cluster.ts";
import { accountId } from "../../system/accounts.ts";
import {
  bytesIn,
  codeOf,
  type FileAccess,
  type FileStats,
  lstatIfThere,
  maxPathBytes,
  PrivateFolder,
  Purpose,
} from "../../system/private_folder.ts";
import { isBound } from "../../system/unix_sockets.ts";

/** Where to listen, and the owner and mode of the socket's file. */
export interface SocketPathOptions {
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
   * A group may write whose only member is certainly the server's own user, as umask 002 has it.
   */
  readonly allowUnsafeFolder?: boolean | undefined;
}

/** A place that was taken. */
export interface BoundPath {
  /** Absolute, or abstract. */
  readonly path: string;
  /** What getsockname(2) says of the connections. */
  readonly boundTo: string;
  /** Removes the socket's file if it is still ours. To be called while the socket is still open. */
  remove(): void;
}

/**
 * Listens at a place.
 *
 * @param bind Makes the runtime listen at a path, which may be another than the one that is wanted.
 * @throws {UcredError} `ERR_UCRED_LISTEN` if something is there already, the folder is not safe, the
 * path is too long, or a step fails; nothing is left behind.
 * @throws {TypeError} If the options contradict each other.
 */
export async function bindSocketPath(
  options: SocketPathOptions,
  bind: (path: string) => Promise<void>,
): Promise<BoundPath> {
  const { path } = options;
  if (typeof path !== "string" || path === "" || path.indexOf("\0", 1) !== -1) {
    throw new TypeError(`A socket's path has at least one character and no NUL: ${show(path)}`);
  }
  if (path.startsWith("\0")) return occupyName(options, bind);
  const { mode = 0o600, allowUnsafeFolder: allowUnsafeFolder = false } = options;
  if (!Number.isInteger(mode) || mode < 0 || mode > 0o777) {
    throw new RangeError(`mode is an integer from 0 to 0o777, not ${show(mode)}`);
  }
  const absolute = resolve(path);
  const purpose = new Purpose("listen", absolute);
  const owner = idFor(purpose, "user", options.owner);
  const group = idFor(purpose, "group", options.group);
  return await bindFile(absolute, { mode, owner, group }, allowUnsafeFolder, purpose, bind);
}

async function occupyName(
  { path, mode, owner, group }: SocketPathOptions,
  bind: (path: string) => Promise<void>,
): Promise<BoundPath> {
  if (mode !== undefined || owner !== undefined || group !== undefined) {
    throw new TypeError("An abstract name has no mode, owner or group: everybody can connect");
  }
  const purpose = new Purpose("listen", path);
  const max = maxPathBytes() + 1;
  if (bytesIn(path) > max) {
    throw purpose.error(`it has more than ${max} bytes`, "Use a shorter name");
  }
  try {
    await bind(path);
  } catch (error) {
    throw purpose.wrap(error);
  }
  return { path, boundTo: path, remove: () => {} };
}

function idFor(purpose: Purpose, kind: "user" | "group", account: number | string | undefined) {
  if (account === undefined) return undefined;
  const id = accountId(kind, account);
  if (id === undefined) throw purpose.error(`there is no ${kind} ${show(account)}`, "Name another");
  return id;
}

async function bindFile(
  path: string,
  access: FileAccess,
  allowUnsafeFolder: boolean,
  purpose: Purpose,
  bind: (path: string) => Promise<void>,
): Promise<BoundPath> {
  const folder = PrivateFolder.open(path, allowUnsafeFolder, purpose);
  try {
    const stale = await requireFree(folder.target, purpose);
    const socket = folder.freeSocket();
    await bind(socket);
    const file = folder.publish(socket, access, stale);
    return { path, boundTo: socket, remove: () => file.remove() };
  } catch (error) {
    throw purpose.wrap(error);
  } finally {
    folder.end();
  }
}

/**
 * Makes sure that nothing is at a path, or a socket on which nothing answers.
 *
 * @returns That socket.
 */
async function requireFree(path: string, purpose: Purpose): Promise<FileStats | undefined> {
  const found = lstatIfThere(path);
  if (found === undefined) return undefined;
  if (!found.isSocket()) {
    throw purpose.error("it is there and no socket", "Remove it, or use another path");
  }
  const code = await probe(path);
  const isRefused = code === "ECONNREFUSED";
  if (isRefused && isBound(path) !== true) return found;
  if (code === "ENOENT") return undefined;
  const why = code === undefined
    ? "a server answers there"
    : isRefused
    ? "a socket is bound there that takes no connection now"
    : `whether a server answers there cannot be determined: ${code}`;
  throw purpose.inUse(why, isClusterWorker() ? CLUSTER : OTHER_PATH);
}

const OTHER_PATH = "Stop the server that is there, or use another path";
const CLUSTER =
  "Pass one listening socket to all workers, as docs/troubleshooting.md shows, or give each a path";

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

const show = (value: unknown): string => JSON.stringify(value) ?? String(value);
