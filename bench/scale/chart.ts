/** Draws a result as lines in SVG: a panel for each axis, with logarithmic scales. */

import type { EChartsOption, LineSeriesOption } from "echarts";
import type { Runtime } from "../benchmark.ts";
import { COLOR, draw, FONT, MARGIN, title, WIDTH } from "../chart.ts";
import { lineOf } from "./report.ts";
import { AXES, type Axis, type Result, type Row } from "./result.ts";

const TITLE = 96; //   the title of the chart, and the legend
const HEADING = 68; // the heading of each panel
const PANEL = 190; //  the lines of a panel
const AXIS = 56; //    below a panel
const FOOT = 34; //    the note at the bottom
const NUMBERS = 48; // left of a panel
const COLUMNS = 2;

const COLORS: { readonly [runtime in Runtime]: string } = {
  Deno: COLOR.ucred,
  Bun: "#d9822b",
  Node: "#2e8b57",
};

/** Lines show the median of all rounds. */
export function chart(result: Result): string {
  const axes = AXES.filter(({ name }) => result.rows.some(({ axis }) => axis === name));
  const width = (WIDTH - (COLUMNS + 1) * MARGIN - COLUMNS * NUMBERS) / COLUMNS;
  const places = axes.map((_, index) => ({
    left: MARGIN + (index % COLUMNS) * (width + MARGIN + NUMBERS),
    top: TITLE + Math.floor(index / COLUMNS) * (HEADING + PANEL + AXIS),
  }));
  const height = TITLE + Math.ceil(axes.length / COLUMNS) * (HEADING + PANEL + AXIS) + FOOT;
  const { machine: { cpu, kernel, architecture, load }, versions, rounds } = result;
  const note = [cpu, `Linux ${kernel} ${architecture}`, `load ${load.toFixed(1)}`, ...versions];
  const option: EChartsOption = {
    animation: false,
    backgroundColor: COLOR.page,
    textStyle: { fontFamily: FONT, color: COLOR.text },
    legend: {
      top: 68,
      left: MARGIN,
      itemGap: 18,
      textStyle: { color: COLOR.text },
      data: [...new Set(result.rows.map(lineOf))],
    },
    title: [
      title(
        20,
        20,
        "What grows with what: CPU time of one process",
        `Median of ${rounds} rounds. The scale of the time is logarithmic.`,
      ),
      ...axes.map(({ title: text, what, unit }, index) => {
        const { left, top } = places[index]!;
        const lines = wrapped(`${what}, ${unit}`, 62);
        return { ...title(top, 14, text, lines), left };
      }),
      title(height - FOOT, 11, "", note.join(" · ")),
    ],
    grid: places.map(({ left, top }) => ({
      left: left + NUMBERS,
      top: top + HEADING,
      width,
      height: PANEL,
    })),
    xAxis: axes.map(({ title: name, values }, gridIndex) => ({
      gridIndex,
      type: "category",
      name: name.toLowerCase(),
      nameLocation: "middle",
      nameGap: 28,
      nameTextStyle: { color: COLOR.quiet },
      boundaryGap: false,
      data: values.map((value) => value.toLocaleString("en")),
      axisLabel: { color: COLOR.quiet },
    })),
    yAxis: axes.map((axis, gridIndex) => ({
      gridIndex,
      type: "log",
      ...limitsOf(result.rows.filter((row) => row.axis === axis.name)),
      axisLabel: {
        color: COLOR.quiet,
        formatter: (value: number) => value.toLocaleString("en"),
      },
      splitLine: { lineStyle: { color: COLOR.grid } },
    })),
    series: axes.flatMap((axis, index) => linesOf(result, axis, index)),
  };
  return draw(option, height);
}

/** Powers of ten around all medians. */
function limitsOf(rows: readonly Row[]) {
  const medians = rows.map(({ spread }) => spread.median);
  const power = (value: number, round: (value: number) => number) => 10 ** round(Math.log10(value));
  return {
    min: power(Math.min(...medians), Math.floor),
    max: power(Math.max(...medians), Math.ceil),
  };
}

function linesOf(result: Result, axis: Axis, index: number): readonly LineSeriesOption[] {
  const rows = result.rows.filter((row) => row.axis === axis.name);
  return [...new Set(rows.map(lineOf))].map((name): LineSeriesOption => {
    const own = rows.filter((row) => lineOf(row) === name);
    const { runtime, isBaseline } = own[0]!;
    return {
      type: "line",
      name,
      xAxisIndex: index,
      yAxisIndex: index,
      silent: true,
      symbol: isBaseline ? "emptyCircle" : "circle",
      symbolSize: 6,
      color: COLORS[runtime],
      lineStyle: { width: 2, type: isBaseline ? "dashed" : "solid" },
      data: own.map(({ value, spread }) => [axis.values.indexOf(value), spread.median]),
    };
  });
}

/** Breaks a text into lines at spaces. */
function wrapped(text: string, width: number): string {
  return text.replaceAll(new RegExp(`(.{1,${width}})( |$)`, "g"), "$1\n").trimEnd();
}
