/** The other way round: a client makes sure of the server before it sends a byte. */

import { UcredError } from "../core/errors.ts";
import { valueOf } from "../core/facts.ts";
import { type OptionNames, requireOptions } from "../core/options.ts";
import type { Peer } from "../core/peer.ts";
import { accountId } from "../system/accounts.ts";
import { closeSocket, type UnixSocket } from "./fd.ts";
import { identify } from "./identify.ts";

/** Who the server must be. Every field that is given must hold; a list means any of it. */
export interface ServerExpectation {
  /** Effective uid. */
  readonly uid?: number | readonly number[];
  /** Name of an account with that uid, which may have others; or its digits. */
  readonly user?: string | readonly string[];
  /** Effective gid. */
  readonly gid?: number | readonly number[];
  /** Name of a group with that gid, which may have others; or its digits. */
  readonly group?: string | readonly string[];
}

/**
 * Makes sure that the server of a connection is who the program expects, before anything is sent.
 *
 * The kernel recorded who called listen(2), when it did: a server that listens as root and then
 * changes user is root here, and with socket activation it is the service manager. What it does not
 * tell is who accepts: that may be any process that the listening socket was given to.
 *
 * @param socket A connected AF_UNIX socket, the client's end. Not read from; closed if the server is
 * another one, or if that cannot be told, and in any case of error. A descriptor number is not closed.
 * @param expected At least one of the fields.
 * @returns The server, as `identify()` gives it.
 * @throws {UcredError} `ERR_UCRED_REFUSED` if the server is another one; what is unknown never
 * matches. As `identify()` does otherwise.
 * @throws {TypeError} If nothing is expected, or a field is of another type.
 * @see {@link https://man7.org/linux/man-pages/man7/unix.7.html unix(7)}, SO_PEERCRED
 *
 * @example Speak to root's server or to one of our own, to no other
 * ```ts
 * import { connect, createServer } from "node:net";
 * import { verifyServer } from "ucred";
 *
 * const server = createServer((socket) => socket.end()).listen("app.sock", () => {
 *   const socket = connect("app.sock", () => {
 *     const { user } = verifyServer(socket, { uid: [0, process.getuid!()] });
 *     console.log(`connected to ${user}`);
 *     socket.end("a secret\n");
 *     server.close();
 *   });
 * });
 * ```
 */
export function verifyServer(socket: UnixSocket, expected: ServerExpectation): Peer {
  try {
    const checks = checksOf(expected);
    const peer = identify(socket);
    const failed = checks.find(({ holds }) => !holds(peer));
    if (failed === undefined) return peer;
    throw new UcredError(
      "ERR_UCRED_REFUSED",
      `Cannot trust the server: ${failed.found(peer)} where ${failed.wanted} was expected`,
      { hint: "Find out who listens on the socket's path, and who may write to its folder" },
    );
  } catch (error) {
    closeSocket(socket);
    throw error;
  }
}

interface Check {
  readonly wanted: string;
  readonly found: (peer: Peer) => string;
  readonly holds: (peer: Peer) => boolean;
}

/** What a peer has in each field; `undefined` where that is unknown or none. */
const FIELDS: {
  readonly [name in keyof ServerExpectation]-?: (peer: Peer) => number | string | undefined;
} = {
  uid: ({ facts }) => valueOf(facts.uid),
  user: ({ user, facts }) => user ?? valueOf(facts.uid),
  gid: ({ facts }) => valueOf(facts.gid),
  group: ({ facts, gid, groups, groupNames }) =>
    facts.gid.state === "known" ? groupNames?.[groups?.indexOf(gid) ?? -1] ?? undefined : undefined,
};

const EXPECTED: OptionNames<ServerExpectation> = { uid: true, user: true, gid: true, group: true };

function checksOf(expected: ServerExpectation): readonly Check[] {
  requireOptions("The expected server", expected, EXPECTED);
  const entries = Object.entries(expected).filter(([, value]) => value !== undefined);
  if (entries.length === 0) throw new TypeError("Say who is expected: uid, user, gid or group");
  return entries.map(([name, value]): Check => {
    const field = name as keyof ServerExpectation;
    const wanted: readonly unknown[] = Array.isArray(value) ? value : [value];
    const type = field === "uid" || field === "gid" ? "number" : "string";
    if (wanted.length === 0 || wanted.some((one) => typeof one !== type)) {
      throw new TypeError(`${field} is a ${type}, or a list of at least one`);
    }
    return {
      wanted: wanted.join(" or "),
      found: (peer) => `${field} ${FIELDS[field](peer) ?? "unknown"}`,
      holds: (peer) => {
        if (field === "user" || field === "group") return hasName(peer, field, wanted as string[]);
        const found = FIELDS[field](peer);
        return found !== undefined && wanted.includes(found);
      },
    };
  });
}

/**
 * Whether one of these names stands for the server's id. Compared by id, since an account may have several
 * names, of which the account database gives one.
 */
function hasName({ facts }: Peer, kind: "user" | "group", names: readonly string[]): boolean {
  const id = valueOf(kind === "user" ? facts.uid : facts.gid);
  if (id === undefined) return false;
  let failed: unknown;
  for (const name of names) {
    try {
      if (accountId(kind, name) === id) return true;
    } catch (error) {
      failed ??= error; // another name may hold
    }
  }
  if (failed !== undefined) throw failed;
  return false;
}
