/** `ucred policy …`: checks, tests and queries policy files, as text or JSON. */

import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, statSync } from "node:fs";
import { stringify } from "yaml";
import { openedSystem } from "../adapters/select.ts";
import { isId } from "../core/credentials.ts";
import { UcredError } from "../core/errors.ts";
import type { Peer } from "../core/peer.ts";
import { equivalent, narrower } from "../core/policy/analyze/difference.ts";
import { lint as lintPolicy } from "../core/policy/analyze/lint.ts";
import { runTests } from "../core/policy/analyze/run_tests.ts";
import { who as listWho, writeWho } from "../core/policy/analyze/who.ts";
import { type NameOfId, writeRanges } from "../core/policy/decide/id_ranges.ts";
import type { Attributes, Decision } from "../core/policy/decide/decision.ts";
import type { PlainPeer } from "../core/policy/decide/subject.ts";
import type { PolicyVocabulary } from "../core/policy/document/check.ts";
import { pathText } from "../core/policy/document/problems.ts";
import { isObject } from "../core/policy/document/shape.ts";
import type { Accounts, NamedKind } from "../core/policy/document/types.ts";
import type { Vocabulary } from "../core/policy/document/vocabulary.ts";
import { type RulePolicy, sourceOf } from "../core/policy/policy.ts";
import { textOf } from "../core/text.ts";
import { peerOfPid } from "../identity/peer_of_pid.ts";
import { IMPORTERS } from "../interop/importers.ts";
import { VOCABULARIES } from "../interop/vocabularies.ts";
import { definePolicy } from "../policy/define.ts";
import { type LoadOptions, loadPolicy } from "../policy/load.ts";
import { parsePolicy, readData } from "../policy/parse.ts";
import { accountId, accountName } from "../system/accounts.ts";
import { ID_RANGE, parseId } from "./arguments.ts";
import {
  columns,
  type ExitCode,
  log,
  logError,
  paint,
  print,
  printable,
  printJson,
  printText,
  UsageError,
} from "./output.ts";
import { withProgress } from "./progress.ts";
import type { SuggestCommandOptions } from "./suggest.ts";

/** Options of all `policy` commands, parsed. */
export interface PolicyCommandOptions {
  readonly json?: boolean;
  readonly accounts?: string;
}

/** The result for one file. */
interface Report {
  readonly code: ExitCode;
  /** The result of `--json`. */
  readonly data: unknown;
}

/** `check`: reports whether a server can use the files. */
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

/** `lint`: prints the findings in the files. */
export function lint(
  files: readonly string[],
  { abstractSocket, ...options }: PolicyCommandOptions & { readonly abstractSocket?: boolean },
): ExitCode {
  return each(files, options, (file) => {
    const findings = withProgress(
      [file],
      () => lintPolicy(load(file, options), { abstractSocket: abstractSocket === true }),
    );
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

/** `test`: runs the tests in the files. */
export function test(files: readonly string[], options: PolicyCommandOptions): ExitCode {
  return each(files, options, (file) => {
    const report = withProgress([file], () => runTests(load(file, options)));
    if (!options.json) printText(String(report));
    return { code: report.passed ? 0 : 1, data: report };
  });
}

/** How often `--watch` checks whether a file has changed. */
const WATCH_INTERVAL_MS = 250;

/** `test --watch`: runs the tests again when a file changes, until SIGINT or SIGTERM. */
export async function watchTests(
  files: readonly string[],
  options: PolicyCommandOptions,
): Promise<ExitCode> {
  if (files.includes("-")) throw new UsageError("--watch requires files: stdin cannot change");
  const { watch } = await import("./watch.ts");
  const { accounts } = options;
  const watched = accounts === undefined ? files : [...files, accounts];
  const state = () => watched.map(versionOf).join();
  return await watch(() => test(files, options), { intervalMs: WATCH_INTERVAL_MS, state });
}

/** Returns a text that differs after a file was written or replaced. */
function versionOf(file: string): string {
  const stats = statSync(file, { bigint: true, throwIfNoEntry: false });
  return stats === undefined ? "" : `${stats.ino} ${stats.size} ${stats.mtimeNs} ${stats.ctimeNs}`;
}

/** Options of `policy explain`, which describe the peer and its request. */
export interface ExplainOptions extends PolicyCommandOptions {
  readonly action?: string;
  readonly attributes?: string;
  readonly gid?: number;
  readonly user?: string;
  readonly group?: readonly string[];
  readonly pid?: number;
  readonly peer?: string;
  readonly request?: string;
}

/** `explain`: prints the decision about a peer, rule by rule. */
export async function explain(file: string, options: ExplainOptions): Promise<ExitCode> {
  const policy = load(file, options);
  const recorded = options.request === undefined
    ? undefined
    : await recordedRequest(options.request, policy);
  const action = recorded === undefined ? options.action : recorded.action;
  const added = options.attributes === undefined
    ? undefined
    : attributesFrom(options.attributes, policy);
  const attributes = recorded?.attributes === undefined
    ? added
    : requireAttributes({ ...recorded.attributes, ...added }, policy, "--request");
  const live = options.pid === undefined ? undefined : processOf(options.pid);
  try {
    const { peer, note } = live === undefined
      ? plainPeer(options, recorded?.peer)
      : { peer: live, note: undefined };
    const explanation = policy.explain(peer, { action, attributes });
    if (options.json) {
      const of = recorded === undefined ? {} : { action, attributes, notes: recorded.notes };
      const isShown = recorded !== undefined || note !== undefined;
      printJson(isShown ? { peer, ...of, ...explanation } : explanation);
    } else {
      if (note !== undefined) printText(note);
      for (const each of recorded?.notes ?? []) printText(each);
      if (recorded !== undefined) {
        printText(`Action: ${action}`);
        if (attributes !== undefined) printText(`Attributes: ${JSON.stringify(attributes)}`);
      }
      printText(String(explanation));
    }
    return explanation.decision.allowed ? 0 : 1;
  } finally {
    live?.close();
  }
}

/** Reads the request of `--request`: JSON, - for stdin, a file, or FILE:LINE. */
async function recordedRequest(text: string, policy: RulePolicy) {
  const { requestFrom } = await import("./recorded_request.ts");
  const { vocabulary } = sourceOf(policy, "explain()").checked;
  return requestFrom(contentsOf(text), vocabulary as Vocabulary | undefined);
}

function contentsOf(text: string): string {
  if (text.trimStart().startsWith("{")) return text;
  const [, name = text, number] = existsSync(text) ? [] : /^(.+):([0-9]+)$/.exec(text) ?? [];
  const contents = name === "-"
    ? new TextDecoder().decode(readStdin())
    : readFileSync(name, "utf8");
  const lines = contents.trimEnd().split("\n");
  if (number !== undefined) {
    const line = lines[Number(number) - 1];
    if (line !== undefined) return line;
    throw new UsageError(`--request: ${name} has no line ${number}`);
  }
  const isLog = lines.length > 1 && lines.slice(0, 2).every((line) => /^\{.*\}$/.test(line));
  if (!isLog) return contents;
  throw new UsageError(
    `--request: ${name} has ${lines.length} lines: choose one with ${name}:LINE`,
  );
}

/** The maximum of pid_t, a signed 32-bit integer. A larger number would wrap around to another process. */
const MAX_PID = 2 ** 31 - 1;

function processOf(pid: number): Peer {
  if (pid > MAX_PID) throw new UsageError(`There is no process ${pid}`);
  try {
    return peerOfPid(pid);
  } catch (error) {
    if (!(error instanceof UcredError) || error.errno !== openedSystem().abi.errno.ESRCH) {
      throw error;
    }
    throw new UsageError(`There is no process ${pid}`);
  }
}

/** `who`: lists the peers that a policy allows. */
export function who(
  file: string,
  options: PolicyCommandOptions & { readonly action?: string },
): ExitCode {
  const { policy, found } = withProgress([file], () => {
    const policy = load(file, options);
    return { policy, found: listWho(policy, options.action) };
  });
  if (options.json) {
    printJson(found);
    return 0;
  }
  printText(writeWho(found.clauses, namesOf(options)));
  const isAboutAction = sourceOf(policy, "who()").checked.rules.some(({ actions, grants }) =>
    actions !== undefined && grants !== undefined
  );
  if (options.action === undefined && isAboutAction) {
    log("note: this list leaves out rules with actions; --action ACTION lists who may perform one");
  }
  return 0;
}

/** `diff`: prints a decision that an edit changes, if there is one. */
export function diff(
  before: string,
  after: string,
  options: PolicyCommandOptions & { readonly onlyNarrower?: boolean },
): ExitCode {
  const compare = options.onlyNarrower ? narrower : equivalent;
  const found = withProgress(
    [before, after],
    () => compare(load(before, options), load(after, options)),
  );
  if (options.json) printJson(found ?? null);
  else if (found === undefined) {
    print(options.onlyNarrower ? "The edit allows nothing more" : "No decision changes");
  } else {
    const { peer, action, attributes } = found;
    const verdict = ({ allowed, reason }: Decision) =>
      `${allowed ? paint("green", "allowed") : paint("red", "denied")}. ${printable(reason)}`;
    const names = accountsIn(peer, options);
    const rows = [
      ["peer:", printable(JSON.stringify(peer))],
      ...(names === "" ? [] : [["", printable(names)]]),
      ["action:", action === undefined ? "none" : printable(JSON.stringify(action))],
      ...(attributes === undefined ? [] : [["attributes:", printable(JSON.stringify(attributes))]]),
      [`${titleOf(before)}:`, verdict(found.before)],
      [`${titleOf(after)}:`, verdict(found.after)],
    ];
    print(options.onlyNarrower ? "The edit allows more" : "A decision changes");
    for (const line of columns(rows)) print(line);
  }
  return found === undefined ? 0 : 1;
}

/** `import`: converts files of another system to a policy that decides alike. */
export async function importFiles(
  kind: string,
  files: readonly string[],
  options: Pick<PolicyCommandOptions, "json">,
): Promise<ExitCode> {
  const policy = await IMPORTERS[kind]!(files);
  if (options.json) printJson(policy);
  else {
    // With quotes where YAML 1.1 has another type for a text: such policies are rejected.
    const style = { aliasDuplicateObjects: false, lineWidth: 100 };
    printText(stringify(policy, { compat: "yaml-1.1", ...style }).trimEnd());
  }
  return 0;
}

/** `suggest`: prints a policy that allows the requests that a guard has recorded. */
export async function suggest(
  file: string,
  options: SuggestCommandOptions & PolicyCommandOptions,
): Promise<ExitCode> {
  const { printSuggestion } = await import("./suggest.ts");
  const accounts = fileAccounts(options);
  const groupName = (gid: number) =>
    accounts === undefined ? accountName("group", gid) : accounts.nameOf("group", gid);
  return printSuggestion(file, options, { accounts, groupName });
}

/** Runs a command for each file. With `--json`, prints all results as one list. */
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

/**
 * The report about a policy that cannot be used.
 *
 * @param code The exit code for mistakes in the policy. A file that cannot be read always results in 2.
 */
function refused(error: unknown, { json }: PolicyCommandOptions, code: 1 | 2): Report {
  if (!(error instanceof UcredError) || error.code !== "ERR_UCRED_POLICY") throw error;
  const { message, hint, problems } = error;
  const isUnread = problems === undefined;
  if (!json || isUnread || code === 2) logError(error);
  const data = { ok: false, message, hint, problems: problems ?? [] };
  return { code: isUnread ? 2 : code, data };
}

/** Reads a policy. By default the file may have any owner: the command only reports its decisions. */
function load(file: string, options: PolicyCommandOptions, allowUnsafeOwner = true): RulePolicy {
  const shared = { ...accountsOf(options), vocabularies: VOCABULARIES };
  if (file !== "-") return loadPolicy(file, { ...shared, allowUnsafeOwner });
  const text = utf8Text(readStdin(), "stdin");
  try {
    return parsePolicy(text, { ...shared, file: "stdin" });
  } catch (error) {
    if (!(error instanceof UcredError) || error.code !== "ERR_UCRED_POLICY") throw error;
    const hint = "Fix the policy at the listed places, and run the command again";
    throw new UcredError("ERR_UCRED_POLICY", error.message, { hint, problems: error.problems });
  }
}

/** Decodes the contents of a file. @throws {UsageError} If it is not in UTF-8. */
export function utf8Text(bytes: Uint8Array, file: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new UsageError(`${file} is not in UTF-8`);
  }
}

const titleOf = (file: string): string => file === "-" ? "stdin" : printable(file);

let isStdinRead = false;

/** Reads stdin, which only one argument may name. */
export function readStdin(): Uint8Array {
  if (isStdinRead) {
    throw new UsageError("- may be used only once, because stdin contains one policy");
  }
  isStdinRead = true;
  try {
    return readFileSync(0);
  } catch (error) {
    throw new UsageError(`Cannot read stdin: ${textOf(error)}`);
  }
}

/** The accounts of `--accounts`, as an option of the policy functions. */
function accountsOf(options: PolicyCommandOptions): Pick<LoadOptions, "accounts"> {
  const accounts = fileAccounts(options);
  return accounts === undefined ? {} : { accounts };
}

/** The accounts in the file of `--accounts`. */
interface FileAccounts extends Accounts {
  /** Returns a name of the id; `undefined` if the file has none. */
  nameOf(kind: NamedKind, id: number): string | undefined;
}

function fileAccounts({ accounts: file }: PolicyCommandOptions): FileAccounts | undefined {
  if (file === undefined) return undefined;
  const text = readFileSync(file, "utf8");
  const contents = text.trim() === "" ? { data: {} } : readData(text);
  if ("problem" in contents) {
    const { line, column, message } = contents.problem;
    throw new UsageError(`${file}:${line}:${column}: ${message}`);
  }
  const { data } = contents;
  const wrong = new UsageError(`${file}: it must map users and groups, each from names to ids`);
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
      throw new UsageError(`${file}: ${name} must have ${ID_RANGE}`);
    };
  };
  const nameOf = (kind: NamedKind, id: number) =>
    Object.entries(mapOf(`${kind}s`)).find(([, other]) => other === id)?.[0];
  return { uid: idsIn("users"), gid: idsIn("groups"), nameOf };
}

/** Maximum number of lookups for one output: each may send a request to a directory server. */
const MAX_LOOKUPS = 1000;

/** Returns two functions from an id to its name, for users and for groups. They look up each id once. */
function namesOf(
  options: PolicyCommandOptions,
): { readonly user: NameOfId; readonly group: NameOfId } {
  const accounts = fileAccounts(options);
  let left = MAX_LOOKUPS;
  const names = (kind: NamedKind): NameOfId => {
    const known = new Map<number, string | undefined>();
    return (id) => {
      if (!known.has(id) && left > 0) {
        left--;
        known.set(id, accounts === undefined ? accountName(kind, id) : accounts.nameOf(kind, id));
      }
      return known.get(id);
    };
  };
  return { user: names("user"), group: names("group") };
}

/** The ids of a peer that have names, as text: "uid 0 is root, gid 970 is docker". */
function accountsIn({ uid, gid, groups = [] }: PlainPeer, options: PolicyCommandOptions): string {
  const { user, group } = namesOf(options);
  const gids = [...new Set([...(gid === undefined ? [] : [gid]), ...groups])];
  const nameText = (kind: string, id: number, name: string | undefined) =>
    name === undefined ? [] : [`${kind} ${id} is ${name}`];
  return [
    ...(uid === undefined ? [] : nameText("uid", uid, user(uid))),
    ...gids.flatMap((id) => nameText("gid", id, group(id))),
  ].join(", ");
}

/**
 * The peer that the options describe. If they do not list its groups, it has those of its account on
 * this system, and `note` is a line about them.
 */
function plainPeer(
  options: ExplainOptions,
  recorded: PlainPeer = {},
): { readonly peer: PlainPeer; readonly note?: string | undefined } {
  const { gid, user, group = [], peer: text } = options;
  const accounts = accountsOf(options).accounts;
  const idOf = (kind: NamedKind, name: string): number => {
    if (/^[0-9]+$/.test(name)) {
      const id = parseId(name);
      if (id !== undefined) return id;
      throw new UsageError(`--${kind}: ${name} is not ${ID_RANGE}`);
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
    ...text !== undefined ? peerFrom(text) : user === undefined ? recorded : {},
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
    const why = accounts === undefined
      ? "there is no such account"
      : "--accounts lists no members of groups";
    return {
      peer,
      note: `The groups of ${user} are unknown (${why}): set them with --gid and --group`,
    };
  }
  peer.gid ??= found.gid;
  peer.groups ??= found.groups;
  const names = namesOf(options).group;
  const list = found.groups.map((id) => writeRanges([{ first: id, last: id }], names)).join(", ");
  return {
    peer,
    note: `${name} now has uid ${peer.uid}, gid ${found.gid} and the groups ${list}; ` +
      "processes keep the groups of their login",
  };
}

/** The primary group and all groups of an account; `undefined` if there is no such account. */
function groupsOfAccount(
  name: string,
): { readonly gid: number; readonly groups: readonly number[] } | undefined {
  let out: string;
  try {
    // id(1) calls getgrouplist(3), which uses all account sources. The primary group is the first.
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
    throw new UsageError(`--peer is not JSON: ${(error as Error).message}`);
  }
  if (!isObject(peer)) throw new UsageError('--peer must be an object such as {"uid": 1000}');
  const { user, group, groups } = peer;
  const isNamed = (Array.isArray(groups) ? groups : []).some((each) => typeof each === "string");
  if (user !== undefined || group !== undefined || isNamed) {
    throw new UsageError("--peer takes ids only: set names with --user and --group");
  }
  requirePeer(peer);
  return peer;
}

/** Reads attributes, and checks them by the rules for attributes in the tests of a policy. */
function attributesFrom(text: string, policy: RulePolicy): Attributes {
  const { vocabulary } = sourceOf(policy, "explain()").checked;
  if (vocabulary === undefined) {
    throw new UsageError("--attributes: the policy has no about, so its rules test no attributes");
  }
  const isInline = text.trimStart().startsWith("{");
  const contents = readData(isInline ? text : readFileSync(text, "utf8"));
  if ("problem" in contents) {
    const { line, column, message } = contents.problem;
    const place = isInline ? "" : `${text}:${line}:${column}: `;
    throw new UsageError(`--attributes: ${place}${message}`);
  }
  return requireAttributes(contents.data as Attributes, policy, "--attributes");
}

/** Checks attributes as those of tests in policies. */
function requireAttributes(attributes: Attributes, policy: RulePolicy, option: string): Attributes {
  const vocabulary = sourceOf(policy, "explain()").checked.vocabulary!;
  const expect = { deny: true as const };
  const document = {
    ...{ version: 1 as const, about: vocabulary.name, rules: [] },
    tests: [{ peer: {}, attributes, expect }],
  };
  try {
    definePolicy(document, { vocabularies: [vocabulary as PolicyVocabulary & Vocabulary] });
  } catch (error) {
    if (!(error instanceof UcredError) || error.code !== "ERR_UCRED_POLICY") throw error;
    const { path, message } = error.problems![0]!;
    throw new UsageError(`${pathText([option, ...path.slice(3)])}: ${message}`);
  }
  return attributes;
}

/** Checks a peer by the rules for peers in the tests of a policy. */
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
