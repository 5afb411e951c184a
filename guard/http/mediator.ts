/** How a mode of the guard decides on whole requests, not only on their paths, and changes requests and responses. */

import type { Buffer } from "node:buffer";
import type { Socket } from "node:net";
import type { Decision } from "../../core/policy/decide/decision.ts";
import type { Admitted } from "../../servers/admission/admission.ts";
import type { Request, Response } from "./message.ts";

/** A response of the guard itself. */
export interface Answer {
  readonly status: number;
  readonly title: string;
  readonly body: string;
  /** The media type. By default `application/problem+json`. */
  readonly type?: string | undefined;
  /** Header lines to add, each with its line end. */
  readonly lines?: readonly string[] | undefined;
}

/** The client of a request. */
export interface MediatedClient {
  readonly admitted: Admitted;
  /** Its connection, to notice that it hangs up. */
  readonly socket: Socket;
}

/** A request as it is forwarded. */
export interface Forward {
  /** The request target. */
  readonly url: string;
  /** The header lines, without those for the framing and the connection. */
  readonly lines: readonly string[];
  /** The body, if it was collected. */
  readonly body?: Buffer | undefined;
  /** The protocols of an upgrade. Without them, a 101 is an error. */
  readonly upgrade?: string | undefined;
  /** Returns how the body is changed. Without it, or with `undefined`, the response is streamed unchanged. */
  readonly filter?: ((response: Response) => ResponseFilter | undefined) | undefined;
}

/** Changes a response's body. An error of `run` is answered with 502, or ends a response that has begun. */
export type ResponseFilter = {
  readonly kind: "whole";
  /** Receives the whole body, and returns what the client receives. */
  readonly run: (body: Buffer) => Promise<Answer | Buffer>;
} | {
  readonly kind: "lines";
  /** Receives each line without its line end, and returns the line to send. */
  readonly run: (line: string) => Promise<string | undefined>;
};

/** One request, from its head to its decision. */
export interface Exchange {
  /**
   * Whether the body is collected before the decision. A body of more than {@link MAX_COLLECTED_BYTES} is
   * answered with 413.
   */
  readonly collects: boolean;
  /** The last decision about the request; `undefined` before there is one. */
  readonly decision: Decision | undefined;
  /** Decides the request. @param body The collected body; empty if it is not collected. */
  decide(body: Buffer): Promise<Answer | Forward>;
}

/** Maximum bytes of a collected body: 1 MiB. */
export const MAX_COLLECTED_BYTES: number = 1 << 20;

/** Maximum bytes of a response that is read whole. */
export const MAX_RESPONSE_BYTES: number = 64 << 20;

/** Maximum bytes of a line of a response. */
export const MAX_LINE_BYTES: number = 1 << 20;

/** Reads requests and responses for a mode of the guard. */
export interface Mediator {
  /** Begins the handling of a request. The head has arrived, and the body may follow. */
  open(request: Request, client: MediatedClient): Exchange;
  /** Returns a response of the guard in the form that the mode's clients expect. */
  answer(status: number, title: string, detail: string): Answer;
  /** Closes idle connections. Requests may still arrive. */
  close(): void;
  /** Releases all resources, after the last request. */
  end(): void;
}

/** Returns whether a request is answered by the guard. */
export function isAnswer(outcome: Answer | Forward): outcome is Answer {
  return "status" in outcome;
}
