/** One request of an HTTP/2 client: it is decided and forwarded as a stream of its own, with its response. */

import type {
  ClientHttp2Session,
  ClientHttp2Stream,
  Http2Stream,
  ServerHttp2Stream,
} from "node:http2";
import type { Decision } from "../../core/policy/decide/decision.ts";
import {
  type Connection,
  decideRequest,
  isProblem,
  type Outcome,
} from "../../servers/http/decide_request.ts";
import { headersOf, type Problem } from "../../servers/http/problem.ts";
import type { RequestOutcome } from "../../servers/http/request_report.ts";
import { type IdentityFields, responseFields } from "../headers.ts";
import {
  BAD_GATEWAY,
  type DetailedAnswer,
  outcomeOf,
  STALLED,
  UNEXPECTED,
} from "../http/answers.ts";
import { type HttpShared, requestEnded } from "../http/shared.ts";
import {
  type Fields,
  forwardedHead,
  grpcStatus,
  isGrpc,
  type RequestHead,
  requestHead,
  responseHead,
  trailersOf,
  valuesIn,
} from "./fields.ts";

/** Error codes of streams and connections: RFC 9113, 7. */
export const ERROR_CODE = {
  none: 0,
  protocol: 1,
  internal: 2,
  refusedStream: 7,
  cancel: 8,
  enhanceYourCalm: 11,
} as const;

/** The flag END_STREAM of HEADERS: RFC 9113, 6.2. */
const END_STREAM = 1;

const NO_TRAILERS: Fields = {};

/** The connection that a request belongs to. */
export interface Owner extends Connection {
  readonly shared: HttpShared;
  /** The client's identity as header fields. */
  readonly identity: IdentityFields;
  /** Returns a session of this client with the upstream. @throws If the upstream does not speak HTTP/2. */
  upstream(): Promise<ClientHttp2Session>;
  /** Does some work for the connection. An error ends the connection only. */
  attempt(work: () => unknown): void;
}

/** A client's stream and the upstream's. */
export class Exchange {
  /** Whether the client received a whole response, or the upstream reset the stream. */
  isAnswered = false;
  /** Whether all of the response was passed to the client's stream. */
  #isSent = false;
  readonly #owner: Owner;
  readonly #client: ServerHttp2Stream;
  #server: ClientHttp2Stream | undefined;
  #isGrpc = false;
  #isHead = false;
  /** Whether the request has neither body nor trailers. */
  readonly #hasNoBody: boolean;
  readonly #startedAt = performance.now();
  #head: RequestHead | undefined;
  #decision: Decision | undefined;
  #outcome: RequestOutcome | undefined;
  #status: number | undefined;
  /** Checks since the last part of the body. */
  #idleChecks = 0;
  /** Whether the whole request was read. */
  #isRequestWhole = false;
  #requestTrailers = NO_TRAILERS;
  #responseTrailers = NO_TRAILERS;

  /** @param flags The flags of the request's HEADERS frame. */
  constructor(owner: Owner, client: ServerHttp2Stream, flags: number) {
    this.#owner = owner;
    this.#client = client;
    this.#hasNoBody = (flags & END_STREAM) !== 0;
  }

  /** Decides the request. @param raw The names and values of its header section in turns. */
  start(raw: readonly string[]): void {
    const owner = this.#owner;
    this.#client.once("close", () => owner.attempt(() => this.#onClientClose()))
      .on(
        "trailers",
        (_: unknown, _flags: number, raw: string[]) =>
          owner.attempt(() => this.#onRequestTrailers(raw)),
      )
      .once("end", () => { // without a body, "end" comes although nothing is read
        this.#isRequestWhole = isWhole(this.#client);
        if (this.#isRequestWhole) this.#server?.end();
      });
    const { admission, fields } = this.#owner.shared;
    const { admitted } = this.#owner;
    const head = requestHead(raw, fields);
    if ("answer" in head) {
      if (head.audit !== undefined) {
        admission.deny(admitted, head.audit.action, head.audit.reason);
      }
      return this.#answer(head.answer);
    }
    this.#head = head;
    this.#isGrpc = isGrpc(head.fields);
    this.#isHead = head.method === "HEAD";
    const { method, path } = head;
    const outcome = decideRequest(
      admission,
      this.#owner,
      method,
      path,
      undefined,
      false,
      valuesIn(head),
    );
    // Back-pressure: a flood of requests would displace other records in the audit log.
    const drained = admission.drained(admitted);
    if (drained === undefined) return this.#decided(head, outcome);
    void drained.then(() => this.#owner.attempt(() => this.#decided(head, outcome)));
  }

  #decided(head: RequestHead, outcome: Outcome): void {
    const client = this.#client;
    if (isOver(client)) return;
    this.#decision = outcome.decision;
    if (isProblem(outcome)) return this.#answer(outcome);
    if (head.expect !== undefined) {
      if (head.expect !== "100-continue") return this.#answer(UNEXPECTED);
      if (!this.#hasNoBody) client.additionalHeaders({ ":status": 100 });
    }
    const owner = this.#owner;
    const fields = forwardedHead(head, outcome.url, owner.identity, outcome.decision);
    owner.upstream().then(
      (session) => owner.attempt(() => isOver(client) || this.#forward(session, fields)),
      (error) => owner.attempt(() => isOver(client) || this.#fail(error)),
    );
  }

  #forward(session: ClientHttp2Session, fields: Fields): void {
    const owner = this.#owner;
    const client = this.#client;
    let server: ClientHttp2Stream;
    try {
      const endStream = this.#hasNoBody;
      server = session.request(fields, { endStream, waitForTrailers: !endStream });
    } catch (error) { // the session has ended, or the runtime does not send these fields
      return this.#fail(error);
    }
    this.#server = server;
    server.on("error", () => {}) // "close" follows
      .once(
        "response",
        (_: unknown, flags: number, raw: string[]) =>
          owner.attempt(() => this.#onResponse(raw, flags)),
      )
      .on(
        "trailers",
        (_: unknown, _flags: number, raw: string[]) =>
          owner.attempt(() => this.#onResponseTrailers(raw)),
      )
      .once("close", () => owner.attempt(() => this.#onServerClose(session)));
    if (this.#hasNoBody) return;
    server.on(
      "wantTrailers",
      () => owner.attempt(() => server.sendTrailers(this.#requestTrailers)),
    );
    if (this.#isRequestWhole) server.end();
    else {
      client.on("data", () => this.#idleChecks = 0);
      client.pipe(server, { end: false });
    }
  }

  #onRequestTrailers(raw: readonly string[]): void {
    const trailers = trailersOf(raw, this.#owner.shared.fields);
    if (trailers === undefined) return reset(this.#client, ERROR_CODE.protocol);
    this.#requestTrailers = trailers;
  }

  #onResponse(raw: readonly string[], flags: number): void {
    const client = this.#client;
    if (isOver(client)) return;
    const head = responseHead(raw);
    if (head === undefined) return this.#giveUp("its response is malformed");
    const isEnd = (flags & END_STREAM) !== 0;
    try {
      client.respond(head.fields, { endStream: isEnd, waitForTrailers: !isEnd });
    } catch (error) {
      return this.#giveUp(error);
    }
    this.#owner.shared.requests.responded(performance.now() - this.#startedAt);
    this.#status = head.status;
    const server = this.#server!;
    if (isEnd || client.writableEnded) { // also the response to HEAD
      this.isAnswered = this.#isSent = true;
      server.resume();
      return;
    }
    client.on("wantTrailers", () => {
      this.#owner.attempt(() => {
        client.sendTrailers(this.#responseTrailers);
        this.#isSent = true;
        this.#stopRequest();
      });
    });
    server.once("end", () => {
      if (!isWhole(server)) return;
      this.isAnswered = true;
      client.end();
    });
    server.pipe(client, { end: false });
  }

  #onResponseTrailers(raw: readonly string[]): void {
    const trailers = trailersOf(raw, responseFields);
    if (trailers === undefined) return this.#giveUp("its trailers are malformed");
    this.#responseTrailers = trailers;
  }

  #onServerClose(session: ClientHttp2Session): void {
    const client = this.#client;
    const code = this.#server!.rstCode;
    if (isOver(client)) return;
    if (this.isAnswered) {
      this.#stopRequest();
    } else if (session.destroyed || code === ERROR_CODE.none) {
      this.#fail(new Error("it closed the connection before it had answered"));
    } else {
      this.isAnswered = true;
      reset(client, code);
    }
  }

  /** Stops a client that still sends its request, after the response: RFC 9113, 8.1. */
  #stopRequest(): void {
    const server = this.#server;
    if (!this.#isSent || (server !== undefined && !isOver(server))) return;
    // Node would send RST_STREAM instead of a header section that is still in its queue.
    setImmediate(() => {
      if (!hasEnded(this.#client)) this.#client.close(ERROR_CODE.none);
    });
  }

  /** Counts the request, and reports it. */
  #count(): void {
    const owner = this.#owner;
    const outcome = this.#outcome ?? (this.isAnswered ? "allowed" : "aborted");
    requestEnded(owner.shared, outcome, () => {
      const traceparent = this.#head?.fields["traceparent"];
      return {
        peer: owner.admitted.peer,
        status: this.#status,
        milliseconds: performance.now() - this.#startedAt,
        method: this.#head?.method,
        target: this.#head?.path,
        decision: this.#decision,
        traceparent: typeof traceparent === "string" ? traceparent : undefined,
      };
    });
  }

  #onClientClose(): void {
    this.#count();
    const server = this.#server;
    if (server === undefined || isOver(server)) return;
    if (this.isAnswered && server.writableEnded) return server.close(ERROR_CODE.none);
    reset(server, this.#client.rstCode || ERROR_CODE.cancel);
  }

  /** Ends an exchange that cannot be completed, because the client has half-closed its connection. */
  onClientEnd(): void {
    if (!hasEnded(this.#client)) reset(this.#client, ERROR_CODE.cancel);
  }

  /** Ends an exchange that cannot be completed, because the upstream has half-closed the connection. */
  onServerEnd(session: ClientHttp2Session): void {
    const server = this.#server;
    if (server === undefined || server.session !== session || hasEnded(server)) return;
    this.#giveUp("it closed the connection before it had answered");
  }

  /**
   * Ends an exchange whose client has sent nothing of the body for too long, as in HTTP/1.1. A check counts
   * while the upstream could receive more, and not during a response.
   */
  checkBody(): void {
    const server = this.#server;
    if (server === undefined || this.#hasNoBody || this.#isRequestWhole) return;
    const isResponding = this.#client.headersSent && !this.isAnswered;
    if (isOver(this.#client) || server.writableNeedDrain || isResponding) return;
    if (++this.#idleChecks <= this.#owner.shared.maxIdleChecks) return;
    if (this.isAnswered) return this.#client.close(ERROR_CODE.none);
    this.#answer(STALLED);
    reset(server, ERROR_CODE.cancel);
  }

  /** Gives up a stream of the upstream that violates the protocol. */
  #giveUp(why: unknown): void {
    this.#fail(why instanceof Error ? why : new Error(String(why)));
    if (this.#server !== undefined) reset(this.#server, ERROR_CODE.cancel);
  }

  /** Answers a request whose response is missing or incomplete because of the upstream. */
  #fail(error: unknown): void {
    const client = this.#client;
    this.#owner.shared.upstream.reportFailure(error);
    this.#server?.unpipe();
    this.#outcome = "upstreamError";
    if (!client.headersSent) return this.#answer(BAD_GATEWAY);
    this.isAnswered = true;
    if (!this.#isGrpc) return reset(client, ERROR_CODE.internal);
    this.#responseTrailers = grpcStatus(BAD_GATEWAY);
    client.end();
  }

  /** Sends a response of the guard itself. */
  #answer(answer: DetailedAnswer | Problem): void {
    const client = this.#client;
    if (isOver(client)) return;
    this.isAnswered = true;
    this.#outcome = outcomeOf(answer.status);
    this.#status = this.#isGrpc ? 200 : answer.status;
    if (this.#isGrpc) {
      const type = { "content-type": "application/grpc" };
      client.respond({ ":status": 200, ...type, ...grpcStatus(answer) }, { endStream: true });
    } else {
      client.respond({ ":status": answer.status, ...headersOf(answer) });
      client.end(this.#isHead ? undefined : answer.body);
    }
    client.resume(); // discards the rest of the request
    this.#isSent = true;
    this.#stopRequest();
  }
}

/** Whether a stream was closed or reset. */
function isOver(stream: Http2Stream): boolean {
  return stream.destroyed || stream.closed;
}

/** Whether the other side has sent its whole message, or the stream is closed. */
function hasEnded(stream: Http2Stream): boolean {
  return isOver(stream) || stream.state.remoteClose === 1;
}

/** Whether the "end" of a stream is that of a whole message. A stream also ends with its session, or when it is reset. */
function isWhole(stream: Http2Stream): boolean {
  return !stream.destroyed && !stream.rstCode;
}

/**
 * Resets a stream. `close()` of Node 26.10 and Bun 1.4.5 would first send END_STREAM, so that an incomplete
 * message would seem complete.
 */
export function reset(stream: Http2Stream, code: number): void {
  stream.end = () => stream;
  stream.close(code);
}
