/** `ucred policy …`: the analyses of policies, for people and for CI. */

import { readFileSync } from "node:fs";
import { parse } from "yaml";
import { UcredError } from "../core/errors.ts";
import type { Peer } from "../core/peer.ts";
import type { Accounts } from "../core/policy/document.ts";
import { equivalent, type Policy } from "../core/policy/policy.ts";
import type { PlainPeer } from "../core/policy/subject.ts";
import { accountId } from "../identity/accounts.ts";
import { peerOfPid } from "../identity/unix_sockets.ts";
import { type LoadOptions, loadPolicy } from "../policy/load.ts";
import {
  columns,
  type ExitCode,
  paint,
  print,
  printable,
  printJson,
  tellError,
  UsageError,
} from "./output.ts";

/** <asm-generic/errno-base.h>; the same on every system. */
const ESRCH = 3;

/** Options that all of them have. */
export interface PolicyCommandOptions {
  readonly json?: boolean;
  readonly accounts?: string;
}

interface Report {
  readonly code: ExitCode;
  readonly data: unknown;
}

/** `check`: can the files be used? */
export function check(
  files: readonly string[],
  options: PolicyCommandOptions & { readonly anyOwner?: boolean },
): ExitCode {
  return each(files, options, (file) => {
    try {
      loadPolicy(file, { ...accountsOf(options), anyOwner: options.anyOwner === true });
      if (!options.json) print(`${printable(file)}: ok`);
      return { code: 0, data: { ok: true } };
    } catch (error) {
      return refused(error, options);
    }
  });
}

/** `lint`: what is doubtful in them? */
export function lint(
  files: readonly string[],
  { abstractSocket, ...options }: PolicyCommandOptions & { readonly abstractSocket?: boolean },
): ExitCode {
  return each(files, options, (file) => {
    const findings = load(file, options).lint({ abstractSocket: abstractSocket === true });
    if (!options.json) {
      for (const { level, message, where } of findings) {
        const style = level === "error" ? "red" : level === "warning" ? "yellow" : "dim";
        print(`${printable(where ?? file)}: ${paint(style, level)}: ${printable(message)}`);
      }
    }
    const isFine = findings.every(({ level }) => level === "note");
    return { code: isFine ? 0 : 1, data: findings };
  });
}

/** `test`: do their own tests pass? */
export function test(files: readonly string[], options: PolicyCommandOptions): ExitCode {
  return each(files, options, (file) => {
    const report = load(file, options).test();
    if (!options.json) print(String(report).split("\n").map(printable).join("\n"));
    return { code: report.passed ? 0 : 1, data: report };
  });
}

/** Who asks, as the command line says. */
export interface ExplainOptions extends PolicyCommandOptions {
  readonly action?: string;
  readonly uid?: number;
  readonly gid?: number;
  readonly user?: string;
  readonly group?: readonly string[];
  readonly pid?: number;
  readonly peer?: string;
}

/** `explain`: what would be decided of a peer, and why? */
export function explain(file: string, options: ExplainOptions): ExitCode {
  const policy = load(file, options);
  const { action } = options;
  const live = options.pid === undefined ? undefined : processOf(options.pid);
  try {
    const explanation = policy.explain(live ?? plainPeer(options), { action });
    if (options.json) printJson(explanation);
    else print(String(explanation).split("\n").map(printable).join("\n"));
    return explanation.decision.allowed ? 0 : 1;
  } finally {
    live?.close();
  }
}

function processOf(pid: number): Peer {
  try {
    return peerOfPid(pid);
  } catch (error) {
    if (!(error instanceof UcredError) || error.errno !== ESRCH) throw error;
    throw new UsageError(`There is no process ${pid}`);
  }
}

/** `who`: who may do something? */
export function who(
  file: string,
  options: PolicyCommandOptions & { readonly action?: string },
): ExitCode {
  const found = load(file, options).who(options.action);
  if (options.json) printJson(found);
  else if (found.clauses.length === 0) print("nobody");
  else print(String(found).split("\n").map(printable).join("\n"));
  return 0;
}

/** `diff`: does an edit change any decision? */
export function diff(before: string, after: string, options: PolicyCommandOptions): ExitCode {
  const found = equivalent(load(before, options), load(after, options));
  if (options.json) printJson(found ?? null);
  else if (found === undefined) print("No decision changes");
  else {
    const { peer, action, before: was, after: is } = found;
    const said = (allowed: boolean) => allowed ? paint("green", "allowed") : paint("red", "denied");
    print(`A decision changes: of ${printable(JSON.stringify(peer))}`);
    print(action === undefined ? "without an action" : `for ${printable(JSON.stringify(action))}`);
    const rows = [[before, was], [after, is]] as const;
    const lines = rows.map(([file, { allowed, reason }]) => [
      `${printable(file)}:`,
      `${said(allowed)}. ${printable(reason)}`,
    ]);
    for (const line of columns(lines)) print(line);
  }
  return found === undefined ? 0 : 1;
}

/** Runs for each file, and prints all reports at once where JSON is asked for. */
function each(
  files: readonly string[],
  { json }: PolicyCommandOptions,
  run: (file: string) => Report,
): ExitCode {
  const reports = files.map((file) => ({ file, ...run(file) }));
  if (json) printJson(reports.map(({ file, data }) => ({ file, result: data })));
  return Math.max(...reports.map(({ code }) => code)) as ExitCode;
}

/** A policy that cannot be used: a finding, unless it could not even be read. */
function refused(error: unknown, { json }: PolicyCommandOptions): Report {
  if (!(error instanceof UcredError) || error.code !== "ERR_UCRED_POLICY") throw error;
  const isUnread = error.cause !== undefined;
  if (!json || isUnread) tellError(error);
  const data = { ok: false, message: error.message, hint: error.hint };
  return { code: isUnread ? 2 : 1, data };
}

/** Whose the file is does not matter here: nobody is let in by it. */
function load(file: string, options: PolicyCommandOptions): Policy {
  return loadPolicy(file, { ...accountsOf(options), anyOwner: true });
}

/** Accounts of another machine, from a file: `users` and `groups`, each name → id. */
function accountsOf({ accounts: file }: PolicyCommandOptions): Pick<LoadOptions, "accounts"> {
  if (file === undefined) return {};
  const data: unknown = parse(readFileSync(file, "utf8"));
  const { users = {}, groups = {} } = (data ?? {}) as {
    readonly users?: { readonly [name: string]: unknown };
    readonly groups?: { readonly [name: string]: unknown };
  };
  const idIn = (map: { readonly [name: string]: unknown }) => (name: string) => {
    if (!Object.hasOwn(map, name)) return undefined;
    const id = map[name];
    if (typeof id === "number") return id;
    throw new UsageError(`${file}: ${name} has no id`);
  };
  const accounts: Accounts = { uid: idIn(users), gid: idIn(groups) };
  return { accounts };
}

function plainPeer(options: ExplainOptions): PlainPeer {
  const { uid, gid, user, group = [], peer: text } = options;
  const accounts = accountsOf(options).accounts;
  const idOf = (kind: "user" | "group", name: string): number => {
    const number = /^[0-9]+$/.test(name) ? Number(name) : undefined;
    const id = number ??
      (accounts === undefined
        ? accountId(kind, name)
        : kind === "user"
        ? accounts.uid(name)
        : accounts.gid(name));
    if (id === undefined) throw new UsageError(`There is no ${kind} ${JSON.stringify(name)}`);
    return id;
  };
  const groups = group.map((name) => idOf("group", name));
  const given = text === undefined ? {} : peerFrom(text);
  const who = user === undefined ? uid : idOf("user", user);
  return {
    ...given,
    ...(who !== undefined && { uid: who }),
    ...(gid !== undefined && { gid }),
    ...(groups.length > 0 && { groups }),
  };
}

function peerFrom(text: string): PlainPeer {
  let peer: unknown;
  try {
    peer = JSON.parse(text);
  } catch (error) {
    throw new UsageError(`--peer is no JSON: ${(error as Error).message}`);
  }
  if (typeof peer === "object" && peer !== null && !Array.isArray(peer)) return peer;
  throw new UsageError('--peer is an object, {"uid": 1000} for instance');
}
