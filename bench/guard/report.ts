/** Formats a result as text for the terminal and as Markdown. */

import { styleText } from "node:util";
import { aligned, type Cells, machine, piped, writtenBy } from "../report.ts";
import { CONTENDERS } from "./contenders.ts";
import { LOADS, type Result } from "./result.ts";

function table({ rows }: Result, load: typeof LOADS[number]): readonly Cells[] {
  const shown = rows.filter((row) => row.load === load.name);
  const hasLatency = shown.some(({ p50 }) => p50 > 0);
  const latency = hasLatency ? ["p50 µs", "p99 µs"] : [];
  const hasMemory = shown.some(({ memory }) => memory !== undefined);
  return [
    [
      "",
      `${load.unit}/s`,
      "range",
      "× no guard",
      "range",
      "CPU µs",
      "range",
      ...latency,
      ...(hasMemory ? ["MiB over idle", "range"] : []),
    ],
    ...shown.map(({ contender, perSecond, ratio, cpu, p50, p99, memory }) => [
      contender,
      perSecond.median.toFixed(0),
      `${perSecond.least.toFixed(0)}–${perSecond.most.toFixed(0)}`,
      ratio.median.toFixed(2),
      `${ratio.least.toFixed(2)}–${ratio.most.toFixed(2)}`,
      ...(cpu.most === 0 ? ["", ""] : [
        cpu.median.toFixed(0),
        `${cpu.least.toFixed(0)}–${cpu.most.toFixed(0)}`,
      ]),
      ...(hasLatency ? [p50.toFixed(0), p99.toFixed(0)] : []),
      ...(memory === undefined ? [] : [
        memory.median.toFixed(0),
        `${memory.least.toFixed(0)}–${memory.most.toFixed(0)}`,
      ]),
    ]),
  ];
}

/** The loads of this run. */
function loadsOf({ rows }: Result) {
  return LOADS.filter(({ name }) => rows.some(({ load }) => load === name));
}

function method({ rounds, seconds }: Result): readonly string[] {
  return [
    `${rounds} rounds of ${seconds} s, the contenders in turn. Client and server are programs in C on the`,
    "same machine. All answers are compared. Numbers are medians of all rounds, ranges go from the minimum",
    "to the maximum, and ratios compare with no guard in the same round. CPU is the CPU time of the proxy",
    "per unit. On a busy machine it is more reliable than the rate.",
  ];
}

function notes({ absent, skipped }: Result): readonly string[] {
  return [
    ...absent.map(({ contender, why }) => `${contender} did not take part: ${why}`),
    ...skipped.map((why) => `A round had no result: ${why}`),
  ];
}

/** Formats the result for the terminal. */
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

/** Formats bench/guard/results.md. */
export function markdown(result: Result): string {
  const blocks = [
    ["# What a guard costs"],
    [writtenBy(result)],
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
