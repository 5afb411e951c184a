/** Socket → peer: everything the kernel knows of it, captured at once. */

import { type System, system } from "../adapters/select.ts";
import { UcredError } from "../core/errors.ts";
import { type Fact, known, none, unknown } from "../core/facts.ts";
import type { AmbiguousId, Peer, PeerFacts, PeerJSON } from "../core/peer.ts";
import { groupName, userName } from "./accounts.ts";
import { readCredentials } from "./credentials.ts";
import { fdOf, type UnixSocket } from "./fd.ts";
import { readGroups } from "./groups.ts";
import { readLabel } from "./label.ts";
import { isAmbiguous } from "./namespaces.ts";

/**
 * Tells who is at the other end of a Unix socket: credentials, supplementary groups and security
 * label, read from the kernel at once, and account names on demand.
 *
 * Call it in the accept handler. A fact that cannot be read does not fail the call: it is unknown,
 * and `peer.facts` says why.
 *
 * @param socket A connected AF_UNIX socket. Borrowed: it stays open and is not read from.
 * @returns Ids as of connect(2); see {@link Peer} for each fact's meaning. Frozen.
 * @throws {UcredError} As `peerCredentials()` does.
 * @throws {TypeError} If `socket` is nothing like a socket.
 * @throws {RangeError} If `socket` is a number and not an integer from 0 to 2³¹ − 1.
 * @see {@link https://man7.org/linux/man-pages/man7/unix.7.html unix(7)}, SO_PEERCRED, SO_PEERSEC
 *
 * @example Let a group in
 * ```ts
 * import { createServer } from "node:net";
 * import { identify } from "ucred";
 *
 * const OPERATORS = 0; // a gid
 * createServer((socket) => {
 *   const peer = identify(socket);
 *   console.log(peer);
 *   socket.end(peer.groups?.includes(OPERATORS) ? "welcome\n" : "no\n");
 * }).listen("app.sock");
 * ```
 */
export function identify(socket: UnixSocket): Peer {
  return identifyFd(system(), fdOf(socket));
}

/** {@link identify} for a descriptor, on a given system. */
export function identifyFd(on: System, fd: number): Peer {
  const credentials = readCredentials(on, fd);
  return new CapturedPeer(on, {
    ...credentials,
    groups: readGroups(on, fd, credentials),
    label: readLabel(on, fd),
  });
}

interface Capture {
  readonly pid: number | undefined;
  readonly uid: number;
  readonly gid: number;
  readonly groups: Fact<readonly number[]>;
  readonly label: Fact<string>;
}

/** As many groups as are looked up for names: a peer may bring 65536, at up to 40 µs each. */
const MOST_GROUP_NAMES = 1024;

class CapturedPeer implements Peer {
  readonly pid: number | undefined;
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[] | undefined;
  readonly label: string | undefined;
  readonly ambiguous: readonly AmbiguousId[];
  readonly #on: System;
  readonly #capture: Capture;
  #facts: PeerFacts | undefined;

  constructor(on: System, capture: Capture) {
    const { pid, uid, gid, groups, label } = capture;
    this.#on = on;
    this.#capture = capture;
    this.pid = pid;
    this.uid = uid;
    this.gid = gid;
    this.groups = valueOf(groups);
    this.label = valueOf(label);
    const isUnsure = (gid: number) => isAmbiguous(on, "gid", gid);
    const ambiguous: AmbiguousId[] = [];
    if (isAmbiguous(on, "uid", uid)) ambiguous.push("uid");
    if (isUnsure(gid)) ambiguous.push("gid");
    if (this.groups?.some(isUnsure)) ambiguous.push("groups");
    this.ambiguous = Object.freeze(ambiguous);
    Object.freeze(this);
  }

  get facts(): PeerFacts {
    return this.#facts ??= factsOf(this.#on, this.#capture, this.ambiguous);
  }

  get user(): string | undefined {
    return valueOf(this.facts.user);
  }

  get groupNames(): readonly (string | null)[] | undefined {
    return valueOf(this.facts.groupNames);
  }

  toJSON(): PeerJSON {
    const { pid, uid, gid, groups, label, user, groupNames, ambiguous } = this;
    const reasons = Object.entries(this.facts).flatMap(([name, fact]: [string, Fact<unknown>]) =>
      fact.state === "unknown" ? [[name, fact.reason.message]] : []
    );
    return {
      ...(pid !== undefined && { pid }),
      uid,
      gid,
      ...(groups && { groups }),
      ...(label !== undefined && { label }),
      ...(user !== undefined && { user }),
      ...(groupNames && { groupNames }),
      ...(ambiguous.length > 0 && { ambiguous }),
      ...(reasons.length > 0 && { unknown: Object.fromEntries(reasons) }),
    };
  }

  /** `console.log(peer)`, in Node, Bun and Deno alike. */
  [Symbol.for("nodejs.util.inspect.custom")](
    _depth: number,
    options: unknown,
    inspect: (value: unknown, options: unknown) => string,
  ): string {
    return `Peer ${inspect(this.toJSON(), options)}`;
  }
}

function valueOf<T>(fact: Fact<T>): T | undefined {
  return fact.state === "known" ? fact.value : undefined;
}

function factsOf(on: System, capture: Capture, ambiguous: readonly AmbiguousId[]): PeerFacts {
  const { pid, uid, gid, groups, label } = capture;
  let user: Fact<string> | undefined;
  let groupNames: PeerFacts["groupNames"] | undefined;
  return Object.freeze({
    pid: pid === undefined ? none("kernel@connect") : known(pid, "kernel@connect"),
    uid: ambiguous.includes("uid") ? unmapped(uid) : known(uid, "kernel@connect"),
    gid: ambiguous.includes("gid") ? unmapped(gid) : known(gid, "kernel@connect"),
    groups,
    label,
    get user() {
      return user ??= ambiguous.includes("uid") ? unmapped(uid) : userName(on, uid);
    },
    get groupNames() {
      return groupNames ??= namesOf(on, groups);
    },
  });
}

/** An ambiguous gid's name would be a guess, and is left out. */
function namesOf(on: System, groups: Fact<readonly number[]>): PeerFacts["groupNames"] {
  if (groups.state !== "known") return groups;
  if (groups.value.length > MOST_GROUP_NAMES) {
    const message = `Cannot look up group names: more than ${MOST_GROUP_NAMES} groups`;
    const hint = "Decide by the numbers in groups, which are complete";
    return unknown(new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint }));
  }
  const names: (string | null)[] = [];
  for (const gid of groups.value) {
    const name = isAmbiguous(on, "gid", gid) ? undefined : groupName(on, gid);
    if (name?.state === "unknown") return name;
    names.push(name?.state === "known" ? name.value : null);
  }
  return known(Object.freeze(names), "accounts@now");
}

function unmapped(id: number): Fact<never> {
  const message =
    `Cannot tell whose id ${id} is: it may stand for any id outside our user namespace`;
  const hint = "Run the server outside the container, or map the peer's id into it";
  return unknown(new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint }));
}
