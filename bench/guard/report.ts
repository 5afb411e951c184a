/** Formats a result as text for the terminal and as Markdown. */

import { styleText } from "node:util";
import { aligned, type Cells, machine, piped } from "../report.ts";
import { CONTENDERS } from "./contenders.ts";
import { LOADS, type Result } from "./result.ts";

function table({ rows }: Result, load: typeof LOADS[number]): readonly Cells[] {
  const shown = rows.filter((row) => row.load === load.name);
  const waits = shown.some(({ p50 }) => p50 > 0);
  const latency = waits ? ["p50 µs", "p99 µs"] : [];
  return [
    ["", `${load.unit}/s`, "range", "of no guard's", "range", "CPU µs", "range", ...latency],
    ...shown.map(({ contender, perSecond, ratio, cpu, p50, p99 }) => [
      contender,
      perSecond.median.toFixed(0),
      `${perSecond.least.toFixed(0)}–${perSecond.most.toFixed(0)}`,
      ratio.median.toFixed(2),
      `${ratio.least.toFixed(2)}–${ratio.most.toFixed(2)}`,
      ...(cpu.most === 0 ? ["", ""] : [
        cpu.median.toFixed(0),
        `${cpu.least.toFixed(0)}–${cpu.most.toFixed(0)}`,
      ]),
      ...(waits ? [p50.toFixed(0), p99.toFixed(0)] : []),
    ]),
  ];
}

/** The loads that took place. */
function loadsOf({ rows }: Result) {
  return LOADS.filter(({ name }) => rows.some(({ load }) => load === name));
}

function method({ rounds, seconds }: Result): readonly string[] {
  return [
    `${rounds} rounds of ${seconds} s, the contenders in turn. Client and server are programs in C, and`,
    "share the machine with whoever is between them. Every answer is compared. Numbers are medians of",
    "all rounds, ranges go from the least to the most, and ratios are to no guard in the same round.",
    "CPU is what the one in between has computed for each: where the machine is busy with other things,",
    "that says more than how many there were in a second.",
  ];
}

function notes({ absent, skipped }: Result): readonly string[] {
  return [
    ...absent.map(({ contender, why }) => `${contender} took no part: ${why}`),
    ...skipped.map((why) => `A round is left out: ${why}`),
  ];
}

/** For the terminal. */
export function text(result: Result): string {
  const bold = (line: string) => styleText("bold", line);
  const dim = (line: string) => styleText("dim", line);
  const blocks = [
    [
      bold(machine(result)),
      ...Object.entries(result.versions).map(([name, version]) => `  ${name} ${version}`),
      ...notes(result),
    ],
    ...loadsOf(result).map((load) => [bold(load.name), ...aligned(table(result, load))]),
    method(result).map(dim),
  ];
  return `${blocks.map((lines) => lines.join("\n")).join("\n\n")}\n`;
}

/** For results.md. */
export function markdown(result: Result): string {
  const blocks = [
    ["# What a guard costs"],
    [`Made by \`${result.command}\` on ${result.date}, which writes this file anew.`],
    [`${machine(result)}.`, ...method(result)],
    [
      ...CONTENDERS.filter(({ name }) => name in result.versions).map(({ name, how }) =>
        `- ${name} ${result.versions[name]}: ${how}`
      ),
      ...notes(result).map((note) => `- ${note}`),
    ],
    ...loadsOf(result).flatMap((load) => [[`## ${load.name}`], piped(table(result, load))]),
  ];
  return `${blocks.map((lines) => lines.join("\n")).join("\n\n")}\n`;
}
