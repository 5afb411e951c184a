/**
 * Binds a server to a path or an abstract name. The socket's file never has wider permissions than
 * requested.
 *
 * `PrivateFolder` performs the steps on the file system; this file decides which existing socket may be
 * replaced.
 */

import { connect } from "node:net";
import { resolve } from "node:path";
import { accountId } from "../../system/accounts.ts";
import {
  bytesIn,
  codeOf,
  type FileAccess,
  type FileStats,
  lstatIfThere,
  maxPathBytes,
  otherServerHint,
  PrivateFolder,
  Purpose,
} from "../../system/private_folder.ts";
import { isBound } from "../../system/unix_sockets.ts";

/** The socket's path, and the owner and mode of its file. */
export interface SocketPathOptions {
  /** A path, or an abstract name that begins with "\0". A relative path is resolved. */
  readonly path: string;
  /**
   * File mode of the socket: connecting requires write permission. By default `0o600`, for the server's own
   * user and root. `0o666` leaves the decision to the policy.
   */
  readonly mode?: number | undefined;
  /** Owner of the socket's file, as uid or name. By default the server's own user. */
  readonly owner?: number | string | undefined;
  /** Group of the socket's file, as gid or name. By default the file system chooses it. */
  readonly group?: number | string | undefined;
  /**
   * Whether users other than root and the server's own may own or write the socket's folder or a folder
   * above it. By default `false`, since they could replace the socket with one of their own. Write
   * permission of a group is accepted if the server's own user is certainly its only member, as with umask
   * 002.
   */
  readonly allowUnsafeFolder?: boolean | undefined;
}

/** A bound socket address. */
export interface BoundPath {
  /** The absolute path or the abstract name. */
  readonly path: string;
  /** The address that getsockname(2) reports for its connections. */
  readonly boundTo: string;
  /** Removes the socket's file if it is still ours. Call it while the socket is open. */
  remove(): void;
}

/**
 * Binds a server to a path or an abstract name.
 *
 * @param bind Makes the runtime listen at a path, which can differ from the requested one until the socket
 * is published.
 * @throws {UcredError} `ERR_UCRED_LISTEN` if the path is in use, the folder is not safe, the path is too
 * long, or a step fails. Nothing is left behind.
 * @throws {TypeError} If the options contradict each other.
 */
export async function bindSocketPath(
  options: SocketPathOptions,
  bind: (path: string) => Promise<void>,
): Promise<BoundPath> {
  const { path } = options;
  if (typeof path !== "string" || path === "" || path.indexOf("\0", 1) !== -1) {
    throw new TypeError(`path must not be empty or contain NUL: ${show(path)}`);
  }
  if (path.startsWith("\0")) return bindName(options, bind);
  const { mode = 0o600, allowUnsafeFolder = false } = options;
  if (!Number.isInteger(mode) || mode < 0 || mode > 0o777) {
    throw new RangeError(`mode must be an integer from 0 to 0o777, not ${show(mode)}`);
  }
  const absolute = resolve(path);
  const purpose = new Purpose("listen", absolute);
  const owner = idFor(purpose, "user", options.owner);
  const group = idFor(purpose, "group", options.group);
  return await bindFile(absolute, { mode, owner, group }, allowUnsafeFolder, purpose, bind);
}

async function bindName(
  { path, mode, owner, group }: SocketPathOptions,
  bind: (path: string) => Promise<void>,
): Promise<BoundPath> {
  if (mode !== undefined || owner !== undefined || group !== undefined) {
    throw new TypeError("An abstract name has no mode, owner or group: every user can connect");
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
  if (id === undefined) {
    throw purpose.error(`there is no ${kind} ${show(account)}`, "Use an existing account");
  }
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
 * Checks that a path is free, or has a stale socket on which no server answers.
 *
 * @returns The stale socket.
 */
async function requireFree(path: string, purpose: Purpose): Promise<FileStats | undefined> {
  const found = lstatIfThere(path);
  if (found === undefined) return undefined;
  if (!found.isSocket()) {
    throw purpose.error("the existing file is not a socket", "Remove it, or use another path");
  }
  const code = await probe(path);
  const isRefused = code === "ECONNREFUSED";
  if (isRefused && isBound(path) !== true) return found;
  if (code === "ENOENT") return undefined;
  const why = code === undefined
    ? "a server answers there"
    : isRefused
    ? "a socket is bound there but accepts no connection now"
    : `whether a server answers there cannot be determined: ${code}`;
  throw purpose.inUse(why, otherServerHint());
}

/** Connects to a path. Resolves to the error code; `undefined` if the connection succeeds. */
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
