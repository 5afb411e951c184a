/** Formats a result as text for the terminal and as Markdown. */

import { styleText } from "node:util";
import { absentLines } from "../benchmark.ts";
import { aligned, type Cells, machine, piped, writtenBy } from "../report.ts";
import type { Spread } from "../result.ts";
import { CONTENDERS } from "./contenders.ts";
import type { Result } from "./result.ts";
import { PEERS } from "./workload.ts";

const METHOD: readonly string[] = [
  "Contenders take turns. Each is a separate process. One quarter of the peers matches a rule in the",
  "first tenth of the rules, one quarter in the middle tenth, one quarter in the last tenth, and one",
  "quarter matches no rule. Before the measurement, each answer and its rule were compared with those",
  "of ucred, and ucred's answers with a search rule by rule; and each contender converted the peers",
  "to its own form. Numbers are the CPU time of the process with all threads: medians of all rounds.",
  "Ranges go from the minimum to the maximum; ratios compare with ucred with plain objects in the",
  "same round.",
];

/** The table of one runtime. The first row is the heading. */
function table({ rows }: Result, runtime: string): readonly Cells[] {
  const shown = rows.filter((row) => row.runtime === runtime);
  return [
    ["", "rules", "ns per decision", "range", "× ucred", "range", "peers"],
    ...shown.map(({ contender, rules, peers, nanoseconds, ratio }) => [
      contender,
      rules.toLocaleString("en"),
      ...figures(nanoseconds),
      ...figures(ratio),
      peers.toLocaleString("en"),
    ]),
  ];
}

/** Formats a number with three significant digits, since their range is wide. */
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

/** Notes on how to read the rows. */
function notes({ rows, absent, absentRuntimes }: Result): readonly string[] {
  const fewer = rows.filter(({ peers }) => peers < PEERS);
  const names = [...new Set(fewer.map(({ contender }) => contender))].join(", ");
  return [
    "All contenders have the same policies.",
    ...(fewer.length > 0
      ? [
        `Too slow for all ${PEERS.toLocaleString("en")} peers at some sizes: ${names}.`,
        "The last column is the number of peers, with equal numbers of each kind.",
      ]
      : []),
    ...absentLines(absentRuntimes),
    ...absent.map(({ contender, runtime, why }) =>
      `${contender} does not run on ${runtime}: ${why}`
    ),
  ];
}

/** Formats the result for the terminal. */
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

/** Formats bench/policy/results.md. */
export function markdown(result: Result): string {
  const blocks = [
    ["# Policy benchmark results"],
    [writtenBy(result)],
    [`${machine(result)}.`, `${result.rounds} rounds.`, ...METHOD],
    versions(result).map((line) => `- ${line}`),
    ["How each contender is used:"],
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
