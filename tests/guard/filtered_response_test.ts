/** Tests of responses that a mode of the guard reads before the client: whole, or line by line. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { test } from "node:test";
import { FilteredResponse } from "../../guard/http/filtered_response.ts";
import {
  type Answer,
  MAX_LINE_BYTES,
  MAX_RESPONSE_BYTES,
  type ResponseFilter,
} from "../../guard/http/mediator.ts";
import type { Response } from "../../guard/http/message.ts";

const RESPONSE: Response = {
  ...{ status: 200, reason: "OK", lines: ["A: b\r\n"], hasDate: true, framing: 5, length: 5 },
  isReusable: true,
};

type Sent = readonly [response: Response | undefined, body: string, isEnd: boolean];

/** A response with a filter, and everything that becomes of it. */
class Filtering {
  readonly sent: Sent[] = [];
  readonly calls: string[] = [];
  readonly response: FilteredResponse;

  constructor(filter: ResponseFilter) {
    this.response = new FilteredResponse(RESPONSE, filter, {
      pause: () => this.calls.push("pause"),
      resume: () => this.calls.push("resume"),
      send: (response, parts, isEnd) =>
        this.sent.push([response, Buffer.concat(parts).toString(), isEnd]),
      fail: ({ message }) => this.calls.push(message),
    });
  }

  /** Adds what has arrived, and waits until the filter has run. */
  async add(parts: readonly (string | Buffer)[], isEnd = false): Promise<void> {
    this.response.add(parts.map((part) => Buffer.from(part as string)), isEnd);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

test("FilteredResponse runs a filter of whole responses once, with all of the body", async () => {
  const bodies: string[] = [];
  const results: (Buffer | Answer)[] = [
    Buffer.from("é"),
    { status: 403, title: "No", body: "é!" },
    { status: 409, title: "No", body: "", type: "a/b", lines: ["C: d\r\n"] },
  ];
  const heads = [
    { ...RESPONSE, framing: 2, length: 2 },
    ...[{ status: 403, type: "text/plain", length: 3 }, { status: 409, type: "a/b", length: 0 }]
      .map((
        { status, type, length },
      ) => ({
        ...{ status, reason: "No", hasDate: false, framing: length, length, isReusable: true },
        lines: [`Content-Type: ${type}\r\n`, ...status === 409 ? ["C: d\r\n"] : []],
      })),
  ];
  for (const [at, result] of results.entries()) {
    const filtering = new Filtering({
      kind: "whole",
      run: (body) => Promise.resolve((bodies.push(body.toString()), result)),
    });
    await filtering.add(["a", "b"]);
    assert.deepEqual([filtering.sent, bodies.length], [[], at]);
    await filtering.add(["c"], true);
    assert.equal(bodies[at], "abc");
    assert.deepEqual(filtering.sent, [[heads[at], ["é", "é!", ""][at], true]]);
    assert.deepEqual(filtering.calls, []);
  }
});

test("FilteredResponse fails if the filter throws or the body is too long, and sends nothing", async () => {
  let runs = 0;
  const run = () => {
    runs++;
    return Promise.reject(new Error("the filter failed"));
  };
  const failing = new Filtering({ kind: "whole", run });
  await failing.add(["a"], true);
  assert.deepEqual([failing.sent, failing.calls], [[], ["the filter failed"]]);
  const long = new Filtering({ kind: "whole", run });
  const part = Buffer.alloc(MAX_RESPONSE_BYTES / 64);
  long.response.add(Array.from({ length: 64 }, () => part), false);
  assert.deepEqual(long.calls, []);
  await long.add(["x"]);
  await long.add(["x"], true);
  assert.deepEqual([long.sent, long.calls, runs], [[], ["its response is too long"], 1]);
});

test("FilteredResponse runs a filter of lines for each line, in order", async () => {
  const head: Sent = [{ ...RESPONSE, framing: "chunked", length: undefined }, "", false];
  const filtering = new Filtering({
    kind: "lines",
    run: (line) => Promise.resolve(line.startsWith("-") ? undefined : `<${line}>`),
  });
  assert.deepEqual(filtering.sent, [head]);
  const add = async (text: string | Buffer, isEnd = false) => {
    filtering.sent.length = filtering.calls.length = 0;
    await filtering.add([text], isEnd);
    return [
      ...filtering.sent.map(([, body, end]) => `${body}${end ? "." : ""}`),
      ...filtering.calls,
    ];
  };
  assert.deepEqual(await add("a\nb"), ["<a>\n", "pause", "resume"]);
  assert.deepEqual(await add("c"), ["pause", "resume"]);
  assert.deepEqual(await add("\n \n\n-d\n"), ["<bc>\n", "pause", "resume"]);
  assert.deepEqual(await add("-d\n"), ["pause", "resume"]);
  const accent = Buffer.from("é");
  assert.deepEqual(await add(accent.subarray(0, 1)), ["pause", "resume"]);
  assert.deepEqual(await add(accent.subarray(1)), ["pause", "resume"]);
  assert.deepEqual(await add("\nx\ny", true), ["<é>\n<x>\n<y>\n.", "pause"]);
  assert.ok(filtering.sent.every(([response]) => response === undefined));
});

test("FilteredResponse keeps the order of lines that arrive while the filter runs", async () => {
  const waiting: (() => void)[] = [];
  const filtering = new Filtering({
    kind: "lines",
    run: (line) => new Promise((resolve) => waiting.push(() => resolve(line))),
  });
  const next = async () => {
    waiting.shift()!();
    await new Promise((resolve) => setImmediate(resolve));
    return filtering.sent.splice(0).map(([, body, isEnd]) => `${body}${isEnd ? "." : ""}`);
  };
  filtering.sent.length = 0;
  await filtering.add(["a\nb"]);
  await filtering.add(["c\nd"]);
  assert.equal(waiting.length, 1, "one line at a time");
  assert.deepEqual(await next(), ["a\n"]);
  assert.deepEqual(await next(), ["bc\n"]);
  assert.deepEqual(filtering.calls, ["pause", "resume"]);
  await filtering.add(["e\n"]);
  await filtering.add([], true);
  assert.deepEqual(await next(), ["de\n", "."]);
});

test("FilteredResponse fails if a filter of lines throws or a line is too long", async () => {
  const lines: number[] = [];
  const run = (line: string) => {
    lines.push(line.length);
    return line === "throw"
      ? Promise.reject(new Error("the filter failed"))
      : Promise.resolve(line);
  };
  const failing = new Filtering({ kind: "lines", run });
  await failing.add(["a\nthrow\nb\n"]);
  await failing.add(["c\n"], true);
  assert.deepEqual([failing.sent.length, failing.calls], [1, ["pause", "the filter failed"]]);
  assert.deepEqual(lines.splice(0), [1, 5]);
  const long = new Filtering({ kind: "lines", run });
  await long.add([Buffer.alloc(MAX_LINE_BYTES, "x")]);
  assert.deepEqual(long.calls.splice(0), ["pause", "resume"]);
  await long.add(["x"]);
  await long.add(["\n"], true);
  assert.deepEqual([long.calls, lines], [["pause", "a line of its response is too long"], []]);
});
