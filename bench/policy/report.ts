/** A result → text for the terminal, and Markdown. */

import { styleText } from "node:util";
import { aligned, type Cells, machine, piped } from "../report.ts";
import type { Spread } from "../result.ts";
import { CONTENDERS } from "./contenders.ts";
import type { Result } from "./result.ts";
import { PEERS } from "./workload.ts";

const METHOD: readonly string[] = [
  "Contenders take turns, each a process of its own. A quarter of the peers each meets a rule of the",
  "first tenth, of the middle one, of the last one, and none. Every answer, and the rule that it",
  "names, was compared with ucred's before, and ucred's with those of a search rule by rule. What",
  "peers are to each contender is made before, too. Numbers are CPU time of the process, all of its",
  "threads: medians of all rounds; ranges go from the least to the most; ratios are to ucred with",
  "plain objects in the same round.",
];

/** Rows of one runtime, heading first. */
function table({ rows }: Result, runtime: string): readonly Cells[] {
  const shown = rows.filter((row) => row.runtime === runtime);
  return [
    ["", "rules", "ns a decision", "range", "× ucred", "range", "peers"],
    ...shown.map(({ contender, rules, peers, nanoseconds, ratio }) => [
      contender,
      rules.toLocaleString("en"),
      ...figures(nanoseconds),
      ...figures(ratio),
      peers.toLocaleString("en"),
    ]),
  ];
}

/** To three digits, since some are a million times as much as others. */
function figure(number: number): string {
  return number.toLocaleString("en", { maximumSignificantDigits: 3 });
}

function figures({ median, least, most }: Spread): Cells {
  return [figure(median), `${figure(least)}–${figure(most)}`];
}

const runtimesOf = ({ rows }: Result) => [...new Set(rows.map(({ runtime }) => runtime))];

function versions({ versions }: Result): readonly string[] {
  return Object.entries(versions).map(([name, version]) => `${name}: ${version}`);
}

/** What has to be known of the rows. */
function notes({ rows, absent }: Result): readonly string[] {
  const fewer = rows.filter(({ peers }) => peers < PEERS);
  const names = [...new Set(fewer.map(({ contender }) => contender))].join(", ");
  return [
    "Every contender has the same policies.",
    ...(fewer.length > 0
      ? [
        `Too slow to be asked by all ${PEERS.toLocaleString("en")} peers at some sizes: ${names}.`,
        "The last column is how many asked, the same of each kind.",
      ]
      : []),
    ...absent.map(({ contender, runtime, why }) =>
      `${contender} does not run on ${runtime}: ${why}`
    ),
  ];
}

/** For the terminal. */
export function text(result: Result): string {
  const bold = (line: string) => styleText("bold", line);
  const dim = (line: string) => styleText("dim", line);
  const blocks = [
    [bold(machine(result)), ...versions(result).map((line) => `  ${line}`)],
    CONTENDERS.map(({ name, how }) => dim(`  ${name}  ${how}`)),
    ...runtimesOf(result).map((runtime) => [bold(runtime), ...aligned(table(result, runtime))]),
    [
      bold("Targets"),
      ...result.targets.map(({ text, found, isMet }) => {
        const verdict = isMet ? styleText("green", "met") : styleText("red", "not met");
        return `  ${text}: ${figure(found)}, ${verdict}`;
      }),
    ],
    notes(result),
    [`${result.rounds} rounds.`, ...METHOD].map(dim),
  ];
  return `${
    blocks.filter((lines) => lines.length > 0).map((lines) => lines.join("\n")).join("\n\n")
  }\n`;
}

/** For results.md. */
export function markdown(result: Result): string {
  const blocks = [
    ["# Policy benchmark results"],
    [`Made by \`${result.command}\` on ${result.date}, which writes this file anew.`],
    [`${machine(result)}.`, `${result.rounds} rounds.`, ...METHOD],
    versions(result).map((line) => `- ${line}`),
    ["How each is used:"],
    CONTENDERS.map(({ name, how }) => `- ${name}: ${how}`),
    notes(result),
    ...runtimesOf(result).flatMap((runtime) => [[`## ${runtime}`], piped(table(result, runtime))]),
    ["## Targets"],
    result.targets.map(({ text, found, isMet }) =>
      `- ${text}: ${figure(found)}, **${isMet ? "met" : "not met"}**`
    ),
  ];
  return `${
    blocks.filter((lines) => lines.length > 0).map((lines) => lines.join("\n")).join("\n\n")
  }\n`;
}
