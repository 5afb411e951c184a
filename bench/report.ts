/** Formats a result as text for the terminal and as Markdown. */

import { styleText } from "node:util";
import { type Lookup, LOOKUP_NAMES, LOOKUPS, type Usage } from "./contenders.ts";
import type { Setting } from "./benchmark.ts";
import type { Result, Spread } from "./result.ts";

const METHOD: readonly string[] = [
  "Contenders take turns. Each is a separate process, and the peer of their connection is another",
  "process. All answers are checked. Numbers are medians of all rounds, ranges go from the minimum to",
  "the maximum, and ratios compare with C in the same round.",
];

const NAMES = "* returns names instead of a pid, and looks them up each time";

export type Cells = readonly string[];

/** Returns the table of one kind of lookup. The first row is the heading. */
function table({ rows }: Result, lookup: Lookup): readonly Cells[] {
  const isOneCall = lookup === "again" || lookup === "accepted"; // in C
  const last = (cell: string) => isOneCall ? [] : [cell];
  const shown = rows.filter((row) => row.lookup === lookup);
  return [
    ["", "ns", "range", "× C", "range", ...last("× C's one getsockopt")],
    ...shown.map(({ name, returnsNames, nanoseconds, ratio, ratioToOneCall }) => [
      `${name}${returnsNames ? "*" : ""}`,
      ...numbers(nanoseconds, 0),
      ...numbers(ratio, 2),
      ...last(ratioToOneCall.median.toFixed(2)),
    ]),
  ];
}

function numbers({ median, least, most }: Spread, digits: number): Cells {
  return [median.toFixed(digits), `${least.toFixed(digits)}–${most.toFixed(digits)}`];
}

function leakTable({ leaks }: Result): readonly Cells[] {
  return [
    ["", "lookups", "descriptors", "resident memory", ""],
    ...leaks.map(({ name, lookup, lookups, before, after, hasLeaked }) => [
      `${name}, ${LOOKUPS[lookup].title.toLowerCase()}`,
      lookups.toLocaleString("en"),
      `${before.descriptors} → ${after.descriptors}`,
      `${mebibytes(before)} → ${mebibytes(after)} MiB`,
      hasLeaked ? "LEAKS" : "no leak",
    ]),
  ];
}

function mebibytes({ bytes }: Usage): string {
  return (bytes / 2 ** 20).toFixed(1);
}

export function machine({ machine: { cpu, cores, kernel, architecture, load } }: Setting): string {
  return `${cpu}, ${cores} cores, Linux ${kernel} ${architecture}, load average ${load.toFixed(2)}`;
}

function tools({ participants }: Result): readonly string[] {
  return participants.map(({ name, version, absent }) =>
    `${name} ${version ?? `is absent: ${absent}`}`
  );
}

/** Formats the result for the terminal. */
export function text(result: Result): string {
  const bold = (line: string) => styleText("bold", line);
  const dim = (line: string) => styleText("dim", line);
  const blocks = [
    [bold(machine(result)), ...tools(result).map((tool) => `  ${tool}`)],
    ...LOOKUP_NAMES.map((lookup) => {
      const { title, ours, c } = LOOKUPS[lookup];
      const lines = aligned(table(result, lookup));
      return [
        bold(title),
        dim(`  ucred  ${ours}`),
        dim(`  C      ${c}`),
        ...lines,
        ...(lines.some((line) => line.includes("*")) ? [dim(`  ${NAMES}`)] : []),
      ];
    }),
    [
      bold("Targets"),
      ...result.targets.map(({ text, found, isMet }) => {
        const verdict = isMet ? styleText("green", "met") : styleText("red", "not met");
        return `  ${text}: ${found.toFixed(2)} × C, ${verdict}`;
      }),
    ],
    [bold("Leaks"), ...aligned(leakTable(result))],
    [`${result.rounds} rounds.`, ...METHOD].map(dim),
  ];
  return `${blocks.map((lines) => lines.join("\n")).join("\n\n")}\n`;
}

/** The line about the origin of a results.md. */
export function writtenBy({ command, date }: Setting): string {
  return `This file was written by \`${command}\` on ${date}.`;
}

/** Aligns rows for the terminal: the first column to the left, the others to the right. */
export function aligned(rows: readonly Cells[]): Cells {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const cells = (row: Cells) =>
    row.map((cell, column) =>
      column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!)
    );
  return rows.map((row) => `  ${cells(row).join("  ")}`);
}

/** Formats bench/results.md. */
export function markdown(result: Result): string {
  const blocks = [
    ["# Benchmark results"],
    [writtenBy(result)],
    ["![Time per lookup as a multiple of C's. The tables below have the numbers.](results.svg)"],
    [`${machine(result)}.`, `${result.rounds} rounds.`, ...METHOD],
    tools(result).map((tool) => `- ${tool}`),
    ...LOOKUP_NAMES.flatMap((lookup) => {
      const { title, ours, c } = LOOKUPS[lookup];
      const rows = table(result, lookup);
      const isStarred = rows.some(([name]) => name?.includes("*"));
      return [
        [`## ${title}`],
        [`- ucred: ${ours}`, `- C: ${c}`],
        piped(rows),
        ...(isStarred ? [[`\\${NAMES}`]] : []),
      ];
    }),
    ["## Targets"],
    result.targets.map(({ text, found, isMet }) =>
      `- ${text}: ${found.toFixed(2)} × C, **${isMet ? "met" : "not met"}**`
    ),
    ["## Leaks"],
    ["Open descriptors and resident memory of each process, before the lookups and after:"],
    piped(leakTable(result)),
  ];
  return `${blocks.map((lines) => lines.join("\n")).join("\n\n")}\n`;
}

/** Formats rows as a Markdown table. The first row is the heading. */
export function piped(rows: readonly Cells[]): Cells {
  const [heading, ...others] = rows.map((row) => `| ${row.join(" | ").replaceAll("*", "\\*")} |`);
  const rule = rows[0]!.map((_, column) => column === 0 ? "---" : "---:");
  return [heading!, `| ${rule.join(" | ")} |`, ...others];
}
