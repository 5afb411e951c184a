/** The accounts of the playground. The bundle has this file in place of system/accounts.ts. */

import type { NamedKind } from "../../../core/policy/document/types.ts";

/** Name → id, for users and for groups. */
export interface AccountTable {
  readonly user: ReadonlyMap<string, number>;
  readonly group: ReadonlyMap<string, number>;
}

let table: AccountTable = { user: new Map(), group: new Map() };

/** Replaces all accounts. */
export function setAccounts(accounts: AccountTable): void {
  table = accounts;
}

/** Returns a name of the id; `undefined` if it has none. */
export function nameOf(kind: NamedKind, id: number): string | undefined {
  for (const [name, other] of table[kind]) if (other === id) return name;
  return undefined;
}

/** As in system/accounts.ts. */
export function idOf(kind: NamedKind, name: string): number | undefined {
  return table[kind].get(name);
}

/** As in system/accounts.ts. */
export function localNames(kind: NamedKind): readonly string[] {
  return [...table[kind].keys()];
}

/** As in system/accounts.ts. The server of the playground runs as root. */
export function ownUid(): number {
  return 0;
}
