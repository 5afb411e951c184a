/** Who connects in the demo, and to what kind of server. */

import { execFileSync } from "node:child_process";
import { userInfo } from "node:os";
import process from "node:process";
import type { Identity } from "./client.ts";

/** A user account, or the ids alone where there is none. */
export type Account = Identity & { readonly name?: string };

/** A process that connects. */
export interface Visitor {
  readonly title: string;
  /** Who it is when it connects. */
  readonly account: Account;
  /** Whom the client has to change to; it starts as the demo's own user. */
  readonly become?: Account;
  /** It changes after it has connected, before the server looks. */
  readonly late?: true;
}

/** A server that lets in root and one more user, and those who come. */
export interface Scene {
  readonly allowed: Account;
  readonly visitors: readonly Visitor[];
}

/** As root, processes of several users; otherwise our own at two servers. */
export function scenes(): readonly Scene[] {
  const us = ourselves();
  return us.uid === 0 ? scenesForRoot(us) : scenesForUser(us);
}

/** The account of this name. */
function account(name: string): Account | undefined {
  try {
    const [uid = NaN] = ask("-u", name);
    const [gid = NaN] = ask("-g", name);
    return { uid, gid, groups: ids(gid, ...ask("-G", name)), name };
  } catch {
    return undefined; // not on this system
  }
}

/** Two accounts that are neither root nor `us`: daemon is everywhere, bin is missing on macOS. */
function others(us: Account): readonly [Account, Account] {
  const found = ["daemon", "bin", "_www", "nobody"].map(account)
    .filter((other) => other !== undefined)
    .filter(({ uid }) => uid !== 0 && uid !== us.uid);
  // A container may have no accounts but root's. Nobody has these ids.
  return [found[0] ?? numbered(4_000_000_001), found[1] ?? numbered(4_000_000_002)];
}

function numbered(id: number): Account {
  return { uid: id, gid: id, groups: [id] };
}

/** The numbers that id(1) prints. It knows every account, of directory servers too. */
function ask(option: "-u" | "-g" | "-G", name: string): number[] {
  const stdio = ["ignore", "pipe", "ignore"] as const;
  const output = execFileSync("id", [option, name], { encoding: "utf8", stdio: [...stdio] });
  return output.trim().split(" ").map((id) => Number(id) >>> 0); // macOS prints some as negative
}

function ids(...list: readonly number[]): readonly number[] {
  return [...new Set(list)].sort((a, b) => a - b);
}

/** How people call it. */
export function nameOf(account: Account): string {
  return account.name ?? `uid ${account.uid}`;
}

/** Who this process is. */
function ourselves(): Account {
  const [uid, gid] = [process.geteuid!(), process.getegid!()];
  const account = { uid, gid, groups: ids(gid, ...process.getgroups!()) };
  try {
    return { ...account, name: userInfo().username };
  } catch {
    return account; // a container may run as a uid without an account
  }
}

function scenesForRoot(root: Account): readonly Scene[] {
  const [allowed, plain] = others(root);
  const third = account("mail") ?? account("_postfix") ?? plain;
  // The allowed user's group does not help: the server looks at the uid.
  const other = { ...plain, groups: ids(...plain.groups, allowed.gid, third.gid) };
  const stranger = numbered(4_000_000_000); // above 2³¹: negative if it were read as signed
  return [{
    allowed,
    visitors: [
      { title: "root", account: root },
      { title: `${nameOf(allowed)}, allowed`, account: allowed, become: allowed },
      {
        title: `${nameOf(other)}, in ${other.groups.length} groups`,
        account: other,
        become: other,
      },
      { title: "a uid without an account", account: stranger, become: stranger },
      { title: `root, ${nameOf(other)} since *`, account: root, become: other, late: true },
    ],
  }];
}

function scenesForUser(user: Account): readonly Scene[] {
  const [allowed] = others(user);
  return [
    {
      allowed: user,
      visitors: [
        { title: "yourself, allowed", account: user },
        { title: "yourself, once more", account: user },
      ],
    },
    {
      allowed,
      visitors: [{ title: "yourself, not allowed", account: user }],
    },
  ];
}
