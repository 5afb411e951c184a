/** The servers of the demo, and the clients that connect to them. */

import { execFileSync } from "node:child_process";
import { userInfo } from "node:os";
import process from "node:process";
import type { Identity } from "./client.ts";

/** A user account, or only ids if there is no account. */
export type Account = Identity & { readonly name?: string };

/** A client process. */
export interface Client {
  readonly title: string;
  /** Its ids at the time of connect(2). */
  readonly account: Account;
  /** The ids to which it changes. It starts with those of the demo. */
  readonly become?: Account;
  /** It changes after connect(2), before the server identifies it. */
  readonly late?: true;
}

/** A server that accepts root and one other user, and its clients. */
export interface Scenario {
  readonly allowed: Account;
  readonly clients: readonly Client[];
}

/** As root: one server, with clients of several users. Otherwise: two servers, with clients of our own user. */
export function scenarios(): readonly Scenario[] {
  const own = ownAccount();
  return own.uid === 0 ? scenariosForRoot(own) : scenariosForUser(own);
}

/** Returns the account of this name; `undefined` if there is none. */
function account(name: string): Account | undefined {
  try {
    const [uid = NaN] = idsOf("-u", name);
    const [gid = NaN] = idsOf("-g", name);
    return { uid, gid, groups: ascending(gid, ...idsOf("-G", name)), name };
  } catch {
    return undefined;
  }
}

/** Two accounts that are neither root nor our own. Every system has daemon; macOS lacks bin. */
function others(own: Account): readonly [Account, Account] {
  const found = ["daemon", "bin", "_www", "nobody"].map(account)
    .filter((other) => other !== undefined)
    .filter(({ uid }) => uid !== 0 && uid !== own.uid);
  // A container may have only the account of root. No account has these ids.
  return [found[0] ?? numbered(4_000_000_001), found[1] ?? numbered(4_000_000_002)];
}

function numbered(id: number): Account {
  return { uid: id, gid: id, groups: [id] };
}

/** The ids that id(1) prints. It also knows the accounts of directory servers. */
function idsOf(option: "-u" | "-g" | "-G", name: string): number[] {
  const stdio = ["ignore", "pipe", "ignore"] as const;
  const output = execFileSync("id", [option, name], { encoding: "utf8", stdio: [...stdio] });
  return output.trim().split(" ").map((id) => Number(id) >>> 0); // macOS prints some as negative numbers
}

function ascending(...list: readonly number[]): readonly number[] {
  return [...new Set(list)].sort((a, b) => a - b);
}

/** Its name, or "uid 1000". */
export function nameOf(account: Account): string {
  return account.name ?? `uid ${account.uid}`;
}

/** The account of this process. */
function ownAccount(): Account {
  const [uid, gid] = [process.geteuid!(), process.getegid!()];
  const account = { uid, gid, groups: ascending(gid, ...process.getgroups!()) };
  try {
    return { ...account, name: userInfo().username };
  } catch {
    return account; // a container may run as a uid without an account
  }
}

function scenariosForRoot(root: Account): readonly Scenario[] {
  const [allowed, plain] = others(root);
  const third = account("mail") ?? account("_postfix") ?? plain;
  // It is in the group of the allowed user, but the server decides by the uid.
  const other = { ...plain, groups: ascending(...plain.groups, allowed.gid, third.gid) };
  const stranger = numbered(4_000_000_000); // above 2³¹: it would be negative as a signed number
  return [{
    allowed,
    clients: [
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

function scenariosForUser(user: Account): readonly Scenario[] {
  const [allowed] = others(user);
  return [
    {
      allowed: user,
      clients: [
        { title: "yourself, allowed", account: user },
        { title: "yourself, again", account: user },
      ],
    },
    {
      allowed,
      clients: [{ title: "yourself, not allowed", account: user }],
    },
  ];
}
