/** A result → text for the terminal, and Markdown. */

import { styleText } from "node:util";
import { spread } from "../result.ts";
import type { Result, Sample } from "./result.ts";

type Rows = readonly (readonly string[])[];

function pairs({ pairs }: Result): Rows {
  const median = (samples: readonly Sample[], of: keyof Sample, digits = 0) =>
    spread(samples.map((sample) => sample[of])).median.toFixed(digits);
  return [
    ["", "without, /s", "with, /s", "ratio", "range", "one look", "CPU µs", "p99 µs", "at least"],
    ...pairs.map(({ runtime, name, plainSamples, oursSamples, ratio, leastRatio, ...rest }) => [
      `${runtime}, ${name}`,
      median(plainSamples, "perSecond"),
      median(oursSamples, "perSecond"),
      ratio.median.toFixed(2),
      `${ratio.least.toFixed(2)}–${ratio.most.toFixed(2)}`,
      leastRatio.median.toFixed(2),
      `${median(plainSamples, "cpu", 1)} → ${median(oursSamples, "cpu", 1)}`,
      `${median(plainSamples, "p99")} → ${median(oursSamples, "p99")}`,
      `${rest.atLeast} ${rest.isMet ? "met" : "NOT MET"}`,
    ]),
  ];
}

/** A line for each pair that has rounds which are not compared. */
export function leftOut({ pairs }: Pick<Result, "pairs">): readonly string[] {
  return pairs.filter(({ leftOut }) => leftOut.length > 0).map(({ runtime, name, leftOut }) =>
    `${runtime}, ${name}: ${leftOut.length} rounds left out: ${[...new Set(leftOut)].join(", ")}`
  );
}

function rivals({ rivals }: Result): Rows {
  return [
    ["CPU µs of the server for", "ucred", "JWT", "mTLS", "cheaper than both"],
    ...rivals.map(({ runtime, name, rows, isMet }) => [
      `${runtime}, ${name}`,
      ...rows.map(({ cpu }) => cpu.median.toFixed(1)),
      isMet ? "met" : "NOT MET",
    ]),
  ];
}

function method({ starts, rounds, seconds, connections }: Result): string {
  return `${starts} starts of each server with ${rounds} rounds of ${seconds} s each, the servers in ` +
    `turn, ${connections} connections at once. ` +
    "The client never sleeps, so that no server has to wake it. Every answer is compared. Numbers are " +
    "medians; a ratio is of two servers in the same round. One look: the ratio of a server that does no " +
    "more than one getsockopt(SO_PEERCRED) for each connection (of another one where it is hidden), and read method and URL of each request " +
    "(for Deno.serve on the engine's hook for single connections).";
}

function machine({ machine: { cpu, cores, kernel, architecture, load } }: Result): string {
  return `${cpu}, ${cores} cores, Linux ${kernel} ${architecture}, load average ${load.toFixed(2)}`;
}

/** For the terminal. */
export function text(result: Result): string {
  const mark = (line: string) =>
    line.includes("NOT MET")
      ? styleText("red", line)
      : line.includes("met")
      ? line
      : styleText("bold", line);
  return [
    machine(result),
    result.versions.join(", "),
    method(result),
    "",
    ...aligned(pairs(result)).map(mark),
    "",
    ...leftOut(result),
    ...aligned(rivals(result)).map(mark),
    "",
  ].join("\n");
}

function aligned(rows: Rows): string[] {
  const widths = rows[0]!.map((_, at) => Math.max(...rows.map((row) => row[at]!.length)));
  return rows.map((row) =>
    row.map((cell, at) => at === 0 ? cell.padEnd(widths[at]!) : cell.padStart(widths[at]!)).join(
      "  ",
    )
  );
}

/** For results.md. */
export function markdown(result: Result): string {
  const table = ([head, ...rows]: Rows) =>
    [head!, head!.map((_, at) => at === 0 ? "---" : "---:"), ...rows]
      .map((row) => `| ${row.join(" | ")} |`);
  return [
    "# What identity and policy cost a server",
    "",
    `Made by \`${result.command}\` on ${result.date}, which writes this file anew.`,
    "",
    `${machine(result)}. ${result.versions.join(", ")}. ${method(result)}`,
    "",
    ...table(pairs(result)),
    "",
    ...leftOut(result).flatMap((line) => [line, ""]),
    "## Beside a token in each request, and mutual TLS",
    "",
    "CPU time of the server; ucred on a Unix socket, the others over TCP on localhost. A JSON web token: HS256, verified by jose for each request. Mutual TLS:",
    "P-256 certificates, TLS 1.3 on localhost, a full handshake for each new connection.",
    "",
    ...table(rivals(result)),
    "",
  ].join("\n");
}
