/** The dictionary of `GetConnectionCredentials`: read from a bus, and made for a peer. */

import { isId } from "../../core/credentials.ts";
import type { Peer } from "../../core/peer.ts";
import { show } from "../../core/policy/document/shape.ts";
import { busError, type BusMessage } from "./bus.ts";

/** The credentials in a reply of a bus. `undefined`: the bus does not report it. */
export interface ReportedCredentials {
  readonly uid: number | undefined;
  /** Complete, with the primary gid; ascending, without duplicates. */
  readonly groups: readonly number[] | undefined;
  readonly pid: number | undefined;
  /** Index of the pidfd in the descriptors of the message. */
  readonly processFd: number | undefined;
  readonly label: string | undefined;
}

/**
 * Reads the reply of a bus, in each of the shapes in which `dbus-native` returns variants.
 *
 * @throws {UcredError} `ERR_UCRED_BUS` if it is no such reply. A value of another type than the
 * specification has is an error, since a part of it may be missing.
 */
export function credentialsIn({ signature, body = [] }: BusMessage): ReportedCredentials {
  const dictionary = body[0];
  if (signature !== "a{sv}" || typeof dictionary !== "object" || dictionary === null) {
    throw unexpected(`a reply with the signature ${show(signature)}`);
  }
  const entries = Array.isArray(dictionary) ? dictionary : Object.entries(dictionary);
  const values = new Map<unknown, unknown>(entries as [unknown, unknown][]);
  if (values.size !== entries.length) throw unexpected("a key twice");
  const read = <T>(key: string, parse: (value: unknown) => T | undefined): T | undefined => {
    if (!values.has(key)) return undefined;
    const found = parse(variantValue(values.get(key)));
    if (found === undefined) throw unexpected(`another type of ${key}`);
    return found;
  };
  return {
    uid: read("UnixUserID", (value) => isId(value) ? value : undefined),
    groups: read("UnixGroupIDs", groupsOf),
    pid: read("ProcessID", (value) => isPid(value) ? value : undefined),
    processFd: read("ProcessFD", (value) => isIndex(value) ? value : undefined),
    label: read("LinuxSecurityLabel", labelOf),
  };
}

/** A `Variant`, a parsed signature with a list of one value, or the value itself. */
function variantValue(variant: unknown): unknown {
  if (typeof variant !== "object" || variant === null) return variant;
  if (!Array.isArray(variant)) {
    const isVariant = "signature" in variant && "value" in variant;
    return isVariant ? variant.value : variant;
  }
  const [tree, value] = variant as unknown[];
  const isTree = variant.length === 2 && Array.isArray(tree) && Array.isArray(value) &&
    typeof (tree[0] as { readonly type?: unknown } | undefined)?.type === "string";
  return isTree ? value[0] : variant;
}

/** The largest pid that the kernel can assign. <linux/threads.h> has a lower limit: 2²². */
const MAX_PID = 2 ** 31 - 1;

const isPid = (value: unknown): value is number =>
  Number.isInteger(value) && (value as number) > 0 && (value as number) <= MAX_PID;

const isIndex = (value: unknown): value is number =>
  Number.isInteger(value) && (value as number) >= 0;

function groupsOf(value: unknown): readonly number[] | undefined {
  const groups: readonly unknown[] = Array.isArray(value) ? Array.from(value) : [undefined];
  if (!groups.every(isId)) return undefined;
  return Object.freeze([...new Set(groups)].sort((one, other) => one - other));
}

/** Bytes that end with NUL: a security label, which has no NUL itself. */
function labelOf(value: unknown): string | undefined {
  const isBytes = value instanceof Uint8Array || Array.isArray(value);
  const bytes = isBytes ? Uint8Array.from(value as ArrayLike<number>) : new Uint8Array();
  if (bytes.length < 2 || bytes.indexOf(0) !== bytes.length - 1) return undefined;
  try {
    const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    return decoder.decode(bytes.subarray(0, -1));
  } catch {
    return undefined;
  }
}

function unexpected(what: string) {
  return busError("read the sender's credentials", `the bus returned ${what}`, null);
}

/**
 * The dictionary of `GetConnectionCredentials`. Each value is a variant: its signature, and the value.
 * `dbus-native` writes `Object.entries()` of it as `a{sv}`.
 */
export interface ConnectionCredentials {
  /** Effective uid. */
  readonly UnixUserID?: readonly ["u", number];
  /** All groups, with the gid, ascending. */
  readonly UnixGroupIDs?: readonly ["au", readonly number[]];
  /** The pid in our pid namespace. */
  readonly ProcessID?: readonly ["u", number];
  /** The security label in UTF-8, and a NUL. */
  readonly LinuxSecurityLabel?: readonly ["ay", Uint8Array];
}

/**
 * Returns the credentials of a peer as a bus returns them from `GetConnectionCredentials`. A fact that is
 * unknown, ambiguous or incomplete is missing, as the specification requires.
 *
 * @param peer A peer of `identify()` or of a server. `ProcessFD` is never included: the pidfd of a pinned
 * peer belongs to the peer.
 * @see {@link https://dbus.freedesktop.org/doc/dbus-specification.html D-Bus specification},
 * org.freedesktop.DBus.GetConnectionCredentials
 *
 * @example Send the groups as a bus would report them
 * ```ts
 * import { createServer } from "ucred/net";
 * import { connectionCredentials } from "ucred/dbus";
 *
 * const server = createServer({}, (socket, peer) => {
 *   const { UnixGroupIDs } = connectionCredentials(peer);
 *   socket.end(`welcome, groups ${UnixGroupIDs?.[1]}\n`);
 * });
 * server.listen("app.sock");
 * ```
 */
export function connectionCredentials(peer: Peer): ConnectionCredentials {
  const { uid, groups, pid, label } = peer.facts;
  return {
    ...(uid.state === "known" && { UnixUserID: ["u", uid.value] as const }),
    ...(groups.state === "known" && { UnixGroupIDs: ["au", groups.value] as const }),
    ...(pid.state === "known" && { ProcessID: ["u", pid.value] as const }),
    ...(label.state === "known" &&
      { LinuxSecurityLabel: ["ay", new TextEncoder().encode(`${label.value}\0`)] as const }),
  };
}
