/** `ucred policy …`: the analyses of policies, for people and for CI. */

import { readFileSync } from "node:fs";
import { parse } from "yaml";
import { isId } from "../core/credentials.ts";
import { UcredError } from "../core/errors.ts";
import type { Peer } from "../core/peer.ts";
import type { Accounts } from "../core/policy/document.ts";
import { equivalent, type Policy } from "../core/policy/policy.ts";
import type { PlainPeer } from "../core/policy/subject.ts";
import { accountId } from "../identity/accounts.ts";
import { definePolicy } from "../identity/policy.ts";
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
      return refused(error, options, 1);
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

/** More than pid_t can number: the kernel would take it for another, or for none of its business. */
const TOO_MANY = 2 ** 31;

function processOf(pid: number): Peer {
  if (pid >= TOO_MANY) throw new UsageError(`There is no process ${pid}`);
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
  options: PolicyCommandOptions,
  run: (file: string) => Report,
): ExitCode {
  const reports = files.map((file) => {
    try {
      return { file, ...run(file) };
    } catch (error) {
      return { file, ...refused(error, options, 2) };
    }
  });
  const { json } = options;
  if (json) printJson(reports.map(({ file, data }) => ({ file, result: data })));
  return Math.max(...reports.map(({ code }) => code)) as ExitCode;
}

/** A policy that cannot be used. Where it could not even be read, the command could not be run. */
function refused(error: unknown, { json }: PolicyCommandOptions, code: 1 | 2): Report {
  if (!(error instanceof UcredError) || error.code !== "ERR_UCRED_POLICY") throw error;
  const isUnread = error.cause !== undefined;
  if (!json || isUnread || code === 2) tellError(error);
  const data = { ok: false, message: error.message, hint: error.hint };
  return { code: isUnread ? 2 : code, data };
}

/** Whose the file is does not matter here: nobody is let in by it. */
function load(file: string, options: PolicyCommandOptions): Policy {
  return loadPolicy(file, { ...accountsOf(options), anyOwner: true });
}

/** Accounts of another machine, from a file: `users` and `groups`, each name → id. */
function accountsOf({ accounts: file }: PolicyCommandOptions): Pick<LoadOptions, "accounts"> {
  if (file === undefined) return {};
  const text = readFileSync(file, "utf8");
  let data: unknown;
  try {
    data = parse(text);
  } catch (error) {
    throw new UsageError(`${file}: ${(error as Error).message.split("\n")[0]}`);
  }
  const wrong = new UsageError(`${file}: it has users and groups, and under each name: id`);
  const idsIn = (kind: "users" | "groups") => {
    const map = isMap(data ?? {}) ? (data as MaybeMap)?.[kind] ?? {} : undefined;
    if (!isMap(map)) throw wrong;
    return (name: string) => {
      if (!Object.hasOwn(map, name)) return undefined;
      const id = map[name];
      if (typeof id === "number" && isId(id)) return id;
      throw new UsageError(`${file}: ${name} has no id from 0 to 4294967294`);
    };
  };
  const accounts: Accounts = { uid: idsIn("users"), gid: idsIn("groups") };
  return { accounts };
}

type MaybeMap = { readonly [name: string]: unknown } | null | undefined;

function isMap(value: unknown): value is { readonly [name: string]: unknown } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function plainPeer(options: ExplainOptions): PlainPeer {
  const { gid, user, group = [], peer: text } = options;
  const accounts = accountsOf(options).accounts;
  const idOf = (kind: "user" | "group", name: string): number => {
    if (/^[0-9]+$/.test(name)) {
      if (isId(Number(name))) return Number(name);
      throw new UsageError(`--${kind}: ${name} is no id from 0 to 4294967294`);
    }
    const id = accounts === undefined
      ? accountId(kind, name)
      : kind === "user"
      ? accounts.uid(name)
      : accounts.gid(name);
    if (id === undefined) throw new UsageError(`There is no ${kind} ${JSON.stringify(name)}`);
    return id;
  };
  const groups = group.map((name) => idOf("group", name));
  const given = text === undefined ? {} : peerFrom(text);
  return {
    ...given,
    ...(user !== undefined && { uid: idOf("user", user) }),
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
  if (!isMap(peer)) throw new UsageError('--peer is an object, {"uid": 1000} for instance');
  const { user, group, groups } = peer;
  const isNamed = (Array.isArray(groups) ? groups : []).some((each) => typeof each === "string");
  if (user !== undefined || group !== undefined || isNamed) {
    throw new UsageError("--peer has ids; give names by --user and --group");
  }
  requirePeer(peer);
  return peer;
}

/** Peers are checked as those of tests in policies are. */
function requirePeer(peer: { readonly [name: string]: unknown }): void {
  const rules = [{ name: "any", allow: true as const }];
  const test = { peer, expect: { deny: true as const } };
  try {
    definePolicy({ version: 1, rules, tests: [test] });
  } catch (error) {
    if (!(error instanceof UcredError) || error.code !== "ERR_UCRED_POLICY") throw error;
    const [first = ""] = error.message.replace(/^Cannot use the policy: /, "").split("\n");
    throw new UsageError(first.replace(/^tests\[0\]\.peer/, "--peer"));
  }
}
