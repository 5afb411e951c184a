/** A response that is read by a filter before the client receives it: whole, or line by line. */

import { Buffer } from "node:buffer";
import type { Response } from "./message.ts";
import {
  type Answer,
  MAX_LINE_BYTES,
  MAX_RESPONSE_BYTES,
  type ResponseFilter,
} from "./mediator.ts";

/** The connection that a filtered response is for. */
export interface FilterTarget {
  /** Stops and continues the upstream. */
  pause(): void;
  resume(): void;
  /** Sends the head, with the first call, and parts of the body. */
  send(response: Response | undefined, parts: readonly Buffer[], isEnd: boolean): void;
  /** Ends the response with an error. */
  fail(error: Error): void;
}

const NEWLINE = 10;

/** Collects a response, runs the filter, and sends its result. */
export class FilteredResponse {
  readonly #response: Response;
  readonly #filter: ResponseFilter;
  readonly #target: FilterTarget;
  /** What has arrived and was not filtered. */
  #parts: Buffer[] = [];
  #bytes = 0;
  #hasEnded = false;
  #isRunning = false;
  #hasFailed = false;

  constructor(response: Response, filter: ResponseFilter, target: FilterTarget) {
    this.#response = response;
    this.#filter = filter;
    this.#target = target;
    // How many lines the upstream will send is unknown, so the response is chunked.
    if (filter.kind === "lines") target.send(withoutLength(response), [], false);
  }

  /** Adds what has arrived. */
  add(parts: readonly Buffer[], isEnd: boolean): void {
    if (this.#hasFailed) return;
    for (const part of parts) {
      this.#bytes += part.length;
      this.#parts.push(part);
    }
    this.#hasEnded ||= isEnd;
    if (this.#filter.kind === "whole") {
      if (this.#bytes > MAX_RESPONSE_BYTES) {
        return this.#fail(new Error("its response is too long"));
      }
      if (isEnd) void this.#runWhole(this.#filter.run);
    } else if (!this.#isRunning) void this.#runLines(this.#filter.run);
  }

  async #runWhole(run: (body: Buffer) => Promise<Answer | Buffer>): Promise<void> {
    try {
      const result = await run(Buffer.concat(this.#parts));
      const isBuffer = Buffer.isBuffer(result);
      const body = isBuffer ? result : Buffer.from(result.body);
      const head = isBuffer ? this.#response : {
        ...{ ...this.#response, status: result.status, reason: result.title, hasDate: false },
        lines: [`Content-Type: ${result.type ?? "text/plain"}\r\n`, ...result.lines ?? []],
      };
      this.#target.send({ ...head, framing: body.length, length: body.length }, [body], true);
    } catch (error) {
      this.#fail(error as Error);
    }
  }

  async #runLines(run: (line: string) => Promise<string | undefined>): Promise<void> {
    this.#isRunning = true;
    this.#target.pause();
    try {
      for (;;) {
        const bytes = Buffer.concat(this.#parts);
        const last = bytes.lastIndexOf(NEWLINE);
        const isOver = this.#hasEnded;
        const end = isOver ? bytes.length : last + 1;
        const rest = bytes.subarray(end);
        if (rest.length > MAX_LINE_BYTES) throw new Error("a line of its response is too long");
        this.#parts = rest.length === 0 ? [] : [rest];
        const sent: Buffer[] = [];
        for (const line of bytes.toString("utf8", 0, end).split("\n")) {
          if (line.trim() === "") continue;
          const result = await run(line);
          if (result !== undefined) sent.push(Buffer.from(`${result}\n`));
        }
        if (sent.length > 0 || isOver) this.#target.send(undefined, sent, isOver);
        if (isOver) return;
        const hasMore = this.#hasEnded || this.#parts.some((part) => part.includes(NEWLINE));
        if (!hasMore) break;
      }
      this.#isRunning = false;
      this.#target.resume();
    } catch (error) {
      this.#fail(error as Error);
    }
  }

  #fail(error: Error): void {
    this.#hasFailed = true;
    this.#parts = [];
    this.#target.fail(error);
  }
}

function withoutLength(response: Response): Response {
  return { ...response, framing: "chunked", length: undefined };
}
