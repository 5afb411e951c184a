/** Draws the tables of benchmark results as bar charts in SVG, with the colors of the page. */

import type { Token } from "markdown-it";
import { escapeHtml } from "./escape.ts";

interface Bar {
  readonly label: string;
  readonly value: number;
  /** The smallest and the largest value. */
  readonly range: readonly [least: number, most: number] | undefined;
}

interface Chart {
  /** What the values are. */
  readonly unit: string;
  readonly bars: readonly Bar[];
}

const WIDTH = 720;
const NAMES = 250; //  left of the bars
const NUMBERS = 90; // right of the bars
const ROW = 24;
const HEAD = 28;

/** Draws the table that begins at a token. Returns an empty text if it has no numbers. */
export function chartsAt(tokens: readonly Token[], start: number): string {
  return chartsOf(cellsOf(tokens, start)).map(draw).join("");
}

/** The rows of the table that begins at a token; the first one has the headers. */
function cellsOf(tokens: readonly Token[], start: number): readonly (readonly string[])[] {
  const rows: string[][] = [];
  for (let at = start; tokens[at]!.type !== "table_close"; at++) {
    if (tokens[at]!.type === "tr_open") rows.push([]);
    if (tokens[at]!.type === "inline") {
      const { children } = tokens[at]!;
      rows.at(-1)!.push((children ?? []).map(({ content }) => content).join(""));
    }
  }
  return rows;
}

const numberOf = (text: string | undefined) => Number((text ?? "").replaceAll(",", ""));

/**
 * The charts of a table. If it has a column "range", one chart shows the column before the first of these,
 * and the columns to the left are its labels. Otherwise, one chart shows all columns of numbers.
 */
function chartsOf([headers = [], ...rows]: readonly (readonly string[])[]): readonly Chart[] {
  const range = headers.indexOf("range");
  if (range > 0) {
    const column = range - 1;
    const isRatio = headers[column] === "ratio"; // the columns before it are compared
    const labels = isRatio ? 1 : column;
    const bars = rows.map((row): Bar => {
      const [least, most] = row[range]!.split("–").map(numberOf);
      return {
        label: row.slice(0, labels).map((text, at) => at === 0 ? text : `${text} ${headers[at]}`)
          .join(", "),
        value: numberOf(row[column]),
        range: [least!, most!],
      };
    });
    return [{ unit: isRatio ? "ratio: with ucred / without" : headers[column]!, bars }];
  }
  const columns = [...headers.keys()].slice(1)
    .filter((column) => rows.every((row) => /^[\d.,]+$/.test(row[column] ?? "")));
  if (columns.length === 0) return [];
  const bars = rows.flatMap((row) =>
    columns.map((column): Bar => ({
      label: `${row[0]}: ${headers[column]}`,
      value: numberOf(row[column]),
      range: undefined,
    }))
  );
  return [{ unit: headers[0]!.replace(/ of .*/, ""), bars }];
}

/** Values that differ by more than this factor are dots on a logarithmic scale. */
const MAX_LINEAR_FACTOR = 200;

function draw({ unit, bars }: Chart): string {
  const values = bars.flatMap(({ value }) => value > 0 ? [value] : []);
  const isLogarithmic = Math.max(...values) / Math.min(...values) > MAX_LINEAR_FACTOR;
  const ends = bars.flatMap(({ value, range = [value, value] }) => [value, range[1]]);
  // A single extreme round must not shorten all bars.
  const most = Math.min(Math.max(...ends), 2.5 * Math.max(...values));
  const least = Math.min(...values) / 2;
  const room = WIDTH - NAMES - NUMBERS;
  const x = (value: number) => {
    const part = isLogarithmic
      ? Math.log(Math.max(value, least) / least) / Math.log(most / least)
      : value / most;
    return NAMES + room * Math.min(part, 1);
  };
  const height = HEAD + ROW * bars.length + 8;
  const title = `${unit}${isLogarithmic ? " (logarithmic scale)" : ""}`;
  const rows = bars.map(({ label, value, range }, at) => {
    const y = HEAD + ROW * at + ROW / 2;
    const mark = isLogarithmic
      ? `<circle class="${kindOf(label)}" cx="${x(value).toFixed(1)}" cy="${y}" r="5"/>`
      : `<rect class="${kindOf(label)}" x="${NAMES}" y="${y - 8}" height="16" width="${
        Math.max(1, x(value) - NAMES).toFixed(1)
      }"/>`;
    const [from, to] = (range ?? [value, value]).map((end) => x(end).toFixed(1));
    const line = range === undefined
      ? ""
      : `<path class="range" d="M${from} ${y}H${to}M${from} ${y - 4}v8M${to} ${y - 4}v8"/>`;
    const number = value.toLocaleString("en", { maximumFractionDigits: 2 });
    return `<text x="${NAMES - 10}" y="${y + 4}" class="name">${escapeHtml(label)}</text>` +
      `${mark}${line}<text x="${WIDTH}" y="${y + 4}" class="number">${number}</text>`;
  });
  const alternative = `Bar chart: ${title}. The table below has the numbers.`;
  return `<div class="chart" tabindex="0"><svg role="img" aria-label="${
    escapeHtml(alternative)
  }" ` +
    `viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}">` +
    `<text x="${NAMES}" y="16" class="unit">${escapeHtml(title)}</text>${rows.join("")}` +
    "</svg></div>\n";
}

function kindOf(label: string): "ours" | "baseline" | "other" {
  if (/\bucred\b|^(?:Deno|Bun|Node)\b/.test(label)) return "ours";
  return /^(?:C|no guard)$/.test(label) ? "baseline" : "other";
}
