/** Verifies the server of a connection, before the client sends the first byte. */

import { UcredError } from "../core/errors.ts";
import { valueOf } from "../core/facts.ts";
import { type OptionNames, requireOptions } from "../core/options.ts";
import type { Peer } from "../core/peer.ts";
import { accountId } from "../system/accounts.ts";
import { closeSocket, type UnixSocket } from "./fd.ts";
import { identify } from "./identify.ts";

/** Requirements for the server. All given fields must match; a list matches any of its values. */
export interface ServerExpectation {
  /** Effective uid. */
  readonly uid?: number | readonly number[];
  /** Name of the account, or the digits of its uid. A uid may have several names. */
  readonly user?: string | readonly string[];
  /** Effective gid. */
  readonly gid?: number | readonly number[];
  /** Name of the group, or the digits of its gid. A gid may have several names. */
  readonly group?: string | readonly string[];
}

/**
 * Verifies that the server of a connection is the expected one, before anything is sent.
 *
 * The kernel recorded the process that last called listen(2), with its ids at that time. A server that
 * listens as root and then changes its user is reported as root. With socket activation, the service manager
 * is reported until the service calls listen(2) itself. Any process with the listening socket may accept
 * connections; the kernel does not report which one did.
 *
 * @param socket A connected AF_UNIX socket, the client's end. Not read from. It is closed on any
 * error, but a descriptor number is not closed.
 * @param expected At least one of the fields.
 * @returns The server, as `identify()` returns it.
 * @throws {UcredError} `ERR_UCRED_REFUSED` if the server is another one; an unknown fact never
 * matches. Otherwise as `identify()` does.
 * @throws {TypeError} If no field is set, or a field has the wrong type.
 * @see {@link https://man7.org/linux/man-pages/man7/unix.7.html unix(7)}, SO_PEERCRED
 *
 * @example Connect to a server of root or of our own user
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
      { hint: "Check the process that listens at the path, and the owner and mode of its folder" },
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

/** The peer's value of each field; `undefined` if it is unknown or none. */
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
  if (entries.length === 0) throw new TypeError("Set the expected uid, user, gid or group");
  return entries.map(([name, value]): Check => {
    const field = name as keyof ServerExpectation;
    const wanted: readonly unknown[] = Array.isArray(value) ? value : [value];
    const type = field === "uid" || field === "gid" ? "number" : "string";
    if (wanted.length === 0 || wanted.some((one) => typeof one !== type)) {
      throw new TypeError(`${field} must be a ${type}, or a list with at least one`);
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
 * Reports whether one of these names belongs to the server's id. Compares ids, since an account may
 * have several names, of which the account database returns one.
 */
function hasName({ facts }: Peer, kind: "user" | "group", names: readonly string[]): boolean {
  const id = valueOf(kind === "user" ? facts.uid : facts.gid);
  if (id === undefined) return false;
  let failed: unknown;
  for (const name of names) {
    try {
      if (accountId(kind, name) === id) return true;
    } catch (error) {
      failed ??= error; // another name may match
    }
  }
  if (failed !== undefined) throw failed;
  return false;
}
