/** Draws a result as a bar chart in SVG, on a white background for light and dark pages. */

import { type CustomSeriesOption, type EChartsOption, init } from "echarts";
import { type Lookup, LOOKUPS } from "./contenders.ts";
import type { Result, Row } from "./result.ts";

export const WIDTH = 880;
export const MARGIN = 36;
const TITLE = 84; //   the title of the chart
const HEADING = 72; // the heading of each panel
const BAR = 30; //     each row of a panel
const AXIS = 46; //    below the rows of a panel
const FOOT = 34; //    the note at the bottom
const NAMES = 70; //   left of the bars
export const FONT =
  "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif";

export const COLOR = {
  page: "#ffffff",
  text: "#1c2430",
  quiet: "#5b6675",
  grid: "#e6e9ee",
  ucred: "#2f6fde",
  baseline: "#4a5563",
  other: "#b3bcc9",
};

/** The panels. Those in the same list have the same scale. */
const SCALES: readonly (readonly Lookup[])[] = [
  ["again", "first", "accepted"],
  ["identify", "pin", "live", "exe", "snapshot"],
];

/** Bars show the median ratio to C, and lines its range over all rounds. */
export function chart(result: Result): string {
  const panels = SCALES.flatMap((lookups) => {
    const rows = result.rows.filter(({ lookup }) => lookups.includes(lookup));
    // Java's bar is cut: it also looks up names, and would shorten all other bars.
    const most = Math.max(
      ...rows.filter(({ returnsNames }) => !returnsNames).map(({ ratio }) => ratio.most),
    );
    const room = most * 1.12; // includes the number beside the longest line
    const interval = [0.5, 1, 2, 5, 10, 20].find((step) => room / step <= 8) ?? 50;
    const end = Math.ceil(room / interval) * interval;
    return lookups.map((of) => ({
      of,
      interval,
      end,
      rows: rows.filter(({ lookup }) => lookup === of),
    }));
  });
  const heights = panels.map(({ rows }) => HEADING + BAR * rows.length + AXIS);
  const tops = heights.map((_, index) => TITLE + sum(heights.slice(0, index)));
  const height = TITLE + sum(heights) + FOOT;

  const option: EChartsOption = {
    animation: false,
    backgroundColor: COLOR.page,
    textStyle: { fontFamily: FONT, color: COLOR.text },
    title: [
      title(
        22,
        20,
        "Peer credentials: time per lookup, as a multiple of C's",
        `Bar: median of ${result.rounds} rounds. Line: all rounds. Shorter is faster.`,
      ),
      ...panels.map(({ of }, index) => {
        const { title: text, ours, c } = LOOKUPS[of];
        return title(tops[index]! + 6, 15, text, `{ucred|ucred:} ${ours}\n{c|C:} ${c}`);
      }),
      title(height - FOOT - 8, 11, "", footnote(result)),
    ],
    grid: panels.map(({ rows }, index) => ({
      left: MARGIN + NAMES,
      right: MARGIN,
      top: tops[index]! + HEADING,
      height: BAR * rows.length,
    })),
    xAxis: panels.map(({ interval, end }, gridIndex) => ({
      gridIndex,
      type: "value",
      min: 0,
      max: end,
      interval,
      axisLabel: { color: COLOR.quiet, formatter: (value: number) => `${value} ×` },
      splitLine: { lineStyle: { color: COLOR.grid } },
    })),
    yAxis: panels.map(({ rows }, gridIndex) => ({
      gridIndex,
      type: "category",
      inverse: true,
      data: rows.map(({ name }) => name),
      axisLine: { show: false },
      axisTick: { show: false },
      axisLabel: { color: COLOR.text, fontSize: 13, margin: 12 },
    })),
    series: panels.map(({ rows, end }, index) => bars(rows, end, index)),
  };

  return draw(option, height);
}

/** Draws a chart of this height as SVG. */
export function draw(option: EChartsOption, height: number): string {
  const canvas = init(null, null, { renderer: "svg", ssr: true, width: WIDTH, height });
  canvas.setOption(option);
  const svg = canvas.renderToSVGString();
  canvas.dispose();
  // librsvg, which many image viewers use, ignores the dominant-baseline of echarts.
  const drawn = svg.replaceAll('dominant-baseline="central"', 'dy="0.35em"');
  return `<!-- deno-fmt-ignore-file -->\n${drawn}\n`;
}

/** A title with a line below. */
export function title(top: number, fontSize: number, text: string, subtext: string) {
  return {
    left: MARGIN,
    top,
    padding: 0,
    itemGap: 7,
    text,
    textStyle: { fontSize, fontWeight: 600, color: COLOR.text },
    subtext,
    subtextStyle: {
      fontSize: 12,
      lineHeight: 17,
      color: COLOR.quiet,
      rich: {
        ucred: { color: COLOR.ucred, fontWeight: 600, width: 48 },
        c: { color: COLOR.baseline, fontWeight: 600, width: 48 },
      },
    },
  } as const;
}

/** The rows of a panel. Each has a bar, a line and a number. */
function bars(rows: readonly Row[], end: number, index: number) {
  const renderItem: CustomSeriesOption["renderItem"] = ({ dataIndex }, { coord }) => {
    const { name, isOurs, ratio } = rows[dataIndex]!;
    const x = (value: number) => coord([value, dataIndex])[0]!;
    const y = coord([0, dataIndex])[1]!;
    const isCut = ratio.median > end;
    const tip = x(Math.min(ratio.median, end));
    const line = (x1: number, y1: number, x2: number, y2: number) =>
      ({
        type: "line",
        shape: { x1, y1, x2, y2 },
        style: { stroke: COLOR.text, lineWidth: 1.5 },
      }) as const;
    const [least, most] = [x(ratio.least), x(ratio.most)];
    const range = [
      line(least, y, most, y),
      line(least, y - 4, least, y + 4),
      line(most, y - 4, most, y + 4),
    ];
    return {
      type: "group",
      children: [
        {
          type: "polygon",
          shape: {
            points: [
              [x(0), y - 9],
              [isCut ? tip - 9 : tip, y - 9],
              [tip, y],
              [isCut ? tip - 9 : tip, y + 9],
              [x(0), y + 9],
            ],
          },
          style: { fill: name === "C" ? COLOR.baseline : isOurs ? COLOR.ucred : COLOR.other },
        },
        ...(isCut || most === least ? [] : range),
        {
          type: "text",
          x: isCut ? tip - 16 : most + 8,
          y,
          style: {
            text: isCut
              ? `also looks up names: ${ratio.median.toFixed(0)} ×`
              : `${ratio.median.toFixed(2)} ×`,
            align: isCut ? "right" : "left",
            verticalAlign: "middle",
            font: `600 13px ${FONT}`,
            fill: COLOR.text,
          },
        },
      ],
    };
  };
  return {
    type: "custom",
    xAxisIndex: index,
    yAxisIndex: index,
    silent: true,
    data: rows.map(({ ratio }, row) => [ratio.median, row]),
    renderItem,
    markLine: {
      silent: true,
      symbol: "none",
      label: { show: false },
      lineStyle: { color: COLOR.baseline, type: [3, 3], width: 1 },
      data: [{ xAxis: 1 }],
    },
  } satisfies CustomSeriesOption;
}

function footnote({ machine: { cpu, kernel, architecture }, participants, rows }: Result): string {
  const ours = participants.filter(({ name }) =>
    rows.some((row) => row.isOurs && row.name === name)
  );
  const versions = ours.map(({ name, version }) => `${name} ${version}`);
  return [cpu, `Linux ${kernel} ${architecture}`, ...versions].join(" · ");
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
