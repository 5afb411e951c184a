/** Formats a result as text for the terminal and as Markdown. */

import { styleText } from "node:util";
import { absentLines } from "../benchmark.ts";
import { aligned, type Cells, machine, piped, writtenBy } from "../report.ts";
import type { Spread } from "../result.ts";
import { AXES, type Axis, type Result, type Row } from "./result.ts";

const METHOD: readonly string[] = [
  "All values of a quantity take turns on each runtime. All answers are checked. Numbers are the CPU",
  "time of one process: medians of all rounds. Ranges go from the minimum to the maximum, and ratios",
  "compare with the first value in the same round, so that the load of the machine affects both.",
];

function number(value: number): string {
  return value.toLocaleString("en", { maximumSignificantDigits: 3 });
}

const range = ({ least, most }: Spread) => `${number(least)}–${number(most)}`;

/** The name of a line: the runtime, and whether it is the server without ucred. */
export function lineOf({ runtime, isBaseline }: Pick<Row, "runtime" | "isBaseline">): string {
  return isBaseline ? `${runtime}, without ucred` : runtime;
}

/** The table of one axis. The first row is the heading. */
function table({ rows }: Result, { name, title, unit }: Axis): readonly Cells[] {
  return [
    ["", title.toLowerCase(), unit, "range", "× the first", "range"],
    ...rows.filter(({ axis }) => axis === name).map((row) => [
      lineOf(row),
      row.value.toLocaleString("en"),
      number(row.spread.median),
      range(row.spread),
      number(row.ratio.median),
      range(row.ratio),
    ]),
  ];
}

const isMeasured = ({ rows }: Result) => ({ name }: Axis) => rows.some(({ axis }) => axis === name);

const facts = ({ facts }: Result) =>
  facts.map(({ runtime, what, value }) => `${runtime}, ${what}: ${value}`);

/** Formats the result for the terminal. */
export function text(result: Result): string {
  const bold = (line: string) => styleText("bold", line);
  const blocks = [
    [bold(machine(result)), result.versions.join(", ")],
    ...AXES.filter(isMeasured(result)).map((axis) => [
      bold(axis.title),
      `  ${axis.what}`,
      ...aligned(table(result, axis)),
    ]),
    facts(result),
    absentLines(result.absent),
    [`${result.rounds} rounds.`, ...METHOD].map((line) => styleText("dim", line)),
  ];
  return `${
    blocks.filter((lines) => lines.length > 0).map((lines) => lines.join("\n")).join("\n\n")
  }\n`;
}

/** Formats bench/scale/results.md. */
export function markdown(result: Result): string {
  const blocks = [
    ["# What grows with what"],
    [writtenBy(result)],
    ["![CPU time by connections, users, rules, groups and containers.](results.svg)"],
    [`${machine(result)}. ${result.versions.join(", ")}.`, `${result.rounds} rounds.`, ...METHOD],
    absentLines(result.absent).map((line) => `- ${line}`),
    ...AXES.filter(isMeasured(result)).flatMap((axis) => [
      [`## ${axis.title}`],
      [`${axis.what}.`],
      piped(table(result, axis)),
    ]),
    ["## Once"],
    facts(result).map((line) => `- ${line}`),
  ];
  return `${
    blocks.filter((lines) => lines.length > 0).map((lines) => lines.join("\n")).join("\n\n")
  }\n`;
}
