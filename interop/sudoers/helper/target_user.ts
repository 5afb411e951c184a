/** The account and the group that a command runs as. */

import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { isId } from "../../../core/credentials.ts";
import { accountName } from "../../../system/accounts.ts";

/** An account with its groups. */
export interface TargetUser {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  /** All gids, also the primary one. */
  readonly gids: readonly number[];
  /** The names of `gids`; `undefined` if one has no name. */
  readonly groups: readonly string[] | undefined;
  readonly home: string;
}

const run = promisify(execFile);

/** Names of accounts that useradd(8) creates. The first character is no "-", which begins an option. */
const NAME = /^[A-Za-z_][A-Za-z0-9_.-]{0,63}$/;

/** Account lookups end after this time: a directory server may not respond. */
const LOOKUP_TIMEOUT_MS = 60_000;

const LOOKUP = { env: {}, cwd: "/", timeout: LOOKUP_TIMEOUT_MS, encoding: "utf8" } as const;

/**
 * Looks up an account and its groups by getent(1) and id(1), which use all account sources.
 *
 * @returns `undefined` if there is no such account, or the answer is not complete.
 */
export async function findTargetUser(name: string): Promise<TargetUser | undefined> {
  if (!NAME.test(name)) return undefined;
  try {
    const [entry, ids] = await Promise.all([
      run("/usr/bin/getent", ["passwd", name], LOOKUP),
      run("/usr/bin/id", ["-G", "--", name], LOOKUP),
    ]);
    return targetUserIn(name, entry.stdout, ids.stdout);
  } catch {
    return undefined;
  }
}

/**
 * Reads the answers of getent(1) and id(1).
 *
 * @returns `undefined` if they are not about this account, or not complete.
 */
export function targetUserIn(name: string, entry: string, ids: string): TargetUser | undefined {
  const [found, , uidText, gidText, , home = "", ...rest] = entry.trimEnd().split(":");
  const numbers = [uidText ?? "", gidText ?? "", ...ids.trim().split(" ")];
  if (found !== name || rest.length !== 1 || !numbers.every((text) => /^\d+$/.test(text))) {
    return undefined;
  }
  const [uid, gid, ...gids] = numbers.map(Number) as [number, number, ...number[]];
  if (![uid, gid, ...gids].every(isId) || !gids.includes(gid)) return undefined;
  const groups = gids.map((id) => accountName("group", id));
  const isNamed = groups.every((group) => group !== undefined);
  return {
    name,
    uid,
    gid,
    gids,
    groups: isNamed ? groups as readonly string[] : undefined,
    home: home.startsWith("/") ? home : "/",
  };
}

/**
 * Looks up a group by getent(1).
 *
 * @returns Its gid; `undefined` if there is no such group.
 */
export async function findTargetGroup(name: string): Promise<number | undefined> {
  if (!NAME.test(name)) return undefined;
  try {
    const { stdout } = await run("/usr/bin/getent", ["group", name], LOOKUP);
    return targetGroupIn(name, stdout);
  } catch {
    return undefined;
  }
}

/** Reads the answer of getent(1). Returns `undefined` if it is not about this group. */
export function targetGroupIn(name: string, entry: string): number | undefined {
  const [found, , gid = "", ...rest] = entry.trimEnd().split(":");
  if (found !== name || rest.length !== 1 || !/^\d+$/.test(gid)) return undefined;
  return isId(Number(gid)) ? Number(gid) : undefined;
}
