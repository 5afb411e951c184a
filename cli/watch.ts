/** Runs a command again when its result may have changed, and shows its latest output: `--watch`. */

import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { captured, type ExitCode, fit, logError, width, write } from "./output.ts";
import { untilSignal } from "./signals.ts";

/** When the command runs again. */
export interface WatchOptions {
  readonly intervalMs: number;
  /** Returns a text that changes when the result may have changed. Without it, the command runs after each interval. */
  readonly state?: () => string;
}

/** Shows the alternate screen without a cursor, and returns to the earlier content of the terminal. */
const ENTER = "\x1b[?1049h\x1b[?25l";
const LEAVE = "\x1b[?25h\x1b[?1049l";

/** Runs a command until SIGINT or SIGTERM. In a pipe, each output that differs from the last one is printed. */
export async function watch(
  run: () => ExitCode | Promise<ExitCode>,
  { intervalMs, state }: WatchOptions,
): Promise<ExitCode> {
  const { isTTY, rows } = process.stdout;
  const isScreen = isTTY === true && rows > 1 && process.env["TERM"] !== "dumb";
  let isEnding = false;
  let wake = new AbortController();
  const again = () => wake.abort();
  void untilSignal(again).then(() => {
    isEnding = true;
    again();
  });
  process.stdout.on("resize", again);
  if (isScreen) write(ENTER);
  let [text, before] = ["", ""];
  try {
    while (!isEnding) {
      wake = new AbortController();
      before = state?.() ?? "";
      const last = text;
      text = await captured(async () => void await Promise.resolve().then(run).catch(logError));
      if (isScreen) write(frameOf(text, process.stdout.rows, width()));
      else if (text !== last) write(last === "" ? text : `\n${text}`);
      do await sleep(intervalMs, undefined, { signal: wake.signal }).catch(() => {}); while (
        !wake.signal.aborted && state !== undefined && state() === before
      );
    }
  } finally {
    if (isScreen) write(LEAVE + text);
  }
  return 0;
}

/**
 * Returns the bytes that replace what a terminal shows. Each line is overwritten and its rest erased: a screen
 * that is cleared first would flicker.
 */
export function frameOf(text: string, rows: number, columns: number): string {
  const lines = text.trimEnd().split("\n");
  const hidden = lines.length - rows + 1;
  const shown = hidden <= 0 ? lines : [
    ...lines.slice(0, Math.max(rows - 2, 0)),
    fit(`… ${hidden + 1} more lines`, columns),
  ];
  return `\x1b[H${shown.map((line) => `${line}\x1b[K\r\n`).join("")}\x1b[J`;
}
