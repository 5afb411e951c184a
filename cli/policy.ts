/** `ucred policy …`: the analyses of policies, for people and for CI. */

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { openedSystem } from "../adapters/select.ts";
import { isId } from "../core/credentials.ts";
import { UcredError } from "../core/errors.ts";
import type { Peer } from "../core/peer.ts";
import { equivalent } from "../core/policy/analyze/difference.ts";
import { lint as lintPolicy } from "../core/policy/analyze/lint.ts";
import { runTests } from "../core/policy/analyze/run_tests.ts";
import { who as whoIn, writeWho } from "../core/policy/analyze/who.ts";
import { type NameOfId, writeRanges } from "../core/policy/decide/id_ranges.ts";
import type { PlainPeer } from "../core/policy/decide/subject.ts";
import { pathText } from "../core/policy/document/problems.ts";
import { isObject } from "../core/policy/document/shape.ts";
import type { Accounts, NamedKind } from "../core/policy/document/types.ts";
import type { RulePolicy } from "../core/policy/policy.ts";
import { textOf } from "../core/text.ts";
import { peerOfPid } from "../identity/peer_of_pid.ts";
import { definePolicy } from "../policy/define.ts";
import { type LoadOptions, loadPolicy } from "../policy/load.ts";
import { parsePolicy, readData } from "../policy/parse.ts";
import { accountId, accountName } from "../system/accounts.ts";
import { parseId } from "./arguments.ts";
import {
  columns,
  type ExitCode,
  logError,
  paint,
  print,
  printable,
  printJson,
  UsageError,
} from "./output.ts";

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
  options: PolicyCommandOptions & { readonly allowUnsafeOwner?: boolean },
): ExitCode {
  return each(files, options, (file) => {
    try {
      load(file, options, options.allowUnsafeOwner === true);
      if (!options.json) print(`${titleOf(file)}: ok`);
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
    const findings = lintPolicy(load(file, options), { abstractSocket: abstractSocket === true });
    if (!options.json) {
      for (const { level, message, where } of findings) {
        const style = level === "error" ? "red" : level === "warning" ? "yellow" : "dim";
        print(
          `${where === undefined ? titleOf(file) : printable(where)}: ${paint(style, level)}: ${
            printable(message)
          }`,
        );
      }
    }
    const isFine = findings.every(({ level }) => level === "note");
    return { code: isFine ? 0 : 1, data: findings };
  });
}

/** `test`: do their own tests pass? */
export function test(files: readonly string[], options: PolicyCommandOptions): ExitCode {
  return each(files, options, (file) => {
    const report = runTests(load(file, options));
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
    const { peer, account } = live === undefined ? plainPeer(options) : { peer: live };
    const explanation = policy.explain(peer, { action });
    if (options.json) printJson(account === undefined ? explanation : { peer, ...explanation });
    else {
      if (account !== undefined) print(printable(account));
      print(String(explanation).split("\n").map(printable).join("\n"));
    }
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
    if (!(error instanceof UcredError) || error.errno !== openedSystem().abi.errno.ESRCH) {
      throw error;
    }
    throw new UsageError(`There is no process ${pid}`);
  }
}

/** `who`: who may do something? */
export function who(
  file: string,
  options: PolicyCommandOptions & { readonly action?: string },
): ExitCode {
  const found = whoIn(load(file, options), options.action);
  if (options.json) printJson(found);
  else print(writeWho(found.clauses, namesOf(options)).split("\n").map(printable).join("\n"));
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
    const names = accountsIn(peer, options);
    if (names !== "") print(`(${printable(names)})`);
    print(action === undefined ? "without an action" : `for ${printable(JSON.stringify(action))}`);
    const rows = [[before, was], [after, is]] as const;
    const lines = rows.map(([file, { allowed, reason }]) => [
      `${titleOf(file)}:`,
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

/** Reports a policy that cannot be used. A file that could not be read is a failure of the command. */
function refused(error: unknown, { json }: PolicyCommandOptions, code: 1 | 2): Report {
  if (!(error instanceof UcredError) || error.code !== "ERR_UCRED_POLICY") throw error;
  const { message, hint, problems } = error;
  const isUnread = problems === undefined;
  if (!json || isUnread || code === 2) logError(error);
  const data = { ok: false, message, hint, problems: problems ?? [] };
  return { code: isUnread ? 2 : code, data };
}

/** Reads a policy; "-" is stdin. Its owner does not matter, by default: nobody is let in by it. */
function load(file: string, options: PolicyCommandOptions, allowUnsafeOwner = true): RulePolicy {
  const accounts = accountsOf(options);
  if (file !== "-") return loadPolicy(file, { ...accounts, allowUnsafeOwner: allowUnsafeOwner });
  const bytes = readStdin();
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new UsageError("stdin is not in UTF-8");
  }
  try {
    return parsePolicy(text, { ...accounts, file: "stdin" });
  } catch (error) {
    if (!(error instanceof UcredError) || error.code !== "ERR_UCRED_POLICY") throw error;
    const hint = "Fix the policy at the listed places, and run this again";
    throw new UcredError("ERR_UCRED_POLICY", error.message, { hint, problems: error.problems });
  }
}

const titleOf = (file: string): string => file === "-" ? "stdin" : printable(file);

let isStdinRead = false;

function readStdin(): Uint8Array {
  if (isStdinRead) throw new UsageError("- is stdin, which is one policy");
  isStdinRead = true;
  try {
    return readFileSync(0);
  } catch (error) {
    throw new UsageError(`Cannot read stdin: ${textOf(error)}`);
  }
}

/** Accounts of another machine, from a file: `users` and `groups`, each name → id. */
function accountsOf(options: PolicyCommandOptions): Pick<LoadOptions, "accounts"> {
  const given = givenAccounts(options);
  return given === undefined ? {} : { accounts: given };
}

interface GivenAccounts extends Accounts {
  /** Id → name. */
  nameOf(kind: NamedKind, id: number): string | undefined;
}

function givenAccounts({ accounts: file }: PolicyCommandOptions): GivenAccounts | undefined {
  if (file === undefined) return undefined;
  const text = readFileSync(file, "utf8");
  const contents = text.trim() === "" ? { data: {} } : readData(text);
  if ("problem" in contents) {
    const { line, column, message } = contents.problem;
    throw new UsageError(`${file}:${line}:${column}: ${message}`);
  }
  const { data } = contents;
  const wrong = new UsageError(`${file}: it has users and groups, and under each name: id`);
  const mapOf = (kind: "users" | "groups") => {
    const map = isObject(data) ? data[kind] ?? {} : undefined;
    if (!isObject(map)) throw wrong;
    return map;
  };
  const idsIn = (kind: "users" | "groups") => {
    const map = mapOf(kind);
    return (name: string) => {
      if (!Object.hasOwn(map, name)) return undefined;
      const id = map[name];
      if (typeof id === "number" && isId(id)) return id;
      throw new UsageError(`${file}: ${name} has no id from 0 to 4294967294`);
    };
  };
  const nameOf = (kind: NamedKind, id: number) =>
    Object.entries(mapOf(`${kind}s`)).find(([, other]) => other === id)?.[0];
  return { uid: idsIn("users"), gid: idsIn("groups"), nameOf };
}

/** Each lookup may ask a directory server. */
const MAX_LOOKUPS = 1000;

/** Ids → names, each looked up once. */
function namesOf(
  options: PolicyCommandOptions,
): { readonly user: NameOfId; readonly group: NameOfId } {
  const given = givenAccounts(options);
  let left = MAX_LOOKUPS;
  const names = (kind: NamedKind): NameOfId => {
    const known = new Map<number, string | undefined>();
    return (id) => {
      if (!known.has(id) && left > 0) {
        left--;
        known.set(id, given === undefined ? accountName(kind, id) : given.nameOf(kind, id));
      }
      return known.get(id);
    };
  };
  return { user: names("user"), group: names("group") };
}

/** "uid 0 is root, gid 970 is docker": the accounts of a peer's ids that have names. */
function accountsIn({ uid, gid, groups = [] }: PlainPeer, options: PolicyCommandOptions): string {
  const { user, group } = namesOf(options);
  const gids = [...new Set([...(gid === undefined ? [] : [gid]), ...groups])];
  const named = (what: string, id: number, name: string | undefined) =>
    name === undefined ? [] : [`${what} ${id} is ${name}`];
  return [
    ...(uid === undefined ? [] : named("uid", uid, user(uid))),
    ...gids.flatMap((id) => named("gid", id, group(id))),
  ].join(", ");
}

/** The peer that the options describe; an account's groups are those of this system, unless they are given. */
function plainPeer(
  options: ExplainOptions,
): { readonly peer: PlainPeer; readonly account?: string | undefined } {
  const { gid, user, group = [], peer: text } = options;
  const accounts = accountsOf(options).accounts;
  const idOf = (kind: NamedKind, name: string): number => {
    if (/^[0-9]+$/.test(name)) {
      const id = parseId(name);
      if (id !== undefined) return id;
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
  const peer: { -readonly [field in keyof PlainPeer]: PlainPeer[field] } = {
    ...text === undefined ? {} : peerFrom(text),
    ...(user !== undefined && { uid: idOf("user", user) }),
    ...(gid !== undefined && { gid }),
    ...(groups.length > 0 && { groups }),
  };
  const isComplete = peer.gid !== undefined && peer.groups !== undefined;
  if (user === undefined || isComplete) return { peer };
  const name = /^[0-9]+$/.test(user) ? accountName("user", peer.uid!) : user;
  const found = accounts === undefined && name !== undefined ? groupsOfAccount(name) : undefined;
  if (found === undefined) {
    if (peer.groups !== undefined) return { peer };
    const why = accounts === undefined ? "there is no such account" : "--accounts has no members";
    return {
      peer,
      account: `Groups of ${user} are not known (${why}): give them by --gid and --group`,
    };
  }
  peer.gid ??= found.gid;
  peer.groups ??= found.groups;
  const names = namesOf(options).group;
  const list = found.groups.map((id) => writeRanges([{ first: id, last: id }], names)).join(", ");
  return {
    peer,
    account: `${name} has uid ${peer.uid}, gid ${found.gid} and the groups ${list} now; ` +
      "a process has those of when it logged in",
  };
}

/** The primary group, and all groups, of an account now; `undefined` if the system does not know it. */
function groupsOfAccount(
  name: string,
): { readonly gid: number; readonly groups: readonly number[] } | undefined {
  let out: string;
  try {
    // By NSS, as getgrouplist(3): the primary group is the first.
    out = execFileSync("id", ["-G", "--", name], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    });
  } catch {
    return undefined;
  }
  const groups = out.trim().split(" ").map(Number);
  return groups.every(isId) ? { gid: groups[0]!, groups } : undefined;
}

function peerFrom(text: string): PlainPeer {
  let peer: unknown;
  try {
    peer = JSON.parse(text);
  } catch (error) {
    throw new UsageError(`--peer is no JSON: ${(error as Error).message}`);
  }
  if (!isObject(peer)) throw new UsageError('--peer is an object, {"uid": 1000} for instance');
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
    const { path, message } = error.problems![0]!;
    throw new UsageError(`${pathText(["--peer", ...path.slice(3)])}: ${message}`); // tests[0].peer
  }
}
