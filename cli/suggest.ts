/** `ucred policy suggest`: prints a policy that allows the requests that a guard has recorded. */

import { closeSync, fstatSync, openSync, readFileSync } from "node:fs";
import { stringify } from "yaml";
import type { Accounts } from "../core/policy/document/types.ts";
import { runTests } from "../core/policy/analyze/run_tests.ts";
import { readRecording } from "../interop/recording.ts";
import { type CallersBy, documentOf, suggest, type Suggestion } from "../interop/suggest.ts";
import { VOCABULARIES } from "../interop/vocabularies.ts";
import { parsePolicy } from "../policy/parse.ts";
import { isTrusted } from "../system/trusted_owner.ts";
import { type ExitCode, log, printable, printJson, printText } from "./output.ts";
import { withProgress } from "./progress.ts";

/** Options of `policy suggest`, parsed. */
export interface SuggestCommandOptions {
  readonly by: CallersBy;
  readonly includeDenied?: boolean;
  readonly json?: boolean;
}

/** The accounts of `--accounts`, or of this system. */
export interface NamedAccounts {
  readonly accounts: Accounts | undefined;
  groupName(gid: number): string | undefined;
}

/** Prints the policy. */
export function printSuggestion(
  file: string,
  { by, includeDenied = false, json }: SuggestCommandOptions,
  { accounts, groupName }: NamedAccounts,
): ExitCode {
  const { bytes, warning } = readFile(file);
  const options = { by, includeDenied, accounts, groupName };
  const suggestion = withProgress([file], () => suggest(readRecording(bytes, file), options));
  if (warning !== undefined) log(`ucred: ${printable(file)}: ${warning}`);
  const text = textOf(suggestion, file, warning);
  // The text is what a guard will read, so the check reads it, too.
  const policy = parsePolicy(text, { accounts, vocabularies: VOCABULARIES, file: "suggestion" });
  const report = withProgress([file], () => runTests(policy));
  if (!report.passed) throw new Error(`The suggestion fails its tests: ${report}`);
  if (json) printJson(documentOf(suggestion));
  else printText(text.trimEnd());
  if (suggestion.rules.length === 0) log(`ucred: ${printable(file)} has no request to allow`);
  return suggestion.rules.length === 0 ? 1 : 0;
}

/** Reads the file. The warning names users that could have added requests to it, and so have suggested rules. */
function readFile(file: string): { readonly bytes: Uint8Array; readonly warning?: string } {
  const fd = openSync(file, "r");
  try {
    const { uid, mode } = fstatSync(fd);
    const bytes = readFileSync(fd);
    const could = "could have added requests to the recording";
    if (!isTrusted(uid)) return { bytes, warning: `uid ${uid} ${could}` };
    return (mode & 0o022) === 0 ? { bytes } : { bytes, warning: `Other users ${could}` };
  } finally {
    closeSync(fd);
  }
}

/** The policy as YAML, with comments. */
function textOf(
  { about, rules, unlimited, tests, missing, denied }: Suggestion,
  file: string,
  warning: string | undefined,
) {
  const lines = [
    `# Suggested from ${printable(file)}. Read each rule before you use it.`,
    ...(warning === undefined ? [] : [`# ${warning}.`]),
    ...(denied === 0 ? [] : [
      `# ${denied} ${denied === 1 ? "request was" : "requests were"} denied, and ` +
      `${denied === 1 ? "is" : "are"} not allowed. --include-denied allows what was denied.`,
    ]),
    ...missing.slice(0, MAX_MISSING).map(({ entry: { action, line }, why }) =>
      `# Not allowed: line ${line}, ${printable(action).slice(0, 100)}: ${printable(why)}`
    ),
    ...(missing.length > MAX_MISSING
      ? [`# Not allowed: ${missing.length - MAX_MISSING} further requests`]
      : []),
    "version: 1",
    ...(about === undefined ? [] : [`about: ${about}`]),
    rules.length === 0 ? "rules: []" : "rules:",
  ];
  const add = ({ rule, notes }: Suggestion["rules"][number], prefix: string) => {
    for (const note of notes) lines.push(`${prefix}  # ${printable(note)}`);
    lines.push(...itemOf(rule).map((line) => `${prefix}${line}`));
  };
  for (const rule of rules) add(rule, "");
  if (unlimited.length > 0) {
    lines.push(
      "# Each of these rules gives access to the host beyond the recorded requests, because the recording lacks",
      "# the value of a field. To use one, remove the first two characters of each of its lines.",
    );
    for (const rule of unlimited) add(rule, "# ");
  }
  if (tests.length > 0) lines.push("tests:", ...tests.flatMap(itemOf));
  return `${lines.join("\n")}\n`;
}

/** Maximum requests that are listed as not allowed. */
const MAX_MISSING = 100;

/** Maximum columns of a value that is written in one line. */
const MAX_COLUMNS = 100;

/** An item of a list, as lines. */
function itemOf(item: object): readonly string[] {
  const lines = Object.entries(item).flatMap(([name, value]) => fieldLines(name, value));
  return lines.map((line, at) => `${at === 0 ? "  - " : "    "}${line}`);
}

/** A field in one line, or in several if it is long. */
function fieldLines(name: string, value: unknown): readonly string[] {
  // With quotes where YAML 1.1 has another type for a text: such policies are rejected.
  const style = { aliasDuplicateObjects: false, lineWidth: 0, compat: "yaml-1.1" } as const;
  const short = stringify(value, { ...style, collectionStyle: "flow" }).trimEnd();
  if (`${name}: ${short}`.length <= MAX_COLUMNS && !short.includes("\n")) {
    return [`${name}: ${short}`];
  }
  return stringify({ [name]: value }, style).trimEnd().split("\n");
}
