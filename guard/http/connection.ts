/** One client of a guard in HTTP mode: its requests are decided and forwarded one after the other. */

import { Buffer } from "node:buffer";
import type { Socket } from "node:net";
import { host } from "../../adapters/host.ts";
import { GrownBytes } from "../../core/grown_bytes.ts";
import { isHungUp } from "../../identity/hangup.ts";
import type { Decision } from "../../core/policy/decide/decision.ts";
import type { Admitted } from "../../servers/admission/admission.ts";
import {
  type Connection,
  decideRequest,
  isProblem,
  type Outcome,
} from "../../servers/http/decide_request.ts";
import { headersOf, type Problem } from "../../servers/http/problem.ts";
import { decisionLines, linesOf, peerFields, switchesToHttp, withoutHttp } from "../headers.ts";
import { finish, join } from "../pipe.ts";
import type { RequestOutcome } from "../../servers/http/request_report.ts";
import {
  BAD_GATEWAY,
  type DetailedAnswer,
  MALFORMED,
  NO_TUNNEL,
  outcomeOf,
  STALLED,
  TOO_LARGE,
  TOO_LONG,
  TOO_MANY,
  TOO_SLOW,
  UNEXPECTED,
} from "./answers.ts";
import {
  endOfHead,
  forwardedValues,
  MAX_HEAD_BYTES,
  type Request,
  RequestParser,
  type Response,
  serialise,
} from "./message.ts";
import {
  type Answer,
  type Exchange,
  type Forward,
  isAnswer,
  MAX_COLLECTED_BYTES,
  type Mediator,
} from "./mediator.ts";
import { FilteredResponse } from "./filtered_response.ts";
import { type HttpShared, requestEnded } from "./shared.ts";
import { type Receiver, UpstreamConnection } from "./upstream.ts";

/** What the connections of one guard share. */
export interface Shared extends HttpShared {
  /** Whether upgrades to HTTP/2 are forwarded. */
  readonly h2c: boolean;
  /** Decides requests and filters responses. Without it, requests are decided by method and path. */
  readonly mediator?: Mediator | undefined;
  /** Whether the guard waits for its last responses. */
  isClosing(): boolean;
  /**
   * Serves a client that speaks HTTP/2; `undefined` if HTTP/2 is refused.
   *
   * @param bytes What was read from the socket: the preface, and possibly more.
   */
  readonly serveHttp2: ((socket: Socket, admitted: Admitted, bytes: Buffer) => void) | undefined;
}

/** The preface of a client that speaks HTTP/2 with prior knowledge: RFC 9113, 3.4. */
const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");

/** Maximum pipelined requests of one connection that wait for their responses. */
const MAX_WAITING = 64;

/**
 * Bytes of a client that are kept while they cannot be forwarded: this many in waiting requests, and this
 * many that were not parsed. Then the socket is paused.
 */
const MAX_PENDING_BYTES = 65536;

/** The time for the headers of a request. */
const HEAD_TIMEOUT_MS = 10_000;

/** The time between two requests. */
const IDLE_TIMEOUT_MS = 6000;

/**
 * How long a request's body is discarded before its connection is closed. Closing at once would reset a
 * client that is still sending: Docker's client then reports a broken pipe instead of the response.
 */
const DISCARD_TIMEOUT_MS = 2000;

/** destroy() leaks 2.8 KB for each connection in Deno 2.9.5. */
const DESTROY_LEAKS = host().runtime === "deno";

/** The client's side of a connection, and its connection to the upstream. */
export class ClientConnection implements Connection, Receiver {
  readonly admitted: Admitted;
  hasRequested = false;
  readonly #shared: Shared;
  readonly #socket: Socket;
  readonly #parser: RequestParser;
  /** Bytes that were not parsed yet. */
  #pending: Buffer | undefined;
  /** How many of them were searched for the end of a head. */
  #searched = 0;
  /** Requests that wait for their turn. */
  readonly #waiting: Request[] = [];
  /** The total `size` of `#waiting`. */
  #waitingBytes = 0;
  /** The request whose body is arriving. It is the last one. */
  #receiving: Request | undefined;
  /** Whether no request follows. Bytes after an upgrade are no request, whatever they look like. */
  #hasLast = false;
  /** Whether bytes after the last request are discarded. Those after an upgrade are kept for the 101. */
  #discards = false;
  /** The answer to a malformed request, which is sent after the answers before it. */
  #lastAnswer: DetailedAnswer | Problem | undefined;
  /** The request that is being answered. */
  #active: Request | undefined;
  /** When the guard began to handle it, by `performance.now()`. */
  #startedAt = 0;
  /** The decision about it. */
  #decision: Decision | undefined;
  /** Whether it was counted. */
  #isCounted = false;
  /** The head of the active request, as it is sent. */
  #head = "";
  /** Whether the head of the active request was sent. Nothing of its body may be sent before. */
  #hasBegun = false;
  /** Whether more of its body can be sent now. */
  #canSend = false;
  #wasRepeated = false;
  /** The protocols to which the active request, as forwarded, may be upgraded. */
  #upgrade: string | undefined;
  /** The exchange of the active request whose body is being collected, and what was collected. */
  #collecting: { readonly exchange: Exchange; readonly body: GrownBytes } | undefined;
  /** Chooses the filter of the response. */
  #filter: Forward["filter"];
  /** The response that is being filtered. */
  #filtered: FilteredResponse | undefined;
  /** The response whose head was sent to the client. */
  #response: Response | undefined;
  #isChunked = false;
  #isAnswered = false;
  /** Whether the connection ends with this response. */
  #isLast = false;
  #link: UpstreamConnection | undefined;
  #peerLines: string | undefined;
  /** When the client must have sent the next head, by `performance.now()`. */
  #deadline: number;
  /** The deadline that a check has found to be over. */
  #missed: number | undefined;
  /** Whether a part of the next head has arrived, and the deadline is for its end. */
  #awaitsHead = false;
  /** Whether bytes have arrived since the last check. */
  #hasArrived = false;
  /** How many checks in a row have found that nothing of a body has arrived. */
  #idleChecks = 0;
  #hasEnded = false;
  #isPaused = false;
  #isAdvancing = false;
  /** Whether the connection may still begin with the preface of HTTP/2. */
  #awaitsPreface: boolean;
  #state: "open" | "closing" | "switched" = "open";
  readonly #onData = (bytes: Buffer) => this.attempt(() => this.#receive(bytes));
  readonly #onDrain = () => {
    this.#link?.resume();
    this.attempt(() => this.#advance());
  };

  constructor(socket: Socket, admitted: Admitted, shared: Shared) {
    this.#socket = socket;
    this.admitted = admitted;
    this.#shared = shared;
    // Docker's client sends an empty Host with POST /session.
    this.#parser = new RequestParser(shared.fields, shared.mediator !== undefined);
    this.#awaitsPreface = shared.serveHttp2 !== undefined;
    this.#deadline = performance.now() + HEAD_TIMEOUT_MS;
    socket.on("data", this.#onData).on("drain", this.#onDrain)
      .once("end", () => this.attempt(() => this.#end()))
      .once("close", () => this.#release());
  }

  attempt(work: () => void): void {
    try {
      work();
    } catch (error) { // an account lookup, or an error of ours: it ends this connection only
      this.#shared.admission.failed(this.admitted, error);
      if (this.#active !== undefined) this.#count("failed");
      this.#leave();
      this.#socket.destroy();
    }
  }

  /** Closes the connection if no response is pending. */
  shutDown(): void {
    if (this.#state === "open" && this.#isIdle()) this.#closeAfterLast();
  }

  /** Enforces the timeouts, and notices hang-ups that the runtime does not report. */
  sweep(now: number): void {
    const socket = this.#socket;
    if (this.#isAnswered && this.#link?.isOpen !== true && this.#state === "open") this.#close("");
    if ((this.#isPaused || this.#hasEnded) && isHungUp(socket)) return void socket.destroy();
    if (this.#state !== "open") return;
    if (this.#isStalled()) {
      if (this.#response === undefined) this.#refuse(STALLED);
      else this.#close("");
      return;
    }
    if (now <= this.#deadline) return;
    // Timers of a process that was suspended or busy run before it reads: the request may have arrived.
    const isKnown = this.#missed === this.#deadline;
    this.#missed = this.#deadline;
    if (!isKnown) return;
    if (this.#pending === undefined) this.#closeAfterLast();
    else {
      this.#countNext(TOO_SLOW.status);
      this.#refuse(TOO_SLOW);
    }
  }

  /**
   * Whether the client has sent nothing of a body for too long. It counts while the upstream could receive
   * more, and not during a response: requests and responses may be streams that are idle together. Checks are
   * counted instead of time, so that a guard that was suspended ends no upload.
   */
  #isStalled(): boolean {
    const receiving = this.#receiving;
    const mayCount = receiving !== undefined && receiving === this.#active &&
      (this.#canSend || this.#collecting !== undefined) &&
      (this.#response === undefined || this.#isAnswered);
    this.#idleChecks = mayCount && !this.#hasArrived ? this.#idleChecks + 1 : 0;
    this.#hasArrived = false;
    return this.#idleChecks > this.#shared.maxIdleChecks;
  }

  #isIdle(): boolean {
    return this.#active === undefined && this.#waiting.length === 0;
  }

  // The client's requests.

  #receive(bytes: Buffer): void {
    if (this.#state !== "open" || this.#discards) return; // discarded
    this.#hasArrived = true;
    const pending = this.#pending;
    this.#pending = pending === undefined ? bytes : Buffer.concat([pending, bytes]);
    this.#advance();
  }

  #end(): void {
    this.#hasEnded = true;
    if (this.#state === "switched") return;
    const socket = this.#socket;
    if (isHungUp(socket)) {
      // destroySoon() costs a system call more, and waits if bytes are left to send.
      const isLeaking = DESTROY_LEAKS && socket.writableLength === 0;
      return void (isLeaking ? socket.destroySoon() : socket.destroy());
    }
    if (this.#state === "closing") return socket.destroySoon();
    this.#advance();
  }

  /** Does everything that can be done now. */
  #advance(): void {
    if (this.#isAdvancing) return;
    this.#isAdvancing = true;
    while (this.#state === "open" && !this.#socket.destroyed && this.#step());
    this.#isAdvancing = false;
    if (this.#state === "switched") return;
    const isFull = this.#state === "open" && (this.#pending?.length ?? 0) >= MAX_PENDING_BYTES;
    if (isFull !== this.#isPaused) {
      this.#isPaused = isFull;
      if (isFull) this.#socket.pause();
      else this.#socket.resume();
    }
  }

  /** Starts a request, or parses. Returns whether there may be more to do. */
  #step(): boolean {
    const socket = this.#socket;
    const next = this.#active ?? this.#waiting[0];
    const isIncomplete = next !== undefined && next === this.#receiving;
    if (this.#hasEnded && this.#pending === undefined && isIncomplete) {
      this.#closeAfterLast(); // it will never be complete
      return false;
    }
    if (this.#active === undefined && this.#waiting.length > 0 && !socket.writableNeedDrain) {
      const request = this.#waiting.shift()!;
      this.#waitingBytes -= request.size;
      this.#start(request);
      return true;
    }
    if (this.#lastAnswer !== undefined && this.#isIdle()) {
      this.#refuse(this.#lastAnswer);
      return false;
    }
    const receiving = this.#receiving;
    const hasRoom = this.#waiting.length === 0 || this.#waitingBytes < MAX_PENDING_BYTES;
    if (this.#pending !== undefined && receiving === undefined && !this.#hasLast && hasRoom) {
      return this.#parseHead(this.#pending);
    }
    const canTake = this.#canSend || this.#collecting !== undefined;
    if (this.#pending !== undefined && receiving === this.#active && canTake) {
      this.#parseBody(this.#pending, receiving!);
      return true;
    }
    if (this.#hasEnded && receiving === undefined && this.#isIdle()) this.#closeAfterLast();
    return false;
  }

  #parseHead(bytes: Buffer): boolean {
    if (this.#awaitsPreface) {
      const length = Math.min(bytes.length, PREFACE.length);
      this.#awaitsPreface = bytes.subarray(0, length).equals(PREFACE.subarray(0, length));
      if (this.#awaitsPreface) {
        if (length === PREFACE.length) this.#switchToHttp2(bytes);
        else if (this.#hasEnded) this.#closeAfterLast();
        return false;
      }
    }
    let start = 0; // empty lines before a request: RFC 9112, 2.2
    if (bytes[0] === 13) { while (bytes[start] === 13 && bytes[start + 1] === 10) start += 2; }
    if (start > 0) {
      this.#pending = start < bytes.length ? bytes.subarray(start) : undefined;
      this.#searched = 0;
      return this.#pending !== undefined;
    }
    if (this.#isIdle() && !this.#awaitsHead) {
      this.#awaitsHead = true; // once: empty lines must not prolong it
      this.#deadline = performance.now() + HEAD_TIMEOUT_MS;
    }
    const isFirst = this.#searched === 0;
    const end = endOfHead(bytes, this.#searched);
    this.#searched = 0;
    if ((end === -1 ? bytes.length : end) > MAX_HEAD_BYTES) return this.#refuseNext(TOO_LONG);
    const parser = this.#parser;
    if (end === -1) {
      this.#searched = bytes.length;
      if (isFirst && bytes.length > 1 && !parser.canStart(bytes)) {
        return this.#refuseNext(MALFORMED);
      }
      if (this.#hasEnded && this.#isIdle()) this.#closeAfterLast();
      return false;
    }
    const used = parser.parseHead(bytes, end);
    const { request, problem } = parser;
    if (parser.error !== undefined || request === undefined) {
      if (request !== undefined && problem !== undefined) {
        const line = `${request.method} ${request.target}`;
        this.#shared.admission.deny(this.admitted, line, problem.detail);
      }
      return this.#refuseNext(problem ?? (parser.hasTooManyFields ? TOO_MANY : MALFORMED));
    }
    this.#pending = used < bytes.length ? bytes.subarray(used) : undefined;
    this.#found(request);
    request.size = used;
    this.#waitingBytes += used;
    if (this.#waiting.push(request) > MAX_WAITING) {
      this.#waiting.pop();
      this.#report("pipelining", undefined, request);
      this.#cut();
      return false;
    }
    return true;
  }

  #switchToHttp2(bytes: Buffer): void {
    const socket = this.#socket;
    this.#state = "switched";
    this.#pending = undefined;
    socket.off("data", this.#onData).off("drain", this.#onDrain);
    this.#shared.serveHttp2!(socket, this.admitted, bytes);
  }

  /** Refuses the next request, after the responses to those before it. Nothing is parsed any more. */
  #refuseNext(answer: DetailedAnswer | Problem): true {
    this.#countNext(answer.status);
    this.hasRequested = true;
    this.#hasLast = this.#discards = true;
    this.#pending = undefined;
    this.#lastAnswer = answer;
    return true;
  }

  #parseBody(bytes: Buffer, request: Request): void {
    const parser = this.#parser;
    const used = parser.parseBody(bytes);
    if (parser.error !== undefined) {
      this.#link?.destroy();
      if (this.#response === undefined) return this.#refuse(MALFORMED);
      this.#count("malformed");
      return this.#breakOff();
    }
    this.#pending = used < bytes.length ? bytes.subarray(used) : undefined;
    this.#found(request);
    if (this.#collecting === undefined) this.#sendBody(request);
    else this.#collect(request);
  }

  /** Takes over what the parser has found of a request. */
  #found(request: Request): void {
    const parser = this.#parser;
    request.parts = parser.parts;
    request.isComplete = parser.isComplete;
    this.#receiving = parser.isComplete ? undefined : request;
    if (!parser.isComplete) return;
    parser.reset();
    this.#hasLast = request.isLast;
    this.#discards = request.isLast && request.upgrade === undefined;
    if (this.#discards) this.#pending = undefined;
  }

  // Deciding and forwarding.

  #start(request: Request): void {
    this.#active = request;
    this.#startedAt = performance.now();
    this.#decision = undefined;
    this.#isCounted = false;
    this.#deadline = Infinity;
    this.#awaitsHead = false;
    const { admission, mediator } = this.#shared;
    if (mediator !== undefined) return this.#mediate(mediator, request);
    const outcome = decideRequest(
      admission,
      this,
      request.method,
      request.target,
      undefined,
      false,
      (name) => forwardedValues(request, name),
    );
    // Back-pressure: a flood of requests would displace other records in the audit log.
    const drained = admission.drained(this.admitted);
    if (drained === undefined) return this.#decided(request, outcome);
    this.#whenOpen(drained, () => this.#decided(request, outcome));
  }

  /** Continues with a result unless the connection has ended. An error ends the connection. */
  #whenOpen<T>(result: Promise<T>, run: (result: T) => void): void {
    const then = (work: () => void) => {
      if (this.#socket.destroyed || this.#state !== "open") return;
      this.attempt(() => {
        work();
        this.#advance();
      });
    };
    result.then((value) => then(() => run(value)), (error) =>
      then(() => {
        throw error;
      }));
  }

  // A mediator's decision.

  #mediate(mediator: Mediator, request: Request): void {
    this.hasRequested = true;
    const exchange = mediator.open(request, { admitted: this.admitted, socket: this.#socket });
    if (!exchange.collects) return this.#judge(exchange, request, Buffer.alloc(0));
    if (typeof request.framing === "number" && request.framing > MAX_COLLECTED_BYTES) {
      return this.#refuse(TOO_LARGE);
    }
    if (!this.#acceptExpectation(request)) return;
    this.#collecting = { exchange, body: new GrownBytes() };
    this.#collect(request);
  }

  /** Takes the part of the body that has arrived, and decides once the body is complete. */
  #collect(request: Request): void {
    const { exchange, body } = this.#collecting!;
    for (const part of request.parts) body.add(part);
    request.parts = [];
    if (body.length > MAX_COLLECTED_BYTES) {
      this.#collecting = undefined;
      return this.#refuse(TOO_LARGE);
    }
    if (!request.isComplete) return;
    this.#collecting = undefined;
    const { buffer, byteOffset, byteLength } = body.all();
    this.#judge(exchange, request, Buffer.from(buffer, byteOffset, byteLength));
  }

  #judge(exchange: Exchange, request: Request, body: Buffer): void {
    const outcome = exchange.decide(body).then(async (outcome) => {
      this.#decision = exchange.decision;
      await this.#shared.admission.drained(this.admitted);
      return outcome;
    });
    this.#whenOpen(outcome, (outcome) => this.#judged(request, outcome));
  }

  #judged(request: Request, outcome: Answer | Forward): void {
    if (isAnswer(outcome)) {
      if (!request.isComplete || request.expect !== undefined || request.isLast) {
        return this.#refuse(outcome);
      }
      return this.#answer(request, outcome);
    }
    const { url, lines, body, upgrade, filter } = outcome;
    if (body === undefined && !this.#acceptExpectation(request)) return;
    const sent: Request = body === undefined ? request : {
      ...request,
      framing: body.length === 0 && request.framing === undefined ? undefined : body.length,
      parts: body.length === 0 ? [] : [body],
    };
    this.#active = sent;
    if (this.#receiving === request) this.#receiving = sent;
    this.#filter = filter;
    this.#sendAs(sent, url, lines.join(""), upgrade);
  }

  /** Handles an expectation. Returns `false` if the request was refused. */
  #acceptExpectation({ expect, isHttp10, isComplete }: Request): boolean {
    if (expect === undefined || isHttp10) return true;
    if (expect !== "100-continue") {
      this.#refuse(UNEXPECTED);
      return false;
    }
    if (!isComplete) this.#socket.write("HTTP/1.1 100 Continue\r\n\r\n", "latin1");
    return true;
  }

  #decided(request: Request, outcome: Outcome): void {
    const { method, upgrade } = request;
    this.#decision = outcome.decision;
    if (isProblem(outcome)) return this.#deny(request, outcome);
    if (method === "CONNECT") return this.#refuse(NO_TUNNEL);
    if (!this.#acceptExpectation(request)) return;
    const to = upgrade === undefined || this.#shared.h2c ? upgrade : withoutHttp(upgrade);
    const identity = (this.#peerLines ??= linesOf(peerFields(this.admitted.peer))) +
      decisionLines(outcome.decision);
    this.#sendAs(request, outcome.url, request.lines.join("") + identity, to);
  }

  #sendAs(request: Request, url: string, lines: string, upgrade: string | undefined): void {
    const { method, framing } = request;
    this.#upgrade = upgrade;
    const length = framing === undefined ? "" : `Content-Length: ${framing}\r\n`;
    this.#head = `${method} ${url} HTTP/1.1\r\n${lines}` +
      (framing === "chunked" ? "Transfer-Encoding: chunked\r\n" : length) +
      (upgrade === undefined ? "\r\n" : `Connection: Upgrade\r\nUpgrade: ${upgrade}\r\n\r\n`);
    this.#wasRepeated = false;
    this.#send(request);
  }

  #deny(request: Request, denial: Problem): void {
    const { framing = 0, expect, isLast } = request;
    // The rest of a body would be parsed as the next request.
    if (framing !== 0 || expect !== undefined || isLast || denial.isLast) {
      return this.#refuse(denial);
    }
    this.#answer(request, denial);
  }

  /** Sends a response of the guard itself, and keeps the connection open. */
  #answer({ method }: Request, answer: Answer | Problem): void {
    this.#count(outcomeOf(answer.status), answer.status);
    this.#socket.write(textOf(answer, method === "HEAD", false));
    this.#done();
  }

  /** Sends a request with what has arrived of its body. */
  #send(request: Request): void {
    this.#hasBegun = this.#canSend = false;
    const link = this.#link;
    if (link?.isFree === true) return this.#begin(link, request);
    link?.destroy();
    this.#link = undefined;
    const client = this.#socket;
    const { upstream } = this.#shared;
    upstream.connect({ socket: client, peer: this.admitted.peer }).then((socket) => {
      if (client.destroyed || this.#state !== "open") return void socket.destroy();
      this.attempt(() => {
        this.#begin(this.#link = new UpstreamConnection(socket, this), request);
        this.#advance();
      });
    }, (error) => {
      if (client.destroyed || this.#state !== "open") return;
      upstream.reportFailure(error);
      this.#refuse(BAD_GATEWAY);
    });
  }

  #begin(link: UpstreamConnection, request: Request): void {
    const { method, parts, framing, isComplete } = request;
    const piece = { head: this.#head, parts, isChunked: framing === "chunked", isEnd: isComplete };
    request.parts = [];
    this.#hasBegun = true;
    this.#canSend = link.begin(serialise(piece), method === "HEAD");
  }

  #sendBody(request: Request): void {
    const link = this.#link;
    if (link?.isOpen !== true) return this.#close(""); // after an early response
    const { parts, framing, isComplete } = request;
    const bytes = serialise({
      ...{ head: "", parts, isChunked: framing === "chunked", isEnd: isComplete },
    });
    request.parts = [];
    if (bytes.length > 0) this.#canSend = link.write(bytes);
    if (this.#isAnswered && isComplete) this.#done();
  }

  onDrain(): void {
    this.#canSend = this.#hasBegun;
    this.#advance();
  }

  // The upstream's responses.

  onResponse(
    response: Response | undefined,
    parts: readonly Buffer[],
    isEnd: boolean,
    trailers: readonly string[],
  ): void {
    const request = this.#active;
    if (this.#state !== "open" || request === undefined) return;
    const filter = response === undefined ? undefined : this.#filter?.(response);
    if (filter !== undefined) {
      this.#filtered = new FilteredResponse(response!, filter, {
        pause: () => this.#link?.pause(),
        resume: () => {
          if (!this.#socket.writableNeedDrain) this.#link?.resume(); // else upon "drain"
        },
        send: (response, parts, isEnd) => {
          if (this.#socket.destroyed || this.#state !== "open" || this.#active !== request) return;
          this.attempt(() => {
            this.#pass(request, response, parts, isEnd, []);
            this.#advance();
          });
        },
        fail: (error) => {
          if (this.#state === "open" && this.#active === request) this.#failUpstream(error);
        },
      });
    }
    if (this.#filtered !== undefined) return this.#filtered.add(parts, isEnd);
    this.#pass(request, response, parts, isEnd, trailers);
  }

  /** Sends the head of a response, parts of its body, or both. */
  #pass(
    request: Request,
    response: Response | undefined,
    parts: readonly Buffer[],
    isEnd: boolean,
    trailers: readonly string[],
  ): void {
    const head = response === undefined ? "" : this.#headOf(request, response);
    if (response !== undefined) {
      this.#response = response;
      this.#shared.requests.responded(performance.now() - this.#startedAt);
    }
    const bytes = serialise({ head, parts, isChunked: this.#isChunked, isEnd, trailers });
    const canWrite = bytes.length === 0 ||
      (typeof bytes === "string" ? this.#socket.write(bytes, "latin1") : this.#socket.write(bytes));
    if (!isEnd) {
      if (!canWrite) this.#link?.pause();
      return;
    }
    this.#isAnswered = true;
    this.#count("allowed");
    if (!request.isComplete && (this.#isLast || this.#link?.isOpen !== true)) this.#close("");
    else if (this.#isLast) this.#closeAfterLast();
    else if (request.isComplete) this.#done();
  }

  #headOf(request: Request, response: Response): string {
    const { status, reason, lines, framing, length, hasDate } = response;
    const { isHttp10, upgrade } = request;
    // The response to an upgrade may be a hijacked connection without a 101: raw bytes, which are never chunked.
    const needsChunks = framing === "close" && upgrade === undefined;
    this.#isChunked = (framing === "chunked" || needsChunks) && !isHttp10;
    const endsByClose = (framing === "chunked" || framing === "close") && !this.#isChunked;
    const isOver = this.#shared.isClosing() && this.#waiting.length === 0;
    this.#isLast = request.isLast || endsByClose || isOver;
    const announced = length === undefined ? "" : `Content-Length: ${length}\r\n`;
    return `HTTP/1.1 ${status} ${reason}\r\n${lines.join("")}` +
      (this.#isChunked ? "Transfer-Encoding: chunked\r\n" : announced) +
      (hasDate ? "" : dateLine()) +
      (this.#isLast ? "Connection: close\r\n\r\n" : "\r\n");
  }

  onSwitch({ status, reason, lines }: Response, server: Socket, bytes: Buffer): void {
    this.#link = undefined;
    const client = this.#socket;
    const offered = this.#upgrade;
    const isValid = offered !== undefined && !switchesToHttp(lines, offered);
    if (this.#state !== "open" || !isValid || this.#active?.isComplete !== true) {
      server.destroy();
      if (this.#state !== "open") return;
      const error = new Error("it answers 101 to a request without this upgrade");
      this.#shared.upstream.reportFailure(error);
      return this.#refuse(BAD_GATEWAY);
    }
    this.#shared.requests.responded(performance.now() - this.#startedAt);
    this.#count("allowed", status);
    this.#state = "switched";
    this.#isPaused = false;
    client.off("data", this.#onData).off("drain", this.#onDrain);
    client.write(`HTTP/1.1 ${status} ${reason}\r\n${lines.join("")}\r\n`, "latin1");
    if (bytes.length > 0) client.write(bytes);
    if (this.#pending !== undefined) server.write(this.#pending);
    this.#pending = undefined;
    join(client, server);
  }

  onFailure(error: Error, isReset: boolean): void {
    this.#link = undefined;
    const request = this.#active;
    if (this.#state !== "open" || request === undefined || this.#isAnswered) return;
    if (isReset && !this.#wasRepeated && isRepeatable(request)) {
      this.#wasRepeated = true;
      return this.#send(request);
    }
    this.#failUpstream(error);
  }

  #failUpstream(error: Error): void {
    this.#shared.upstream.reportFailure(error);
    if (this.#response === undefined) this.#refuse(BAD_GATEWAY);
    else {
      this.#count("upstreamError");
      this.#breakOff();
    }
  }

  // The end of a response and of the connection.

  /** Continues with the next request. */
  #done(): void {
    this.#active =
      this.#response =
      this.#filter =
      this.#filtered =
        undefined;
    this.#isAnswered = this.#hasBegun = this.#canSend = false;
    if (this.#link?.isFree === false) {
      this.#link.destroy();
      this.#link = undefined;
    }
    if (this.#shared.isClosing() && this.#waiting.length === 0) return this.#closeAfterLast();
    // A client that reads slowly is not idle while its next requests wait.
    this.#deadline = this.#waiting.length > 0 ? Infinity : performance.now() + IDLE_TIMEOUT_MS;
    this.#advance();
  }

  /** Closes the connection after its last response. The client may take its time to read. */
  #closeAfterLast(): void {
    this.#leave();
    this.#socket.destroySoon();
  }

  /** Sends the last bytes, discards what the client still sends, and closes after a timeout. */
  #close(text: string): void {
    this.#leave();
    const socket = this.#socket;
    const timer = setTimeout(() => socket.destroy(), DISCARD_TIMEOUT_MS);
    socket.once("close", () => clearTimeout(timer));
    socket.resume().end(text, "latin1", () => this.#hasEnded && socket.destroySoon());
  }

  #refuse(refusal: Answer | DetailedAnswer | Problem): void {
    if (this.#active !== undefined) this.#count(outcomeOf(refusal.status), refusal.status);
    const { mediator } = this.#shared;
    const answer = mediator === undefined || !("detail" in refusal)
      ? refusal
      : mediator.answer(refusal.status, refusal.title, refusal.detail);
    this.#close(textOf(answer, this.#active?.method === "HEAD", true));
  }

  /** Ends a response that is incomplete, so that the client notices. */
  #breakOff(): void {
    this.#leave();
    finish(this.#socket);
  }

  /** Closes the connection of a client that has sent too many requests. */
  #cut(): void {
    this.admitted.why ??= "pipelining";
    this.#leave();
    this.#socket.destroy();
  }

  #leave(): void {
    this.#state = "closing";
    this.#pending = undefined;
    this.#link?.destroy();
    this.#link = undefined;
  }

  /** Counts the active request once. */
  #count(outcome: RequestOutcome, status = this.#response?.status): void {
    if (this.#isCounted) return;
    this.#isCounted = true;
    this.#report(outcome, status, this.#active);
  }

  /** Counts a request that is refused before it is the active one. */
  #countNext(status: number): void {
    this.#report(outcomeOf(status), status, undefined);
  }

  #report(outcome: RequestOutcome, status: number | undefined, request: Request | undefined): void {
    requestEnded(this.#shared, outcome, () => {
      const isActive = request !== undefined && request === this.#active;
      const trace = request?.lines.filter((line) => /^traceparent:/i.test(line)) ?? [];
      return {
        ...{ peer: this.admitted.peer, status, method: request?.method, target: request?.target },
        milliseconds: isActive ? performance.now() - this.#startedAt : 0,
        decision: isActive ? this.#decision : undefined,
        traceparent: trace.length === 1 ? trace[0]!.slice("traceparent:".length).trim() : undefined,
      };
    });
  }

  #release(): void {
    if (this.#state !== "switched") this.#leave();
    if (this.#active !== undefined) this.#count("aborted");
    for (const request of this.#waiting) this.#report("aborted", undefined, request);
    this.#waiting.length = this.#waitingBytes = 0;
    this.#parser.close();
  }
}

/** Whether a request may be repeated: its method is safe (RFC 9110, 9.2.1), and it has no body. */
function isRepeatable({ method, framing = 0, upgrade }: Request): boolean {
  return ["GET", "HEAD", "OPTIONS"].includes(method) && framing === 0 && upgrade === undefined;
}

function textOf(answer: Answer, isHead: boolean, isLast: boolean): string {
  const { status, title, body } = answer;
  const lines = linesOf(Object.entries(headersOf(answer))) + (answer.lines?.join("") ?? "");
  const end = isLast ? "Connection: close\r\n\r\n" : "\r\n";
  const bytes = isHead ? "" : Buffer.from(body).toString("latin1");
  return `HTTP/1.1 ${status} ${title}\r\n${lines}${dateLine()}${end}${bytes}`;
}

let date = { at: 0, line: "" };

/** A `Date` header, which a proxy adds to responses without one: RFC 9110, 6.6.1. */
function dateLine(): string {
  const now = Date.now();
  if (now - date.at >= 1000 || now < date.at) {
    const at = now - now % 1000;
    date = { at, line: `Date: ${new Date(at).toUTCString()}\r\n` };
  }
  return date.line;
}
