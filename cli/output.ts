/** What the commands print: text for people at a terminal, lines for pipes, JSON for programs. */

import process from "node:process";
import { styleText } from "node:util";
import { UcredError } from "../core/errors.ts";
import { visible } from "../core/text.ts";

/** 0: fine; 1: there are findings, or the answer is no; 2: it could not be done. */
export type ExitCode = 0 | 1 | 2;

/** A mistake of the user's: told without a stack trace. */
export class UsageError extends Error {}

type Style = Parameters<typeof styleText>[0];

interface Stream {
  readonly isTTY?: boolean;
  readonly columns?: number;
}

/** Colours on a terminal, unless NO_COLOR or TERM says otherwise; elsewhere if FORCE_COLOR does. */
export function paint(style: Style, text: string, stream: Stream = process.stdout): string {
  return isColoured(stream) ? styleText(style, text, { validateStream: false }) : text;
}

function isColoured({ isTTY }: Stream): boolean {
  const { NO_COLOR = "", FORCE_COLOR = "", TERM } = process.env;
  if (NO_COLOR !== "") return false;
  if (FORCE_COLOR !== "") return FORCE_COLOR !== "0" && FORCE_COLOR !== "false";
  return isTTY === true && TERM !== "dumb";
}

/** How wide the terminal is on which stdout is shown; elsewhere there is no limit. */
export function width(): number {
  const { isTTY, columns } = process.stdout;
  return isTTY === true ? columns || 80 : Infinity;
}

/** Prints a line of text on stdout. */
export function print(line: string): void {
  write(`${line}\n`);
}

/** Prints text on stdout, whatever its lines. */
export function write(text: string): void {
  try {
    process.stdout.write(text);
  } catch (error) {
    process.stdout.emit("error", error as Error); // Deno throws where others tell
  }
}

/** Prints data on stdout, for programs. Lists of plain values stand in one line. */
export function printJson(data: unknown): void {
  // A line ends only between values: inside of strings JSON escapes it.
  const text = escaped(JSON.stringify(data, null, 2));
  print(
    text.replace(/\[\n\s*([^[\]{}]*?)\n\s*\]/g, (_, list) => `[${list.replace(/\n\s*/g, " ")}]`),
  );
}

/** Prints data on stdout, in one line. */
export function printJsonLine(data: unknown): void {
  print(escaped(JSON.stringify(data)));
}

/** JSON leaves C1 controls, direction marks and what does not show as they are: for a terminal as well. */
const UNPRINTABLE = /(?!\n)[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu;

/** JSON of the same meaning, in printable characters. */
function escaped(json: string): string {
  const escape = (unit: string) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return json.replace(UNPRINTABLE, (character) => character.split("").map(escape).join(""));
}

/** Tells something on stderr, beside what the command prints. */
export function tell(line: string): void {
  process.stderr.write(`${line}\n`);
}

/**
 * A text of somebody else's choosing, in printable characters: nothing in it moves the cursor, ends the
 * line, turns its direction around, or is there without being seen.
 */
export const printable: (text: string) => string = visible;

/** Cuts a text off so that it takes at most so many columns. */
export function fit(text: string, width: number): string {
  return visibleLength(text) <= width ? text : `${headOf([...text], width - 1).join("")}…`;
}

/** As {@link fit}, of a path: its end stays. */
export function fitEnd(text: string, width: number): string {
  if (visibleLength(text) <= width) return text;
  return `…${headOf([...text].toReversed(), width - 1).toReversed().join("")}`;
}

/** As many characters from the start as fit into so many columns. */
function headOf(characters: readonly string[], width: number): readonly string[] {
  let left = width;
  const end = characters.findIndex((character) => (left -= visibleLength(character)) < 0);
  return end < 0 ? characters : characters.slice(0, end);
}

/** Fills a text up with spaces to so many columns. */
export function pad(text: string, width: number): string {
  return text + " ".repeat(Math.max(width - visibleLength(text), 0));
}

/** Lines of words, each at most so wide; a word that is wider stays whole. */
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

/** Columns as wide as what is in them, two spaces apart; what does not fit is wrapped in the last. */
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

// deno-lint-ignore no-control-regex
const COLOUR = /\u001b\[[0-9;]*m/g;

/** Characters of two columns: East Asian Width W and F of Unicode 17, and emoji. */
const WIDE = new RegExp(
  "[\\u1100-\\u115f\\u2e80-\\u303e\\u3041-\\ua4cf\\ua960-\\ua97c\\uac00-\\ud7a3\\uf900-\\ufaff" +
    "\\ufe10-\\ufe19\\ufe30-\\ufe6b\\uff01-\\uff60\\uffe0-\\uffe6\\u{16fe0}-\\u{18dff}" +
    "\\u{1aff0}-\\u{1b2ff}\\u{1d300}-\\u{1d376}\\u{1f200}-\\u{1f265}\\u{20000}-\\u{3fffd}" +
    "\\p{Emoji_Presentation}]",
  "gu",
);

/** Characters without a column of their own: marks above and below others. */
const NARROWEST = /[\p{Mn}\p{Me}]/gu;

/** How many columns a text takes on a terminal; colours take none. */
export function visibleLength(text: string): number {
  const plain = text.replace(COLOUR, "");
  // deno-lint-ignore no-control-regex
  if (/^[\x00-\x7f]*$/.test(plain)) return plain.length;
  const seen = plain.replace(NARROWEST, "");
  return [...seen].length + (seen.match(WIDE)?.length ?? 0);
}

/** Tells an error: a user's mistake in a line or two, a defect of ours with its stack. */
export function tellError(error: unknown): ExitCode {
  const prefix = paint("red", "ucred:", process.stderr);
  if (error instanceof UcredError) {
    tell(`${prefix} ${error.message.split("\n").map(printable).join("\n")}`);
    tell(`       ${printable(hintText(error.hint))}`);
  } else if (error instanceof UsageError || isDenied(error)) {
    tell(`${prefix} ${printable(error.message)}`);
  } else if (isSystemError(error)) {
    tell(`${prefix} ${printable(systemText(error))}`);
  } else {
    tell(`${prefix} this is a defect of ucred's own; please report it`);
    tell(error instanceof Error ? error.stack ?? String(error) : String(error));
  }
  return 2;
}

/** A hint, for who has a command line and not the library. */
function hintText(hint: string): string {
  return hint.replace("set allowUnsafeOwner", "use --allow-unsafe-owner")
    .replace(", use another one, or set allowUnsafeFolder", ", or use another one");
}

/** What a runtime was told to deny: Deno without a flag, Node with --permission. */
function isDenied(error: unknown): error is Error {
  return error instanceof Error &&
    (error.name === "NotCapable" || (error as { code?: string }).code === "ERR_ACCESS_DENIED");
}

/** What node:fs and node:net throw. */
function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && "syscall" in error;
}

/** "/etc/shadow: permission denied (EACCES)". */
function systemText({ code, path, message }: NodeJS.ErrnoException): string {
  const words = /^E[A-Z0-9]+: ([^,']+)/.exec(message)?.[1];
  return path === undefined || words === undefined ? message : `${path}: ${words} (${code})`;
}
