/** A strict reader of Prometheus' text format 0.0.4, independent of the code that writes it. */

import assert from "node:assert/strict";

/** Name and labels, as in the text → value. */
export type Series = ReadonlyMap<string, number>;

const NAME = "[a-zA-Z_:][a-zA-Z0-9_:]*";
const LABEL = '[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\\\\n]|\\\\[\\\\"n])*"';
const SAMPLE = new RegExp(`^(${NAME})(?:\\{(${LABEL}(?:,${LABEL})*)\\})? (\\S+)$`);
const NUMBER = /^([+-]?Inf|NaN|[+-]?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?)$/;

/** Reads the text, and checks everything that the format and the naming rules require. */
export function parseMetrics(text: string): Series {
  assert.ok(text.endsWith("\n"), "the last line ends with a line feed");
  const series = new Map<string, number>();
  const families = new Set<string>();
  let family = "", type = "", expects = "HELP";
  for (const line of text.slice(0, -1).split("\n")) {
    const help = new RegExp(`^# HELP (${NAME}) (?:[^\\\\\\n]|\\\\[\\\\n])+$`).exec(line);
    if (help !== null) {
      assert.notEqual(expects, "TYPE", line);
      family = help[1]!;
      assert.ok(!families.has(family), `two groups of ${family}`);
      families.add(family);
      expects = "TYPE";
      continue;
    }
    const typed = /^# TYPE (\S+) (counter|gauge|histogram)$/.exec(line);
    if (typed !== null) {
      assert.equal(expects, "TYPE", line);
      assert.equal(typed[1], family);
      type = typed[2]!;
      assert.equal(family.endsWith("_total"), type === "counter", `${family} is a ${type}`);
      expects = "sample";
      continue;
    }
    assert.notEqual(expects, "TYPE", line);
    const [, name = "", labels = "", value = ""] = SAMPLE.exec(line) ?? assert.fail(`line ${line}`);
    const base = type === "histogram" ? name.replace(/_(bucket|sum|count)$/, "") : name;
    assert.equal(base, family, line);
    assert.match(value, NUMBER, line);
    const key = labels === "" ? name : `${name}{${labels}}`;
    assert.ok(!series.has(key), `twice: ${key}`);
    const number = value === "+Inf" ? Infinity : value === "-Inf" ? -Infinity : Number(value);
    if (type !== "gauge") assert.ok(number >= 0, line);
    series.set(key, number);
    expects = "any";
  }
  for (const name of families) checkHistogram(name, series);
  return series;
}

function checkHistogram(name: string, series: Series): void {
  const buckets = [...series].filter(([key]) => key.startsWith(`${name}_bucket{`));
  if (buckets.length === 0) return;
  let last = 0, bound = -Infinity;
  for (const [key, count] of buckets) {
    const le = /^\{le="(.+)"\}$/.exec(key.slice(`${name}_bucket`.length))![1]!;
    const next = le === "+Inf" ? Infinity : Number(le);
    assert.ok(next > bound && count >= last, key);
    [bound, last] = [next, count];
  }
  assert.equal(bound, Infinity);
  assert.equal(last, series.get(`${name}_count`));
  assert.ok(series.get(`${name}_sum`)! >= 0);
}
