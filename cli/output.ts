/** Output of the commands: text on a terminal, lines in a pipe, JSON for programs. */

import process from "node:process";
import { styleText } from "node:util";
import stringWidth from "string-width";
import { UcredError } from "../core/errors.ts";
import { visible } from "../core/text.ts";

/** 0: success; 1: findings, or a negative result; 2: the command failed. */
export type ExitCode = 0 | 1 | 2;

/** A mistake of the user. It is printed without a stack trace. */
export class UsageError extends Error {}

type Style = Parameters<typeof styleText>[0];

interface Stream {
  readonly isTTY?: boolean;
  readonly columns?: number;
}

/** Styles text on a terminal, unless NO_COLOR or TERM=dumb is set; elsewhere only with FORCE_COLOR. */
export function paint(style: Style, text: string, stream: Stream = process.stdout): string {
  return isColoured(stream) ? styleText(style, text, { validateStream: false }) : text;
}

function isColoured({ isTTY }: Stream): boolean {
  const { NO_COLOR = "", FORCE_COLOR = "", TERM } = process.env;
  if (NO_COLOR !== "") return false;
  if (FORCE_COLOR !== "") return FORCE_COLOR !== "0" && FORCE_COLOR !== "false";
  return isTTY === true && TERM !== "dumb";
}

/** The columns of the terminal that shows stdout; without a terminal, Infinity. */
export function width(): number {
  const { isTTY, columns } = process.stdout;
  return isTTY === true ? columns || 80 : Infinity;
}

/** Prints a line of text on stdout. */
export function print(line: string): void {
  write(`${line}\n`);
}

/** Prints untrusted text on stdout, escaped for a terminal. It may have several lines. */
export function printText(text: string): void {
  print(text.split("\n").map(printable).join("\n"));
}

/** The output of the function that {@link captured} runs; `undefined` if none runs. */
let kept: string[] | undefined;

/** Runs a function, and returns its output on stdout and stderr, which is not written. */
export async function captured(run: () => Promise<void>): Promise<string> {
  const texts: string[] = kept = [];
  try {
    await run();
  } finally {
    kept = undefined;
  }
  return texts.join("");
}

/** Writes text to stdout. */
export function write(text: string): void {
  if (kept !== undefined) return void kept.push(text);
  try {
    process.stdout.write(text);
  } catch (error) {
    process.stdout.emit("error", error as Error); // Deno throws instead of emitting "error"
  }
}

/** Prints data as indented JSON. A list of plain values is printed in one line. */
export function printJson(data: unknown): void {
  // Line feeds are only between values: JSON escapes them in strings.
  const text = escaped(JSON.stringify(data, null, 2));
  print(
    text.replace(/\[\n\s*([^[\]{}]*?)\n\s*\]/g, (_, list) => `[${list.replace(/\n\s*/g, " ")}]`),
  );
}

/** Prints data as JSON in one line. */
export function printJsonLine(data: unknown): void {
  print(escaped(JSON.stringify(data)));
}

/** Characters that JSON does not escape, but a terminal needs escaped: C1 controls, direction marks, … */
const UNPRINTABLE = /(?!\n)[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu;

/** The same JSON with unprintable characters escaped. */
function escaped(json: string): string {
  const escape = (unit: string) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return json.replace(UNPRINTABLE, (character) => character.split("").map(escape).join(""));
}

/** Prints a line on stderr. */
export function log(line: string): void {
  if (kept !== undefined) return void kept.push(`${line}\n`);
  process.stderr.write(`${line}\n`);
}

/**
 * Escapes untrusted text for a terminal: controls, line ends, direction marks and invisible characters.
 */
export const printable: (text: string) => string = visible;

/** Truncates a text to a number of columns. */
export function fit(text: string, width: number): string {
  return visibleLength(text) <= width ? text : `${headOf([...text], width - 1).join("")}…`;
}

/** Truncates a text at its start, for paths. */
export function fitEnd(text: string, width: number): string {
  if (visibleLength(text) <= width) return text;
  return `…${headOf([...text].toReversed(), width - 1).toReversed().join("")}`;
}

/** The first characters that fit into a number of columns. */
function headOf(characters: readonly string[], width: number): readonly string[] {
  let left = width;
  const end = characters.findIndex((character) => (left -= visibleLength(character)) < 0);
  return end < 0 ? characters : characters.slice(0, end);
}

/** Pads a text with spaces to a number of columns. */
export function pad(text: string, width: number): string {
  return text + " ".repeat(Math.max(width - visibleLength(text), 0));
}

/** Wraps a text between words. A word that is wider than a line is not broken. */
export function wrap(text: string, width: number): readonly string[] {
  const lines: string[] = [];
  for (const word of text.split(" ")) {
    const last = lines.at(-1);
    const isFull = visibleLength(last ?? "") + 1 + visibleLength(word) > width;
    if (last === undefined || isFull) lines.push(word);
    else lines[lines.length - 1] = `${last} ${word}`;
  }
  return lines;
}

/** Aligns cells in columns, two spaces apart. The last column is wrapped. */
export function columns(rows: readonly (readonly string[])[]): string[] {
  const widths = rows.reduce<number[]>(
    (widths, row) => row.map((cell, at) => Math.max(widths[at] ?? 0, visibleLength(cell))),
    [],
  );
  const before = widths.slice(0, -1).reduce((sum, width) => sum + width + 2, 0);
  return rows.flatMap((row) => {
    const start = row.slice(0, -1).map((cell, at) =>
      cell + " ".repeat(widths[at]! - visibleLength(cell) + 2)
    ).join("");
    return wrap(row.at(-1)!, Math.max(width() - before, 20)).map((part, at) =>
      ((at === 0 ? start : " ".repeat(before)) + part).trimEnd()
    );
  });
}

/** The number of columns that a text takes on a terminal, without colour codes. */
export function visibleLength(text: string): number {
  return /^[\x20-\x7e]*$/.test(text) ? text.length : stringWidth(text);
}

/** Prints an error on stderr: expected errors in one or two lines, bugs of ucred with the stack trace. */
export function logError(error: unknown): ExitCode {
  const prefix = paint("red", "ucred:", process.stderr);
  if (error instanceof UcredError) {
    log(`${prefix} ${error.message.split("\n").map(printable).join("\n")}`);
    log(`       ${printable(error.hint)}`);
  } else if (error instanceof UsageError || isDenied(error)) {
    log(`${prefix} ${printable(error.message)}`);
  } else if (isSystemError(error)) {
    log(`${prefix} ${printable(systemText(error))}`);
  } else {
    log(`${prefix} this is a bug in ucred; please report it`);
    log(error instanceof Error ? error.stack ?? String(error) : String(error));
  }
  return 2;
}

/** Whether the runtime denied a permission: Deno, or Node with --permission. */
function isDenied(error: unknown): error is Error {
  return error instanceof Error &&
    (error.name === "NotCapable" || (error as { code?: string }).code === "ERR_ACCESS_DENIED");
}

/** Whether it is an error of node:fs or node:net. */
function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && "syscall" in error;
}

/** "/etc/shadow: permission denied (EACCES)". */
function systemText({ code, path, message }: NodeJS.ErrnoException): string {
  const words = /^E[A-Z0-9]+: ([^,']+)/.exec(message)?.[1];
  return path === undefined || words === undefined ? message : `${path}: ${words} (${code})`;
}
