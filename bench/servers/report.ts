/** Formats a result as text for the terminal and as Markdown. */

import { styleText } from "node:util";
import { absentLines } from "../benchmark.ts";
import { aligned, type Cells, machine, piped, writtenBy } from "../report.ts";
import { type Spread, spread } from "../result.ts";
import type { Result, Sample } from "./result.ts";

type Rows = readonly Cells[];

/** Returns a target, and whether it is met. */
function verdict({ median }: Spread, target: number | undefined): string {
  return target === undefined ? "" : `${target} ${median >= target ? "met" : "NOT MET"}`;
}

function pairs({ pairs }: Result): Rows {
  const median = (samples: readonly Sample[], of: keyof Sample, digits = 0) =>
    spread(samples.map((sample) => sample[of])).median.toFixed(digits);
  return [
    [
      "",
      "without ucred, /s",
      "with, /s",
      "ratio",
      "range",
      "target",
      "one getsockopt",
      "ratio to it",
      "target",
      "CPU µs",
      "p99 µs",
    ],
    ...pairs.map(({ runtime, name, plainSamples, oursSamples, ratio, leastRatio, ...rest }) => [
      `${runtime}, ${name}`,
      median(plainSamples, "perSecond"),
      median(oursSamples, "perSecond"),
      ratio.median.toFixed(2),
      `${ratio.least.toFixed(2)}–${ratio.most.toFixed(2)}`,
      verdict(ratio, rest.atLeast),
      leastRatio.median.toFixed(2),
      rest.ratioToLeast.median.toFixed(2),
      verdict(rest.ratioToLeast, rest.atLeastOfLeast),
      `${median(plainSamples, "cpu", 1)} → ${median(oursSamples, "cpu", 1)}`,
      `${median(plainSamples, "p99")} → ${median(oursSamples, "p99")}`,
    ]),
  ];
}

/** One line for each pair with rounds that had no result. */
export function skipped({ pairs }: Pick<Result, "pairs">): readonly string[] {
  return pairs.filter(({ skipped }) => skipped.length > 0).map(({ runtime, name, skipped }) =>
    `${runtime}, ${name}: ${skipped.length} rounds without a result: ${
      [...new Set(skipped)].join(", ")
    }`
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
    "The client polls without sleeping, so that no server spends time on waking it. All responses are " +
    "compared. Numbers are medians; a ratio compares two servers in the same round, and a target is the least " +
    "ratio. One getsockopt: the ratio of " +
    "a server that calls getsockopt(SO_PEERCRED) once per connection, and reads method and URL of each " +
    "request. Where the runtime hides the descriptor, it makes the call on another one; for Deno.serve, it " +
    "uses the engine's hook for single connections.";
}

/** Formats the result for the terminal. */
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
    ...skipped(result),
    ...absentLines(result.absent),
    ...(result.rivals.length > 0 ? aligned(rivals(result)).map(mark) : []),
    "",
  ].join("\n");
}

/** Formats bench/servers/results.md. */
export function markdown(result: Result): string {
  return [
    "# What identity and policy cost a server",
    "",
    writtenBy(result),
    "",
    `${machine(result)}. ${result.versions.join(", ")}. ${method(result)}`,
    "",
    ...piped(pairs(result)),
    "",
    ...[...skipped(result), ...absentLines(result.absent)].flatMap((line) => [line, ""]),
    ...(result.rivals.length > 0 ? rivalSection(result) : []),
  ].join("\n");
}

function rivalSection(result: Result): readonly string[] {
  return [
    "## Compared with a token per request, and mutual TLS",
    "",
    "CPU time of the server. ucred listens on a Unix socket, the others over TCP on localhost. JWT: a JSON " +
    "web token (HS256), which jose verifies for each request. mTLS: mutual TLS 1.3 with P-256 certificates, " +
    "and a full handshake for each new connection.",
    "",
    ...piped(rivals(result)),
    "",
  ];
}
